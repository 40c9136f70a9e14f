/**
 * What follows the end of a subscription: the consumer's own end, or another subscription, and by which connection.
 *
 * A failure is final by its situation, not by its tag alone. A lost connection is recovered from, whatever it was closed
 * for, unless it was closed for a method of this very consumer, which has never worked and which no waiting changes.
 */
import * as Predicate from "effect/Predicate"
import type { Blame } from "../connection/blame.ts"
import * as AmqpError from "../../model/error.ts"
import { isAbsence } from "../connection/keepers.ts"

/** Which ends are followed by another subscription. */
export type Resubscribe = "never" | "lost" | "always"

/** How a subscription has ended. */
export interface Ended {
  readonly reason: AmqpError.AmqpErrorReason
  /** Whether it has caused the end of its connection. */
  readonly blame: Blame
  /** Whether the broker had started it. */
  readonly hadStarted: boolean
  /** Whether this or an earlier one of this consumer had. */
  readonly hasWorked: boolean
  /** Why the last subscription ended, if the broker had cancelled it and none has started since. */
  readonly cancelled: AmqpError.ConsumerCancelled | undefined
  /** Whether this application declares the queue again when it is gone. */
  readonly isOurs: boolean
}

/**
 * `end`: with that reason. `again`: by the connection that consumers share. `alone`: by a connection of its own, since it
 * may end the next one, too.
 */
export type Next =
  | { readonly _tag: "end"; readonly reason: AmqpError.AmqpErrorReason }
  | { readonly _tag: "again" | "alone" }

const again: Next = { _tag: "again" }
const alone: Next = { _tag: "alone" }

export const nextOf = (ended: Ended, resubscribe: Resubscribe): Next => {
  const { reason } = ended
  const isRecovered =
    resubscribe !== "never" &&
    (reason.severity === "connection" ? isConnectionRecovered(ended) : isChannelRecovered(ended, resubscribe))
  if (!isRecovered) return { _tag: "end", reason: endOf(ended) }
  return reason.severity === "connection" && isSuspect(ended) ? alone : again
}

/** The 404 after a cancel says why the broker cancelled. */
const endOf = ({ cancelled, reason }: Ended): AmqpError.AmqpErrorReason => {
  if (cancelled === undefined || !isAbsence(reason)) return reason
  const { consumerTag, queue } = cancelled
  return new AmqpError.ConsumerCancelled({
    message:
      `basic.consume: the broker ended the consumer ${JSON.stringify(consumerTag)}: its queue ${JSON.stringify(queue)} was deleted. ` +
      `No AmqpTopology.layer of this application declares it, and neither does this consumer: declare it, or consume with resubscribe: "always".`,
    operation: "basic.consume",
    queue,
    consumerTag
  })
}

/** Undisguised, these are told only to the party whose method they are for: here to one that had no channel yet. */
const isOwn = ({ _tag }: AmqpError.AmqpErrorReason) => _tag === "ProtocolError" || _tag === "BrokerError"

const isSuspect = ({ blame, reason }: Ended): boolean => blame !== "none" || isOwn(reason)

const isConnectionRecovered = (ended: Ended): boolean => {
  const { blame, hasWorked, reason } = ended
  if (blame === "suspected" || (hasWorked && isSuspect(ended))) return true
  // Else a login or a virtual host that is refused for good.
  return blame === "certain" || isOwn(reason) ? !isOfMethod(originalOf(reason)) : reason.isRetryable
}

/** What a lost connection was closed for. */
const originalOf = (reason: AmqpError.AmqpErrorReason): AmqpError.AmqpErrorReason =>
  reason._tag === "ConnectionClosed" && AmqpError.isAmqpErrorReason(reason.cause) ? reason.cause : reason

// Other codes are of the connection's state or of the broker's, and so is what is said of `channel.open`, which asks for
// nothing in particular: there may be too many channels.
const codesOfMethods: ReadonlySet<number | undefined> = new Set([502, 503, 530, 540])

/** Whether it is the method itself that is refused, as it will be again. */
const isOfMethod = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "ProtocolError" && reason.operation !== "channel.open" && codesOfMethods.has(reason.replyCode)

const isChannelRecovered = (ended: Ended, resubscribe: Resubscribe): boolean => {
  const { hadStarted, hasWorked, isOurs, reason } = ended
  // It is still at the head of the queue: the next subscription would meet it, and end like this one.
  if (reason._tag === "MessageTooLarge" && !isByPublish(reason)) return false
  // After a cancel by the broker the next subscription shows whether the queue is still there.
  if (hadStarted) return true
  // The broker may hold on to a queue or a consumer of the connection that was lost, until it notices. At the first start
  // it is somebody else's.
  if (isHeld(reason)) return hasWorked
  if (reason._tag !== "NotFound") return reason.isRetryable
  return resubscribe === "always" || isOurs || !isAbsence(reason)
}

// What publishes to the channel of a subscription is a server that replies. It does that otherwise when the request comes
// again, so that a reply which the broker closes the channel for does so once.
const isByPublish = (reason: AmqpError.AmqpErrorReason) =>
  Predicate.hasProperty(reason, "operation") && reason.operation === "basic.publish"

const isHeld = (reason: AmqpError.AmqpErrorReason) =>
  reason._tag === "ResourceLocked" || (reason._tag === "AccessRefused" && reason.message.includes("exclusive use"))
