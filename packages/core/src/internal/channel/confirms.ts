/**
 * What was published on one confirm channel and is not confirmed yet.
 *
 * A publish is numbered when it is written; the broker's `basic.ack` and `basic.nack` name these numbers, and `multiple`
 * means all up to one. A returned message comes before its ack. Each entry is told its outcome exactly once.
 */
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Returned } from "../../model/channel.ts"
import { sameEnvelope, sameMessage } from "../wire/sameMessage.ts"

/** A message on its way. */
export interface Unconfirmed {
  readonly message: Message
  readonly mandatory: boolean
  /** When its publisher gives it up, in milliseconds of the deadlines. */
  readonly dueAt: number
  /** Called once: with nothing, confirmed; else with why not. Must not throw. */
  readonly settle: (failure: AmqpError.AmqpErrorReason | undefined) => void
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
  /** What was published, in order, from that with the tag `#first` on; undefined: it has been answered for. */
  #pending: Array<Unconfirmed | undefined> = []
  #first = 1
  /** Up to here all are answered for. */
  #next = 0
  #size = 0
  /** What came back, by tag. */
  readonly #returned = new Map<number, Returned>()
  /** Exchanges that have taken a message of this channel: they existed. */
  readonly #known = new Set<string>()

  get size(): number {
    return this.#size
  }

  /** To be called in the tick in which the message was written, in the same order. */
  published(of: Unconfirmed): void {
    this.#pending.push(of)
    this.#size++
  }

  /** When the last of the publishers gives up. */
  get lastDueAt(): number {
    return this.#pending.reduce((last, of) => (of === undefined ? last : Math.max(last, of.dueAt)), 0)
  }

  get #lastTag(): number {
    return this.#first + this.#pending.length - 1
  }

  returned(returned: Returned): void {
    let likely = 0
    for (let tag = this.#first + this.#next; tag <= this.#lastTag; tag++) {
      const of = this.#pending[tag - this.#first]
      if (of === undefined || !of.mandatory || this.#returned.has(tag)) continue
      const { message } = of
      if (message.routingKey !== returned.routingKey || exchangeOf(message) !== returned.exchange) continue
      // Identical messages cannot be told apart, and need not be: whichever is blamed, as many of them went nowhere.
      if (sameMessage(message, returned)) {
        this.#returned.set(tag, returned)
        return
      }
      if (likely === 0) likely = tag
    }
    // A broker that adds to messages, or a content that was changed since: it went to the same place, and must not be
    // taken for a success.
    if (likely > 0) this.#returned.set(likely, returned)
  }

  /**
   * One came back whose content was too large to be taken in. Whether it is known which: a wrong guess would tell the one
   * for the other that it has failed, and of that that it has arrived.
   */
  returnedUnread(returned: Returned, size: number): boolean {
    let found = 0
    for (let tag = this.#first + this.#next; tag <= this.#lastTag; tag++) {
      const of = this.#pending[tag - this.#first]
      if (of === undefined || !of.mandatory || this.#returned.has(tag)) continue
      if (!sameEnvelope(of.message, returned, size)) continue
      if (found > 0) return false
      found = tag
    }
    if (found > 0) this.#returned.set(found, returned)
    return found > 0
  }

  /** The same where its properties could not be read either: which it is, its way and its size have to tell. */
  returnedUndecodable(returned: Returned, size: number): boolean {
    let found = 0
    for (let tag = this.#first + this.#next; tag <= this.#lastTag; tag++) {
      const of = this.#pending[tag - this.#first]
      if (of === undefined || !of.mandatory || this.#returned.has(tag)) continue
      const { message } = of
      if (message.routingKey !== returned.routingKey || exchangeOf(message) !== returned.exchange) continue
      if (sizeOf(message) !== size) continue
      if (found > 0) return false
      found = tag
    }
    if (found > 0) this.#returned.set(found, returned)
    return found > 0
  }

  confirmed(deliveryTag: number, multiple: boolean, acked: boolean): void {
    if (!multiple) return this.#settle(deliveryTag, acked)
    // 0 means all there are: now, not what those who are told here publish at once.
    const last = deliveryTag === 0 ? this.#lastTag : Math.min(deliveryTag, this.#lastTag)
    for (let tag = this.#first + this.#next; tag <= last; tag++) this.#settle(tag, acked)
  }

  #settle(tag: number, acked: boolean): void {
    const of = this.#take(tag)
    if (of === undefined) return
    if (acked) this.#taken(exchangeOf(of.message))
    else {
      this.hasRefused = true
      this.onRefused?.()
    }
    of.settle(acked ? this.#returnOf(tag) : nacked)
    if (this.#size === 0) this.onEmpty?.()
  }

  #take(tag: number): Unconfirmed | undefined {
    const index = tag - this.#first
    const of = this.#pending[index]
    if (of === undefined) return undefined
    this.#pending[index] = undefined
    this.#size--
    if (index === this.#next) this.#advance()
    return of
  }

  /** Goes to the next that is not answered for, and lets go of what is behind. */
  #advance(): void {
    const pending = this.#pending
    do this.#next++
    while (this.#next < pending.length && pending[this.#next] === undefined)
    // Not each time: moving the rest is work, too.
    if (this.#next < 1024 || this.#next * 2 < pending.length) return
    this.#first += this.#next
    this.#pending = pending.slice(this.#next)
    this.#next = 0
  }

  #taken(exchange: string): void {
    if (this.#known.size < 1000) this.#known.add(exchange)
  }

  /** Why a message that the broker has taken has failed nevertheless. */
  #returnOf(tag: number): AmqpError.PublishReturned | undefined {
    if (this.#returned.size === 0) return undefined
    const returned = this.#returned.get(tag)
    if (returned === undefined) return undefined
    this.#returned.delete(tag)
    return returnedBecause(returned)
  }

  /**
   * The channel has died. The message that caused it gets the broker's reason, where it can be told; of the others nobody
   * knows whether they arrived.
   */
  closed(reason: AmqpError.AmqpErrorReason, byPublish: boolean): void {
    const first = this.#first
    const all = this.#pending
    const pending = all.filter((of) => of !== undefined)
    this.#first += all.length
    this.#pending = []
    this.#next = 0
    this.#size = 0
    const culprit = byPublish ? this.#culprit(pending, reason.message) : undefined
    if (pending.length === 0) return
    const unknown = new AmqpError.PublishUnknown({
      message: `basic.publish: the channel ended before the broker had confirmed the message, which may or may not have arrived: ${reason.message}`,
      operation: "basic.publish",
      cause: reason
    })
    for (const [i, of] of all.entries()) {
      if (of === undefined) continue
      // Returned, so it reached no queue, whatever became of the channel.
      const known = this.#returnOf(first + i) ?? unknown
      of.settle(of === culprit ? reason : known)
    }
  }

  #culprit(pending: ReadonlyArray<Unconfirmed>, text: string): Unconfirmed | undefined {
    // The broker takes messages in order, and this one has ended the channel: the only one left is the one.
    if (pending.length === 1) return pending[0]
    for (const { always, isMeant, pattern } of accusations) {
      const found = pattern.exec(text)?.slice(1)
      if (found === undefined) continue
      const suspects = pending.filter((of) => isMeant(of.message, ...found))
      const [first] = suspects
      if (first === undefined || suspects.length === 1 || always) return first
      // The first of several has met the refusal, unless the exchange took messages before: it was deleted since.
      const exchange = exchangeOf(first.message)
      const same = suspects.every((of) => exchangeOf(of.message) === exchange)
      return same && !this.#known.has(exchange) ? first : undefined
    }
    return undefined
  }
}
