/**
 * One AMQP channel, open or closed. It is held by a pool place, a publisher channel or a subscription.
 *
 * The channel records whether the next borrower may use it. It is the `ChannelEvents` of its driver channel, from its
 * creation until the event `gone`. Operations wait through `watch` and never add listeners of their own, so no listener
 * can be left behind.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import * as AmqpError from "../../model/error.ts"
import type { Returned } from "../../model/channel.ts"
import type { DeliveredProperties } from "../../model/message.ts"
import { type Attribution, type LinkChannel, SentMethod } from "../connection/attribution.ts"
import type { Link } from "../connection/link.ts"
import * as Logging from "../telemetry/logging.ts"
import { isAtLeast } from "../wire/versions.ts"
import type { ChannelPermit } from "../connection/channelBudget.ts"
import { classify } from "../connection/classify.ts"
import { Confirms } from "./confirms.ts"
import { assertFits } from "../wire/declarations.ts"
import { type Disposition, messageTooLarge, unreadable } from "./inboundFailures.ts"
import {
  BrokerClose,
  type ChannelEnd,
  type ChannelEvents,
  type DeliveredMessage,
  type DriverChannel,
  type DroppedMessage,
  type ReturnedMessage
} from "../driver/driver.ts"
import type { Outgoing } from "../wire/properties.ts"
import { offsetName } from "../wire/streams.ts"
import { classBasic } from "../wire/protocol.ts"
import type { Kind, ConsumerStart } from "../../model/channel.ts"
import type { DiscardReason } from "../metrics/measures.ts"

/** Receives the deliveries of one consumer. No member may throw: an exception would end the connection. */
export interface ConsumerSink {
  /** Called in the order of the deliveries. Deliveries can arrive before the promise of `Channel.consume` resolves. */
  readonly deliver: (message: DeliveredMessage) => void
  /** The broker has cancelled the consumer (`basic.cancel`). */
  readonly cancelled: (consumerTag: string) => void
  /** The consumer's channel has closed. */
  readonly closed: (reason: AmqpError.AmqpErrorReason) => void
  /**
   * A delivery is larger than `maxInboundMessageBodySize`. Only consumers whose deliveries cannot be requeued (replies)
   * have this. Returns whether the consumer has handled it, so that the channel can stay open.
   */
  readonly oversized?: (properties: DeliveredProperties, reason: AmqpError.MessageTooLarge) => boolean
  /** Whether the queue is known to be a stream, whose deliveries can only be settled with `basic.ack`. */
  readonly isOfStream?: boolean
  /** The header of a delivery cannot be read. It is already settled and is not passed to `deliver`. */
  readonly undecodable?: (properties: DeliveredProperties, reason: AmqpError.DecodeFailed) => void
}

/** A consumer of the channel. */
interface ActiveConsumer {
  readonly start: ConsumerStart
  readonly sink: ConsumerSink
}

/** Why a channel is not leased again although it may still be open. */
type OpenDiscardReason = Exclude<DiscardReason, "channel_error" | "connection_lost">

const returnedOf = (
  { exchange, properties, replyCode, replyText, routingKey }: Omit<ReturnedMessage, "content">,
  content: Uint8Array
): Returned => ({ content, properties, exchange, routingKey, replyCode, replyText })

const nothing = new Uint8Array(0)

const ignore = () => {}

/**
 * Maximum number of entries in one chunk of a stream. The field has 16 bits
 * (https://github.com/rabbitmq/osiris/blob/main/src/osiris_log.erl). RabbitMQ completes a chunk that it has begun to
 * send, even if that exceeds the prefetch.
 */
const maxChunkEntries = 65_535

