/**
 * The position of a consumer in a stream: how far the stream is handled, and where to subscribe next.
 *
 * Handlers end in any order, so the position is the lowest offset that is not handled yet. Everything below it is
 * handled, and is never delivered to a handler again. A message is acknowledged (`basic.ack`, which lets the broker
 * send another one) when the position passes it. So at most `prefetch` messages, and the rest of a chunk, are above the
 * position, however long one of them takes. That bounds the memory, and what a restart repeats.
 *
 * A message that is being handled when its channel is lost stays with its handler. When the broker delivers it again,
 * it is not passed to a second handler, and the result of the first handler counts.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { FieldValue } from "../../model/message.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel } from "../channel/channel.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { toSeconds } from "../wire/fieldTable.ts"
import { offsetName } from "../wire/streams.ts"
import { versionOf } from "../wire/versions.ts"
import { AttemptMemory } from "./attemptMemory.ts"
import { AttemptTracking } from "./attemptTracking.ts"
import { acknowledge, StreamDelivery } from "./streamDelivery.ts"
import type { Start } from "./start.ts"

/** How many empty entries the front of the list may have before the list is shortened. */
const mostGaps = 1024

/**
 * If a subscription ends before anything was delivered, reading starts again this many seconds before the time of the
 * first subscription. The margin covers differences between the brokers' clocks (a chunk has the time of the node that
 * wrote it) and their rounding to seconds.
 */
const marginOfNext = 5
/**
 * Messages that are read from `"last"` are older than the subscription anyway: one chunk too many does no harm, one
 * chunk too few does.
 */
const marginOfLast = 60

const secondsIn: Record<string, number> = { Y: 31_536_000, M: 2_592_000, D: 86_400, h: 3600, m: 60, s: 1 }

/**
 * Elapsed time by two clocks: the monotonic clock stops while a machine is suspended, and the system clock can be set.
 */
export interface Clocks {
  /** The monotonic clock, in milliseconds. */
  readonly passing: () => number
  /** The system clock, in milliseconds since the epoch. */
  readonly ofDay: () => number
}

/** A moment on both clocks. */
interface Since {
  readonly passing: number
  readonly ofDay: number
}

export class StreamPosition {
  readonly queue: string
  /** An empty history: a stream counts no attempts, and no headers record what happened to its messages elsewhere. */
  readonly tracking: AttemptTracking
  /** The lowest offset that is not handled; `undefined` until it is known. */
  next: number | undefined
  /** The number of messages that were handled or passed over. */
  count = 0
  /** Called when `next` becomes known, and when it moves. Must not throw. */
  onMove: () => void = () => {}
  /** Whether the position may belong to an earlier stream of the same name. */
  mayBeStale = false
  /** Whether nothing may be taken until the position where reading begins is saved. */
  isAwaitingFirstSave = false
  /** Whether the consumer has to end. */
  #hasEnded = false
  /** Fails when the consumer has to end. */
  readonly ended: Effect.Effect<never, AmqpError.AmqpError>
  readonly #ended = Deferred.makeUnsafe<never, AmqpError.AmqpError>()
  readonly #offset: FieldValue
  readonly #measures: ConsumerMeasures
  readonly #clocks: Clocks
  /** The deliveries from the position on, in the order of their offsets; the handled ones at the front leave gaps. */
  #deliveries: Array<StreamDelivery | undefined> = []
  #head = 0
  #highest = -1
  /**
   * The time when the first subscription was sent. The time of the answer is not used, because the answer may be lost
   * with the connection.
   */
  #since: Since | undefined = undefined

