/**
 * Where a stream ends now, found out by reading its last chunk: AMQP has no method that tells.
 *
 * A position beyond the end is that of another stream of the same name, which was deleted since. The broker says nothing of
 * that: it would deliver nothing until the new stream has grown beyond the position, and all before it would be missed.
 */
import * as Effect from "effect/Effect"
import type * as AmqpError from "../../model/error.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel, ConsumerSink } from "../channel/channel.ts"
import { offsetName } from "../wire/streams.ts"
import { acknowledge } from "./streamDelivery.ts"

/** How long nothing more comes before the end is where it seems to be, in milliseconds. Only who is beyond it waits so long. */
const quiet = 3000

/** Reads from the last chunk on until an offset is reached, or nothing more comes. */
export class StreamEnd implements ConsumerSink {
  readonly isOfStream = true
  /** The highest offset that has come; -1: none. */
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

  /** Waits until it has come so far; whether it has, as far as the channel lives. */
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
      return Effect.flatMap(Effect.timeoutOption(next, quiet), () =>
        this.highest === before && this.#channel.isOpen ? Effect.succeed(false) : this.reaches(offset)
      )
    })
  }
}
