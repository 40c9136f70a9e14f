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
import { type Amqp, AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"
import * as AmqpHttpError from "./AmqpHttpError.ts"
import { logFailure, provider } from "./internal/handlers.ts"

/** What the layer does for the routes it is provided to: gives their handlers AMQP, and handles their AMQP errors. */
export type AmqpHttp =
  | HttpRouter.Request.From<"Requires", Amqp.Amqp>
  | HttpRouter.Request.From<"Error", AmqpError.AmqpError>

/** How AMQP errors are answered. */
export interface Options {
  /**
   * The answer to an AMQP error; `undefined` leaves it to `AmqpHttpError.toResponse`. It is called for errors that the
   * handler has not handled itself.
   */
  readonly toResponse?: ((error: AmqpError.AmqpError) => HttpServerResponse.HttpServerResponse | undefined) | undefined
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
  HttpRouter.middleware<{ provides: Amqp.Amqp; handles: AmqpError.AmqpError }>()(
    Effect.gen(function* () {
      const provide = yield* provider
      const answer = (error: AmqpError.AmqpError) => {
        const response = options.toResponse?.(error) ?? AmqpHttpError.toResponse(error)
        return Effect.as(logFailure(error, response.status), response)
      }
      return (handler) => handler.pipe(provide, Effect.catchIf(AmqpError.isAmqpError, answer))
    })
  ).layer

/**
 * Puts AMQP into the handlers of the routes that it is provided to.
 *
 * - Handlers get all that `AmqpLive` provides, so `AmqpChannel.use` and `AmqpPublisher.publish` need nothing else.
 * - AMQP errors that a handler fails with are logged once, with their reason, and answered by `AmqpHttpError`: 503 with
 *   `Retry-After` when the pool is exhausted or the broker is away or blocks, 504, 413, else 500, without internals. Other
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
