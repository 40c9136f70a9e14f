/**
 * One AMQP channel, open or closed: what a place of the pool, a lane of a publisher or a consumer holds.
 *
 * It knows whether it is fit for the next borrower. Its listeners are put on once, when it is made, and come off when it
 * has closed; operations wait by `watch`, never by listeners of their own, so that none can be left behind.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import * as AmqpError from "../../model/error.ts"
import type { Returned } from "../../model/channel.ts"
import type { DeliveredProperties } from "../../model/message.ts"
import { type Blame, type Party, Sent } from "../connection/blame.ts"
import type { Link } from "../connection/link.ts"
import * as Logging from "../telemetry/logging.ts"
import { isFrom } from "../wire/versions.ts"
import type { ChannelTicket } from "../connection/channelBudget.ts"
import { classify } from "../connection/classify.ts"
import { Confirms } from "./confirms.ts"
import { mustFit } from "../wire/declarations.ts"
import { type Became, tooLarge, unreadable } from "./notTaken.ts"
import {
  BrokerClose,
  type ChannelEnd,
  type ChannelEvents,
  type DeliveredMessage,
  type DriverChannel,
  type Refused,
  type ReturnedMessage
} from "../driver/driver.ts"
import type { Outgoing } from "../wire/properties.ts"
import { offsetName } from "../wire/streams.ts"
import { classBasic } from "../wire/protocol.ts"
import type { Kind, ConsumerStart } from "../../model/channel.ts"

/** Who takes the deliveries of one consumer. None of these may throw: that would end the connection. */
export interface ConsumerSink {
  /** In order, also before the start has been answered to its caller. */
  readonly deliver: (message: DeliveredMessage) => void
  /** The broker has ended it (`basic.cancel`). */
  readonly cancelled: (consumerTag: string) => void
  /** Its channel has died. */
  readonly closed: (reason: AmqpError.AmqpErrorReason) => void
  /** For a consumer whose deliveries nobody can take back: one was too large. Whether it is dealt with, and the channel may live. */
  readonly oversized?: (properties: DeliveredProperties, reason: AmqpError.MessageTooLarge) => boolean
  /** Whether its queue is known to be a stream, whose deliveries are settled by `basic.ack` alone. */
  readonly isOfStream?: boolean
  /** The header of one could not be read, so that it is not delivered. It is settled already. */
  readonly undecodable?: (properties: DeliveredProperties, reason: AmqpError.DecodeFailed) => void
}

/** A consumer as its channel knows it. */
interface Consuming {
  readonly start: ConsumerStart
  readonly sink: ConsumerSink
}

/** Why an open channel is not lent again. */
export type Unfit = "interrupted" | "defect" | "unclean" | "refused"

const returnedOf = (
  { exchange, properties, replyCode, replyText, routingKey }: Omit<ReturnedMessage, "content">,
  content: Uint8Array
): Returned => ({ content, properties, exchange, routingKey, replyCode, replyText })

const nothing = new Uint8Array(0)

const ignore = () => {}

/**
 * How many entries a chunk of a stream has at most: their number has 16 bits
 * (https://github.com/rabbitmq/osiris/blob/main/src/osiris_log.erl). RabbitMQ sends what is left of one beyond the prefetch.
 */
const mostOfChunk = 65_535

export class Channel implements Party, ChannelEvents {
  readonly kind: Kind
  readonly driver: DriverChannel
  readonly link: Link
  /** What waits for its confirm; undefined unless this is a confirm channel. */
  readonly confirms: Confirms | undefined
  /** Why it has closed; undefined while it is open. */
  closedBy: AmqpError.AmqpErrorReason | undefined = undefined
  /** The message that it was closed for, since it was larger than may be taken in. */
  refused: AmqpError.MessageTooLarge | undefined = undefined
  /** Set by an operation that leaves the channel unfit for others although it may still be open. */
  unfit: Unfit | undefined = undefined
  /** Whether an operation has failed with `closedBy`: then the caller knows, and the pool need not say it again. */
  told = false
  /** Called once, when it has closed. */
  onClosed: (() => void) | undefined = undefined
  /** Whether it is to blame for the end of its connection. */
  blame: Blame = "none"
  /** Whether its write buffer is full: set by a publish, cleared by `drain`. */
  full = false
  /** Whether the broker has stopped publishers on it (`channel.flow`). */
  stopped = false
  /** Whether all that goes back waits for `giveBack`. */
  collectsReturns = false
  /** Whether `unsettled` lacks deliveries that the broker may still hold: then no ack may cover more than one. */
  hasReleased = false
  /** Tags of deliveries of streams that were unsettled at some time: see `holdsOfStream`. Made with the first stream. */
  #ofStreams: Set<number> | undefined = undefined
  /** Set by operations whose effect cannot be taken back without a round trip: prefetch, flow, an open transaction. */
  altered = false
  /** How many deliveries may be unsettled: with more, the broker does not heed `basic.qos`. Set where it is known. */
  mostUnsettled = Infinity
  /** Whether it takes what RabbitMQ sends of a stream beyond the prefetch. */
  #isBeyondPrefetch = false
  /** Takes what the channel gets back; without it a confirm channel finds the publish it belongs to. */
  onReturned: ((returned: Returned) => void) | undefined = undefined
  /** Whether `onReturned` wants the content of what came back. */
  readsReturns = false

