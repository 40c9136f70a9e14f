/**
 * AMQP errors as typed problems (RFC 9457), for the error types of `effect/http-api`'s endpoints.
 *
 * | problem | status | when |
 * | --- | --- | --- |
 * | `Unavailable` | 503 | not connected, blocked, no channel free; `retryAfter` is sent as `Retry-After` |
 * | `TimedOut` | 504 | the broker, or the server of a request, did not answer in time; what was asked for may have been done |
 * | `TooLarge` | 413 | the message is larger than the broker takes |
 * | `Unroutable` | 422 | the message was mandatory, and no queue takes it |
 * | `BadGateway` | 502 | the server of a request failed |
 * | `InternalServerErrorProblem` (Effect's own) | 500 | every other |
 *
 * They say what `AmqpHttpError.toResponse` says, by the same table, and nothing else: an `AmqpError` names hosts and queues,
 * and must not be an endpoint's error itself. On the server a problem's `cause` is the `AmqpError` that it was made of; it
 * is not sent.
 *
 * @since 0.1.0
 */
import { AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpServerRespondable from "effect/http/HttpServerRespondable"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as HttpApiError from "effect/http-api/HttpApiError"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as Schema from "effect/Schema"
import { about, type Answer, answerOf, responseOf, titles } from "./internal/answers.ts"

/** The part of `Unavailable` that is in the body. Its name is that of the problem in an OpenAPI document. */
export class UnavailableBody extends HttpApiError.Problem<UnavailableBody>()("AmqpUnavailable", about(503)) {}

/** 503: the broker is not there, takes nothing, or no channel is free. Worth another try. */
export class Unavailable extends Schema.TaggedError<Unavailable>("@effect-amqp/http/AmqpUnavailable")(
  "AmqpUnavailable",
  {
    detail: Schema.optionalKey(Schema.String),
    /** After how many seconds; the header `Retry-After`. Absent if somebody on the way has taken it off. */
    retryAfter: Schema.optionalKey(Schema.Int)
  }
) {
  override get message(): string {
    return this.detail ?? titles[503]
  }

  [HttpServerRespondable.symbol](): Effect.Effect<HttpServerResponse.HttpServerResponse> {
    return Effect.succeed(responseOf({ ...this, status: 503 }))
  }
}

/** 504: no answer in time. Whether the request took effect is not known. */
export class TimedOut extends HttpApiError.Problem<TimedOut>()("AmqpTimedOut", about(504)) {}

/** 413: the message is larger than the broker takes. */
export class TooLarge extends HttpApiError.Problem<TooLarge>()("AmqpTooLarge", about(413)) {}

/** 422: a mandatory message that no queue takes. */
export class Unroutable extends HttpApiError.Problem<Unroutable>()("AmqpUnroutable", about(422)) {}

/** 502: the server of a request (`AmqpRpc`) failed. */
export class BadGateway extends HttpApiError.Problem<BadGateway>()("AmqpBadGateway", about(502)) {}

/** What an AMQP error is to a client. */
export type Problem =
  | Unavailable
  | TimedOut
  | TooLarge
  | Unroutable
  | BadGateway
  | HttpApiError.InternalServerErrorProblem

/** `Unavailable` as an endpoint's error: `retryAfter` travels as the header `Retry-After`. */
export interface UnavailableWithHeader extends HttpApiSchema.encodeToWithHeaders<
  typeof Unavailable,
  typeof UnavailableBody,
  { readonly "retry-after": Schema.optionalKey<Schema.String> }
> {}

const UnavailableWithHeader: UnavailableWithHeader = Unavailable.pipe(
  HttpApiSchema.encodeToWithHeaders(
    {
      body: UnavailableBody,
      // A date is allowed too (RFC 9110, section 10.2.3); somebody on the way may have put one there.
      headers: { "retry-after": Schema.optionalKey(Schema.String) }
    },
    {
      decode: ({ body, headers }) => {
        const seconds = Number(headers["retry-after"] ?? Number.NaN)
        return new Unavailable({
          ...(body.detail === undefined ? undefined : { detail: body.detail }),
          ...(Number.isInteger(seconds) ? { retryAfter: seconds } : undefined)
        })
      },
      encode: ({ detail, retryAfter }) => ({
        body: new UnavailableBody(detail === undefined ? {} : { detail }),
        headers: retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }
      })
    }
  )
)

