/** What HTTP clients are told about AMQP errors: the one table that responses and typed problems are made of. */
import type { AmqpError } from "@effect-amqp/core"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ProblemDetails from "effect/http/ProblemDetails"

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

/** A problem that says no more than its status. */
export const about = <S extends Status>(status: S) => ({
  type: ProblemDetails.blankType,
  status,
  title: titles[status]
})

/** What a client is told. */
export interface Answer {
  readonly status: Status
  readonly detail?: string
  /** Seconds. */
  readonly retryAfter?: number
}

const unavailable = (retryAfter: number, detail: string): Answer => ({ status: 503, detail, retryAfter })

// While the broker is away requests wait for a channel too, so this does not say that others have them all.
const tooLate = unavailable(1, "The service did not get to its message broker in time. Try again in a moment.")

const busy = unavailable(1, "The service is at capacity. Try again in a moment.")

const disconnected = unavailable(5, "The service has no connection to its message broker. Try again later.")

const blocked = unavailable(10, "The message broker takes no messages at the moment. Try again later.")

const timedOut: Answer = {
  status: 504,
  detail: "The message broker did not answer in time. Whether the request took effect is not known."
}

// The broker has taken the request: it is the server that is late.
const unanswered: Answer = {
  status: 504,
  detail: "The service did not answer in time. Whether the request took effect is not known."
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
  RemoteFailure: { status: 502, detail: "A service behind this one failed." },
  MessageTooLarge: { status: 413, detail: "The message is larger than the message broker takes." },
  PublishReturned: { status: 422, detail: "There is nobody to take this message. Nothing was stored." }
}

const passing = unavailable(1, "The service could not do this at the moment. Try again in a moment.")

// Nothing that the client could do, and nothing that it should know.
const internal: Answer = { status: 500 }

// A message that is too large to be taken in (`maxInboundMessageBodySize`) is none of the client's.
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
  knownAnswerOf(error.reason) ?? (error.isRetryable ? passing : internal)

export const responseOf = ({ detail, retryAfter, status }: Answer): HttpServerResponse.HttpServerResponse => {
  const response = ProblemDetails.toResponse(detail === undefined ? about(status) : { ...about(status), detail })
  return retryAfter === undefined ? response : HttpServerResponse.setHeader(response, "retry-after", String(retryAfter))
}
