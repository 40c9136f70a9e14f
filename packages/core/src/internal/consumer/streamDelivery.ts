/** A delivery of a stream: it outlives its channel, and is settled when it is handled, whatever has become of that. */
import type * as Effect from "effect/Effect"
import type { AmqpError, AmqpErrorReason } from "../../model/error.ts"
import { DeliverySettled } from "../../model/errorReason.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel } from "../channel/channel.ts"
import { fail } from "../../model/failures.ts"
import type { ConsumerMeasures, Settled } from "../metrics/measures.ts"
import { settledByAckOnly } from "../wire/streams.ts"
import type { AttemptTracking } from "./attemptTracking.ts"
import { ConsumerDelivery, type Return, type Settlement } from "./delivery.ts"

/** What a message of a stream is passed over for, beside what settles other deliveries. */
export type StreamSettlement = Settlement | "skip" | "publish"

const counted: Record<Exclude<StreamSettlement, Return | "giveBack" | "discard">, Settled> = {
  ack: "acked",
  drop: "dropped",
  retry: "retried",
  skip: "skipped",
  publish: "dead_lettered"
}

/** The position in its stream, as a delivery knows it. */
export interface PositionOf {
  readonly tracking: AttemptTracking
  /** One of the deliveries is handled. */
  readonly handled: () => void
}

export class StreamDelivery extends ConsumerDelivery {
  override readonly offset: number
  /** Whether it is handled or passed over. */
  isHandled = false
  readonly #position: PositionOf
  readonly #counts: ConsumerMeasures
  /** Where the broker waits for its acknowledgement: after a reconnect, not where it was delivered first. */
  #ackOn: Channel
  #ackTag: number

  constructor(
    channel: Channel,
    position: PositionOf,
    message: DeliveredMessage,
    offset: number,
    arrivedAt: number,
    measures: ConsumerMeasures
  ) {
    super(channel, position.tracking, message, arrivedAt, measures)
    this.offset = offset
    this.#position = position
    this.#counts = measures
    this.#ackOn = channel
    this.#ackTag = message.deliveryTag
  }

  /** A stream does not count deliveries. What a publisher has put into the headers proves nothing. */
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

  /** The broker has delivered the same message again, on a new channel, while it is in hand. */
  deliveredAgain(channel: Channel, tag: number): void {
    // A channel that the broker has cancelled the consumer of is closed when nothing on it is unsettled.
    this.abandon()
    this.#ackOn = channel
    this.#ackTag = tag
  }

  /** Tells the broker that it may send another one, as far as it listens. */
  release(): void {
    acknowledge(this.#ackOn, this.#ackTag)
  }

  /** It is not acknowledged: nothing is sent for it, and its channel does not wait for it. */
  abandon(): void {
    this.#ackOn.unsettled.delete(this.#ackTag)
  }

  /** What is to go back stays in the stream anyway: nothing is sent, and the position does not move. */
  override settle(how: StreamSettlement, operation = "basic.ack"): AmqpErrorReason | undefined {
    if (how === "requeue" || how === "redeliver" || how === "giveBack" || how === "discard") return undefined
    if (this.isHandled) {
      return new DeliverySettled({
        message: `${operation}: this delivery was settled before. Nothing was sent.`,
        operation
      })
    }
    this.isHandled = true
    this.#counts.settled[counted[how]]++
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

/** Acknowledges a delivery, if its channel is there. */
export const acknowledge = (channel: Channel, tag: number): void => {
  if (!channel.isOpen || !channel.unsettled.has(tag)) return
  try {
    channel.acknowledge(tag)
  } catch {
    // The channel is closing, and sends nothing any more.
  }
}
