/** What every reason of an `AmqpError` has. */
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"

export const ReasonTypeId = "~@effect-amqp/platform/AmqpError/Reason" as const

/** The fields of every reason. */
export interface Fields {
  readonly message: string
  /** The operation that failed, in AMQP's words: `queue.declare`, `channel.open`, `connection.open`. */
  readonly operation?: string | undefined
  /** The error of the driver or the system, or the reason behind this one. It never holds a secret. */
  readonly cause?: unknown
}

/** The fields of a reason that a reply of the broker may have. */
export interface ReplyFields extends Fields {
  /** The code of the broker's `channel.close` or `connection.close`. */
  readonly replyCode?: number | undefined
}

type Reason<Tag extends string, Severity extends string, Retryable extends boolean> = Cause.YieldableError & {
  readonly _tag: Tag
  readonly [ReasonTypeId]: typeof ReasonTypeId
  readonly severity: Severity
  readonly isRetryable: Retryable
}

/** The base class of a reason. */
export const makeReason = <const Tag extends string, const Severity extends string, const Retryable extends boolean>(
  tag: Tag,
  severity: Severity,
  isRetryable: Retryable
): new <A extends Fields>(fields: A) => Reason<Tag, Severity, Retryable> & Readonly<A> => {
  class Base extends Data.TaggedError(tag)<Fields> {
    readonly [ReasonTypeId] = ReasonTypeId
    readonly severity = severity
    readonly isRetryable = isRetryable
  }
  return Base as never
}