  // Made when they are needed: a pool has many channels, of which most are idle.
  #sent: Set<Sent> | undefined = undefined
  #unsettled: Set<number> | undefined = undefined
  #returning: Set<number> | undefined = undefined
  #watchers: Set<() => void> | undefined = undefined
  /** By their tags. */
  #consumers: Map<string, Consuming> | undefined = undefined
  /** `channel.open`, until it is answered. */
  #opening: Sent | undefined = new Sent("channel.open", [])
  /** Told once whether it has opened: with why not, if it has not. */
  #onOpening: ((failure: unknown) => void) | undefined
  #closing = false
  /** Whether nothing of it is left: also the broker knows that it has closed. */
  #isGone = false

  readonly #ticket: ChannelTicket

  /** @param onOpening called once: when it has opened, with nothing; or with why it has not */
  constructor(link: Link, kind: Kind, ticket: ChannelTicket, onOpening: (failure: unknown) => void) {
    this.#ticket = ticket
    ticket.isOwned = true
    this.kind = kind
    this.link = link
    this.confirms = kind === "confirm" ? new Confirms() : undefined
    this.#onOpening = onOpening
    link.parties.add(this)
    this.driver = link.openChannel(this)
  }

  // --- What the driver tells: see `ChannelEvents` ----------------------------------------------------------------------

  opened(): void {
    this.#ticket.opened()
    this.#opening = undefined
    this.#openingEnded(undefined)
  }

  notOpened(cause: unknown): void {
    this.#closing = true
    this.gone()
    this.#openingEnded(cause)
  }

