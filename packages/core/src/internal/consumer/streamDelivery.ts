/**
 * A delivery of a stream. It outlives its channel: it counts as settled when it is handled, even if the channel has
 * ended.
 */
import type * as Effect from "effect/Effect"
import type { AmqpError, AmqpErrorReason } from "../../model/error.ts"
import { DeliverySettled } from "../../model/errorReason.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel } from "../channel/channel.ts"
import { fail } from "../../model/failures.ts"
import type { ConsumerMeasures, SettlementOutcome } from "../metrics/measures.ts"
import { settledByAckOnly } from "../wire/streams.ts"
import type { AttemptTracking } from "./attemptTracking.ts"
import { ConsumerDelivery, type ReturnSettlement, type Settlement } from "./delivery.ts"

/** The ways to settle a message of a stream: those of other deliveries, and two that pass it over. */
export type StreamSettlement = Settlement | "skip" | "publish"

const settledMetric: Record<Exclude<StreamSettlement, ReturnSettlement | "giveBack" | "discard">, SettlementOutcome> = {
  ack: "acked",
  drop: "dropped",
  retry: "retried",
  deadLetter: "dead_lettered",
  skip: "skipped",
  publish: "dead_lettered"
}

/** The position in the stream, as far as a delivery uses it. */
export interface DeliveryPosition {
  readonly tracking: AttemptTracking
  /** Called when one of the deliveries is handled. */
  readonly handled: () => void
}

export class StreamDelivery extends ConsumerDelivery {
  override readonly offset: number
  /** Whether the message is handled or passed over. */
  isHandled = false
  readonly #position: DeliveryPosition
  readonly #counts: ConsumerMeasures
  /**
   * The channel on which the broker waits for the acknowledgement. After a reconnect it differs from the channel of the
   * first delivery.
   */
  #ackChannel: Channel
  #ackTag: number

  constructor(
    channel: Channel,
    position: DeliveryPosition,
    message: DeliveredMessage,
    offset: number,
    arrivedAt: number,
    measures: ConsumerMeasures
  ) {
    super(channel, position.tracking, message, arrivedAt, measures)
    this.offset = offset
    this.#position = position
    this.#counts = measures
    this.#ackChannel = channel
    this.#ackTag = message.deliveryTag
  }

  /** Always 1: a stream does not count deliveries, and counts in headers that a publisher has written prove nothing. */
  override get attempt(): number {
    return 1
  }

  override get origin(): undefined {
    return undefined
  }

  override get isSettled(): boolean {
    return this.isHandled
  }

  override get isLost(): boolean {
    return false
  }

  /** Notes that the broker has delivered the same message again on a new channel while it is being handled. */
  deliveredAgain(channel: Channel, tag: number): void {
    // A channel on which the broker has cancelled the consumer is closed when no delivery on it is unsettled.
    this.abandon()
    this.#ackChannel = channel
    this.#ackTag = tag
  }

  /** Acknowledges the delivery, so that the broker can send another one; does nothing if the channel has ended. */
  release(): void {
    acknowledge(this.#ackChannel, this.#ackTag)
  }

  /** Gives up the acknowledgement: nothing is sent for the delivery, and its channel does not wait for it. */
  abandon(): void {
    this.#ackChannel.unsettled.delete(this.#ackTag)
  }

  /**
   * Settles the delivery. A return has no effect, because the message stays in the stream anyway: nothing is sent, and
   * the position does not move.
   */
  override settle(how: StreamSettlement, operation = "basic.ack"): AmqpErrorReason | undefined {
    if (how === "requeue" || how === "redeliver" || how === "giveBack" || how === "discard") return undefined
    if (this.isHandled) {
      return new DeliverySettled({
        message: `${operation}: expected an unsettled delivery, got one that was settled before. Nothing was sent.`,
        operation
      })
    }
    this.isHandled = true
    this.#counts.settled[settledMetric[how]]++
    this.#position.handled()
    return undefined
  }

  override nack(): Effect.Effect<void, AmqpError> {
    return fail(settledByAckOnly("basic.nack", this.queue))
  }

  override reject(): Effect.Effect<void, AmqpError> {
    return fail(settledByAckOnly("basic.reject", this.queue))
  }
}

/** Acknowledges a delivery if its channel is open. */
export const acknowledge = (channel: Channel, tag: number): void => {
  if (!channel.isOpen || !channel.unsettled.has(tag)) return
  try {
    channel.acknowledge(tag)
  } catch {
    // The channel is closing and sends nothing any more.
  }
}
