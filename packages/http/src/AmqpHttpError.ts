/**
 * AMQP errors as HTTP responses: problem details (RFC 9457), with `Retry-After` (RFC 9110, section 10.2.3) where
 * waiting helps.
 *
 * | reasons | status | `Retry-After` |
 * | --- | --- | --- |
 * | `AcquireTimeout`, `PoolExhausted`, `ChannelMaxReached`: no channel is free | 503 | 1 s |
 * | `ConnectionClosed`, `ConnectFailed`, `ConnectTimeout`, `PoolClosed`, `BrokerError`: not connected | 503 | 5 s |
 * | `PublishForbidden`, `PublishTimeout` with nothing sent: the broker is short of memory or disk | 503 | 10 s |
 * | other reasons that are `isRetryable` | 503 | 1 s |
 * | `PublishTimeout` of a message that was sent, `PublishUnknown`, `ReplyTimeout`, `RequestTimeout` | 504 | |
 * | `RemoteFailure` | 502 | |
 * | `MessageTooLarge` of a message that was to be published | 413 | |
 * | `PublishReturned`: no queue receives the message | 422 | |
 * | every other reason: a mistake in the program, the configuration or the broker's permissions | 500 | |
 * | `MessageTooLarge` of a message in a queue, which this service does not accept | 500 | |
 *
 * A response says what the client can do, and nothing about what is behind the service. It never names a host, queue,
 * exchange or user, because its texts are constants.
 *
 * @since 0.1.0
 */
import type { AmqpError } from "@effect-amqp/core"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import { answerOf, responseOf } from "./internal/answers.ts"

/**
 * Makes the HTTP response to an AMQP error.
 *
 * **When to use**
 *
 * Use when a handler answers an AMQP error itself, or in a `toResponse` of `AmqpHttp.layerWith` that changes only some
 * responses. `AmqpHttp.layer` calls it for every AMQP error that a handler fails with.
 *
 * **Details**
 *
 * The response has the content type `application/problem+json`, and the status and `Retry-After` of the module's table.
 *
 * **Example** (Answering an exhausted pool)
 *
 * ```ts
 * import { AmqpHttpError } from "@effect-amqp/http"
 * import { AmqpError } from "@effect-amqp/core"
 *
 * const error = AmqpError.fromReason(new AmqpError.PoolExhausted({ message: "10000 borrowers are waiting" }))
 *
 * const response = AmqpHttpError.toResponse(error)
 * console.log(response.status, response.headers["retry-after"]) // 503 "1"
 * ```
 *
 * @see `AmqpProblem.fromError` for the same answer as a typed problem
 *
 * @category conversions
 * @since 0.1.0
 */
export const toResponse = (error: AmqpError.AmqpError): HttpServerResponse.HttpServerResponse =>
  responseOf(answerOf(error))
