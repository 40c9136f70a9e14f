/**
 * AMQP in the handlers of `effect/http`'s `HttpRouter`.
 *
 * The layer provides every handler with what `AmqpLive` provides, and turns its AMQP errors into responses. Channels
 * follow from the scope that each request has. The first `AmqpChannel.use` in a handler borrows a channel, and further
 * ones use the same channel. The channel returns to the pool when the response has ended: after the last byte of a
 * streamed body, when the client disconnects, or when the handler fails or dies. A handler that never uses a channel
 * does not borrow one.
 *
 * @since 0.1.0
 */
import { type Amqp, type AmqpBroker, AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as AmqpHttpError from "./AmqpHttpError.ts"
import { keyedProvider, logFailure, provider } from "./internal/handlers.ts"
import { type Names, refuseUnknownNames } from "./internal/options.ts"

/**
 * The identifier of the middleware {@link layer}: it provides AMQP to handlers and handles their AMQP errors.
 *
 * **When to use**
 *
 * Use when you annotate a layer that provides or requires this middleware.
 *
 * @category models
 * @since 0.1.0
 */
export type AmqpHttp =
  | HttpRouter.Request.From<"Requires", Amqp.Amqp>
  | HttpRouter.Request.From<"Error", AmqpError.AmqpError>

/**
 * The identifier of the middleware {@link layerKeyed}: it provides several brokers to handlers and handles AMQP errors.
 *
 * **When to use**
 *
 * Use when you annotate a layer that provides or requires this middleware. `Brokers` is the union of the
 * brokers' identifiers.
 *
 * @category models
 * @since 0.1.0
 */
export type Keyed<Brokers> =
  | HttpRouter.Request.From<"Requires", Brokers>
  | HttpRouter.Request.From<"Error", AmqpError.AmqpError>

/**
 * Options that change how AMQP errors are answered.
 *
 * **When to use**
 *
 * Use with {@link layerWith} or {@link layerKeyed} when some AMQP errors need a response of your own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Makes the response to an AMQP error; `undefined` falls back to `AmqpHttpError.toResponse`. It is called only for
   * errors that the handler has not handled itself. Default: `AmqpHttpError.toResponse`.
   */
  readonly toResponse?: ((error: AmqpError.AmqpError) => HttpServerResponse.HttpServerResponse | undefined) | undefined
}

const optionNames: Names<Options> = { toResponse: true }

/** Logs and answers the AMQP errors that handlers fail with. */
const answering = (options: Options, connection: string | undefined) => (error: AmqpError.AmqpError) => {
  const response = options.toResponse?.(error) ?? AmqpHttpError.toResponse(error)
  return Effect.as(logFailure(error, response.status, connection), response)
}

