/**
 * One `basic.consume` on a channel of its own, from its start to its end, and what was delivered ahead.
 *
 * It ends once: asked to, cancelled by the broker, or with its channel. It never starts again: the next one is another
 * subscription, on another channel.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpChannel } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import type { Blame } from "../connection/blame.ts"
import type * as Channels from "../channel/channel.ts"
import { openChannel } from "../channel/opening.ts"
import { cancelsForTimeout, consumerCancelled, type Held } from "../channel/consumerCancelled.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { fail } from "../../model/failures.ts"
import { Handle, type Terms } from "../channel/handle.ts"
import { typeOf, isStream } from "../connection/knownQueues.ts"
import { Lease } from "../channel/lease.ts"
import type { Links } from "../connection/links.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { offsetName, undeclaredStream } from "../wire/streams.ts"
import { isBefore } from "../wire/versions.ts"
import { Arrivals } from "./arrivals.ts"
import { knownConsumerTimeoutOf, withConsumerTimeout } from "./consumerTimeout.ts"
import { ConsumerDelivery } from "./delivery.ts"
import type { StreamDelivery } from "./streamDelivery.ts"
import { StreamEnd } from "./streamEnd.ts"
import type { StreamPosition } from "./streamPosition.ts"
import type { AttemptTracking } from "./attemptTracking.ts"
import type { Start } from "./start.ts"

/** Makes what is to be consumed, on the channel that will consume it. */
export type Declare = (channel: AmqpChannel) => Effect.Effect<void, AmqpError.AmqpError>

const mostGaps = 1024

/**
 * How many deliveries of one subscription may be unsettled before its broker counts as one that ignores `basic.qos`. RabbitMQ
 * keeps to the prefetch, other than for streams: see `Channel`.
 */
const mostUnsettled = (prefetch: number): number => (prefetch === 0 ? Infinity : 2 * prefetch + 64)

/** The broker's clock is ahead of ours by the way of a delivery, with all that stands before it. In milliseconds. */
const longestWay = 1000

const notOpen = new AmqpError.ChannelClosed({ message: "the consumer has no channel yet" })

export class Subscription extends Handle implements Channels.ConsumerSink {
  /** Why nothing more will come; undefined while it consumes. */
  endedBecause: AmqpError.AmqpErrorReason | undefined = undefined
  readonly #start: Start
  readonly #measures: ConsumerMeasures
  readonly #tracking: AttemptTracking
  /** Called when there is something to be taken, and when it has ended. Must not throw. */
  readonly #changed: () => void
  /** Whether the broker has started it, as far as is known. */
  #consuming = false
  /** Delivered and not taken, behind gaps where others were. */
  #ahead: Array<ConsumerDelivery | undefined> = []
  #taken = 0
  #requeued = 0
  /** Of a stream. */
  readonly #position: StreamPosition | undefined
  readonly #arrivals = new Arrivals()

  constructor(
    start: Start,
    terms: Terms,
    measures: ConsumerMeasures,
    tracking: AttemptTracking,
    changed: () => void,
    position?: StreamPosition
  ) {
    super(terms, notOpen)
    this.#position = position
    this.#start = start
    this.#measures = measures
    this.#tracking = tracking
    this.#changed = changed
  }

  // --- What comes ----------------------------------------------------------------------------------------------------

  get isOfStream(): boolean {
    return this.#position !== undefined || isStream(this.terms.queues, this.#start.queue, this.#start.arguments)
  }

