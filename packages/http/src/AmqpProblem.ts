/**
 * AMQP errors as typed problems (RFC 9457), for the error types of `effect/http-api`'s endpoints.
 *
 * | problem | status | when |
 * | --- | --- | --- |
 * | `Unavailable` | 503 | not connected, blocked, or no channel is free; `retryAfter` is sent as `Retry-After` |
 * | `TimedOut` | 504 | the broker or the RPC server did not answer in time; the operation may have taken effect |
 * | `TooLarge` | 413 | the message is larger than the broker accepts |
 * | `Unroutable` | 422 | the message was mandatory, and no queue receives it |
 * | `BadGateway` | 502 | the RPC server failed |
 * | `InternalServerErrorProblem` (Effect's own) | 500 | every other error |
 *
 * The problems have the contents of `AmqpHttpError.toResponse`, by the same table. An `AmqpError` names hosts and
 * queues, so it must not be an endpoint's error itself. On the server, a problem's `cause` is the `AmqpError` that it
 * was made from; the cause is not sent.
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

/**
 * The body of {@link Unavailable}, without the header.
 *
 * **When to use**
 *
 * Use when you read an OpenAPI document or a response by hand: this is the schema of a 503's body, and its name is the
 * name of the problem in the document. Handlers and clients use {@link Unavailable}.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnavailableBody extends HttpApiError.Problem<UnavailableBody>()("AmqpUnavailable", about(503)) {}

/**
 * A problem of status 503: the broker is unreachable or blocks publishers, or no channel is free.
 *
 * **When to use**
 *
 * Use in clients to try again, after `retryAfter` seconds if it is given. The condition is temporary.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Schema.TaggedError<Unavailable>("@effect-amqp/http/AmqpUnavailable")(
  "AmqpUnavailable",
  {
    /** A sentence about what happened and what the client can do. */
    detail: Schema.optionalKey(Schema.String),
    /** Seconds to wait, from the header `Retry-After`. Absent if an intermediary has removed the header. */
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

/**
 * A problem of status 504: the broker or the RPC server did not answer in time.
 *
 * **When to use**
 *
 * Use in clients to tell an unknown outcome from a refusal.
 *
 * **Gotchas**
 *
 * The request may have taken effect. Repeat it only where a duplicate does no harm.
 *
 * @category errors
 * @since 0.1.0
 */
export class TimedOut extends HttpApiError.Problem<TimedOut>()("AmqpTimedOut", about(504)) {}

/**
 * A problem of status 413: the message is larger than the broker accepts.
 *
 * **When to use**
 *
 * Use in clients to send a smaller message. The same message fails again.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooLarge extends HttpApiError.Problem<TooLarge>()("AmqpTooLarge", about(413)) {}

/**
 * A problem of status 422: no queue receives the mandatory message.
 *
 * **When to use**
 *
 * Use in clients to detect a message that was not stored anywhere.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unroutable extends HttpApiError.Problem<Unroutable>()("AmqpUnroutable", about(422)) {}

/**
 * A problem of status 502: the RPC server (`AmqpRpc`) failed while it handled the request.
 *
 * **When to use**
 *
 * Use in clients to tell a failure of a service behind this one from a failure of this service.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadGateway extends HttpApiError.Problem<BadGateway>()("AmqpBadGateway", about(502)) {}

/**
 * The union of all problems that an AMQP error can become.
 *
 * **When to use**
 *
 * Use as the error type of a handler or a client that deals with all of them.
 *
 * @see {@link schemas} for the schemas of these problems
 *
 * @category errors
 * @since 0.1.0
 */
export type Problem =
  | Unavailable
  | TimedOut
  | TooLarge
  | Unroutable
  | BadGateway
  | HttpApiError.InternalServerErrorProblem

/**
 * The schema of {@link Unavailable} as an endpoint's error, with `retryAfter` in the header `Retry-After`.
 *
 * **When to use**
 *
 * Use as a type only, when you annotate a value that contains {@link schemas}.
 *
 * @category models
 * @since 0.1.0
 */
