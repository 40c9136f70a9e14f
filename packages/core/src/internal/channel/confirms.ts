/**
 * The publishes of one confirm channel that are not confirmed yet.
 *
 * A publish gets its delivery tag when it is written. The broker's `basic.ack` and `basic.nack` refer to these tags;
 * `multiple` means all tags up to the given one. The `basic.return` of a message arrives before its ack. Each publish
 * is settled exactly once.
 */
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Returned } from "../../model/channel.ts"
import { isSameEnvelope, isSameMessage } from "../wire/sameMessage.ts"

/** A message that was sent and is not confirmed yet. */
export interface UnconfirmedPublish {
  readonly message: Message
  readonly mandatory: boolean
  /** Its deadline, in milliseconds of the clock of `Deadlines`. */
  readonly dueAt: number
  /** Called once: with undefined when the message is confirmed, otherwise with the failure. Must not throw. */
  readonly settle: (failure: AmqpError.AmqpErrorReason | undefined) => void
}

const nacked = new AmqpError.PublishNacked({
  message:
    "basic.publish: the broker refused the message (basic.nack): a queue is full and rejects publishes, or it had an internal error. The message is not stored. Try again later.",
  operation: "basic.publish"
})

export const publishReturned = (returned: Returned) =>
  new AmqpError.PublishReturned({
    message: `basic.publish: the message reached no queue, and the broker returned it: ${returned.replyCode} ${returned.replyText} (exchange ${JSON.stringify(returned.exchange)}, routing key ${JSON.stringify(returned.routingKey)}). Check that a queue is declared and bound.`,
    operation: "basic.publish",
    replyCode: returned.replyCode,
    replyText: returned.replyText,
    exchange: returned.exchange,
    routingKey: returned.routingKey
  })

/** A reply text with which RabbitMQ closes the channel because of a publish, and how to find that publish. */
interface CloseCause {
  readonly pattern: RegExp
  readonly matches: (message: Message, ...found: ReadonlyArray<string>) => boolean
  /**
   * Whether the broker refuses every matching message. It does not for a missing exchange, which may have existed when
   * an earlier message arrived.
   */
  readonly always: boolean
}

// The first pattern that matches decides. The refusal of a topic also names the exchange, which may accept other
// topics.
const closeCauses: ReadonlyArray<CloseCause> = [
  {
    pattern: /access to topic '(.*)' in exchange '(.*)' in vhost '/s,
    matches: (message, topic, exchange) => message.routingKey === topic && exchangeOf(message) === exchange,
    always: true
  },
  {
    pattern: /exchange '(.*)' in vhost '/s,
    matches: (message, exchange) => exchangeOf(message) === (exchange === "amq.default" ? "" : exchange),
    always: false
  },
  {
    // A reply text has at most 255 bytes, so a longer name is truncated, possibly within a character.
    pattern: /(?:no|access to|internal) exchange '(.*?)\ufffd*\.\.\.$/s,
    matches: (message, start = "") => exchangeOf(message).startsWith(start),
    always: false
  },
  {
    pattern: /message size (\d+) /,
    matches: (message, size) => sizeOf(message) === Number(size),
    always: true
  },
  {
    pattern: /user_id property set to '(.*)' but/s,
    matches: (message, userId) => message.userId === userId,
    always: true
  }
]

const exchangeOf = (message: Message) => message.exchange ?? ""

const sizeOf = (message: Message) =>
  typeof message.content === "string" ? Buffer.byteLength(message.content) : message.content.byteLength

export class Confirms {
  /** Called when the broker has refused a message (`basic.nack`), before the publish is settled. Must not throw. */
  onNacked: (() => void) | undefined = undefined
  /** Called when no publish is left to be confirmed. Must not throw. */
  onEmpty: (() => void) | undefined = undefined
  /** Whether the broker has refused a message on this channel. */
  hasNacked = false
  /** The publishes in order, starting with the tag `#first`; undefined where one is settled. */
  #pending: Array<UnconfirmedPublish | undefined> = []
  #first = 1
  /** The index in `#pending` before which all publishes are settled. */
  #next = 0
  #size = 0
  /** Returned messages, by tag. */
  readonly #returned = new Map<number, Returned>()
  /** Exchanges that have accepted a message of this channel, and so existed at that time. */
  readonly #known = new Set<string>()

  get size(): number {
    return this.#size
  }

  /** Records a publish. Must be called in the tick in which the message is written, in the same order. */
  published(publish: UnconfirmedPublish): void {
    this.#pending.push(publish)
    this.#size++
  }

  /** The latest deadline of all unconfirmed publishes. */
  get lastDueAt(): number {
    return this.#pending.reduce((last, publish) => (publish === undefined ? last : Math.max(last, publish.dueAt)), 0)
  }

