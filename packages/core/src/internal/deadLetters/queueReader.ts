/**
 * Reads the messages of a queue from its head, and settles or returns them, on a channel of its own.
 *
 * A message that is to stay in its queue remains unsettled until the end, because a message that is returned would be
 * delivered again at once. A consumer gets no more than its prefetch, so when most of it is held this way, another
 * consumer is added. None is cancelled before the end: a quorum queue moves the messages that are on their way to a
 * cancelled consumer to its end. The broker holds what is unsettled; this process only counts it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import * as AmqpError from "../../model/error.ts"
import type { DeliveredProperties } from "../../model/message.ts"
import { fail } from "../../model/failures.ts"
import type { ConsumerSink } from "../channel/channel.ts"
import { ChannelHandle, type ChannelTimeouts, asChannelClosed } from "../channel/channelHandle.ts"
import { openChannel } from "../channel/openChannel.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { onClock } from "../waiting/onClock.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { isAtLeast } from "../wire/versions.ts"
import { limitOf, type QueueFacts, refusedStream, returnsLeft } from "./queueFacts.ts"
import { sizeOf } from "./sizes.ts"

const notOpen = new AmqpError.ChannelClosed({ message: "the channel of this operation is not open. Nothing was sent." })

/** Maximum number of messages that are delivered and not handled yet. */
export const maxAhead = 2000

/** The same for the first consumer of a queue from which one message cannot be got. */
const firstAhead = 64

/** The size that these messages together should not exceed, in bytes, by the average of those before. */
const maxBytesAhead = 32 * 1024 * 1024

/** The size that they do not exceed, in bytes: later messages may be larger than those before. */
const maxArrivedBytes = 2 * maxBytesAhead

/** The number of `basic.get` that are in flight at the same time. */
const maxGets = 32

const overflown = new AmqpError.ChannelClosed({
  message: "AmqpDeadLetters: messages are larger than those before, and are read again with fewer of them ahead."
})

/** Maximum number of kept messages whose tags are held, so that acknowledgements can be merged. */
const maxTags = 10_000

/** The pause between two looks at whether a queue has its messages back, in milliseconds. */
const returnPause = 20

/** How many of these moments must pass without a message before a queue counts as empty that cannot be asked. */
const quietRounds = 10

/** How long nothing must arrive before the count of the queue is asked for, in milliseconds. */
const quietMillis = 200

/**
 * A message of a queue with a small delivery limit is published again when it has no more returns than that left. A lost
 * connection returns it, and that of another operation on the queue may return it again, before it is handled here.
 */
const leastReturns = 3

export class QueueReader extends ChannelHandle implements ConsumerSink {
  /** Number of messages that stay in the queue and are unsettled. */
  kept = 0
  /** Number of messages that were delivered and are not settled, those that cannot be read included. */
  #unsettled = 0
  #hasAcknowledged = false
  /** Number of messages that cannot be read. They stay in the queue. */
  unreadable = 0
  readonly #queue: string
  readonly #facts: QueueFacts
  readonly #closeTimeout: Duration.Duration
  /** Messages that were delivered and not taken; those before `#next` were. */
  #arrived: Array<DeliveredMessage> = []
  /** Their sizes, in bytes. */
  #arrivedSizes: Array<number> = []
  #next = 0
  #onChange: () => void = () => {}
  /**
   * Maximum number of messages that may still be delivered. It becomes negative: each acknowledgement lets a consumer
   * get another message, and those beyond the budget are returned.
   */
  #budget: number
  /** Maximum number of messages that may still be taken. */
  #takes: number
  readonly #consumerTags = new Set<string>()
  /** Whether one of them has got a message. */
  #isConsuming = false
  /** Number of consumers that were added. */
  #consumers = 0
  /** How many messages all consumers together can hold. */
  #prefetch = 0
  readonly #name = `dead-letters-${randomUUID()}`
  #bytes = 0
  #count = 0
  #arrivedBytes = 0
  readonly #maxAhead: number
  /**
   * Whether messages arrived that together are too large to be held. They are not settled, so that they return to the
   * queue with those that stay, and are read with fewer ahead.
   */
  isOverflown = false
  #isEmpty = false
  #ended: AmqpError.AmqpErrorReason | undefined = undefined

