/**
 * AMQP in the handlers of `effect/http`'s `HttpRouter`.
 *
 * The layer gives every handler what `AmqpLive` provides, and answers its AMQP errors. The rest follows from the scope
 * that each request has: the first `AmqpChannel.use` in a handler borrows a channel, further ones use the same, and it
 * goes back when the response has ended, which is after the last byte of a streamed body, or when the client hangs up, or
 * when the handler fails or dies. A handler that never calls it costs no channel.
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

/** What the layer does for the routes it is provided to: gives their handlers AMQP, and handles their AMQP errors. */
export type AmqpHttp =
  | HttpRouter.Request.From<"Requires", Amqp.Amqp>
  | HttpRouter.Request.From<"Error", AmqpError.AmqpError>

/** The same for several brokers. */
export type Keyed<Brokers> =
  | HttpRouter.Request.From<"Requires", Brokers>
  | HttpRouter.Request.From<"Error", AmqpError.AmqpError>

/** How AMQP errors are answered. */
export interface Options {
  /**
   * The answer to an AMQP error; `undefined` leaves it to `AmqpHttpError.toResponse`. It is called for errors that the
   * handler has not handled itself.
   */
  readonly toResponse?: ((error: AmqpError.AmqpError) => HttpServerResponse.HttpServerResponse | undefined) | undefined
}

/** What a middleware does with the AMQP errors that handlers fail with. */
const answering = (options: Options, connection: string | undefined) => (error: AmqpError.AmqpError) => {
  const response = options.toResponse?.(error) ?? AmqpHttpError.toResponse(error)
  return Effect.as(logFailure(error, response.status, connection), response)
}

/**
 * `layer`, with answers of one's own to AMQP errors.
 *
 * @example
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
 */
export const layerWith = (options: Options): Layer.Layer<AmqpHttp, never, Amqp.Amqp> =>
  // Fresh: layers are built once an application, and another group of routes may have another broker.
  Layer.fresh(
    HttpRouter.middleware<{ provides: Amqp.Amqp; handles: AmqpError.AmqpError }>()(
      Effect.map(
        provider,
        ({ connection, provide }) =>
          (handler) =>
            handler.pipe(provide, Effect.catchIf(AmqpError.isAmqpError, answering(options, connection)))
      )
    ).layer
  )

/**
 * Puts AMQP into the handlers of the routes that it is provided to.
 *
 * - Handlers get all that `AmqpLive` provides, so `AmqpChannel.use` and `AmqpPublisher.publish` need nothing else.
 * - AMQP errors that a handler fails with are logged once, with their reason, and answered by `AmqpHttpError`: 503 with
 *   `Retry-After` when the pool is exhausted or the broker is away or blocks, 504, 413, 422, else 500, without internals. Other
 *   errors are none of its business. A handler that wants to answer an AMQP error itself catches it.
 * - It needs them in turn: `AmqpLive`, `Amqp.layer` or `Amqp.layerConfig`. Provided outside of the server, as
 *   below, they outlive it: at shutdown the requests are finished first, then the channels are closed, then the connection.
 *
 * A streamed body is made of the channel that the handler borrowed, since its effects run when the handler has returned.
 *
 * @example
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
 */
export const layer: Layer.Layer<AmqpHttp, never, Amqp.Amqp> = layerWith({})

/**
 * `layer` for several brokers: handlers choose by the key of a broker, and each of them costs a request one channel at most.
 *
 * @example
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
 *     yield* send("somebody has ordered").pipe(Audit.provide)
 *     return HttpServerResponse.empty({ status: 202 })
 *   })
 * ).pipe(
 *   Layer.provide(AmqpHttp.layerKeyed([Orders, Audit])),
 *   Layer.provide([Orders.layer({ host: "rabbit.internal" }), Audit.layer({ host: "audit.internal" })])
 * )
 * ```
 */
export const layerKeyed = <const Brokers extends ReadonlyArray<AmqpBroker.Any>>(
  brokers: Brokers,
  options: Options = {}
): Layer.Layer<Keyed<AmqpBroker.Identifier<Brokers>>, never, AmqpBroker.Identifier<Brokers>> =>
  // Where the brokers are a type parameter, the compiler cannot see that nothing is missing.
  HttpRouter.middleware<{ provides: AmqpBroker.Identifier<Brokers>; handles: AmqpError.AmqpError }>()(
    Effect.map(
      keyedProvider(brokers),
      ({ connection, provide }) =>
        (handler) =>
          handler.pipe(provide, Effect.catchIf(AmqpError.isAmqpError, answering(options, connection)))
    )
  ).layer as Layer.Layer<Keyed<AmqpBroker.Identifier<Brokers>>, never, AmqpBroker.Identifier<Brokers>>
