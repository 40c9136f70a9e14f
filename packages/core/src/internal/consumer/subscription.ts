/**
 * One `basic.consume` on a channel of its own, from its start to its end, and its prefetched deliveries.
 *
 * It ends once: on request, by a cancel of the broker, or with its channel. It never starts again: the next one is
 * another subscription, on another channel.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpChannel } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import type { Attribution } from "../connection/attribution.ts"
import type * as Channels from "../channel/channel.ts"
import { openChannel } from "../channel/openChannel.ts"
import { cancelsForTimeout, consumerCancelled, type Held } from "../channel/consumerCancelled.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { fail } from "../../model/failures.ts"
import { ChannelHandle, type ChannelTimeouts } from "../channel/channelHandle.ts"
import { typeOf, isStream } from "../connection/knownQueues.ts"
import { Lease } from "../channel/lease.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { offsetName, undeclaredStream } from "../wire/streams.ts"
import { isBefore } from "../wire/versions.ts"
import { selfInterruptionAsDefect } from "../waiting/selfInterruption.ts"
import { ArrivalTimes } from "./arrivalTimes.ts"
import { knownConsumerTimeoutOf, withConsumerTimeout } from "./consumerTimeout.ts"
import { ConsumerDelivery } from "./delivery.ts"
import type { StreamDelivery } from "./streamDelivery.ts"
import { StreamEndProbe } from "./streamEndProbe.ts"
import type { StreamPosition } from "./streamPosition.ts"
import type { AttemptTracking } from "./attemptTracking.ts"
import type { Start } from "./start.ts"

/** Declares what is to be consumed, on the channel that will consume it. */
export type Declare = (channel: AmqpChannel) => Effect.Effect<void, AmqpError.AmqpError>

const mostGaps = 1024

/**
 * How many deliveries of one subscription may be unsettled before its broker counts as one that ignores `basic.qos`.
 * RabbitMQ respects the prefetch, except for streams: see `Channel`.
 */
const mostUnsettled = (prefetch: number): number => (prefetch === 0 ? Infinity : 2 * prefetch + 64)

/**
 * The maximum time between the broker's start of the timeout and the arrival of the delivery here, including what is
 * sent before it. In milliseconds.
 */
const maxDeliveryLatency = 1000

const notOpen = new AmqpError.ChannelClosed({
  message: "basic.consume: the channel of the consumer is not open yet. Nothing was sent."
})

export class Subscription extends ChannelHandle implements Channels.ConsumerSink {
  /** The reason why no more deliveries will come; `undefined` while it consumes. */
  endedBecause: AmqpError.AmqpErrorReason | undefined = undefined
  readonly #start: Start
  readonly #measures: ConsumerMeasures
  readonly #tracking: AttemptTracking
  /** Called when a delivery can be taken, and when the subscription has ended. Must not throw. */
  readonly #changed: () => void
  /** Whether the broker has started the subscription, as far as is known. */
  #consuming = false
  /** The deliveries that were not taken yet; the taken ones at the front leave gaps. */
  #prefetched: Array<ConsumerDelivery | undefined> = []
  #taken = 0
  #requeued = 0
  /** The position in the stream; `undefined` if the queue is not a stream. */
  readonly #position: StreamPosition | undefined
  readonly #arrivalTimes = new ArrivalTimes()

  constructor(
    start: Start,
    timeouts: ChannelTimeouts,
    measures: ConsumerMeasures,
    tracking: AttemptTracking,
    changed: () => void,
    position?: StreamPosition
  ) {
    super(timeouts, notOpen)
    this.#position = position
    this.#start = start
    this.#measures = measures
    this.#tracking = tracking
    this.#changed = changed
  }

  // --- Deliveries ----------------------------------------------------------------------------------------------------

  get isOfStream(): boolean {
    return this.#position !== undefined || isStream(this.timeouts.queues, this.#start.queue, this.#start.arguments)
  }

