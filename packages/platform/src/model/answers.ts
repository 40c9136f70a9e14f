/**
 * The table of the answers that HTTP clients get for AMQP errors.
 *
 * Written by scripts/platformModel.mjs from @effect-amqp/http. Do not edit.
 */
import type * as AmqpError from "./error.ts"

/** Titles by status, as RFC 9110 names them. */
export const titles = {
  413: "Content Too Large",
  422: "Unprocessable Content",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout"
} as const

export type Status = keyof typeof titles

/** An answer to a client. */
export interface Answer {
  readonly status: Status
  /** What happened, and what the client can do. */
  readonly detail?: string
  /** Seconds until the client should try again. */
  readonly retryAfter?: number
}

const unavailable = (retryAfter: number, detail: string): Answer => ({ status: 503, detail, retryAfter })

// Requests wait for a channel while the broker is unreachable too, so this text must not say that all channels are in
// use.
const tooLate = unavailable(1, "The service did not reach its message broker in time. Try again in a moment.")

const busy = unavailable(1, "The service is at capacity. Try again in a moment.")

const disconnected = unavailable(5, "The service has no connection to its message broker. Try again later.")

const blocked = unavailable(10, "The message broker does not accept messages at the moment. Try again later.")

const timedOut: Answer = {
  status: 504,
  detail:
    "The message broker did not answer in time. The request may have taken effect; repeat it only if that is safe."
}

// The broker has accepted the request. The RPC server is late.
const unanswered: Answer = {
  status: 504,
  detail: "The service did not answer in time. The request may have taken effect; repeat it only if that is safe."
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
  PublishUnknown: timedOut,
  ReplyTimeout: timedOut,
  RequestTimeout: unanswered,
  RemoteFailure: { status: 502, detail: "A service behind this one failed to process the request." },
  MessageTooLarge: {
    status: 413,
    detail: "The message is larger than the message broker accepts. Send a smaller one."
  },
  PublishReturned: { status: 422, detail: "No queue receives this message. Nothing was stored." }
}

const temporary = unavailable(1, "The request failed for a temporary reason. Try again in a moment.")

// The client can do nothing about such an error, and must not learn its cause.
const internal: Answer = { status: 500 }

// A message in a queue that is too large for this service (`maxInboundMessageBodySize`) is not the client's fault.
const inbound: ReadonlySet<string | undefined> = new Set(["basic.get", "basic.consume"])

const knownAnswerOf = (reason: AmqpError.AmqpErrorReason): Answer | undefined => {
  switch (reason._tag) {
    case "PublishTimeout":
      return reason.sent ? timedOut : blocked
    case "MessageTooLarge":
      return inbound.has(reason.operation) ? internal : answers[reason._tag]
    default:
      return answers[reason._tag]
  }
}

export const answerOf = (error: AmqpError.AmqpError): Answer =>
  knownAnswerOf(error.reason) ?? (error.isRetryable ? temporary : internal)
