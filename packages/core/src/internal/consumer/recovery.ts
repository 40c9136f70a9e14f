/**
 * Decides what follows the end of a subscription: the end of the consumer, or another subscription and its connection.
 *
 * Whether a failure is final depends on the situation, not on the tag alone. After a lost connection the consumer
 * subscribes again, whatever the close reason was. The exception is a connection that was closed because of a method of
 * this very consumer, if that method has never succeeded and waiting does not help.
 */
import * as Predicate from "effect/Predicate"
import type { Attribution } from "../connection/attribution.ts"
import * as AmqpError from "../../model/error.ts"
import { isExclusiveUse } from "../connection/brokerTexts.ts"
import { isMissingEntity } from "../connection/topologyRecovery.ts"

/** Which ends of a subscription are followed by another one. */
export type Resubscribe = "never" | "lost" | "always"

/** How a subscription has ended. */
export interface SubscriptionEnd {
  readonly reason: AmqpError.AmqpErrorReason
  /** Whether the subscription caused the end of its connection. */
  readonly attribution: Attribution
  /** Whether the broker had started the subscription. */
  readonly hadStarted: boolean
  /** Whether the broker had started this or an earlier subscription of the consumer. */
  readonly hasEverStarted: boolean
  /** The reason of the last cancel by the broker, if no subscription has started since. */
  readonly cancelled: AmqpError.ConsumerCancelled | undefined
  /** Whether this application declares the queue again when it is missing. */
  readonly isDeclaredHere: boolean
}

/**
 * `end`: the consumer ends with that reason. `again`: it subscribes again on the shared connection. `dedicated`: it
 * subscribes again on a dedicated connection, because it may end that connection, too.
 */
export type NextStep =
  | { readonly _tag: "end"; readonly reason: AmqpError.AmqpErrorReason }
  | { readonly _tag: "again" | "dedicated" }

const again: NextStep = { _tag: "again" }
const dedicated: NextStep = { _tag: "dedicated" }

export const nextOf = (ended: SubscriptionEnd, resubscribe: Resubscribe): NextStep => {
  const { reason } = ended
  const isRecovered =
    resubscribe !== "never" &&
    (reason.severity === "connection" ? isConnectionRecovered(ended) : isChannelRecovered(ended, resubscribe))
  if (!isRecovered) return { _tag: "end", reason: endOf(ended) }
  return reason.severity === "connection" && isSuspect(ended) ? dedicated : again
}

/** A 404 after a cancel gives the reason of the cancel: the queue was deleted. */
const endOf = ({ cancelled, reason }: SubscriptionEnd): AmqpError.AmqpErrorReason => {
  if (cancelled === undefined || !isMissingEntity(reason)) return reason
  const { consumerTag, queue } = cancelled
  return new AmqpError.ConsumerCancelled({
    message:
      `basic.consume: the broker ended the consumer ${JSON.stringify(consumerTag)}: its queue ${JSON.stringify(queue)} was deleted. ` +
      `Neither an AmqpTopology.layer of this application nor this consumer declares the queue. Declare it, or consume with resubscribe: "always".`,
    operation: "basic.consume",
    queue,
    consumerTag
  })
}

/**
 * Only the party whose method caused a connection error gets these reasons. Here that is a consumer that had no channel
 * yet.
 */
const isOwn = ({ _tag }: AmqpError.AmqpErrorReason) => _tag === "ProtocolError" || _tag === "BrokerError"

const isSuspect = ({ attribution, reason }: SubscriptionEnd): boolean => attribution !== "none" || isOwn(reason)

const isConnectionRecovered = (ended: SubscriptionEnd): boolean => {
  const { attribution, hasEverStarted, reason } = ended
  if (attribution === "suspected" || (hasEverStarted && isSuspect(ended))) return true
  // The remaining case is a login or a virtual host that is refused for good.
  return attribution === "certain" || isOwn(reason) ? !isMethodRefused(closeCauseOf(reason)) : reason.isRetryable
}

/** The reason for which a lost connection was closed. */
const closeCauseOf = (reason: AmqpError.AmqpErrorReason): AmqpError.AmqpErrorReason =>
  reason._tag === "ConnectionClosed" && AmqpError.isAmqpErrorReason(reason.cause) ? reason.cause : reason

// Other codes concern the state of the connection or the broker. So do codes for `channel.open`, which requests nothing
// specific: there may be too many channels.
const codesOfMethods: ReadonlySet<number | undefined> = new Set([502, 503, 530, 540])

/** Whether the method itself is refused, and will be refused again. */
const isMethodRefused = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "ProtocolError" && reason.operation !== "channel.open" && codesOfMethods.has(reason.replyCode)

const isChannelRecovered = (ended: SubscriptionEnd, resubscribe: Resubscribe): boolean => {
  const { hadStarted, hasEverStarted, isDeclaredHere, reason } = ended
  // The message is still at the head of the queue: the next subscription would receive it and end in the same way.
  if (reason._tag === "MessageTooLarge" && !isByPublish(reason)) return false
  // After a cancel by the broker, the next subscription shows whether the queue still exists.
  if (hadStarted) return true
  // The broker may hold a queue or a consumer of the lost connection until it notices the loss. At the first start the
  // lock belongs to another connection.
  if (isLocked(reason)) return hasEverStarted
  if (reason._tag !== "NotFound") return reason.isRetryable
  return resubscribe === "always" || isDeclaredHere || !isMissingEntity(reason)
}

// Only a server that replies publishes on the channel of its subscription. It replies in another way when the request
// is delivered again, so a reply that makes the broker close the channel does so only once.
const isByPublish = (reason: AmqpError.AmqpErrorReason) =>
  Predicate.hasProperty(reason, "operation") && reason.operation === "basic.publish"

const isLocked = (reason: AmqpError.AmqpErrorReason) =>
  reason._tag === "ResourceLocked" || (reason._tag === "AccessRefused" && isExclusiveUse(reason.message))
