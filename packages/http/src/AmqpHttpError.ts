/**
 * AMQP errors as answers to HTTP clients: problem details (RFC 9457), with `Retry-After` (RFC 9110, section 10.2.3) where
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
 * | `PublishReturned`: no queue takes it | 422 | |
 * | every other: a mistake in the program, the configuration or the broker's permissions | 500 | |
 * | `MessageTooLarge` of a message in a queue, which this service does not take in | 500 | |
 *
 * The client learns what it can do, and nothing of what is behind: no host, queue, exchange or user is named, since the
 * texts are these and no others.
 *
 * @since 0.1.0
 */
import type { AmqpError } from "@effect-amqp/core"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import { answerOf, responseOf } from "./internal/answers.ts"

/**
 * The answer to an AMQP error.
 *
 * `AmqpHttp.layer` gives it for every AMQP error that a handler fails with. Call it where an error is handled by hand, or
 * in an override of the mapping that changes only a part.
 *
 * @example
 * ```ts
 * import { AmqpHttpError } from "@effect-amqp/http"
 * import { AmqpError } from "@effect-amqp/core"
 *
 * const error = AmqpError.fromReason(new AmqpError.PoolExhausted({ message: "10000 borrowers wait already" }))
 *
 * const response = AmqpHttpError.toResponse(error)
 * console.log(response.status, response.headers["retry-after"]) // 503 "1"
 * ```
 */
export const toResponse = (error: AmqpError.AmqpError): HttpServerResponse.HttpServerResponse =>
  responseOf(answerOf(error))
