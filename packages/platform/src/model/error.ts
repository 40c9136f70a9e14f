/**
 * The error of this library. Its reason says what happened.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import { type AmqpErrorReason, reasons, type Severity } from "./errorReason.ts"
import { ReasonTypeId } from "./reason.ts"

export * from "./errorReason.ts"

const TypeId = "~@effect-amqp/platform/AmqpError" as const

/**
 * The error that every operation of this library fails with.
 *
 * **When to use**
 *
 * Use to handle AMQP failures, with `Effect.catchTag("AmqpError", ...)`. `reason` says what happened; handle single
 * reasons with `catchReason` and `unwrapReason`.
 *
 * **Details**
 *
 * `message`, `isRetryable` and `severity` are those of the reason.
 *
 * @see {@link AmqpErrorReason} for every reason
 *
 * @category errors
 * @since 0.1.0
 */
export class AmqpError extends Data.TaggedError("AmqpError")<{ readonly reason: AmqpErrorReason }> {
  readonly [TypeId] = TypeId

  override readonly cause: AmqpErrorReason = this.reason

  override get message(): string {
    return this.reason.message
  }

  /** Whether the same call may succeed later without a change in this program. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }

  /** How far the damage reaches: this operation, its channel, or its connection. */
  get severity(): Severity {
    return this.reason.severity
  }
}

/**
 * Whether a value is an `AmqpError`.
 *
 * **When to use**
 *
 * Use to recognize the error of this library among values of unknown type, such as a defect or the `cause` of another
 * error.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAmqpError = (u: unknown): u is AmqpError => Predicate.hasProperty(u, TypeId)

/**
 * Whether a value is the reason of an `AmqpError`.
 *
 * **When to use**
 *
 * Use to recognize a reason among values of unknown type, such as the `cause` of another reason.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAmqpErrorReason = (u: unknown): u is AmqpErrorReason =>
  Predicate.hasProperty(u, ReasonTypeId) && Predicate.hasProperty(u, "_tag") && (u._tag as string) in reasons

/**
 * An `AmqpError` with this reason.
 *
 * **When to use**
 *
 * Use in tests and in services of your own that fail as the library does.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromReason = (reason: AmqpErrorReason): AmqpError => new AmqpError({ reason })

/**
 * Handles one reason of an `AmqpError`, and passes the others on.
 *
 * **When to use**
 *
 * Use where Effect 4 has `Effect.catchReason`.
 *
 * @see {@link unwrapReason} for `Effect.catchTag` with the tags of reasons
 *
 * @category error handling
 * @since 0.1.0
 */
export const catchReason: {
  /**
   * Handles one reason of an `AmqpError`, and passes the others on: for `pipe`.
   */
  <Tag extends AmqpErrorReason["_tag"], A2, E2, R2>(
    tag: Tag,
    f: (reason: Extract<AmqpErrorReason, { readonly _tag: Tag }>, error: AmqpError) => Effect.Effect<A2, E2, R2>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A | A2, E | E2, R | R2>
  /**
   * Handles one reason of an `AmqpError`, and passes the others on.
   */
  <A, E, R, Tag extends AmqpErrorReason["_tag"], A2, E2, R2>(
    self: Effect.Effect<A, E, R>,
    tag: Tag,
    f: (reason: Extract<AmqpErrorReason, { readonly _tag: Tag }>, error: AmqpError) => Effect.Effect<A2, E2, R2>
  ): Effect.Effect<A | A2, E | E2, R | R2>
} = dual(
  3,
  <A, E, R, Tag extends AmqpErrorReason["_tag"], A2, E2, R2>(
    self: Effect.Effect<A, E, R>,
    tag: Tag,
    f: (reason: Extract<AmqpErrorReason, { readonly _tag: Tag }>, error: AmqpError) => Effect.Effect<A2, E2, R2>
  ): Effect.Effect<A | A2, E | E2, R | R2> =>
    Effect.catchAll(self, (error): Effect.Effect<A2, E | E2, R2> =>
      isAmqpError(error) && error.reason._tag === tag
        ? f(error.reason as Extract<AmqpErrorReason, { readonly _tag: Tag }>, error)
        : Effect.fail(error)
    )
)

/**
 * Replaces an `AmqpError` by its reason, which is a tagged error too.
 *
 * **When to use**
 *
 * Use before `Effect.catchTag` or `Effect.catchTags` with the tags of reasons, such as `NotFound`.
 *
 * @see {@link catchReason} for a single reason
 *
 * @category error handling
 * @since 0.1.0
 */
export const unwrapReason = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, AmqpError> | AmqpErrorReason, R> =>
  Effect.mapError(self, (error) => (isAmqpError(error) ? error.reason : (error as Exclude<E, AmqpError>)))