export class Channel implements LinkChannel, ChannelEvents {
  readonly kind: Kind
  readonly driver: DriverChannel
  readonly link: Link
  /** The publishes that wait for their confirms; undefined unless this is a confirm channel. */
  readonly confirms: Confirms | undefined
  /** Why the channel has closed; undefined while it is open. */
  closedBy: AmqpError.AmqpErrorReason | undefined = undefined
  /** The error of a message larger than `maxInboundMessageBodySize` that made the channel close. */
  tooLarge: AmqpError.MessageTooLarge | undefined = undefined
  /** Set by an operation after which the channel must not be leased again, although it may still be open. */
  discardReason: OpenDiscardReason | undefined = undefined
  /**
   * Whether an operation has failed with `closedBy`. If so, its caller knows the reason, and the pool does not log it.
   */
  isReported = false
  /** Called once, when the channel has closed. */
  onClosed: (() => void) | undefined = undefined
  /** Whether a method on this channel caused the end of its connection: certainly, possibly or not. */
  attribution: Attribution = "none"
  /** Whether the write buffer is full. A publish sets it, and `drained` clears it. */
  isWriteBufferFull = false
  /** Whether the broker has stopped publishing on this channel (`channel.flow`). */
  isFlowStopped = false
  /** Whether requeues are collected in `deferredRequeues` until `requeueDeferred` sends them. */
  defersRequeues = false
  /**
   * Whether `unsettled` lacks deliveries that the broker may still count as unsettled. An ack with `multiple` would
   * acknowledge them too, so from then on each ack covers one delivery only.
   */
  hasReleased = false
  /**
   * Tags of deliveries from streams, including settled ones that were not removed yet: see `trackStreamDelivery`.
   * Undefined until the first one arrives.
   */
  #streamTags: Set<number> | undefined = undefined
  /** Whether deliveries that cannot be read stay unsettled, so that they return to their queue with the channel. */
  keepsUnreadable = false
  /** Whether an operation has changed what only a round trip can undo: prefetch, flow, an open transaction. */
  isAltered = false
  /**
   * Maximum number of unsettled deliveries. If there are more, the broker ignores `basic.qos`. Infinity unless the
   * holder of the channel sets it.
   */
  maxUnsettled = Infinity
  /** Whether `maxUnsettled` already includes the chunks of a stream that RabbitMQ sends beyond the prefetch. */
  #includesStreamChunks = false
  /** Receives returned messages. Without it, a confirm channel assigns each returned message to its publish. */
  onReturned: ((returned: Returned) => void) | undefined = undefined
  /** Whether `onReturned` needs the content of returned messages. */
  readsReturns = false

  // These fields are created on first use, since a pool has many channels, and most of them are idle.
  #pendingRequests: Set<SentMethod> | undefined = undefined
  #unsettled: Set<number> | undefined = undefined
  #deferredRequeues: Set<number> | undefined = undefined
  #watchers: Set<() => void> | undefined = undefined
  /** By consumer tag. */
  #consumers: Map<string, ActiveConsumer> | undefined = undefined
  /** The `channel.open` request, until it is answered. */
  #opening: SentMethod | undefined = new SentMethod("channel.open", [])
  /** Called once with the result of the opening: undefined if the channel has opened, otherwise the failure. */
  #onOpening: ((failure: unknown) => void) | undefined
  #closing = false
  /** Whether the close is complete: both sides have closed the channel, and its number is free again. */
  #isGone = false

  readonly #permit: ChannelPermit

  /** @param onOpening called once: with undefined when the channel has opened, or with the failure */
  constructor(link: Link, kind: Kind, permit: ChannelPermit, onOpening: (failure: unknown) => void) {
    this.#permit = permit
    permit.isOwned = true
    this.kind = kind
    this.link = link
    this.confirms = kind === "confirm" ? new Confirms() : undefined
    this.#onOpening = onOpening
    link.channels.add(this)
    this.driver = link.openChannel(this)
  }

  // --- Events of the driver: see `ChannelEvents` ---------------------------------------------------------------------

  opened(): void {
    this.#permit.opened()
    this.#opening = undefined
    this.#openingEnded(undefined)
  }

  notOpened(cause: unknown): void {
    this.#closing = true
    this.gone()
    this.#openingEnded(cause)
  }

