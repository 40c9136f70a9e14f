/** What a failed publish means for its row. */
import type { AmqpError } from "@effect-amqp/core"

/**
 * - `"relay"`: the connection, the broker or the database is the reason, so the row is read again soon.
 * - `"later"`: the message was refused for now, such as by a full queue.
 * - `"unconfirmed"`: the message was sent, and the broker did not confirm it in time, such as for a quorum queue without a
 *   majority.
 * - `"message"`: the message cannot be published as it is, unless the broker's exchanges, queues or permissions change.
 * - `"never"`: no attempt can succeed.
 */
export type FailureKind = "relay" | "later" | "unconfirmed" | "message" | "never"

export const failureKind = ({ reason }: AmqpError.AmqpError): FailureKind => {
  if (reason._tag === "PublishTimeout") return reason.sent ? "unconfirmed" : "relay"
  switch (reason._tag) {
    case "InvalidArgument":
    case "MessageTooLarge":
      return "never"
    case "PublishReturned":
    case "NotFound":
    case "AccessRefused":
    case "PreconditionFailed":
    case "ResourceLocked":
      return "message"
    case "PublishNacked":
      return "later"
    default:
      return "relay"
  }
}

/** Longest text of a failure that is stored, in characters. */
const maxFailureLength = 1000

/** The text of a failure that is stored in the row. PostgreSQL stores no NUL. */
export const failureText = (error: AmqpError.AmqpError): string =>
  `${error.reason._tag}: ${error.message}`.replaceAll("\0", "\u{fffd}").slice(0, maxFailureLength).toWellFormed()
