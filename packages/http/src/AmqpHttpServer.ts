/**
 * An HTTP server that stops in order, so that a restart loses nothing.
 *
 * A server that is told to stop accepts no more connections and finishes the requests it has. But it goes on serving
 * clients that keep their connection and send one request after the other, until its patience ends and their requests are
 * cut off; and responses that never end by themselves (server-sent events, WebSockets) hold it up as long, as does a client
 * that has connected and said nothing yet. With `graceful`
 *
 * 1. it is not ready any more (`AmqpHealth`), and accepts connections for `delay` longer, until load balancers know;
 * 2. every response from then on asks for its connection's end (`Connection: close`; RFC 9112, section 9.6), so that clients
 *    come back on another, to another server;
 * 3. endless responses are told (`stopping`), and end;
 * 4. connections on which nothing has come, as browsers make them in advance, are closed when they are a second old;
 * 5. requests are finished, channels go back, and what is provided outside of the server is closed: channels, connection.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as SilentConnections from "./internal/silentConnections.ts"
import { Shutdown } from "./internal/shutdown.ts"

export { Shutdown, stopping } from "./internal/shutdown.ts"

/** How a server stops. */
export interface Options {
  /**
   * For how long the server goes on accepting connections when it is to stop: as long as load balancers need to notice that
   * it is not ready. Clients that send something in this time are told to leave; a connection that is idle at its end is
   * closed, and a request that is on its way on it then has to be sent again. Default: 250 ms.
   */
  readonly delay?: Duration.Input | undefined
}

const gracefully = Effect.fnUntraced(function* (
  server: HttpServer.HttpServer["Service"],
  { delay = "250 millis" }: Options
) {
  const silent = yield* SilentConnections.watch(server.address)
  return HttpServer.make({
    address: server.address,
    serve: Effect.fnUntraced(function* (app, middleware) {
      const told = Deferred.makeUnsafe<void>()
      const shutdown = { hasBegun: false, begun: Deferred.await(told) }
      const lettingGo = HttpEffect.withPreResponseHandler(app, (_, response) =>
        Effect.succeed(shutdown.hasBegun ? HttpServerResponse.setHeader(response, "connection", "close") : response)
      )
      // Around all of it, and not around the app: bodies are streamed when the app has returned.
      yield* Effect.provideService(
        middleware === undefined ? server.serve(lettingGo) : server.serve(lettingGo, middleware),
        Shutdown,
        shutdown
      )
      // Added last, so run first: before the server stops listening.
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          shutdown.hasBegun = true
          Deferred.doneUnsafe(told, Effect.void)
          return Effect.andThen(Effect.sleep(delay), silent.end)
        })
      )
    })
  })
})

/**
 * A layer's HTTP server, which stops in order.
 *
 * How long requests may take that have begun by then is the server's own setting, `gracefulShutdownTimeout` of
 * `NodeHttpServer`; without it, 20 seconds. It waits as long for a client that has begun a request and does not go on, and
 * for one that has done nothing but TLS's handshake with it.
 *
 * @example
 * ```ts
 * import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
 * import { AmqpLive } from "@effect-amqp/core"
 * import { AmqpHealth, AmqpHttpServer } from "@effect-amqp/http"
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const Server = NodeHttpServer.layer(createServer, { port: 3000, gracefulShutdownTimeout: "10 seconds" }).pipe(
 *   AmqpHttpServer.graceful({ delay: "5 seconds" })
 * )
 *
 * HttpRouter.serve(AmqpHealth.layer()).pipe(
 *   Layer.provide(Server),
 *   Layer.provide(AmqpLive),
 *   Layer.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 */
export const graceful =
  (options: Options = {}) =>
  <A, E, R>(server: Layer.Layer<A | HttpServer.HttpServer, E, R>): Layer.Layer<A | HttpServer.HttpServer, E, R> =>
    Layer.effect(
      HttpServer.HttpServer,
      Effect.flatMap(HttpServer.HttpServer, (service) => gracefully(service, options))
    ).pipe(Layer.provideMerge(server))
