/** What the gateway answers when it does not do what was asked for: problem details, about the request alone. */
import type { AmqpError } from "@effect-amqp/core"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ProblemDetails from "effect/http/ProblemDetails"
import { answerOf, titles as amqpTitles } from "../answers.ts"

const titles = {
  ...amqpTitles,
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  408: "Request Timeout",
  410: "Gone",
  415: "Unsupported Media Type"
} as const

/** Why something was not done. */
export interface Refusal {
  readonly status: keyof typeof titles
  readonly detail?: string
  /** Seconds. */
  readonly retryAfter?: number
}

export const refuse = (status: Refusal["status"], detail: string, retryAfter?: number): Refusal => ({
  status,
  detail,
  ...(retryAfter === undefined ? undefined : { retryAfter })
})

// The client has named the exchange, the queue and the properties: what is wrong with them is its business, other than in a
// handler that names them itself. The broker's texts stay here all the same.
const ofClient: { readonly [Tag in AmqpError.AmqpErrorReason["_tag"]]?: Refusal } = {
  NotFound: refuse(404, "There is no such exchange or queue."),
  AccessRefused: refuse(403, "The broker does not allow this."),
  InvalidArgument: refuse(400, "A name or a property of the message is not what AMQP allows."),
  PreconditionFailed: refuse(400, "The broker does not take a message with these properties.")
}

export const refusalOf = (error: AmqpError.AmqpError): Refusal => ofClient[error.reason._tag] ?? answerOf(error)

/** As JSON: in a line of a batch, in an event. */
export const problemOf = ({ detail, status }: Refusal): ProblemDetails.ProblemDetails => ({
  type: ProblemDetails.blankType,
  title: titles[status],
  status,
  ...(detail === undefined ? undefined : { detail })
})

export const responseOf = (refusal: Refusal): HttpServerResponse.HttpServerResponse => {
  const response = HttpServerResponse.setHeader(
    ProblemDetails.toResponse(problemOf(refusal)),
    "cache-control",
    "no-store"
  )
  return refusal.retryAfter === undefined
    ? response
    : HttpServerResponse.setHeader(response, "retry-after", String(refusal.retryAfter))
}

export const isRefusal = (value: object): value is Refusal => "status" in value && !("_tag" in value)