/**
 * Makes the middleware of {@link layer} with responses of your own to AMQP errors.
 *
 * **When to use**
 *
 * Use when some AMQP errors need another status or another body than the table of `AmqpHttpError` gives them.
 *
 * **Details**
 *
 * Errors are logged once, with the status of the response that is sent. Each call makes a middleware of its own, so
 * groups of routes can have different options and different brokers.
 *
 * **Example** (Answering a missing queue with 404)
 *
 * ```ts
 * import { AmqpHttp, AmqpHttpError } from "@effect-amqp/http"
 * import { HttpServerResponse } from "effect/http"
 *
 * const AmqpRoutes = AmqpHttp.layerWith({
 *   toResponse: (error) =>
 *     error.reason._tag === "NotFound"
 *       ? HttpServerResponse.text("no such queue", { status: 404 })
 *       : HttpServerResponse.setHeader(AmqpHttpError.toResponse(error), "x-served-by", "orders")
 * })
 * ```
 *
 * @see {@link layer} for the middleware with the default responses
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: Options): Layer.Layer<AmqpHttp, never, Amqp.Amqp> =>
  // Fresh, because a layer is built once per application, and another group of routes may have another broker.
  Layer.fresh(
    HttpRouter.middleware<{ provides: Amqp.Amqp; handles: AmqpError.AmqpError }>()(
      Effect.map(provider, ({ connection, provide }) => {
        refuseUnknownNames("AmqpHttp.layerWith", options, optionNames)
        return (handler) => handler.pipe(provide, Effect.catchIf(AmqpError.isAmqpError, answering(options, connection)))
      })
    ).layer
  )

/**
 * A middleware that provides AMQP to the handlers of the routes it is provided to, and answers their AMQP errors.
 *
 * **When to use**
 *
 * Use in a service whose `HttpRouter` handlers publish, consume or call RPC servers. For the typed endpoints of an
 * `HttpApi` use `AmqpHttpApi`, for several brokers {@link layerKeyed}.
 *
 * **Details**
 *
 * - Handlers get everything that `AmqpLive` provides, so `AmqpChannel.use` and `AmqpPublisher.publish` need nothing
 *   else.
 * - AMQP errors that a handler fails with are logged once, with their reason, and answered by `AmqpHttpError`: 503 with
 *   `Retry-After` when the pool is exhausted, or when the broker is unreachable or blocks publishers; 504, 413 or 422;
 *   otherwise 500, without internals. Other errors pass through unchanged. A handler that answers an AMQP error itself
 *   catches it.
 * - The middleware requires the same services: `AmqpLive`, `Amqp.layer` or `Amqp.layerConfig`. If they are provided
 *   outside of the server, as in the example, they outlive it: a shutdown finishes the requests first, then closes the
 *   channels, then the connection.
 * - The effects of a streamed body run after the handler has returned. They use the channel that the handler borrowed.
 *
 * **Example** (Publishing from a handler)
 *
 * ```ts
 * import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
 * import { AmqpChannel, AmqpLive } from "@effect-amqp/core"
 * import { AmqpHttp } from "@effect-amqp/http"
 * import { Effect, Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const Routes = HttpRouter.add(
 *   "POST",
 *   "/greetings",
 *   AmqpChannel.use((channel) => channel.publish({ routingKey: "greetings", content: "Hello" })).pipe(
 *     Effect.as(HttpServerResponse.empty({ status: 202 }))
 *   )
 * )
 *
 * HttpRouter.serve(Routes.pipe(Layer.provide(AmqpHttp.layer))).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 })),
 *   Layer.provide(AmqpLive),
 *   Layer.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @see {@link layerWith} for responses of your own
 * @see {@link layerKeyed} for several brokers
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpHttp, never, Amqp.Amqp> = layerWith({})

/**
 * Makes the middleware of {@link layer} for several brokers.
 *
 * **When to use**
 *
 * Use when handlers of one router talk to more than one broker, virtual host or user.
 *
 * **Details**
 *
 * A handler chooses a broker by its key (`Orders.provide`). A request borrows at most one channel per broker. AMQP
 * errors of all brokers are logged and answered in the same way; the log lines do not name the connection.
 *
 * **Example** (Publishing to two brokers)
 *
 * ```ts
 * import { AmqpBroker, AmqpChannel } from "@effect-amqp/core"
 * import { AmqpHttp } from "@effect-amqp/http"
 * import { Effect, Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * class Orders extends AmqpBroker.Service<Orders>()("app/Orders") {}
 * class Audit extends AmqpBroker.Service<Audit>()("app/Audit") {}
 *
 * const send = (content: string) => AmqpChannel.use((channel) => channel.publish({ routingKey: "inbox", content }))
 *
 * const Routes = HttpRouter.add(
 *   "POST",
 *   "/orders",
 *   Effect.gen(function* () {
 *     yield* send("an order").pipe(Orders.provide)
 *     yield* send("an order was placed").pipe(Audit.provide)
 *     return HttpServerResponse.empty({ status: 202 })
 *   })
 * ).pipe(
 *   Layer.provide(AmqpHttp.layerKeyed([Orders, Audit])),
 *   Layer.provide([Orders.layer({ host: "rabbit.internal" }), Audit.layer({ host: "audit.internal" })])
 * )
 * ```
 *
 * @see {@link layer} for one broker
 *
 * @category layers
 * @since 0.1.0
 */
export const layerKeyed = <const Brokers extends ReadonlyArray<AmqpBroker.Any>>(
  brokers: Brokers,
  options: Options = {}
): Layer.Layer<Keyed<AmqpBroker.Identifier<Brokers>>, never, AmqpBroker.Identifier<Brokers>> =>
  // The cast is needed because the brokers are a type parameter: the compiler cannot see that all of them are provided.
  HttpRouter.middleware<{ provides: AmqpBroker.Identifier<Brokers>; handles: AmqpError.AmqpError }>()(
    Effect.map(keyedProvider(brokers), ({ connection, provide }) => {
      refuseUnknownNames("AmqpHttp.layerKeyed", options, optionNames)
      return (handler) => handler.pipe(provide, Effect.catchIf(AmqpError.isAmqpError, answering(options, connection)))
    })
  ).layer as Layer.Layer<Keyed<AmqpBroker.Identifier<Brokers>>, never, AmqpBroker.Identifier<Brokers>>
