/**
 * Whose failure the end of a connection is.
 *
 * The broker answers some mistakes of one party with `connection.close`, which ends the work of all on that connection.
 * Its failure is that of the party which sent the method that the close names; for all others it is a lost connection.
 * Where several parties have sent such a method and the text tells them apart by no name, all of them are suspects, and
 * so are all who wait for an answer when the broker names no method, as RabbitMQ does when a channel's process has crashed
 * (541).
 */
import type { BrokerClose } from "../driver/driver.ts"
import { operationOf } from "../wire/protocol.ts"

/** `certain`: no other can have caused it. `suspected`: others can, too. */
export type Blame = "none" | "suspected" | "certain"

/** A method that has been sent, or waits behind one that has, and is not answered. */
export class Sent {
  blame: Blame = "none"
  readonly operation: string
  /** The names among its arguments, which the broker quotes. */
  readonly names: ReadonlyArray<string>

  constructor(operation: string, names: ReadonlyArray<string>) {
    this.operation = operation
    this.names = names
  }
}

/** A channel, as far as it may be to blame. */
export interface Party {
  blame: Blame
  readonly sent: Iterable<Sent>
  /** The queues of its consumers. */
  readonly queues: Iterable<string>
  /** Called on every change of what its link says: `blockedBy`, `closedBy`. */
  readonly linkChanged: () => void
}

const isQuoted = (text: string, names: Iterable<string>): boolean => {
  for (const name of names) if (name !== "" && text.includes(`'${name}'`)) return true
  return false
}

/** Whether the text quotes more than the virtual host, or is cut off where it may have done so. */
const namesSomething = (text: string): boolean => text.replace(/ in vhost '[^']*'/g, "").includes("'")

/** AMQP 0-9-1, section 1.2 (https://www.rabbitmq.com/amqp-0-9-1-reference): reply codes. */
const connectionForced = 320

const settling = new Set(["basic.ack", "basic.nack", "basic.reject"])

/** Decides it, in the tick in which the broker's `connection.close` is read: nothing has been told to anybody. */
export const assign = (
  { classId, code, message: replyText, methodId }: BrokerClose,
  parties: Iterable<Party>
): void => {
  // A node that stops, or an operator, closes it whatever anybody has sent.
  if (code === connectionForced) return
  const operation = operationOf(classId, methodId)
  if (operation !== undefined && settling.has(operation)) {
    // No answer is waited for: the queue tells.
    const consumers = Array.from(parties).filter(({ queues }) => isQuoted(replyText, queues))
    for (const party of consumers) party.blame = consumers.length === 1 ? "certain" : "suspected"
    return
  }
  const suspects: Array<readonly [Party, Sent]> = []
  for (const party of parties) {
    for (const sent of party.sent) {
      // An opening crashes nothing.
      if (operation === undefined ? sent.operation !== "channel.open" : sent.operation === operation) {
        suspects.push([party, sent])
      }
    }
  }
  const quoted = suspects.filter(([, { names }]) => isQuoted(replyText, names))
  const left = quoted.length > 0 ? quoted : suspects
  const isTold = operation !== undefined && (quoted.length > 0 || !namesSomething(replyText))
  const isOne = new Set(left.map(([party]) => party)).size === 1
  for (const [party, sent] of left) {
    party.blame = isTold && isOne ? "certain" : "suspected"
    sent.blame = isTold && left.length === 1 ? "certain" : "suspected"
  }
}
