/**
 * What was published on one confirm channel and is not confirmed yet.
 *
 * A publish is numbered when it is written; the broker's `basic.ack` and `basic.nack` name these numbers, and `multiple`
 * means all up to one. A returned message comes before its ack. Each entry is told its outcome exactly once.
 */
import * as AmqpError from "../AmqpError.ts"
import type { Message } from "../AmqpMessage.ts"
import type { Returned } from "../AmqpChannel.ts"
import { sameEnvelope, sameMessage } from "./properties.ts"

/** A message on its way. */
export interface Unconfirmed {
  readonly message: Message
  readonly mandatory: boolean
  /** Called once: with nothing, confirmed; else with why not. Must not throw. */
  readonly settle: (failure: AmqpError.AmqpErrorReason | undefined) => void
}

interface Entry {
  readonly of: Unconfirmed
  returned: Returned | undefined
}

const nacked = new AmqpError.PublishNacked({
  message:
    "basic.publish: the broker refused the message (basic.nack): a queue was full and rejects publishes, or had an internal error. It is not stored; try again later.",
  operation: "basic.publish"
})

export const returnedBecause = (returned: Returned) =>
  new AmqpError.PublishReturned({
    message: `basic.publish: no queue took the message, the broker returned it: ${returned.replyCode} ${returned.replyText} (exchange ${JSON.stringify(returned.exchange)}, routing key ${JSON.stringify(returned.routingKey)}). Is the queue declared and bound?`,
    operation: "basic.publish",
    replyCode: returned.replyCode,
    replyText: returned.replyText,
    exchange: returned.exchange,
    routingKey: returned.routingKey
  })

/** What RabbitMQ says of a publish that it closes the channel for, and how the message of it can be told. */
interface Accusation {
  readonly pattern: RegExp
  readonly isMeant: (message: Message, ...found: ReadonlyArray<string>) => boolean
  /** Whether the broker refuses every such message: an exchange, unlike these, may have been there a moment ago. */
  readonly always: boolean
}

// The first that fits decides: the refusal of a topic names the exchange too, which may take others.
const accusations: ReadonlyArray<Accusation> = [
  {
    pattern: /access to topic '(.*)' in exchange '(.*)' in vhost '/s,
    isMeant: (message, topic, exchange) => message.routingKey === topic && exchangeOf(message) === exchange,
    always: true
  },
  {
    pattern: /exchange '(.*)' in vhost '/s,
    isMeant: (message, exchange) => exchangeOf(message) === (exchange === "amq.default" ? "" : exchange),
    always: false
  },
  {
    // A reply text has at most 255 bytes: a longer name is cut off, in the midst of a character maybe.
    pattern: /(?:no|access to|internal) exchange '(.*?)\ufffd*\.\.\.$/s,
    isMeant: (message, start = "") => exchangeOf(message).startsWith(start),
    always: false
  },
  {
    pattern: /message size (\d+) /,
    isMeant: (message, size) => sizeOf(message) === Number(size),
    always: true
  },
  {
    pattern: /user_id property set to '(.*)' but/s,
    isMeant: (message, userId) => message.userId === userId,
    always: true
  }
]

const exchangeOf = (message: Message) => message.exchange ?? ""

const sizeOf = (message: Message) =>
  typeof message.content === "string" ? Buffer.byteLength(message.content) : message.content.byteLength

export class Confirms {
  /** Called when the broker has refused a message (`basic.nack`), before anybody is told. Must not throw. */
  onRefused: (() => void) | undefined = undefined
  /** Called when nothing is left to be confirmed. Must not throw. */
  onEmpty: (() => void) | undefined = undefined
  /** Whether the broker has refused any message. */
  hasRefused = false
  #published = 0
  readonly #pending = new Map<number, Entry>()
  /** Exchanges that have taken a message of this channel: they existed. */
  readonly #known = new Set<string>()

  get size(): number {
    return this.#pending.size
  }

  /** To be called in the tick in which the message was written, in the same order. */
  published(of: Unconfirmed): void {
    this.#pending.set(++this.#published, { of, returned: undefined })
  }

