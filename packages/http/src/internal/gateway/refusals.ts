/** The gateway's answers to requests that it refuses or that fail: problem details, which describe the request only. */
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
  409: "Conflict",
  410: "Gone",
  415: "Unsupported Media Type"
} as const

/** An answer that says why a request was not performed. */
export interface Refusal {
  readonly status: keyof typeof titles
  /** What happened, and what the client can do. */
  readonly detail?: string
  /** Seconds until the client should try again. */
  readonly retryAfter?: number
}

export const refuse = (status: Refusal["status"], detail: string, retryAfter?: number): Refusal => ({
  status,
  detail,
  ...(retryAfter === undefined ? undefined : { retryAfter })
})

// A client of the gateway chooses the exchange, the queue and the properties, so it learns what is wrong with them. In
// a handler, the application chooses them. The broker's texts are never sent to a client.
const clientRefusals: { readonly [Tag in AmqpError.AmqpErrorReason["_tag"]]?: Refusal } = {
  NotFound: refuse(404, "No such exchange or queue. Check its name."),
  AccessRefused: refuse(403, "The message broker does not permit this operation on this exchange or queue."),
  InvalidArgument: refuse(400, "A name or a property of the message is not valid in AMQP. Correct the request."),
  PreconditionFailed: refuse(
    400,
    "The message broker does not accept a message with these properties. Correct the request."
  )
}

export const refusalOf = (error: AmqpError.AmqpError): Refusal => clientRefusals[error.reason._tag] ?? answerOf(error)

/** The problem details of a refusal, for a response, a line of a batch or an event. */
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