  get #lastTag(): number {
    return this.#first + this.#pending.length - 1
  }

  /** Assigns a returned message to its publish. */
  returned(returned: Returned): void {
    let likely = 0
    for (let tag = this.#first + this.#next; tag <= this.#lastTag; tag++) {
      const publish = this.#pending[tag - this.#first]
      if (publish === undefined || !publish.mandatory || this.#returned.has(tag)) continue
      const { message } = publish
      if (message.routingKey !== returned.routingKey || exchangeOf(message) !== returned.exchange) continue
      // Identical messages cannot be distinguished. This does no harm: the number of returned ones is right.
      if (isSameMessage(message, returned)) {
        this.#returned.set(tag, returned)
        return
      }
      if (likely === 0) likely = tag
    }
    // The broker adds to messages, or the content was changed since the publish. A publish with the same exchange and
    // routing key takes the return, because a returned message must not count as a success.
    if (likely > 0) this.#returned.set(likely, returned)
  }

  /**
   * Assigns a returned message whose content is larger than `maxInboundMessageBodySize`. Returns whether exactly one
   * publish matches. A wrong guess would fail a publish that succeeded and report the returned one as confirmed.
   */
  returnedOversized(returned: Returned, size: number): boolean {
    let found = 0
    for (let tag = this.#first + this.#next; tag <= this.#lastTag; tag++) {
      const publish = this.#pending[tag - this.#first]
      if (publish === undefined || !publish.mandatory || this.#returned.has(tag)) continue
      if (!isSameEnvelope(publish.message, returned, size)) continue
      if (found > 0) return false
      found = tag
    }
    if (found > 0) this.#returned.set(found, returned)
    return found > 0
  }

  /**
   * Does the same for a returned message whose properties cannot be read: only exchange, routing key and size count.
   */
  returnedUndecodable(returned: Returned, size: number): boolean {
    let found = 0
    for (let tag = this.#first + this.#next; tag <= this.#lastTag; tag++) {
      const publish = this.#pending[tag - this.#first]
      if (publish === undefined || !publish.mandatory || this.#returned.has(tag)) continue
      const { message } = publish
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
    // 0 means all unconfirmed publishes. The last tag is read before the loop, since a settled publisher may publish at
    // once.
    const last = deliveryTag === 0 ? this.#lastTag : Math.min(deliveryTag, this.#lastTag)
    for (let tag = this.#first + this.#next; tag <= last; tag++) this.#settle(tag, acked)
  }

  #settle(tag: number, acked: boolean): void {
    const publish = this.#take(tag)
    if (publish === undefined) return
    if (acked) this.#noteExchange(exchangeOf(publish.message))
    else {
      this.hasNacked = true
      this.onNacked?.()
    }
    publish.settle(acked ? this.#returnOf(tag) : nacked)
    if (this.#size === 0) this.onEmpty?.()
  }

  #take(tag: number): UnconfirmedPublish | undefined {
    const index = tag - this.#first
    const publish = this.#pending[index]
    if (publish === undefined) return undefined
    this.#pending[index] = undefined
    this.#size--
    if (index === this.#next) this.#advance()
    return publish
  }

  /** Moves `#next` to the next unconfirmed publish and drops the settled entries before it. */
  #advance(): void {
    const pending = this.#pending
    do this.#next++
    while (this.#next < pending.length && pending[this.#next] === undefined)
    // Entries are dropped in batches, because each time the rest is copied.
    if (this.#next < 1024 || this.#next * 2 < pending.length) return
    this.#first += this.#next
    this.#pending = pending.slice(this.#next)
    this.#next = 0
  }

  #noteExchange(exchange: string): void {
    if (this.#known.size < 1000) this.#known.add(exchange)
  }

  /** The failure of a message that was acked but returned; undefined if it was not returned. */
  #returnOf(tag: number): AmqpError.PublishReturned | undefined {
    if (this.#returned.size === 0) return undefined
    const returned = this.#returned.get(tag)
    if (returned === undefined) return undefined
    this.#returned.delete(tag)
    return publishReturned(returned)
  }

  /**
   * Settles all publishes after the channel has closed. The publish that caused the close fails with the broker's
   * reason, if it can be identified. The others fail with `PublishUnknown`, since they may or may not have arrived.
   */
  closed(reason: AmqpError.AmqpErrorReason, byPublish: boolean): void {
    const first = this.#first
    const all = this.#pending
    const pending = all.filter((publish) => publish !== undefined)
    this.#first += all.length
    this.#pending = []
    this.#next = 0
    this.#size = 0
    const offendingPublish = byPublish ? this.#offendingPublish(pending, reason.message) : undefined
    if (pending.length === 0) return
    const unknown = new AmqpError.PublishUnknown({
      message: `basic.publish: the channel closed before the broker confirmed the message, which may or may not have arrived: ${reason.message}`,
      operation: "basic.publish",
      cause: reason
    })
    for (const [i, publish] of all.entries()) {
      if (publish === undefined) continue
      // A returned message reached no queue, so its outcome is known although the channel closed.
      const known = this.#returnOf(first + i) ?? unknown
      publish.settle(publish === offendingPublish ? reason : known)
    }
  }

  #offendingPublish(pending: ReadonlyArray<UnconfirmedPublish>, text: string): UnconfirmedPublish | undefined {
    // A publish closed the channel. The broker handles publishes in order, so the only unconfirmed one must be that
    // one.
    if (pending.length === 1) return pending[0]
    for (const { always, matches, pattern } of closeCauses) {
      const found = pattern.exec(text)?.slice(1)
      if (found === undefined) continue
      const suspects = pending.filter((publish) => matches(publish.message, ...found))
      const [first] = suspects
      if (first === undefined || suspects.length === 1 || always) return first
      // If several match, the first one was refused. This is not certain if the exchange accepted messages earlier and
      // was deleted since.
      const exchange = exchangeOf(first.message)
      const same = suspects.every((publish) => exchangeOf(publish.message) === exchange)
      return same && !this.#known.has(exchange) ? first : undefined
    }
    return undefined
  }
}