  returned(returned: Returned): void {
    let likely: Entry | undefined
    for (const entry of this.#pending.values()) {
      const { mandatory, message } = entry.of
      if (!mandatory || entry.returned !== undefined) continue
      if (message.routingKey !== returned.routingKey || exchangeOf(message) !== returned.exchange) continue
      // Identical messages cannot be told apart, and need not be: whichever is blamed, as many of them went nowhere.
      if (sameMessage(message, returned)) {
        entry.returned = returned
        return
      }
      likely ??= entry
    }
    // A broker that adds to messages, or a content that was changed since: it went to the same place, and must not be
    // taken for a success.
    if (likely !== undefined) likely.returned = returned
  }

  /**
   * One came back whose content was too large to be taken in. Whether it is known which: a wrong guess would tell the one
   * for the other that it has failed, and of that that it has arrived.
   */
  returnedUnread(returned: Returned, size: number): boolean {
    let found: Entry | undefined
    for (const entry of this.#pending.values()) {
      const { mandatory, message } = entry.of
      if (!mandatory || entry.returned !== undefined || !sameEnvelope(message, returned, size)) continue
      if (found !== undefined) return false
      found = entry
    }
    if (found !== undefined) found.returned = returned
    return found !== undefined
  }

  confirmed(deliveryTag: number, multiple: boolean, acked: boolean): void {
    if (!multiple) return this.#settle(deliveryTag, acked)
    // 0 means all there are: now, not what those who are told here publish at once.
    const last = deliveryTag === 0 ? this.#published : deliveryTag
    for (const tag of this.#pending.keys()) {
      if (tag > last) return
      this.#settle(tag, acked)
    }
  }

  #settle(tag: number, acked: boolean): void {
    const entry = this.#pending.get(tag)
    if (entry === undefined) return
    this.#pending.delete(tag)
    if (acked && this.#known.size < 1000) this.#known.add(exchangeOf(entry.of.message))
    if (!acked) {
      this.hasRefused = true
      this.onRefused?.()
    }
    entry.of.settle(!acked ? nacked : entry.returned === undefined ? undefined : returnedBecause(entry.returned))
    if (this.#pending.size === 0) this.onEmpty?.()
  }

  /**
   * The channel has died. The message that caused it gets the broker's reason, where it can be told; of the others nobody
   * knows whether they arrived.
   */
  closed(reason: AmqpError.AmqpErrorReason, byPublish: boolean): void {
    const pending = Array.from(this.#pending.values())
    this.#pending.clear()
    const culprit = byPublish ? this.#culprit(pending, reason.message) : undefined
    if (pending.length === 0) return
    const unknown = new AmqpError.PublishUnknown({
      message: `basic.publish: the channel ended before the broker had confirmed the message, which may or may not have arrived: ${reason.message}`,
      operation: "basic.publish",
      cause: reason
    })
    for (const entry of pending) {
      // Returned, so it reached no queue, whatever became of the channel.
      const known = entry.returned === undefined ? unknown : returnedBecause(entry.returned)
      entry.of.settle(entry === culprit ? reason : known)
    }
  }

  #culprit(pending: ReadonlyArray<Entry>, text: string): Entry | undefined {
    // The broker takes messages in order, and this one has ended the channel: the only one left is the one.
    if (pending.length === 1) return pending[0]
    for (const { always, isMeant, pattern } of accusations) {
      const found = pattern.exec(text)?.slice(1)
      if (found === undefined) continue
      const suspects = pending.filter((entry) => isMeant(entry.of.message, ...found))
      const [first] = suspects
      if (first === undefined || suspects.length === 1 || always) return first
      // The first of several has met the refusal, unless the exchange took messages before: it was deleted since.
      const exchange = exchangeOf(first.of.message)
      const same = suspects.every((entry) => exchangeOf(entry.of.message) === exchange)
      return same && !this.#known.has(exchange) ? first : undefined
    }
    return undefined
  }
}