  #openingEnded(failure: unknown): void {
    const onOpenResult = this.#onOpening
    this.#onOpening = undefined
    onOpenResult?.(failure)
  }

  drained(): void {
    this.isWriteBufferFull = false
    this.#changed()
  }

  flow(active: boolean): void {
    this.isFlowStopped = !active
    this.#changed()
  }

  confirmed(deliveryTag: number, multiple: boolean, isAck: boolean): void {
    this.confirms?.confirmed(deliveryTag, multiple, isAck)
  }

  delivered(message: DeliveredMessage): void {
    const consumer = this.#consumers?.get(message.consumerTag)
    if (consumer === undefined) {
      // The broker delivers to a consumer that this channel does not have. The next borrower must not get its messages.
      this.discardReason ??= "unclean"
      return
    }
    if (!consumer.start.noAck) {
      const { unsettled } = this
      unsettled.add(message.deliveryTag)
      if (unsettled.size > this.maxUnsettled && this.#exceedsPrefetch(message, consumer.start.queue)) return
    }
    consumer.sink.deliver(message)
  }

  /**
   * Ends the connection if the broker ignores `basic.qos`, and returns whether it does. It is not enough to close the
   * channel: the broker could continue to deliver until it answers the close.
   */
  #exceedsPrefetch({ properties }: DeliveredMessage, queue: string): boolean {
    // The queue is a stream. This may not have been known before.
    if (properties.headers[offsetName] !== undefined && !this.#includesStreamChunks) {
      this.#includesStreamChunks = true
      this.maxUnsettled += 2 * maxChunkEntries
      return false
    }
    this.link.destroy(
      new AmqpError.ProtocolError({
        message: `basic.consume: the broker ignores the prefetch: expected at most ${this.maxUnsettled} unsettled deliveries, got ${this.unsettled.size} from queue ${JSON.stringify(queue)}. The connection was ended before they could fill the memory.`,
        operation: "basic.consume"
      })
    )
    return true
  }

  cancelled(consumerTag: string): void {
    const consumer = this.#consumers?.get(consumerTag)
    if (consumer === undefined) return
    this.#consumers?.delete(consumerTag)
    consumer.sink.cancelled(consumerTag)
    if (isAtLeast(this.link.product, 4, 3)) this.#endCancelled(consumerTag)
  }

  /**
   * Sends `basic.cancel` for a consumer that the broker has cancelled.
   *
   * Since RabbitMQ 4.3 a consumer that was cancelled for its timeout still exists and waits for `basic.cancel-ok`. An
   * ack would resume it, and its further deliveries would be stuck here. But a `basic.cancel-ok` for a consumer whose
   * queue was deleted breaks the channel (4.3.6), and the broker's `basic.cancel` is the same in both cases. Our own
   * `basic.cancel` works in both.
   */
  #endCancelled(consumerTag: string): void {
    if (this.#closing || !this.isOpen) return
    // The result does not matter: the broker answers, or the channel ends.
    this.driver.cancel(consumerTag).then(ignore, ignore)
  }

  returned(message: ReturnedMessage): void {
    const returned = returnedOf(message, message.content)
    this.link.events.onReturned(returned.exchange, returned.routingKey)
    if (this.onReturned !== undefined) this.onReturned(returned)
    else this.confirms?.returned(returned)
  }

  // A returned message is dropped if its publish is known, because its publisher already has the content. A reply is
  // dropped if its call is known, because a reply cannot be requeued. In all other cases the channel is closed.
  oversized(dropped: DroppedMessage): boolean {
    const reason = messageTooLarge(dropped, this.link.maxInboundMessageBodySize)
    const { method, size } = dropped
    if (method === "basic.return") {
      const returned = returnedOf(dropped.message, nothing)
      if (this.onReturned === undefined) {
        if (this.confirms === undefined || this.confirms.returnedOversized(returned, size)) return true
      } else if (!this.readsReturns) {
        this.onReturned(returned)
        return true
      }
    } else if (method === "basic.deliver") {
      const { properties } = dropped.message
      for (const { sink } of this.#consumers?.values() ?? [])
        if (sink.oversized?.(properties, reason) === true) {
          if (this.keepsUnreadable) this.hasReleased = true
          return true
        }
    }
    this.tooLarge = reason
    return false
  }

  // A publisher must not be able to affect other messages than its own with an unreadable header. So such a message is
  // settled here and not delivered.
  undecodable(dropped: DroppedMessage, problem: Error): boolean {
    const { method, size } = dropped
    const { exchange, properties, routingKey } = dropped.message
    const about = { exchange, routingKey, messageId: properties.messageId, size, ...Logging.channelAnnotations(this) }
    if (method === "basic.return") {
      const returned = returnedOf(dropped.message, nothing)
      this.link.undecodable(unreadable(method, "returned", problem), about)
      if (this.onReturned !== undefined) this.onReturned(returned)
      else if (this.confirms?.returnedUndecodable(returned, size) === false) return false
      return true
    }
    const { consumerTag, deliveryTag } = dropped.message
    const consumer = method === "basic.get" ? undefined : this.#consumers?.get(consumerTag)
    const start = consumer?.start
    const queue = method === "basic.get" ? dropped.queue : start?.queue
    const disposition = this.#settleUnread(
      deliveryTag,
      method === "basic.get" ? dropped.noAck : (start?.noAck ?? false),
      consumer?.sink.isOfStream ?? start?.arguments[offsetName] !== undefined
    )
    const reason = unreadable(method, disposition, problem)
    this.link.undecodable(reason, { queue, deliveryTag, ...about })
    if (method === "basic.get") dropped.fail(AmqpError.fromReason(reason))
    consumer?.sink.undecodable?.(properties, reason)
    return true
  }

  #settleUnread(deliveryTag: number, noAck: boolean, isStream: boolean): Disposition {
    if (noAck) return "nothing"
    if (this.keepsUnreadable) {
      // `unsettled` lacks it, so an ack with `multiple` would remove it.
      this.hasReleased = true
      return "kept"
    }
    try {
      if (isStream) this.ack(deliveryTag, false)
      else this.reject(deliveryTag, false)
    } catch {
      // The channel is closing: the broker requeues the message.
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
    // When the connection has ended, the budget has already removed all of its channels.
    if (link.closedBy === undefined) this.#permit.release()
    link.channels.delete(this)
    this.#changed()
  }

  #end(end: ChannelEnd | undefined): void {
    const { link } = this
    if (this.closedBy !== undefined) return
    this.closedBy = this.#closing
      ? new AmqpError.ChannelClosed({ message: "the channel was closed by this application" })
      : this.tooLarge !== undefined
        ? this.tooLarge
        : end === undefined
          ? link.loss
          : classify(end, { operation: isByPublish(end) ? "basic.publish" : "channel", peer: link.peer })
    this.#unsettled?.clear()
    this.#deferredRequeues?.clear()
    this.isFlowStopped = false
    if (this.confirms !== undefined && this.confirms.size > 0) this.isReported = true
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
    // The loop uses a copy, because a watcher that is removed and added again during the loop would be called twice.
    for (const watcher of Array.from(this.#watchers)) watcher()
  }

  /** The state of the link has changed, such as whether publishing is forbidden. */
  linkChanged(): void {
    this.#changed()
  }

  /** Calls all watchers, so that they check their conditions again. */
  wake(): void {
    this.#changed()
  }

  /** Calls `watcher` after every change that can end a wait. Returns a function that removes it. */
  watch(watcher: () => void): () => void {
    const watchers = (this.#watchers ??= new Set())
    watchers.add(watcher)
    return () => watchers.delete(watcher)
  }

  /** Tags of unsettled deliveries. */
  get unsettled(): Set<number> {
    return (this.#unsettled ??= new Set())
  }

  /**
   * Deliveries that `requeueDeferred` will requeue. They stay in `unsettled`, so that no ack of other deliveries covers
   * them.
   */
  get deferredRequeues(): Set<number> {
    return (this.#deferredRequeues ??= new Set())
  }

  /** Requests that are not answered yet, including those of earlier borrowers. */
  get pendingRequests(): Iterable<SentMethod> {
    return this.#opening === undefined ? (this.#pendingRequests ?? []) : [this.#opening]
  }

  /** Records a request that is being sent. Returns a function that must be called when the request is answered. */
  trackRequest(sent: SentMethod): () => void {
    const all = (this.#pendingRequests ??= new Set())
    all.add(sent)
    return () => all.delete(sent)
  }

  get isOpen(): boolean {
    return this.closedBy === undefined && this.link.closedBy === undefined
  }

  /**
   * Whether the close is complete. After a channel error the channel is already closed, but its number is free only
   * when both sides have closed it.
   */
  get hasEnded(): boolean {
    return this.#isGone || this.link.closedBy !== undefined
  }

  /** Why the broker forbids a publish now; undefined if it does not. */
  get forbiddenReason(): string | undefined {
    return (
      this.link.publishForbiddenReason ??
      (this.isFlowStopped ? "the broker has stopped publishing on this channel (channel.flow)" : undefined)
    )
  }

  /** Writes a message. Throws, before it writes anything, if the channel is closed or closing. */
  publish(outgoing: Outgoing): void {
    if (!this.driver.publish(outgoing)) this.isWriteBufferFull = true
  }

  /** Sends `basic.ack`. Throws if the channel is closed or closing. */
  ack(deliveryTag: number, multiple: boolean): void {
    this.driver.ack(deliveryTag, multiple)
  }

  /**
   * Acknowledges one delivery. Use it only on a channel on which every delivery is acknowledged with this method:
   * consecutive acks may be merged into one `basic.ack` with `multiple`, unless `hasReleased` is true. Throws if the
   * channel is closed or closing.
   */
  acknowledge(deliveryTag: number): void {
    this.unsettled.delete(deliveryTag)
    if (this.hasReleased) this.driver.ack(deliveryTag, false)
    else this.driver.ackAmong(this.unsettled, deliveryTag)
  }

  /** Sends `basic.nack`. Throws if the channel is closed or closing. */
  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.driver.nack(deliveryTag, multiple, requeue)
  }

  /** Sends `basic.reject`. Throws if the channel is closed or closing. */
  reject(deliveryTag: number, requeue: boolean): void {
    this.driver.reject(deliveryTag, requeue)
  }

  /** Sends `basic.get`. The promise also rejects when the message cannot be read. */
  async get(queue: string, noAck: boolean): Promise<DeliveredMessage | undefined> {
    const message = await this.driver.get(queue, noAck)
    if (message !== undefined && !noAck) this.unsettled.add(message.deliveryTag)
    return message
  }

  /**
   * Requeues all `deferredRequeues` with one `basic.nack` with `multiple`. It would also requeue every other unsettled
   * delivery up to the last tag, so nothing is sent while there is one. Returns whether no delivery is unsettled now.
   */
  requeueDeferred(): boolean {
    const { deferredRequeues, unsettled } = this
    if (deferredRequeues.size < unsettled.size || !this.isOpen) return unsettled.size === 0
    if (deferredRequeues.size === 0) return true
    try {
      this.nack(Math.max(...deferredRequeues), true, true)
    } catch {
      // The channel is closing: the broker requeues its deliveries.
    }
    unsettled.clear()
    deferredRequeues.clear()
    return true
  }

  /** The queues of the consumers. */
  get queues(): Iterable<string> {
    return Array.from(this.#consumers?.values() ?? [], ({ start }) => start.queue)
  }

  /** The number of consumers. */
  get consumers(): number {
    return this.#consumers?.size ?? 0
  }

  /**
   * Records a delivery from a stream. While it is unsettled, `basic.recover` and any `basic.nack` that covers it must
   * not be sent: RabbitMQ may close the connection.
   */
  trackStreamDelivery(deliveryTag: number): void {
    const tags = (this.#streamTags ??= new Set())
    // Tags of settled deliveries are removed from time to time, so that the set stays in proportion to `unsettled`.
    if (tags.size > 2 * this.unsettled.size + 1000) {
      for (const tag of tags) if (!this.unsettled.has(tag)) tags.delete(tag)
    }
    tags.add(deliveryTag)
  }

  /**
   * Whether an unsettled delivery up to this tag is known to come from a stream, which does not support `basic.nack`.
   */
  hasUnsettledStreamDelivery(upTo = Infinity): boolean {
    for (const tag of this.#streamTags ?? []) if (tag <= upTo && this.unsettled.has(tag)) return true
    return false
  }

  /**
   * Sends `basic.consume`. The sink gets all events until `cancel` is answered or the channel ends. Resolves with the
   * consumer tag: the given one, or a generated one if the given one is empty.
   */
  consume(start: ConsumerStart, sink: ConsumerSink): Promise<string> {
    // The library chooses the tag, not the broker: deliveries may follow the answer in the same read from the socket.
    const consumerTag = start.consumerTag === "" ? `ctag-${randomUUID()}` : start.consumerTag
    assertFits("basic.consume", [start.queue, consumerTag], start.arguments, this.link.frameMax)
    ;(this.#consumers ??= new Map()).set(consumerTag, { start, sink })
    return this.driver.consume(start.queue, consumerTag, start).then(
      () => consumerTag,
      (cause) => {
        this.#consumers?.delete(consumerTag)
        throw cause
      }
    )
  }

  /** Sends `basic.cancel`. The sink gets no further events after the answer. */
  async cancel(consumerTag: string): Promise<void> {
    const consumer = this.#consumers?.get(consumerTag)
    await this.driver.cancel(consumerTag)
    // If the broker cancelled the consumer in the meantime, another consumer may have the tag now.
    if (this.#consumers?.get(consumerTag) === consumer) this.#consumers?.delete(consumerTag)
  }

  /** Whether the channel can be leased again in its present state. */
  get isReusable(): boolean {
    return this.discardReason === undefined && (this.#pendingRequests?.size ?? 0) === 0 && this.isOpen
  }

  /**
   * Resets the channel for the next borrower: requeues unsettled deliveries and drops returned messages.
   *
   * This needs no round trip, since a channel handles its methods in order. Consumers, pending confirms, a changed
   * prefetch and an open transaction would need a round trip to undo, so a channel with any of these gets a discard
   * reason. So does a channel whose reset fails.
   */
  reset(): void {
    this.onReturned = undefined
    this.readsReturns = false
    if (this.isAltered || this.consumers > 0 || (this.confirms?.size ?? 0) > 0) this.discardReason ??= "unclean"
    // The broker may reject every further message on this channel: see `#onNacked` in `publisher/publisherChannel.ts`.
    if (this.confirms?.hasNacked === true) this.discardReason ??= "refused"
    if ((this.#unsettled?.size ?? 0) > 0 && this.isOpen) {
      // Streams do not support `basic.nack`; RabbitMQ 3.10 closes the connection over it. Closing the channel returns
      // the deliveries instead.
      const hasStreamDelivery = this.hasUnsettledStreamDelivery()
      this.unsettled.clear()
      if (hasStreamDelivery) {
        this.discardReason ??= "unclean"
        return
      }
      try {
        this.driver.nack(0, true, true)
      } catch {
        this.discardReason ??= "unclean"
      }
    }
  }

  /**
   * Closes the channel and waits for the broker's answer, at most for `timeout`. Never fails. A channel whose close is
   * not answered ends with its connection.
   */
  close(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (!this.hasEnded && this.closedBy === undefined) this.abandon()
      return this.ended
    }).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.sync(() => this.link.recordUnanswered()) }),
      Effect.asVoid
    )
  }

  /** Waits until the close is complete: the broker has answered `channel.close`, or the connection has ended. */
  get ended(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.hasEnded) return resume(Effect.void)
      const stop = this.watch(() => {
        if (this.hasEnded) resume(Effect.sync(stop))
      })
      return Effect.sync(stop)
    })
  }

  /**
   * Closes the channel without waiting for the answer. A channel that is still opening is closed once it has opened.
   */
  abandon(): void {
    this.#closing = true
    this.driver.close()
  }
}

// Whether the broker closed the channel because of a `basic.publish` (class 60, method 40).
const isByPublish = (end: unknown) => end instanceof BrokerClose && end.classId === classBasic && end.methodId === 40
