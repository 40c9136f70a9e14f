/** A service under test, with AMQP routes on a free port, and its clients. */
import { Amqp, AmqpChannel, AmqpConfig, AmqpConnection, type AmqpError, type AmqpPool } from "@effect-amqp/core"
import { AmqpHttp } from "@effect-amqp/http"
import { Deferred, Effect, Layer, Schema, type Scope, Stream, SubscriptionRef } from "effect"
import { HttpRouter, type HttpServer, HttpServerRespondable, HttpServerResponse } from "effect/http"
import { get as httpGet, type IncomingHttpHeaders, type IncomingMessage } from "node:http"
import { text } from "node:stream/consumers"
import { quiet, server, address } from "./server.ts"

/** The context of a test: the services that the routes run on. */
export type Service = HttpServer.HttpServer | Amqp.Amqp

/** A failure of the application, which defines its own response. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {
  [HttpServerRespondable.symbol]() {
    return Effect.succeed(HttpServerResponse.text("refused", { status: 402 }))
  }
}

/** A handler, with the errors and requirements that routes may have. */
export type Handler = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  AmqpError.AmqpError | Refused,
  Amqp.Amqp | Scope.Scope
>

export type Routes = { readonly [path in `/${string}`]: Handler }

export interface ServiceOptions {
  readonly amqp?: AmqpConfig.Options | undefined
  readonly http?: AmqpHttp.Options | undefined
}

/** Serves the routes for GET requests. */
export const serve = (
  url: string,
  routes: Routes,
  { amqp, http }: ServiceOptions = {}
): Layer.Layer<Service, AmqpError.AmqpError> => {
  const added = Object.entries(routes).map(([path, handler]) => HttpRouter.route("GET", path as `/${string}`, handler))
  const app = HttpRouter.addAll(added).pipe(
    Layer.provide(http === undefined ? AmqpHttp.layer : AmqpHttp.layerWith(http))
  )
  const broker = Layer.unwrap(Effect.map(AmqpConfig.fromUrl(url, { pool: { max: 4 }, ...amqp }), Amqp.fromConfig))
  return HttpRouter.serve(app, quiet).pipe(Layer.provideMerge(server), Layer.provideMerge(broker))
}

/** The default answer of a route. */
export const ok = HttpServerResponse.text("ok")

/** Borrows the request's channel, and checks that it works. */
export const touch: Effect.Effect<void, AmqpError.AmqpError, AmqpPool.AmqpPool | Scope.Scope> = Effect.asVoid(
  AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true }))
)

/** Runs a test against its own service, which is closed afterwards. */
export const withService = (url: string, routes: Routes, options?: ServiceOptions) =>
  Effect.provide(serve(url, routes, options), { local: true })

/** The answer that a client received. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** Sends a request on its own connection. An interruption disconnects the client. */
const ask = (path: string): Effect.Effect<IncomingMessage, Error, HttpServer.HttpServer> =>
  Effect.flatMap(address, (url) =>
    Effect.callback((resume) => {
      const request = httpGet(url + path, { agent: false }, (response) => resume(Effect.succeed(response)))
      request.once("error", (error) => resume(Effect.fail(error)))
      return Effect.sync(() => request.destroy())
    })
  )

/** Sends a request, and reads the whole answer. */
export const get = (path: string): Effect.Effect<Answer, Error, HttpServer.HttpServer> =>
  Effect.flatMap(ask(path), (response) =>
    Effect.map(
      Effect.promise(() => text(response)),
      (body) => ({ status: response.statusCode ?? 0, headers: response.headers, body })
    )
  )

/** Sends a request, and reads the first part of the body. */
export const open = (path: string) =>
  Effect.gen(function* () {
    const response = yield* ask(path)
    const chunks: AsyncIterator<Buffer, undefined> = response[Symbol.asyncIterator]()
    /** The next part of the body, or nothing at its end. Fails if the connection breaks off. */
    const read = Effect.map(
      Effect.tryPromise(() => chunks.next()),
      ({ value }) => String(value ?? "")
    )
    return { first: yield* read, read, hangUp: Effect.sync(() => response.destroy()) }
  })

/** Reports when a request's scope has closed. Handlers run it first, so that its finalizer runs last. */
export const atEnd = (ended: Deferred.Deferred<void>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() => Deferred.succeed(ended, undefined))

/** Waits until the broker has blocked or unblocked the connection, for at most 10 seconds. */
export const untilFlow = (wanted: AmqpConnection.Flow["_tag"]) =>
  Effect.flatMap(AmqpConnection.AmqpConnection, ({ flow }) =>
    SubscriptionRef.changes(flow).pipe(
      Stream.filter(({ _tag }) => _tag === wanted),
      Stream.runHead,
      Effect.timeoutOrElse({
        duration: "10 seconds",
        orElse: () => Effect.die(new Error(`the flow stayed ${flow.value._tag}`))
      })
    )
  )