export interface UnavailableWithHeader extends HttpApiSchema.encodeToWithHeaders<
  typeof Unavailable,
  typeof UnavailableBody,
  { readonly "retry-after": Schema.optionalKey<Schema.String> }
> {}

const UnavailableWithHeader: UnavailableWithHeader = Unavailable.pipe(
  HttpApiSchema.encodeToWithHeaders(
    {
      body: UnavailableBody,
      // The header may also be a date (RFC 9110, section 10.2.3), which an intermediary may have set.
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
 * The schemas of all problems, for the `error` of an endpoint.
 *
 * **When to use**
 *
 * Use when an endpoint declares the problems without the middleware `AmqpHttpApi`, which declares them for all its
 * endpoints.
 *
 * **Gotchas**
 *
 * An endpoint with these schemas cannot have another problem of status 503. A client could not distinguish the two,
 * because the header `Retry-After` is optional and does not identify a problem.
 *
 * @category schemas
 * @since 0.1.0
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

/**
 * Returns whether a value is one of the problems of this module.
 *
 * **When to use**
 *
 * Use to recognize a problem among unknown values, for example in a middleware.
 *
 * @category guards
 * @since 0.1.0
 */
export const isProblem = (u: unknown): u is Problem => classes.some((Class) => u instanceof Class)

/**
 * Returns the HTTP status of a problem.
 *
 * **When to use**
 *
 * Use when you log or count problems by their status.
 *
 * @category accessors
 * @since 0.1.0
 */
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
 * Converts an AMQP error to the problem that the client gets.
 *
 * **When to use**
 *
 * Use when a handler deals with the error itself. {@link orProblem} converts the errors of a whole effect.
 *
 * **Details**
 *
 * The problem keeps the AMQP error as its `cause`, for the log of this process. The cause is not sent.
 *
 * **Example** (Converting an exhausted pool)
 *
 * ```ts
 * import { AmqpError } from "@effect-amqp/core"
 * import { AmqpProblem } from "@effect-amqp/http"
 *
 * const error = AmqpError.fromReason(new AmqpError.PoolExhausted({ message: "10000 borrowers are waiting" }))
 *
 * console.log(AmqpProblem.fromError(error)) // AmqpUnavailable, with a retryAfter of 1
 * ```
 *
 * @see `AmqpHttpError.toResponse` for the same answer as a response
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromError = (error: AmqpError.AmqpError): Problem => {
  const problem = problemOf(answerOf(error))
  // The cause is for the log of this process. It is not sent, because responses contain the schemas' fields only.
  Object.defineProperty(problem, "cause", { value: error, enumerable: false })
  return problem
}

/**
 * Converts the AMQP errors of an effect to problems. Other failures are unchanged.
 *
 * **When to use**
 *
 * Use as the last step of an endpoint's handler, so that the error type of the handler matches the endpoint's.
 *
 * **Details**
 *
 * To answer a reason differently, catch it first: `Effect.catchReason("AmqpError", "PublishReturned", ...)`.
 *
 * **Example** (Ending a handler with problems)
 *
 * ```ts
 * import { AmqpPublisher } from "@effect-amqp/core"
 * import { AmqpProblem } from "@effect-amqp/http"
 * import { Effect } from "effect"
 *
 * // Effect<Confirmed, AmqpProblem.Problem, AmqpPublisher>
 * const program = AmqpPublisher.publish({ routingKey: "orders", content: "an order" }).pipe(AmqpProblem.orProblem)
 * ```
 *
 * @see {@link fromError} for converting a single error
 *
 * @category error handling
 * @since 0.1.0
 */
export const orProblem = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, AmqpError.AmqpError> | Problem, R> =>
  Effect.catchIf(
    self,
    (error): error is E & AmqpError.AmqpError => AmqpError.isAmqpError(error),
    (error) => Effect.fail(fromError(error))
  ) as Effect.Effect<A, Exclude<E, AmqpError.AmqpError> | Problem, R>