/**
 * The schemas of all problems, for an endpoint's `error`. `AmqpHttpApi` declares them for all endpoints it is a middleware of.
 *
 * An endpoint that has them cannot have another problem of status 503: its header tells the two apart for nobody.
 */
export const schemas: readonly [
  UnavailableWithHeader,
  typeof TimedOut,
  typeof TooLarge,
  typeof Unroutable,
  typeof BadGateway,
  typeof HttpApiError.InternalServerErrorProblem
] = [UnavailableWithHeader, TimedOut, TooLarge, Unroutable, BadGateway, HttpApiError.InternalServerErrorProblem]

const classes = [
  Unavailable,
  TimedOut,
  TooLarge,
  Unroutable,
  BadGateway,
  HttpApiError.InternalServerErrorProblem
] as const

/** Whether a value is one of these problems. */
export const isProblem = (u: unknown): u is Problem => classes.some((Class) => u instanceof Class)

/** The HTTP status of a problem. */
export const statusOf = (problem: Problem): number => (problem._tag === "AmqpUnavailable" ? 503 : problem.status)

const problemOf = (answer: Answer): Problem => {
  const { retryAfter, status } = answer
  const detail = answer.detail === undefined ? {} : { detail: answer.detail }
  switch (status) {
    case 413:
      return new TooLarge(detail)
    case 422:
      return new Unroutable(detail)
    case 500:
      return new HttpApiError.InternalServerErrorProblem(detail)
    case 502:
      return new BadGateway(detail)
    case 503:
      return new Unavailable(retryAfter === undefined ? detail : { ...detail, retryAfter })
    case 504:
      return new TimedOut(detail)
  }
}

/**
 * The problem that an AMQP error is to a client.
 *
 * @example
 * ```ts
 * import { AmqpError } from "@effect-amqp/core"
 * import { AmqpProblem } from "@effect-amqp/http"
 *
 * const error = AmqpError.fromReason(new AmqpError.PoolExhausted({ message: "10000 borrowers wait already" }))
 *
 * console.log(AmqpProblem.fromError(error)) // AmqpUnavailable, with a retryAfter of 1
 * ```
 */
export const fromError = (error: AmqpError.AmqpError): Problem => {
  const problem = problemOf(answerOf(error))
  // For the log of this process: what is sent is made of the schemas' fields.
  Object.defineProperty(problem, "cause", { value: error, enumerable: false })
  return problem
}

/**
 * Fails with the problem where an effect fails with an AMQP error; other failures stay as they are. What a handler of an
 * endpoint ends with.
 *
 * To answer a reason otherwise, catch it before: `Effect.catchReason("AmqpError", "PublishReturned", ...)`.
 *
 * @example
 * ```ts
 * import { AmqpPublisher } from "@effect-amqp/core"
 * import { AmqpProblem } from "@effect-amqp/http"
 * import { Effect } from "effect"
 *
 * // Effect<Confirmed, AmqpProblem.Problem, AmqpPublisher>
 * const program = AmqpPublisher.publish({ routingKey: "orders", content: "an order" }).pipe(AmqpProblem.orProblem)
 * ```
 */
export const orProblem = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, AmqpError.AmqpError> | Problem, R> =>
  Effect.catchIf(
    self,
    (error): error is E & AmqpError.AmqpError => AmqpError.isAmqpError(error),
    (error) => Effect.fail(fromError(error))
  ) as Effect.Effect<A, Exclude<E, AmqpError.AmqpError> | Problem, R>