  #openingEnded(failure: unknown): void {
    const told = this.#onOpening
    this.#onOpening = undefined
    told?.(failure)
  }

  drained(): void {
    this.full = false
    this.#changed()
  }

  flow(active: boolean): void {
    this.stopped = !active
    this.#changed()
  }

  confirmed(deliveryTag: number, multiple: boolean, isAck: boolean): void {
    this.confirms?.confirmed(deliveryTag, multiple, isAck)
  }

  delivered(message: DeliveredMessage): void {
    const consuming = this.#consumers?.get(message.consumerTag)
    if (consuming === undefined) {
      // The broker invents consumers: whoever borrows the channel next must not get their messages.
      this.unfit ??= "unclean"
      return
    }
    if (!consuming.start.noAck) {
      const { unsettled } = this
      unsettled.add(message.deliveryTag)
      if (unsettled.size > this.mostUnsettled && this.#isFlooded(message, consuming.start.queue)) return
    }
    consuming.sink.deliver(message)
  }

  /** Whether the broker does not heed `basic.qos`. Closing the channel would leave it to the broker when that ends. */
  #isFlooded({ properties }: DeliveredMessage, queue: string): boolean {
    // It may not have been known that it is one.
    if (properties.headers[offsetName] !== undefined && !this.#isBeyondPrefetch) {
      this.#isBeyondPrefetch = true
      this.mostUnsettled += 2 * mostOfChunk
      return false
    }
    this.link.destroy(
      new AmqpError.ProtocolError({
        message: `basic.consume: the broker has delivered ${this.unsettled.size} messages of the queue ${JSON.stringify(queue)} that are not settled, more than the prefetch allows and RabbitMQ sends beyond it: the connection was ended, before they fill the memory`,
        operation: "basic.consume"
      })
    )
    return true
  }

  cancelled(consumerTag: string): void {
    const consuming = this.#consumers?.get(consumerTag)
    if (consuming === undefined) return
    this.#consumers?.delete(consumerTag)
    consuming.sink.cancelled(consumerTag)
    if (isFrom(this.link.product, 4, 3)) this.#endCancelled(consumerTag)
  }

  /**
   * Since RabbitMQ 4.3 a consumer that it has cancelled for its timeout is still there, and waits for `basic.cancel-ok`: an ack
   * would wake it up, and what it gets then would be stuck here. But a `cancel-ok` for a consumer that has gone with its queue
   * breaks the channel (4.3.6), and the broker's words are the same for both. `basic.cancel` does for both.
   */
  #endCancelled(consumerTag: string): void {
    if (this.#closing || !this.isOpen) return
    // It is answered, or its channel ends.
    this.driver.cancel(consumerTag).then(ignore, ignore)
  }

  returned(message: ReturnedMessage): void {
    const returned = returnedOf(message, message.content)
    this.link.events.onReturned(returned.exchange, returned.routingKey)
    if (this.onReturned !== undefined) this.onReturned(returned)
    else this.confirms?.returned(returned)
  }

  // What came back too large has been read by whoever sent it, and a reply that is has no way back: these are dropped, if
  // it is known whose they are.
  oversized(refused: Refused): boolean {
    const reason = tooLarge(refused, this.link.maxInboundMessageBodySize)
    const { method, size } = refused
    if (method === "basic.return") {
      const returned = returnedOf(refused.message, nothing)
      if (this.onReturned === undefined) {
        if (this.confirms === undefined || this.confirms.returnedUnread(returned, size)) return true
      } else if (!this.readsReturns) {
        this.onReturned(returned)
        return true
      }
    } else if (method === "basic.deliver") {
      const { properties } = refused.message
      for (const { sink } of this.#consumers?.values() ?? [])
        if (sink.oversized?.(properties, reason) === true) return true
    }
    this.refused = reason
    return false
  }

  // Whoever has published it must not be able to end more than the message: it is settled here, and nobody sees it.
  undecodable(refused: Refused, problem: Error): boolean {
    const { method, size } = refused
    const { exchange, properties, routingKey } = refused.message
    const about = { exchange, routingKey, messageId: properties.messageId, size, ...Logging.ofChannel(this) }
    if (method === "basic.return") {
      const returned = returnedOf(refused.message, nothing)
      this.link.undecodable(unreadable(method, "returned", problem), about)
      if (this.onReturned !== undefined) this.onReturned(returned)
      else if (this.confirms?.returnedUndecodable(returned, size) === false) return false
      return true
    }
    const { consumerTag, deliveryTag } = refused.message
    const consuming = method === "basic.get" ? undefined : this.#consumers?.get(consumerTag)
    const start = consuming?.start
    const queue = method === "basic.get" ? refused.queue : start?.queue
    const became = this.#settleUnread(
      deliveryTag,
      method === "basic.get" ? refused.noAck : (start?.noAck ?? false),
      consuming?.sink.isOfStream ?? start?.arguments[offsetName] !== undefined
    )
    const reason = unreadable(method, became, problem)
    this.link.undecodable(reason, { queue, deliveryTag, ...about })
    if (method === "basic.get") refused.fail(AmqpError.fromReason(reason))
    consuming?.sink.undecodable?.(properties, reason)
    return true
  }

  #settleUnread(deliveryTag: number, noAck: boolean, isStream: boolean): Became {
    if (noAck) return "nothing"
    try {
      if (isStream) this.ack(deliveryTag, false)
      else this.reject(deliveryTag, false)
    } catch {
      // The channel is closing: the broker gives the message to somebody else.
    }
    return isStream ? "acked" : "rejected"
  }

  closed(end: ChannelEnd | undefined): void {
    this.#end(end)
    this.#openingEnded(this.closedBy)
  }

  gone(): void {
    const { link } = this
    this.#end(undefined)
    this.#isGone = true
    // With its connection, it is the connection that leaves the budget.
    if (link.closedBy === undefined) this.#ticket.release()
    link.parties.delete(this)
    this.#changed()
  }

  #end(end: ChannelEnd | undefined): void {
    const { link } = this
    if (this.closedBy !== undefined) return
    this.closedBy = this.#closing
      ? new AmqpError.ChannelClosed({ message: "the channel was closed by its pool" })
      : this.refused !== undefined
        ? this.refused
        : end === undefined
          ? link.loss
          : classify(end, { operation: isByPublish(end) ? "basic.publish" : "channel", peer: link.peer })
    this.#unsettled?.clear()
    this.#returning?.clear()
    this.stopped = false
    if (this.confirms !== undefined && this.confirms.size > 0) this.told = true
    this.confirms?.closed(this.closedBy, isByPublish(end))
    const consumers = Array.from(this.#consumers?.values() ?? [])
    this.#consumers?.clear()
    for (const { sink } of consumers) sink.closed(this.closedBy)
    if (this.closedBy._tag === "NotFound") link.events.onChannelClosed(this.closedBy)
    this.#changed()
    this.onClosed?.()
  }

  #changed(): void {
    if (this.#watchers === undefined) return
    // A copy: a watcher that goes back to waiting would be met again by this very loop.
    for (const watcher of Array.from(this.#watchers)) watcher()
  }

  /** What its link forbids or says has changed. */
  linkChanged(): void {
    this.#changed()
  }

  /** Wakes whoever waits on this channel, to look again. */
  wake(): void {
    this.#changed()
  }

  /** Calls `watcher` after every change of what decides about waiting; returns how to stop it. */
  watch(watcher: () => void): () => void {
    const watchers = (this.#watchers ??= new Set())
    watchers.add(watcher)
    return () => watchers.delete(watcher)
  }

  /** Delivery tags that nobody has settled. */
  get unsettled(): Set<number> {
    return (this.#unsettled ??= new Set())
  }

  /** Those of them that go back to their queue by `giveBack`. They stay unsettled: no ack of others may cover them. */
  get returning(): Set<number> {
    return (this.#returning ??= new Set())
  }

  /** Requests whose reply has not come, those of former borrowers included. */
  get sent(): Iterable<Sent> {
    return this.#opening === undefined ? (this.#sent ?? []) : [this.#opening]
  }

  /** A request is sent; returns what to call when it is answered. */
  sending(sent: Sent): () => void {
    const all = (this.#sent ??= new Set())
    all.add(sent)
    return () => all.delete(sent)
  }

  get isOpen(): boolean {
    return this.closedBy === undefined && this.link.closedBy === undefined
  }

  /** Whether nothing of it is left. A channel that the broker has spoilt is closed before its number is free again. */
  get hasEnded(): boolean {
    return this.#isGone || this.link.closedBy !== undefined
  }

  /** Why a publish would not be sent now; undefined when it would. */
  get forbids(): string | undefined {
    return (
      this.link.forbids ??
      (this.stopped ? "the broker has stopped publishers on this channel (channel.flow)" : undefined)
    )
  }

  /** Writes a message. Throws before anything is written, if the channel is closed or closing. */
  publish(outgoing: Outgoing): void {
    // `drained` takes that back.
    if (!this.driver.publish(outgoing)) this.full = true
  }

  /** Sends `basic.ack`. Throws if the channel is closed or closing; so do the next three. */
  ack(deliveryTag: number, multiple: boolean): void {
    this.driver.ack(deliveryTag, multiple)
  }

  /**
   * Acknowledges one delivery of a channel on which nobody else settles. Acks that follow one another may go out as one, of
   * several deliveries, unless some were released.
   */
  acknowledge(deliveryTag: number): void {
    this.unsettled.delete(deliveryTag)
    if (this.hasReleased) this.driver.ack(deliveryTag, false)
    else this.driver.ackAmong(this.unsettled, deliveryTag)
  }

  /** Sends `basic.nack`. */
  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.driver.nack(deliveryTag, multiple, requeue)
  }

  /** Sends `basic.reject`. */
  reject(deliveryTag: number, requeue: boolean): void {
    this.driver.reject(deliveryTag, requeue)
  }

  /** `basic.get`. Its promise may fail with the reason why the message could not be read. */
  async get(queue: string, noAck: boolean): Promise<DeliveredMessage | undefined> {
    const message = await this.driver.get(queue, noAck)
    if (message !== undefined && !noAck) this.unsettled.add(message.deliveryTag)
    return message
  }

  /**
   * Gives back all that is `returning` by one `basic.nack` with `multiple`. That covers every unsettled delivery up to the
   * last one, so nothing is sent while another delivery is in hand. Whether nothing is left unsettled.
   */
  giveBack(): boolean {
    const { returning, unsettled } = this
    if (returning.size < unsettled.size || !this.isOpen) return unsettled.size === 0
    if (returning.size === 0) return true
    try {
      this.nack(Math.max(...returning), true, true)
    } catch {
      // The channel is closing: the broker requeues them with it.
    }
    unsettled.clear()
    returning.clear()
    return true
  }

  /** The queues of its consumers. */
  get queues(): Iterable<string> {
    return Array.from(this.#consumers?.values() ?? [], ({ start }) => start.queue)
  }

  /** How many consumers it has. */
  get consumers(): number {
    return this.#consumers?.size ?? 0
  }

  /** A delivery of a stream has come on it. What settles all at once must leave the channel alone then: it may kill. */
  countOfStream(deliveryTag: number): void {
    const tags = (this.#ofStreams ??= new Set())
    // Those that are settled are of no interest: at most as many are kept as are unsettled, and some.
    if (tags.size > 2 * this.unsettled.size + 1000) {
      for (const tag of tags) if (!this.unsettled.has(tag)) tags.delete(tag)
    }
    tags.add(deliveryTag)
  }

  /** Whether an unsettled delivery up to this tag is known to be of a stream, which takes no `basic.nack`. */
  holdsOfStream(upTo = Infinity): boolean {
    for (const tag of this.#ofStreams ?? []) if (tag <= upTo && this.unsettled.has(tag)) return true
    return false
  }

  /** `basic.consume`. The sink hears everything until `cancel` or the end. Its tag: the one that is given, or ours. */
  consume(start: ConsumerStart, sink: ConsumerSink): Promise<string> {
    // Deliveries may stand right behind the answer: the broker must not choose it.
    const consumerTag = start.consumerTag === "" ? `ctag-${randomUUID()}` : start.consumerTag
    mustFit("basic.consume", [start.queue, consumerTag], start.arguments, this.link.frameMax)
    ;(this.#consumers ??= new Map()).set(consumerTag, { start, sink })
    return this.driver.consume(start.queue, consumerTag, start).then(
      () => consumerTag,
      (cause) => {
        this.#consumers?.delete(consumerTag)
        throw cause
      }
    )
  }

  /** `basic.cancel`. The sink hears nothing any more when it has been answered. */
  async cancel(consumerTag: string): Promise<void> {
    const consuming = this.#consumers?.get(consumerTag)
    await this.driver.cancel(consumerTag)
    // If the broker has cancelled it meanwhile, the tag may be another consumer's now.
    if (this.#consumers?.get(consumerTag) === consuming) this.#consumers?.delete(consumerTag)
  }

  /** Whether the next borrower may have it as it is. */
  get isFit(): boolean {
    return this.unfit === undefined && (this.#sent?.size ?? 0) === 0 && this.isOpen
  }

  /**
   * Puts the channel into the state a borrower finds it in: unsettled deliveries go back to their queue, returned messages
   * to nobody. Consumers, pending confirms, another prefetch and an open transaction would take a round trip to undo: a
   * channel with these is discarded. Without a round
   * trip, since a channel handles its methods in order. What cannot be put right is marked unfit.
   */
  clean(): void {
    this.onReturned = undefined
    this.readsReturns = false
    if (this.altered || this.consumers > 0 || (this.confirms?.size ?? 0) > 0) this.unfit ??= "unclean"
    // It may refuse all that follows: see `publisher/lane.ts`.
    if (this.confirms?.hasRefused === true) this.unfit ??= "refused"
    if ((this.#unsettled?.size ?? 0) > 0 && this.isOpen) {
      // A stream takes no `basic.nack`, over which RabbitMQ 3.10 closes the connection. The channel's end gives them back.
      const isHarmful = this.holdsOfStream()
      this.unsettled.clear()
      if (isHarmful) {
        this.unfit ??= "unclean"
        return
      }
      try {
        this.driver.nack(0, true, true)
      } catch {
        this.unfit ??= "unclean"
      }
    }
  }

  /** `channel.close`, bounded by `timeout`. Never fails: a channel that does not answer is left to its connection's end. */
  close(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (!this.hasEnded && this.closedBy === undefined) this.abandon()
      return this.ended
    }).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.sync(() => this.link.unanswered()) }),
      Effect.asVoid
    )
  }

  /** Completes when nothing of it is left: the broker has answered `channel.close`, or the connection has ended. */
  get ended(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.hasEnded) return resume(Effect.void)
      const stop = this.watch(() => {
        if (this.hasEnded) resume(Effect.sync(stop))
      })
      return Effect.sync(stop)
    })
  }

  /** Closes a channel that nobody wants any more, without waiting: at once or, if it is opening, when it has opened. */
  abandon(): void {
    this.#closing = true
    this.driver.close()
  }
}

// Whether the broker closed the channel over a `basic.publish`.
const isByPublish = (end: unknown) => end instanceof BrokerClose && end.classId === classBasic && end.methodId === 40
