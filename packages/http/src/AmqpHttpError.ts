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
 * | `MessageTooLarge` | 413 | |
 * | every other: a mistake in the program, the configuration or the broker's permissions | 500 | |
 *
 * The client learns what it can do, and nothing of what is behind: no host, queue, exchange or user is named, since the
 * texts are these and no others.
 *
 * @since 0.1.0
 */
import type { AmqpError } from "@effect-amqp/core"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ProblemDetails from "effect/http/ProblemDetails"
import * as Response from "effect/http/HttpServerResponse"

/** What a client is told. */
interface Answer {
  readonly status: number
  readonly title: string
  readonly detail?: string
  /** Seconds. */
  readonly retryAfter?: number
}

const unavailable = (retryAfter: number, detail: string): Answer => ({
  status: 503,
  title: "Service Unavailable",
  detail,
  retryAfter
})

// While the broker is away requests wait for a channel too, so this does not say that others have them all.
const tooLate = unavailable(1, "The service did not get to its message broker in time. Try again in a moment.")

const busy = unavailable(1, "The service is at capacity. Try again in a moment.")

const disconnected = unavailable(5, "The service has no connection to its message broker. Try again later.")

const blocked = unavailable(10, "The message broker takes no messages at the moment. Try again later.")

const timedOut: Answer = {
  status: 504,
  title: "Gateway Timeout",
  detail: "The message broker did not answer in time. Whether the request took effect is not known."
}

const answers: { readonly [Tag in AmqpError.AmqpErrorReason["_tag"]]?: Answer } = {
  AcquireTimeout: tooLate,
  PoolExhausted: busy,
  ChannelMaxReached: busy,
  ConnectionClosed: disconnected,
  ConnectFailed: disconnected,
  ConnectTimeout: disconnected,
  PoolClosed: disconnected,
  BrokerError: disconnected,
  PublishForbidden: blocked,
  PublishTimeout: timedOut,
  PublishUnknown: timedOut,
  ReplyTimeout: timedOut,
  RequestTimeout: timedOut,
  RemoteFailure: {
    status: 502,
    title: "Bad Gateway",
    detail: "A service behind this one failed."
  },
  MessageTooLarge: {
    status: 413,
    title: "Content Too Large",
    detail: "The message is larger than the message broker takes."
  }
}

const passing = unavailable(1, "The service could not do this at the moment. Try again in a moment.")

// Nothing that the client could do, and nothing that it should know.
const internal: Answer = { status: 500, title: "Internal Server Error" }

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
export const toResponse = (error: AmqpError.AmqpError): HttpServerResponse.HttpServerResponse => {
  const { reason } = error
  const known = reason._tag === "PublishTimeout" && !reason.sent ? blocked : answers[reason._tag]
  const { retryAfter, ...problem } = known ?? (error.isRetryable ? passing : internal)
  const response = ProblemDetails.toResponse({ type: ProblemDetails.blankType, ...problem })
  return retryAfter === undefined ? response : Response.setHeader(response, "retry-after", String(retryAfter))
}
