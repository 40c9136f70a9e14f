/**
 * Attributes the end of a connection to the channel that caused it.
 * The broker answers some mistakes of one channel with `connection.close`, which ends all channels of that connection.
 * The channel that sent the method which the close names gets its failure; for all others it is a lost connection.
 * Where several channels have sent such a method and no name in the text tells them apart, all of them are suspects.
 * When the broker names no method, all channels that wait for a reply are suspects: RabbitMQ does that when a channel's
 * process has crashed (541).
 */
import type { BrokerClose } from "../driver/driver.ts"
import { operationOf } from "../wire/protocol.ts"

/** `certain`: no other channel can have caused the close. `suspected`: other channels can have caused it too. */
export type Attribution = "none" | "suspected" | "certain"

/** A method that was sent, or that waits behind one, and is not answered. */
export class SentMethod {
  attribution: Attribution = "none"
  readonly operation: string
  /** The names among the method's arguments, which the broker quotes. */
  readonly names: ReadonlyArray<string>

  constructor(operation: string, names: ReadonlyArray<string>) {
    this.operation = operation
    this.names = names
  }
}

/** The part of a channel that attribution uses. */
export interface LinkChannel {
  attribution: Attribution
  readonly pendingRequests: Iterable<SentMethod>
  /** The queues of the channel's consumers. */
  readonly queues: Iterable<string>
  /** Called on every change of the link's `blockedBy` and `closedBy`. */
  readonly linkChanged: () => void
}

const isQuoted = (text: string, names: Iterable<string>): boolean => {
  for (const name of names) if (name !== "" && text.includes(`'${name}'`)) return true
  return false
}

/** Whether the text quotes more than the virtual host, or is truncated where it may have done so. */
const quotesOtherName = (text: string): boolean => text.replace(/ in vhost '[^']*'/g, "").includes("'")

/** AMQP 0-9-1, section 1.2 (https://www.rabbitmq.com/amqp-0-9-1-reference): reply codes. */
const connectionForced = 320

const settleMethods = new Set(["basic.ack", "basic.nack", "basic.reject"])

/**
 * Sets the attribution of the suspected channels and methods, in the tick in which the broker's `connection.close` is
 * read. Nothing has been reported yet.
 */
export const attributeClose = (
  { classId, code, message: replyText, methodId }: BrokerClose,
  channels: Iterable<LinkChannel>
): void => {
  // A stopping node or an operator closes the connection, whatever its channels have sent.
  if (code === connectionForced) return
  const operation = operationOf(classId, methodId)
  if (operation !== undefined && settleMethods.has(operation)) {
    // Settlements have no reply, so no channel waits for one. The quoted queue identifies the channel.
    const consumers = Array.from(channels).filter(({ queues }) => isQuoted(replyText, queues))
    for (const channel of consumers) channel.attribution = consumers.length === 1 ? "certain" : "suspected"
    return
  }
  const suspects: Array<readonly [LinkChannel, SentMethod]> = []
  for (const channel of channels) {
    for (const sent of channel.pendingRequests) {
      // Opening a channel cannot crash a channel's process.
      if (operation === undefined ? sent.operation !== "channel.open" : sent.operation === operation) {
        suspects.push([channel, sent])
      }
    }
  }
  const quoted = suspects.filter(([, { names }]) => isQuoted(replyText, names))
  const left = quoted.length > 0 ? quoted : suspects
  const isUnambiguous = operation !== undefined && (quoted.length > 0 || !quotesOtherName(replyText))
  const isOne = new Set(left.map(([channel]) => channel)).size === 1
  for (const [channel, sent] of left) {
    channel.attribution = isUnambiguous && isOne ? "certain" : "suspected"
    sent.attribution = isUnambiguous && left.length === 1 ? "certain" : "suspected"
  }
}
