/** The one error of this library, whose reason says what happened. */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { AmqpErrorReason, ReasonTypeId, type Severity } from "./errorReason.ts"

export * from "./errorReason.ts"

const TypeId = "~@effect-amqp/core/AmqpError" as const

/**
 * What every operation of this library fails with.
 *
 * `reason` tells what happened (`Effect.catchReason`, `Effect.catchReasons` and `Effect.unwrapReason` take it apart);
 * `message`, `isRetryable` and `severity` are the reason's own.
 */
export class AmqpError extends Schema.TaggedError<AmqpError>("@effect-amqp/core/AmqpError")("AmqpError", {
  reason: AmqpErrorReason
}) {
  readonly [TypeId] = TypeId

  override readonly cause = this.reason

  override get message(): string {
    return this.reason.message
  }

  /** Whether the same call may succeed later, without anyone changing anything in this program. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }

  /** How far the damage reaches: this operation, its channel, or its connection. */
  get severity(): Severity {
    return this.reason.severity
  }
}

/** Whether a value is an `AmqpError`. */
export const isAmqpError = (u: unknown): u is AmqpError => Predicate.hasProperty(u, TypeId)

/** Whether a value is the reason of an `AmqpError`. */
export const isAmqpErrorReason = (u: unknown): u is AmqpErrorReason => Predicate.hasProperty(u, ReasonTypeId)

/** Wraps a reason. */
export const fromReason = (reason: AmqpErrorReason): AmqpError => new AmqpError({ reason })