  deliver(message: DeliveredMessage): void {
    // The answer to `basic.consume` has arrived, but its promise may not have settled yet.
    this.#consuming = true
    const { now } = this.timeouts.deadlines
    if (this.#position === undefined) this.#arrivalTimes.record(message.deliveryTag, now, this.held!.unsettled)
    const delivery =
      this.#position === undefined
        ? new ConsumerDelivery(this.held!, this.#tracking, message, now, this.#measures)
        : this.#position.delivered(this.held!, message, now)
    if (delivery === undefined) return
    this.#prefetched.push(delivery)
    this.#changed()
  }

  cancelled(consumerTag: string): void {
    if (this.#position !== undefined) this.#position.mayBeStale = true
    this.#end(consumerCancelled(this.#start.queue, consumerTag, this.#release()))
  }

  /**
   * Releases deliveries that the broker has taken back because they were not settled in time. The broker does not say
   * which ones they are. The deliveries that were held for about as long as the timeout are not settled any more. If
   * nothing in this application sets the timeout, the oldest delivery counts as the reason, unless it has only just
   * arrived.
   *
   * The broker may still hold some of these deliveries: it takes back only those that have exceeded its timeout. No ack
   * of other deliveries may cover them, and they are delivered again when the channel closes.
   */
  #release(): Held | undefined {
    const { held: channel, timeouts } = this
    if (channel === undefined || this.#position !== undefined) return undefined
    if (!cancelsForTimeout(channel.link.product, timeouts.queues.get(this.#start.queue))) return undefined
    const { deferredRequeues, unsettled } = channel
    const [oldest] = unsettled
    if (oldest === undefined) return undefined
    const { now } = timeouts.deadlines
    const oldestArrivedAt = this.#arrivalTimes.timeOf(oldest)
    const timeout = knownConsumerTimeoutOf(timeouts.queues, this.#start)
    const isTimeout =
      timeout !== undefined && now - oldestArrivedAt >= timeout - Math.min(maxDeliveryLatency, timeout / 2)
    if (!isTimeout && (timeout !== undefined || now - oldestArrivedAt < maxDeliveryLatency)) return undefined
    const until = maxDeliveryLatency + (isTimeout ? Math.max(oldestArrivedAt, now - timeout) : oldestArrivedAt)
    channel.hasReleased = true
    for (const tag of unsettled) {
      if (this.#arrivalTimes.timeOf(tag) > until) break
      unsettled.delete(tag)
      deferredRequeues.delete(tag)
    }
    // Otherwise a worker could take a delivery that has gone back.
    this.requeuePrefetched()
    return { held: now - oldestArrivedAt, timeout, isTimeout }
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    // The broker has requeued them already.
    this.#requeued += this.#dropPrefetched()
    this.#end(reason)
  }

  #end(reason: AmqpError.AmqpErrorReason): void {
    if (this.endedBecause !== undefined) return
    this.endedBecause = reason
    this.#changed()
  }

  // --- Taking deliveries ---------------------------------------------------------------------------------------------

  /** The number of deliveries that can be taken. */
  get size(): number {
    return this.#prefetched.length - this.#taken
  }

  /** Arrival time of the oldest of these. */
  get oldestArrivedAt(): number | undefined {
    return this.#prefetched[this.#taken]?.arrivedAt
  }

  take(): ConsumerDelivery | undefined {
    if (this.#taken === this.#prefetched.length) return undefined
    const delivery = this.#prefetched[this.#taken]
    this.#measures.deliveries++
    if (delivery?.redelivered === true) this.#measures.redeliveries++
    this.#prefetched[this.#taken++] = undefined
    // If the broker is faster than its consumer, the list never becomes empty, and the gaps would grow without bound.
    if (this.#taken === this.#prefetched.length || this.#taken >= mostGaps) {
      this.#prefetched = this.#prefetched.slice(this.#taken)
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

  #dropPrefetched(): number {
    const { size } = this
    this.#position?.forget(this.#prefetched.slice(this.#taken) as Array<StreamDelivery>)
    this.#prefetched = []
    this.#taken = 0
    return size
  }

  /**
   * Requeues the deliveries that were not taken, with one `basic.nack` as soon as no other delivery of the channel is
   * unsettled, or else with the channel. A stream keeps its messages, and RabbitMQ ends the connection for a
   * `basic.nack` of a stream's delivery (540). Returns the number of requeued deliveries, including those that went
   * back with the channel.
   */
  requeuePrefetched(): number {
    const ahead = this.#prefetched.slice(this.#taken)
    this.#requeued += this.#dropPrefetched()
    const channel = this.held
    if (channel === undefined) return this.#requeued
    for (const delivery of ahead) {
      if (delivery === undefined || delivery.isSettled) continue
      // A stream takes nothing back: the position has already forgotten its deliveries.
      if (this.#position !== undefined) channel.unsettled.delete(delivery.tag)
      else {
        channel.deferredRequeues.add(delivery.tag)
        this.#measures.settled.requeued++
      }
    }
    channel.requeueDeferred()
    return this.#requeued
  }

  /** Whether the subscription caused the end of its connection. */
  get attribution(): Attribution {
    return this.held?.attribution ?? "none"
  }

  /** The number of deliveries that are neither prefetched, nor settled, nor on their way back. */
  get unsettled(): number {
    const channel = this.held
    return channel === undefined ? 0 : Math.max(0, channel.unsettled.size - channel.deferredRequeues.size - this.size)
  }

  // --- Start and end -------------------------------------------------------------------------------------------------

  /** Opens the channel and starts consuming. Whatever the result, `close` closes the channel if there is one. */
  open(internals: ConnectionInternals, declare: Declare | undefined): Effect.Effect<void, AmqpError.AmqpError> {
    const { continuationTimeout } = this.timeouts
    return Effect.flatMap(internals.nextLink, (link) =>
      openChannel(link, "regular", continuationTimeout, (channel) => {
        this.held = channel
      })
    ).pipe(
      Effect.andThen(declare === undefined ? Effect.void : this.#declare(declare)),
      Effect.andThen(this.#checkType),
      Effect.andThen(
        this.request("basic.qos", (driver, channel) => {
          channel.maxUnsettled = mostUnsettled(this.#start.prefetch)
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
    return (
      this.#position?.startOf(this.#start, product) ?? withConsumerTimeout(product, this.timeouts.queues, this.#start)
    )
  }

  /** The queue may have become known as a stream since the options were read. */
  readonly #checkType: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() => {
    const { queue } = this.#start
    return this.#position === undefined && isStream(this.timeouts.queues, queue)
      ? fail(undeclaredStream(queue))
      : Effect.void
  })

  /** Checks a position that was saved or has outlived its stream: it may be beyond the end of the present stream. */
  #checkPosition(position: StreamPosition): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.held
      const { next } = position
      if (!position.mayBeStale || channel === undefined || next === undefined || next === 0) return Effect.void
      const end = new StreamEndProbe(channel)
      const consumerTag = `${this.#start.consumerTag.slice(0, 200)}.end`
      const start = { ...this.#start, consumerTag, arguments: { [offsetName]: "last" } }
      return this.request("basic.consume", (_driver, channel) => channel.consume(start, end)).pipe(
        Effect.andThen(end.reaches(next - 1)),
        Effect.tap(this.request("basic.cancel", (_driver, channel) => channel.cancel(consumerTag))),
        Effect.flatMap((isThere) => {
          position.mayBeStale = false
          if (isThere) return Effect.void
          position.reset()
          return Effect.annotateLogs(
            Effect.logError(
              "AMQP stream consumer starts again at the beginning of the stream: its position is beyond the end, so the stream was deleted and declared again"
            ),
            { queue: this.#start.queue, offset: next, end: end.highest }
          )
        })
      )
    })
  }

  #declare(declare: Declare): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const lease = new Lease(this.timeouts)
      lease.begin(this.held!)
      return Effect.ensuring(
        selfInterruptionAsDefect(
          Effect.suspend(() => declare(lease as unknown as AmqpChannel)),
          "declare"
        ),
        Effect.sync(() => lease.end())
      )
    })
  }

  /**
   * Whether `basic.cancel` may crash the queue. RabbitMQ 3 cancels the single active consumer of a classic queue
   * without passing the waiting messages to the next consumer. If a publish is the next operation, the queue's process
   * crashes, and the standby consumer ends with it. Closing the channel passes the messages on in one step.
   */
  get #mayCancelCrashQueue(): boolean {
    if (this.held === undefined || !isBefore(this.held.link.product, 4, 0)) return false
    const known = this.timeouts.queues.get(this.#start.queue)
    if (known === undefined) return this.#position === undefined
    const type = typeOf(known)
    return known.arguments["x-single-active-consumer"] === true && type !== "quorum" && type !== "stream"
  }

  /**
   * Starts to end the subscription: deliveries that go back from now on are collected. Sends `basic.cancel` where it is
   * safe, bounded by `timeout`. Deliveries that arrive before its answer, or before the channel is closed, count as
   * prefetched, like the rest.
   */
  cancel(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const channel = this.held
      if (channel?.isOpen !== true || !this.#consuming || this.endedBecause !== undefined) return resume(Effect.void)
      channel.defersRequeues = true
      if (this.#mayCancelCrashQueue) return resume(Effect.void)
      const answered = () => {
        stop()
        resume(Effect.void)
      }
      // The promise stays pending when the connection is lost without a message. The channel reports that.
      const stop = channel.watch(() => {
        if (!channel.isOpen) answered()
      })
      channel.cancel(this.#start.consumerTag).then(answered, answered)
      return Effect.sync(stop)
    }).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.sync(() => this.held?.link.recordUnanswered()) }),
      Effect.asVoid
    )
  }

  /** Closes the channel, bounded by `timeout`. The broker requeues the unsettled deliveries. */
  close(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => this.held?.close(timeout) ?? Effect.void)
  }

  /**
   * Closes the channel without waiting if no delivery on it has to be settled any more. Returns whether that is the
   * case.
   */
  closeIfSettled(): boolean {
    const channel = this.held
    if (channel === undefined || !channel.isOpen) return true
    if (this.unsettled > 0) return false
    channel.requeueDeferred()
    channel.abandon()
    return true
  }
}
