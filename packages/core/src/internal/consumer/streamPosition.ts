/**
 * How far a stream is handled, and where to subscribe next.
 *
 * Handlers end in any order, so the position is the lowest offset that is not handled yet: everything below it is, and
 * nothing below it is ever delivered to a handler again. The broker is told of a message (`basic.ack`, which lets it send
 * another one) when the position passes it. So never more than `prefetch` messages, and what is left of a chunk, are above
 * the position, however long one of them takes: that bounds the memory, and what a restart repeats.
 *
 * A message that is in hand when its channel is lost stays in hand: when the broker delivers it again it is not handed out
 * twice, and what its handler does counts.
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

/** How many places at the front of the list may be empty before it is made shorter. */
const mostGaps = 1024

/**
 * Seconds before the first subscription from which is read again if a subscription ends before anything was delivered.
 * They cover the broker's clocks (a chunk has the time of the node that wrote it) and its rounding to seconds.
 */
const marginOfNext = 5
/** What is read from `"last"` is older than the subscription anyway: one chunk more does no harm, one less does. */
const marginOfLast = 60

const secondsIn: Record<string, number> = { Y: 31_536_000, M: 2_592_000, D: 86_400, h: 3600, m: 60, s: 1 }

/** The time that passes, by both clocks: one stands still while a machine sleeps, the other may be set. */
export interface Clocks {
  /** In milliseconds. */
  readonly passing: () => number
  /** In milliseconds since the epoch. */
  readonly ofDay: () => number
}

/** A moment by both clocks. */
interface Since {
  readonly passing: number
  readonly ofDay: number
}

export class StreamPosition {
  readonly queue: string
  /** A stream counts nothing, and no headers say what happened to its messages elsewhere. */
  readonly tracking: AttemptTracking
  /** The lowest offset that is not handled; `undefined` until it is known. */
  next: number | undefined
  /** Messages that were handled or passed over. */
  count = 0
  /** Called when `next` has become known, and when it has moved. Must not throw. */
  onMove: () => void = () => {}
  /** Whether the stream may be another one than that which the position is of. */
  isDoubtful = false
  /** Whether nothing is handed out until it is saved where reading begins. */
  isPinning = false
  /** Whether the consumer is to end. */
  #hasEnded = false
  /** Fails when the consumer is to end. */
  readonly ended: Effect.Effect<never, AmqpError.AmqpError>
  readonly #ended = Deferred.makeUnsafe<never, AmqpError.AmqpError>()
  readonly #offset: FieldValue
  readonly #measures: ConsumerMeasures
  readonly #clocks: Clocks
  /** From the position on, in the order of their offsets; behind gaps where others were. */
  #deliveries: Array<StreamDelivery | undefined> = []
  #head = 0
  #highest = -1
  /** When its first subscription was sent. Its answer may be lost with the connection, so it does not wait for that. */
  #since: Since | undefined = undefined

  constructor(queue: string, offset: FieldValue, measures: ConsumerMeasures, clocks: Clocks) {
    this.queue = queue
    this.tracking = new AttemptTracking({ queue, secrets: [], memory: new AttemptMemory(), maxDeliveries: Infinity })
    this.ended = Deferred.await(this.#ended)
    this.#offset = offset
    this.#measures = measures
    this.#clocks = clocks
    this.next =
      offset === "first" ? 0 : typeof offset === "number" || typeof offset === "bigint" ? Number(offset) : undefined
  }

  /** Whether a position must be saved with its first delivery, since where it begins means something else tomorrow. */
  get isRelative(): boolean {
    return this.next === undefined
  }

  /** Whether nothing may be handed out now. */
  get isHeld(): boolean {
    return this.isPinning || this.#hasEnded
  }

  /** Ends the consumer, which hands out nothing any more. */
  end(reason: AmqpError.AmqpErrorReason): void {
    this.#hasEnded = true
    Deferred.doneUnsafe(this.#ended, Effect.fail(AmqpError.fromReason(reason)))
  }

  // --- Subscribing ---------------------------------------------------------------------------------------------------

  /** The stream is another one than before. What is in hand is of the old one, and moves nothing. */
  startOver(): void {
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
    // Nothing has come yet, so there is no position. What was published since the first subscription must not be missed.
    const before =
      offset === "next"
        ? marginOfNext
        : offset === "last"
          ? marginOfLast
          : Number(offset.slice(0, -1)) * secondsIn[offset.at(-1)!]!
    // Intervals are RabbitMQ's alone: LavinMQ refuses them (406). There the clock of this machine has to be right.
    if (!takesIntervals) return { "!": "timestamp", value: Math.max(0, Math.floor(since.ofDay / 1000) - before) }
    // An interval is reckoned by the broker's clock, so that of this machine does not matter.
    const passed = Math.max(this.#clocks.passing() - since.passing, this.#clocks.ofDay() - since.ofDay)
    return `${Math.ceil(passed / 1000) + before}s`
  }

  // --- What comes ----------------------------------------------------------------------------------------------------

  /** A delivery that is to be handed out; `undefined`: it is handled, or in hand. */
  delivered(channel: Channel, message: DeliveredMessage, now: number): StreamDelivery | undefined {
    const { deliveryTag } = message
    const offset = Number(message.properties.headers[offsetName])
    if (!Number.isSafeInteger(offset)) return void this.end(notAStream(this.queue))
    if (this.next === undefined) {
      this.next = offset
      this.onMove()
    }
    // Chunks are sent from their beginning.
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

  /** Deliveries that were not handed out, in order, the last ones of all: they come again. */
  forget(ahead: ReadonlyArray<StreamDelivery>): void {
    const first = ahead[0]
    if (first === undefined) return
    for (const delivery of ahead) delivery.abandon()
    while (this.#deliveries.length > this.#head && this.#deliveries.at(-1)!.offset >= first.offset)
      this.#deliveries.pop()
    this.#highest = this.#deliveries.at(-1)?.offset ?? Math.min(this.#highest, first.offset - 1)
  }

  /** One of the deliveries is handled: moves the position as far as all are. */
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
    // Offsets are not without gaps.
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
    message: `basic.consume: queue: expected ${JSON.stringify(queue)} to be a stream, as queueType, offset or offsets say, but it delivered a message without ${offsetName}: consume it without these options`,
    operation: "basic.consume",
    argument: "queueType"
  })