  /**
   * @param budget maximum number of messages that are taken from the queue
   * @param mostAhead maximum number of messages that are delivered and not handled yet
   */
  constructor(
    timeouts: ChannelTimeouts,
    queue: string,
    facts: QueueFacts,
    budget: number,
    closeTimeout: Duration.Duration,
    mostAhead: number
  ) {
    super(timeouts, notOpen)
    this.#maxAhead = mostAhead
    this.#queue = queue
    this.#facts = facts
    this.#budget = budget
    this.#takes = budget
    this.#closeTimeout = closeTimeout
  }

  // --- Opening and closing -------------------------------------------------------------------------------------------

  open(internals: ConnectionInternals): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.flatMap(internals.nextLink, (link) =>
      openChannel(link, "regular", this.timeouts.continuationTimeout, (channel) => {
        this.held = channel
        channel.keepsUnreadable = true
      })
    )
  }

  /** Number of messages in the queue that no consumer holds. The broker has handled everything that was sent before. */
  get ready(): Effect.Effect<number, AmqpError.AmqpError> {
    return Effect.map(
      this.request("queue.declare", (driver) => driver.queueDeclarePassive(this.#queue), [this.#queue]),
      ({ messageCount }) => messageCount
    )
  }

  /** Returns what is unsettled, and closes the channel. Takes `closeTimeout` for each step at most. */
  close(internals: ConnectionInternals): Effect.Effect<void> {
    return Effect.suspend(() => {
      const channel = this.held
      if (channel === undefined) return Effect.void
      const bounded = (step: Effect.Effect<unknown, AmqpError.AmqpError>) =>
        Effect.ignore(Effect.timeoutOption(step, this.#closeTimeout))
      const closing = channel.close(this.#closeTimeout)
      if (!this.#returnsByClose) return Effect.andThen(bounded(this.#giveBack), closing)
      let expected = 0
      const count = Effect.andThen(
        this.settled,
        Effect.map(this.ready, (ready) => {
          expected = ready + this.#unsettled
        })
      )
      return bounded(count).pipe(
        Effect.andThen(closing),
        Effect.andThen(Effect.suspend(() => bounded(expected > 0 ? this.#returned(internals, expected) : Effect.void)))
      )
    })
  }

  /**
   * Waits until the queue has the acknowledgements. The channel of a quorum queue collects them while the queue is slow,
   * and forgets them with its end: the messages would be delivered again. A cancel goes through the queue's log, so
   * before it is answered the channel has heard from the queue; it sends what it has collected before it handles the next
   * method. Nothing is delivered afterwards.
   */
  get settled(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (!this.#hasAcknowledged) return Effect.void
      const stop = this.#facts.type === "classic" ? Effect.void : this.#stopConsumers
      return Effect.andThen(
        stop,
        Effect.map(this.ready, () => {
          this.#hasAcknowledged = false
        })
      )
    })
  }

  /**
   * Whether the end of the channel returns the messages. A quorum queue before RabbitMQ 4.3 keeps their order then,
   * whereas it moves what `basic.nack` returns to its end if it has no delivery limit. Both count as a return.
   *
   * From 4.3 on `basic.nack` does not count. For a classic queue both have the same effect.
   */
  get #returnsByClose(): boolean {
    return this.#facts.type !== "classic" && !isAtLeast(this.held?.link.product ?? "", 4, 3)
  }

  /** Waits until the queue has the messages of a closed channel, so that the next operation finds them. */
  #returned(internals: ConnectionInternals, expected: number): Effect.Effect<void, AmqpError.AmqpError> {
    const check: Effect.Effect<void, AmqpError.AmqpError> = Effect.flatMap(this.ready, (ready) =>
      ready >= expected ? Effect.void : Effect.andThen(Effect.sleep(returnPause), check)
    )
    return Effect.ensuring(
      Effect.andThen(this.open(internals), check),
      Effect.suspend(() => this.held?.close(this.#closeTimeout) ?? Effect.void)
    )
  }

  // The end of the channel returns the messages too, but the queue learns of it later than this client.
  get #giveBack(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.held
      if (channel === undefined || !channel.isOpen) return Effect.void
      return Effect.andThen(
        this.#stopConsumers,
        Effect.suspend(() => {
          this.#dropArrived()
          try {
            // Tag 0 with `multiple`: all unsettled deliveries.
            channel.nack(0, true, true)
          } catch {
            return Effect.void
          }
          channel.unsettled.clear()
          return Effect.asVoid(this.ready)
        })
      )
    })
  }

  #dropArrived(): void {
    this.#arrived = []
    this.#arrivedSizes = []
    this.#next = 0
    this.#arrivedBytes = 0
  }

  // --- Events --------------------------------------------------------------------------------------------------------

  deliver(message: DeliveredMessage): void {
    this.#isConsuming ||= this.#consumerTags.size > 0
    this.#budget--
    this.#count++
    this.#unsettled++
    const size = sizeOf(message)
    this.#bytes += size
    if (this.#arrivedBytes > 0 && this.#arrivedBytes + size > maxArrivedBytes) this.isOverflown = true
    if (!this.isOverflown) {
      this.#arrivedBytes += size
      this.#arrived.push(message)
      this.#arrivedSizes.push(size)
    }
    this.#onChange()
  }

  cancelled(consumerTag: string): void {
    if (!this.#consumerTags.delete(consumerTag)) return
    this.#ended ??= new AmqpError.ConsumerCancelled({
      message: `basic.consume: the broker has cancelled the consumer of the queue ${JSON.stringify(this.#queue)}: the queue was deleted, or its node has stopped. What was unsettled is in the queue, if it exists.`,
      queue: this.#queue,
      consumerTag
    })
    this.#onChange()
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    this.#ended ??= asChannelClosed(reason)
    this.#dropArrived()
    this.#onChange()
  }

  oversized(): boolean {
    this.#unread()
    return true
  }

  undecodable(_properties: DeliveredProperties): void {
    this.#unread()
  }

  // It was not settled, and counts towards the prefetch until the end.
  #unread(): void {
    this.#budget--
    this.#takes--
    this.#unsettled++
    this.unreadable++
    this.kept++
    this.#onChange()
  }

  // --- Taking --------------------------------------------------------------------------------------------------------

  /** The next message; `undefined` if none has arrived. */
  takeNow(): DeliveredMessage | undefined {
    if (this.#next === this.#arrived.length || this.#takes <= 0) return undefined
    this.#takes--
    const message = this.#arrived[this.#next]!
    this.#arrivedBytes -= this.#arrivedSizes[this.#next]!
    this.#next++
    if (this.#next === this.#arrived.length) this.#dropArrived()
    else if (this.#next > 1024) {
      this.#arrived = this.#arrived.slice(this.#next)
      this.#arrivedSizes = this.#arrivedSizes.slice(this.#next)
      this.#next = 0
    }
    return message
  }

  /**
   * Waits for the next message. Succeeds with `false` if the queue has no more, or if the budget is used up. Fails if
   * the channel ends, or if nothing arrives for `timeout` milliseconds although the queue has messages.
   */
  next(timeout: number): Effect.Effect<boolean, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const dueAt = this.timeouts.deadlines.now + timeout
      const loop: Effect.Effect<boolean, AmqpError.AmqpError> = Effect.suspend(() => {
        if (this.#takes <= 0) return Effect.succeed(false)
        if (this.#next < this.#arrived.length) return Effect.succeed(true)
        const channel = this.usableChannel()
        if ("_tag" in channel) return fail(channel)
        if (this.#ended !== undefined) return fail(this.#ended)
        if (this.isOverflown) return fail(overflown)
        if (this.#budget <= 0 || this.#isEmpty) return Effect.succeed(false)
        // The first message shows how large messages are, and so how many one consumer may get. A quorum queue takes the
        // messages of one consumer back in their order.
        if (this.#facts.reading === "get" || (this.#facts.canGet && this.#count + this.unreadable === 0)) {
          return Effect.andThen(this.#getMore, loop)
        }
        return this.#needsConsumer ? Effect.andThen(this.#addConsumer, loop) : Effect.flatMap(this.#quiet, waited)
      })
      const emptied = Effect.suspend(() =>
        this.#next < this.#arrived.length || this.isOverflown ? loop : Effect.succeed(false)
      )
      const waited = (isQuiet: boolean): Effect.Effect<boolean, AmqpError.AmqpError> =>
        isQuiet
          ? Effect.flatMap(this.ready, (ready) => {
              if (this.#next < this.#arrived.length) return Effect.succeed(true)
              if (ready === 0) return Effect.andThen(this.#awaitSent, emptied)
              if (this.timeouts.deadlines.now >= dueAt) return fail(this.#nothingDelivered(ready, timeout))
              return Effect.andThen(this.#replaceConsumers, loop)
            })
          : loop
      return loop
    })
  }

  #nothingDelivered(ready: number, timeout: number): AmqpError.AmqpErrorReason {
    return new AmqpError.InactivityTimeout({
      message: `basic.consume: the queue ${JSON.stringify(this.#queue)} has ${ready} messages, and the broker has delivered none for ${Duration.format(Duration.millis(timeout))}. Another consumer may be its single active consumer: stop that one first.`,
      operation: "basic.consume",
      queue: this.#queue
    })
  }

  /**
   * Waits for messages that the queue has given to a consumer, and that are on their way: the queue does not count them,
   * and may take long to read them. An answer of the queue to `basic.get` comes after them, and the channel has sent them
   * when it answers what it was asked after that. In a cluster another node may send them, which takes a moment more.
   */
  get #awaitSent(): Effect.Effect<void, AmqpError.AmqpError> {
    const quiet = (rounds: number): Effect.Effect<void> =>
      rounds === 0 ? Effect.void : Effect.flatMap(this.#quiet, (isQuiet) => (isQuiet ? quiet(rounds - 1) : Effect.void))
    return this.#facts.canGet
      ? Effect.andThen(Effect.andThen(this.#get, this.ready), quiet(1))
      : Effect.andThen(this.ready, quiet(quietRounds))
  }

  /** Waits for a change; `true` if there was none for a while. */
  get #quiet(): Effect.Effect<boolean> {
    const changed = Effect.callback<boolean>((resume) => {
      if (this.#next < this.#arrived.length || this.#ended !== undefined || this.held?.isOpen !== true) {
        return resume(Effect.succeed(false))
      }
      this.#onChange = () => resume(Effect.succeed(false))
      return Effect.sync(() => {
        this.#onChange = () => {}
      })
    })
    return onClock(
      this.timeouts.deadlines.clock,
      Effect.timeoutOrElse(changed, { duration: quietMillis, orElse: () => Effect.succeed(true) })
    )
  }

  // --- Consumers -----------------------------------------------------------------------------------------------------

  /** The number of messages that may be ahead, by the sizes of those before. */
  get #ahead(): number {
    if (this.#count === 0) return this.#facts.canGet ? 1 : Math.min(firstAhead, this.#maxAhead)
    const wanted = Math.floor(maxBytesAhead / Math.max(this.#bytes / this.#count, 1))
    return Math.max(1, Math.min(this.#maxAhead, wanted))
  }

  get #needsConsumer(): boolean {
    return this.#room < Math.min(this.#ahead, this.#budget) / 2
  }

  /** How many messages the consumers can get without an acknowledgement, those on their way included. */
  get #room(): number {
    return this.#prefetch - this.kept
  }

  get #stopConsumers(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.forEach(
      Array.from(this.#consumerTags),
      (tag) =>
        Effect.map(
          this.request("basic.cancel", (_driver, channel) => channel.cancel(tag)),
          () => this.#consumerTags.delete(tag)
        ),
      { concurrency: 16, discard: true }
    )
  }

  /**
   * A queue with a single active consumer gives messages to the oldest one only. When that one has as many as it can
   * hold, and they stay, another one takes its place.
   */
  get #replaceConsumers(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (!this.#isConsuming) return Effect.void
      this.#isConsuming = false
      return Effect.map(this.#stopConsumers, () => {
        this.#prefetch = this.kept
      })
    })
  }

  get #addConsumer(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const prefetch = Math.min(this.#ahead, this.#budget) - this.#room
      // A quorum queue takes the messages of several consumers back in the order of their tags.
      this.#consumers++
      const consumerTag = `${this.#name}-${String(this.#consumers).padStart(6, "0")}`
      const start = { queue: this.#queue, consumerTag, noAck: false, exclusive: false, arguments: {} }
      return Effect.andThen(
        this.request("basic.qos", (driver) => driver.qos(prefetch, false)),
        this.request(
          "basic.consume",
          (_driver, channel) => {
            this.#consumerTags.add(consumerTag)
            this.#prefetch += prefetch
            return channel.consume(start, this)
          },
          [this.#queue, consumerTag]
        )
      )
    })
  }

  // --- Getting -------------------------------------------------------------------------------------------------------

  /** Gets a message; `true` if there was none. */
  get #get(): Effect.Effect<boolean, AmqpError.AmqpError> {
    const get = this.request("basic.get", (_driver, channel) => channel.get(this.#queue, false), [this.#queue])
    return Effect.flatMap(
      // Without the permission to configure the queue, only this shows that it is a stream, and ends the connection.
      Effect.catchReason(get, "AmqpError", "ProtocolError", (reason) =>
        fail(reason.replyCode === 540 ? refusedStream(this.#queue) : reason)
      ),
      (message) =>
        Effect.sync(() => {
          if (message !== undefined) this.deliver(message)
          return message === undefined
        })
    )
  }

  get #getMore(): Effect.Effect<void, AmqpError.AmqpError> {
    const get = Effect.map(this.#get, (isEmpty) => {
      if (isEmpty) this.#isEmpty = true
    })
    return Effect.suspend(() => {
      const gets = Math.min(maxGets, this.#ahead, this.#budget)
      return Effect.forEach(Array.from({ length: gets }), () => get, { concurrency: "unbounded", discard: true })
    })
  }

  // --- Settling ------------------------------------------------------------------------------------------------------

  /** Whether the channel that has delivered the messages is still open. */
  get isOpen(): boolean {
    return this.held?.isOpen === true
  }

  /** Acknowledges a message. Returns `false` if that is not possible any more: the broker delivers it again. */
  acknowledge(deliveryTag: number): boolean {
    const channel = this.held
    if (channel === undefined || !channel.isOpen) return false
    try {
      channel.acknowledge(deliveryTag)
    } catch {
      return false
    }
    this.#unsettled--
    this.#hasAcknowledged = true
    return true
  }

  /** Leaves a message in its queue. */
  keep(deliveryTag: number): void {
    this.kept++
    const channel = this.held
    if (channel === undefined || this.kept <= maxTags) return
    channel.hasReleased = true
    channel.unsettled.delete(deliveryTag)
  }

  /**
   * Whether the broker might remove a message at a later return, so that it must be published again instead of being
   * returned. From RabbitMQ 4.3 on the return at the end does not count, but a lost connection does.
   */
  isNearLimit({ properties }: DeliveredMessage): boolean {
    if (this.#facts.type === "classic") return false
    const product = this.held?.link.product ?? ""
    const limit = limitOf(product, this.#facts, properties.headers)
    if (limit === Infinity) return false
    const left = returnsLeft(limit, properties.headers)
    if (isAtLeast(product, 4, 3) && left === limit) return false
    return left <= Math.max(leastReturns, Math.floor(limit / 4))
  }
}
