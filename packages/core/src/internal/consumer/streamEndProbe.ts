/**
 * Finds the current end of a stream by reading its last chunk, because AMQP has no method that returns it.
 *
 * A position beyond the end belongs to an earlier stream of the same name, which was deleted since. The broker does not
 * report that: it would deliver nothing until the new stream has grown beyond the position, and the consumer would miss
 * everything before it.
 */
import * as Effect from "effect/Effect"
import type * as AmqpError from "../../model/error.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel, ConsumerSink } from "../channel/channel.ts"
import { offsetName } from "../wire/streams.ts"
import { acknowledge } from "./streamDelivery.ts"

/**
 * How long no further message must arrive before the end counts as found, in milliseconds. Only a consumer whose
 * position is beyond the end waits this long.
 */
const quietPeriod = 3000

/** Reads from the last chunk until an offset is reached, or no more messages arrive. */
export class StreamEndProbe implements ConsumerSink {
  readonly isOfStream = true
  /** The highest offset that has arrived; -1 if none has. */
  highest = -1
  readonly #channel: Channel
  #changed: () => void = () => {}

  constructor(channel: Channel) {
    this.#channel = channel
  }

  deliver(message: DeliveredMessage): void {
    const offset = Number(message.properties.headers[offsetName])
    if (offset > this.highest) this.highest = offset
    acknowledge(this.#channel, message.deliveryTag)
    this.#changed()
  }

  cancelled(): void {}

  closed(_reason: AmqpError.AmqpErrorReason): void {
    this.#changed()
  }

  /**
   * Waits until the offset is reached, and returns whether it was. Returns `true` if the channel closes, because then
   * the end is unknown.
   */
  reaches(offset: number): Effect.Effect<boolean> {
    const next = Effect.callback<void>((resume) => {
      this.#changed = () => resume(Effect.void)
      return Effect.sync(() => {
        this.#changed = () => {}
      })
    })
    return Effect.suspend(() => {
      if (this.highest >= offset || !this.#channel.isOpen) return Effect.succeed(true)
      const before = this.highest
      return Effect.flatMap(Effect.timeoutOption(next, quietPeriod), () =>
        this.highest === before && this.#channel.isOpen ? Effect.succeed(false) : this.reaches(offset)
      )
    })
  }
}