  deliver(message: DeliveredMessage): void {
    // The answer to the start has come, but its promise may not have been told yet.
    this.#consuming = true
    const { now } = this.terms.deadlines
    if (this.#position === undefined) this.#arrivals.note(message.deliveryTag, now, this.held!.unsettled)
    const delivery =
      this.#position === undefined
        ? new ConsumerDelivery(this.held!, this.#tracking, message, now, this.#measures)
        : this.#position.delivered(this.held!, message, now)
    if (delivery === undefined) return
    this.#ahead.push(delivery)
    this.#changed()
  }

  cancelled(consumerTag: string): void {
    if (this.#position !== undefined) this.#position.isDoubtful = true
    this.#end(consumerCancelled(this.#start.queue, consumerTag, this.#release()))
  }

  /**
   * The broker may have cancelled for deliveries that were not settled in time, and does not say which. Those that were held
   * for about as long as it waits are settled by nobody any more: it has taken them back. Where nothing here has set the
   * timeout, the oldest one is taken for the reason, unless it has just come.
   *
   * The broker may still hold some of these: it takes back only what has exceeded its timeout. No ack of others may cover them,
   * and they come again when the channel closes.
   */
  #release(): Held | undefined {
    const { held: channel, terms } = this
    if (channel === undefined || this.#position !== undefined) return undefined
    if (!cancelsForTimeout(channel.link.product, terms.queues.get(this.#start.queue))) return undefined
    const { returning, unsettled } = channel
    const [oldest] = unsettled
    if (oldest === undefined) return undefined
    const { now } = terms.deadlines
    const since = this.#arrivals.of(oldest)
    const timeout = knownConsumerTimeoutOf(terms.queues, this.#start)
    const isTimeout = timeout !== undefined && now - since >= timeout - Math.min(longestWay, timeout / 2)
    if (!isTimeout && (timeout !== undefined || now - since < longestWay)) return undefined
    const until = longestWay + (isTimeout ? Math.max(since, now - timeout) : since)
    channel.hasReleased = true
    for (const tag of unsettled) {
      if (this.#arrivals.of(tag) > until) break
      unsettled.delete(tag)
      returning.delete(tag)
    }
    // Else a worker might take what has gone back.
    this.requeueAhead()
    return { held: now - since, timeout, isTimeout }
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    // The broker has requeued them already.
    this.#requeued += this.#dropAhead()
    this.#end(reason)
  }

  #end(reason: AmqpError.AmqpErrorReason): void {
    if (this.endedBecause !== undefined) return
    this.endedBecause = reason
    this.#changed()
  }

  // --- What is taken -------------------------------------------------------------------------------------------------

  /** How many deliveries can be taken. */
  get size(): number {
    return this.#ahead.length - this.#taken
  }

  /** When the first of these arrived. */
  get since(): number | undefined {
    return this.#ahead[this.#taken]?.arrivedAt
  }

  take(): ConsumerDelivery | undefined {
    if (this.#taken === this.#ahead.length) return undefined
    const delivery = this.#ahead[this.#taken]
    this.#measures.deliveries++
    if (delivery?.redelivered === true) this.#measures.redeliveries++
    this.#ahead[this.#taken++] = undefined
    // A broker that is faster than its consumer never lets it become empty: the gaps would grow without end.
    if (this.#taken === this.#ahead.length || this.#taken >= mostGaps) {
      this.#ahead = this.#ahead.slice(this.#taken)
      this.#taken = 0
    }
    return delivery
  }

  takeUpTo(most: number): Array<ConsumerDelivery> {
    const taken: Array<ConsumerDelivery> = []
    while (taken.length < most) {
      const delivery = this.take()
      if (delivery === undefined) break
      taken.push(delivery)
    }
    return taken
  }

  #dropAhead(): number {
    const { size } = this
    this.#position?.forget(this.#ahead.slice(this.#taken) as Array<StreamDelivery>)
    this.#ahead = []
    this.#taken = 0
    return size
  }

  /**
   * What was not taken goes back: with one `basic.nack`, as soon as no other delivery of the channel is unsettled, or else
   * with the channel. A stream keeps its messages, and RabbitMQ ends the connection over a `basic.nack` for one (540). How
   * many there were, those included that went back with the channel.
   */
  requeueAhead(): number {
    const ahead = this.#ahead.slice(this.#taken)
    this.#requeued += this.#dropAhead()
    const channel = this.held
    if (channel === undefined) return this.#requeued
    for (const delivery of ahead) {
      if (delivery === undefined || delivery.isSettled) continue
      // A stream takes nothing back: its deliveries are forgotten already.
      if (this.#position !== undefined) channel.unsettled.delete(delivery.tag)
      else {
        channel.returning.add(delivery.tag)
        this.#measures.settled.requeued++
      }
    }
    channel.giveBack()
    return this.#requeued
  }

  /** Whether it has caused the end of its connection. */
  get blame(): Blame {
    return this.held?.blame ?? "none"
  }

  /** Deliveries that are neither ahead nor settled, nor on their way back. */
  get unsettled(): number {
    const channel = this.held
    return channel === undefined ? 0 : Math.max(0, channel.unsettled.size - channel.returning.size - this.size)
  }

  // --- Its beginning and end -----------------------------------------------------------------------------------------

  /** Opens the channel and starts consuming. Whatever it ends with, the channel it may hold is for `close`. */
  open(links: Links, declare: Declare | undefined): Effect.Effect<void, AmqpError.AmqpError> {
    const { continuationTimeout } = this.terms
    return Effect.flatMap(links.next, (link) =>
      openChannel(link, "regular", continuationTimeout, (channel) => {
        this.held = channel
      })
    ).pipe(
      Effect.andThen(declare === undefined ? Effect.void : this.#declare(declare)),
      Effect.andThen(this.#checkType),
      Effect.andThen(
        this.request("basic.qos", (driver, channel) => {
          channel.mostUnsettled = mostUnsettled(this.#start.prefetch)
          return driver.qos(this.#start.prefetch, false)
        })
      ),
      Effect.andThen(this.#position === undefined ? Effect.void : this.#checkPosition(this.#position)),
      Effect.andThen(
        this.request(
          "basic.consume",
          (_driver, channel) =>
            channel.consume(this.#startOn(channel), this).then(() => {
              this.#consuming = true
            }),
          [this.#start.queue, this.#start.consumerTag]
        )
      )
    )
  }

  #startOn({ link: { product } }: Channels.Channel): Start {
    return this.#position?.startOf(this.#start, product) ?? withConsumerTimeout(product, this.terms.queues, this.#start)
  }

  /** It may have become known as a stream since the options were read. */
  readonly #checkType: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() => {
    const { queue } = this.#start
    return this.#position === undefined && isStream(this.terms.queues, queue)
      ? fail(undeclaredStream(queue))
      : Effect.void
  })

  /** A position that was saved or outlived its stream may be beyond the end of the one that is there now. */
  #checkPosition(position: StreamPosition): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.held
      const { next } = position
      if (!position.isDoubtful || channel === undefined || next === undefined || next === 0) return Effect.void
      const end = new StreamEnd(channel)
      const consumerTag = `${this.#start.consumerTag.slice(0, 200)}.end`
      const start = { ...this.#start, consumerTag, arguments: { [offsetName]: "last" } }
      return this.request("basic.consume", (_driver, channel) => channel.consume(start, end)).pipe(
        Effect.andThen(end.reaches(next - 1)),
        Effect.tap(this.request("basic.cancel", (_driver, channel) => channel.cancel(consumerTag))),
        Effect.flatMap((isThere) => {
          position.isDoubtful = false
          if (isThere) return Effect.void
          position.startOver()
          return Effect.annotateLogs(
            Effect.logError(
              "AMQP consumer: its position is beyond the end of the stream, which is another one than before: it is read from its beginning"
            ),
            { queue: this.#start.queue, offset: next, end: end.highest }
          )
        })
      )
    })
  }

  #declare(declare: Declare): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const lease = new Lease(this.terms)
      lease.begin(this.held!)
      return Effect.ensuring(
        Effect.suspend(() => declare(lease as unknown as AmqpChannel)),
        Effect.sync(() => lease.end())
      )
    })
  }

  /**
   * Whether `basic.cancel` may crash the queue. RabbitMQ 3 cancels the single active consumer of a classic queue without
   * handing the messages that wait to the next one: a publish that comes before anything else crashes the queue's process,
   * and the standby ends with it. The close of the channel hands them over in one step.
   */
  get #isCrashedByCancel(): boolean {
    if (this.held === undefined || !isBefore(this.held.link.product, 4, 0)) return false
    const known = this.terms.queues.get(this.#start.queue)
    if (known === undefined) return this.#position === undefined
    const type = typeOf(known)
    return known.arguments["x-single-active-consumer"] === true && type !== "quorum" && type !== "stream"
  }

  /**
   * Begins the end: what goes back from now on is collected. `basic.cancel`, bounded by `timeout`, where it is safe; what
   * is delivered until it is answered, or until the channel is closed, is ahead, like the rest.
   */
  cancel(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const channel = this.held
      if (channel?.isOpen !== true || !this.#consuming || this.endedBecause !== undefined) return resume(Effect.void)
      channel.collectsReturns = true
      if (this.#isCrashedByCancel) return resume(Effect.void)
      const answered = () => {
        stop()
        resume(Effect.void)
      }
      // Its promise stays pending when the connection goes down without a word: the channel tells.
      const stop = channel.watch(() => {
        if (!channel.isOpen) answered()
      })
      channel.cancel(this.#start.consumerTag).then(answered, answered)
      return Effect.sync(stop)
    }).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.sync(() => this.held?.link.unanswered()) }),
      Effect.asVoid
    )
  }

  /** Closes the channel, bounded by `timeout`: the broker requeues what is unsettled. */
  close(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => this.held?.close(timeout) ?? Effect.void)
  }

  /** Closes the channel without waiting, if nothing on it has to be settled any more. Whether there was nothing. */
  closeIfSettled(): boolean {
    const channel = this.held
    if (channel === undefined || !channel.isOpen) return true
    if (this.unsettled > 0) return false
    channel.giveBack()
    channel.abandon()
    return true
  }
}
