/**
 * The error of this library. Its reason says what happened.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { AmqpErrorReason, ReasonTypeId, type Severity } from "./errorReason.ts"

export * from "./errorReason.ts"

const TypeId = "~@effect-amqp/core/AmqpError" as const

/**
 * The error that every operation of this library fails with.
 *
 * **When to use**
 *
 * Use to handle AMQP failures. `reason` says what happened; handle single reasons with `Effect.catchReason`,
 * `Effect.catchReasons` and `Effect.unwrapReason`.
 *
 * **Details**
 *
 * `message`, `isRetryable` and `severity` are those of the reason.
 *
 * **Example** (Retrying what may succeed later)
 *
 * ```ts
 * import { Effect } from "effect"
 * import type { AmqpError } from "@effect-amqp/core"
 *
 * declare const publish: Effect.Effect<void, AmqpError.AmqpError>
 *
 * const persistent = publish.pipe(Effect.retry({ times: 3, while: (error) => error.isRetryable }))
 * ```
 *
 * @see {@link AmqpErrorReason} for every reason
 *
 * @category errors
 * @since 0.1.0
 */
export class AmqpError extends Schema.TaggedError<AmqpError>("@effect-amqp/core/AmqpError")("AmqpError", {
  reason: AmqpErrorReason
}) {
  readonly [TypeId] = TypeId

  override readonly cause = this.reason

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
export const isAmqpErrorReason = (u: unknown): u is AmqpErrorReason => Predicate.hasProperty(u, ReasonTypeId)

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