  constructor(queue: string, offset: FieldValue, measures: ConsumerMeasures, clocks: Clocks) {
    this.queue = queue
    this.tracking = new AttemptTracking({
      queue,
      secrets: [],
      memory: new AttemptMemory(),
      maxDeliveries: Infinity,
      timeOfDay: clocks.ofDay
    })
    this.ended = Deferred.await(this.#ended)
    this.#offset = offset
    this.#measures = measures
    this.#clocks = clocks
    this.next =
      offset === "first" ? 0 : typeof offset === "number" || typeof offset === "bigint" ? Number(offset) : undefined
  }

  /**
   * Whether the position must be saved before the first delivery is handled, because its offset would mean another
   * position after a restart.
   */
  get isRelative(): boolean {
    return this.next === undefined
  }

  /** Whether nothing may be taken now. */
  get isHeld(): boolean {
    return this.isAwaitingFirstSave || this.#hasEnded
  }

  /** Ends the consumer: nothing more is taken. */
  end(reason: AmqpError.AmqpErrorReason): void {
    this.#hasEnded = true
    Deferred.doneUnsafe(this.#ended, Effect.fail(AmqpError.fromReason(reason)))
  }

  // --- Subscribing ---------------------------------------------------------------------------------------------------

  /**
   * Starts from the beginning, because the stream has been replaced by another one. Deliveries that are being handled
   * belong to the old stream and do not move the position.
   */
  reset(): void {
    for (const delivery of this.#deliveries) delivery?.abandon()
    this.next = 0
    this.#highest = -1
    this.#deliveries = []
    this.#head = 0
    this.onMove()
  }

  /** How to subscribe now, to a broker of this product. */
  startOf(start: Start, product: string): Start {
    const table: Record<string, FieldValue | undefined> = Object.create(null)
    for (const key in start.arguments) table[key] = start.arguments[key]
    const isFirst = this.#since === undefined
    this.#since ??= { passing: this.#clocks.passing(), ofDay: this.#clocks.ofDay() }
    table[offsetName] = this.#offsetNow(product, this.#since, isFirst) as FieldValue
    return { ...start, arguments: table }
  }

  #offsetNow(product: string, since: Since, isFirst: boolean): unknown {
    if (this.next !== undefined) return { "!": "int64", value: BigInt(this.next) }
    const offset = this.#offset
    if (typeof offset !== "string") return { "!": "timestamp", value: toSeconds(offset) }
    const takesIntervals = versionOf(product) !== undefined
    if (isFirst && (takesIntervals || offset === "next" || offset === "last")) return offset
    // Nothing has arrived yet, so there is no position. Messages that were published since the first subscription must
    // not be missed.
    const before =
      offset === "next"
        ? marginOfNext
        : offset === "last"
          ? marginOfLast
          : Number(offset.slice(0, -1)) * secondsIn[offset.at(-1)!]!
    // Only RabbitMQ accepts intervals; LavinMQ refuses them (406). There the clock of this machine has to be right.
    if (!takesIntervals) return { "!": "timestamp", value: Math.max(0, Math.floor(since.ofDay / 1000) - before) }
    // An interval is relative to the broker's clock, so the clock of this machine does not matter.
    const passed = Math.max(this.#clocks.passing() - since.passing, this.#clocks.ofDay() - since.ofDay)
    return `${Math.ceil(passed / 1000) + before}s`
  }

  // --- Deliveries ----------------------------------------------------------------------------------------------------

  /**
   * Adds a message. Returns the delivery to be handled, or `undefined` if the message is handled or is being handled.
   */
  delivered(channel: Channel, message: DeliveredMessage, now: number): StreamDelivery | undefined {
    const { deliveryTag } = message
    const offset = Number(message.properties.headers[offsetName])
    if (!Number.isSafeInteger(offset)) return void this.end(notAStream(this.queue))
    if (this.next === undefined) {
      this.next = offset
      this.onMove()
    }
    // The broker sends a chunk from its beginning.
    if (offset < this.next) return void acknowledge(channel, deliveryTag)
    if (offset <= this.#highest) {
      const known = this.#find(offset)
      if (known !== undefined) {
        known.deliveredAgain(channel, deliveryTag)
        return undefined
      }
    }
    const delivery = new StreamDelivery(channel, this, message, offset, now, this.#measures)
    this.#deliveries.push(delivery)
    this.#highest = offset
    return delivery
  }

  #find(offset: number): StreamDelivery | undefined {
    let low = this.#head
    let high = this.#deliveries.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const found = this.#deliveries[middle]!
      if (found.offset === offset) return found
      if (found.offset < offset) low = middle + 1
      else high = middle - 1
    }
    return undefined
  }

  /** Removes deliveries that were not taken. They must be the last ones, in order; the broker delivers them again. */
  forget(ahead: ReadonlyArray<StreamDelivery>): void {
    const first = ahead[0]
    if (first === undefined) return
    for (const delivery of ahead) delivery.abandon()
    while (this.#deliveries.length > this.#head && this.#deliveries.at(-1)!.offset >= first.offset)
      this.#deliveries.pop()
    this.#highest = this.#deliveries.at(-1)?.offset ?? Math.min(this.#highest, first.offset - 1)
  }

  /** Moves the position past all leading deliveries that are handled, after one of them was handled. */
  handled(): void {
    this.count++
    const deliveries = this.#deliveries
    let delivery = deliveries[this.#head]
    if (delivery?.isHandled !== true) return
    let next: number
    do {
      deliveries[this.#head++] = undefined
      next = delivery.offset + 1
      delivery.release()
      delivery = deliveries[this.#head]
    } while (delivery?.isHandled === true)
    // Offsets may have gaps.
    this.next = delivery?.offset ?? next
    if (this.#head === deliveries.length || this.#head >= mostGaps) {
      this.#deliveries = deliveries.slice(this.#head)
      this.#head = 0
    }
    this.onMove()
  }
}

const notAStream = (queue: string) =>
  new AmqpError.InvalidArgument({
    message: `basic.consume: queue: expected ${JSON.stringify(queue)} to be a stream, as queueType, offset or offsets say, got a message without ${offsetName}. Consume the queue without these options.`,
    operation: "basic.consume",
    argument: "queueType"
  })
