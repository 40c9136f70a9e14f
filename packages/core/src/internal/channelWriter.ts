/** Writes to one channel what is written often, without amqplib: to the same buffer, so in order with what amqplib writes. */
import type { Channel, ChannelInternals, Internals } from "./amqplib.ts"
import type { Outgoing } from "./properties.ts"
import { writePublish } from "./publishFrames.ts"
import type { WriteBuffer } from "./writeBuffer.ts"

/** What a frame has beside its payload. */
const overhead = 8

export class ChannelWriter {
  readonly #connection: Internals
  readonly #driver: ChannelInternals
  readonly #number: number
  readonly #frameMax: number
  readonly #buffer: WriteBuffer
  // amqplib replaces these when nothing may be sent any more.
  readonly #onConnection: unknown
  readonly #onChannel: unknown

  constructor(connection: Internals, driver: Channel, number: number, buffer: WriteBuffer) {
    this.#connection = connection
    this.#driver = driver as unknown as ChannelInternals
    this.#number = number
    this.#frameMax = connection.frameMax ?? 0
    this.#buffer = buffer
    this.#onConnection = connection.sendMessage
    this.#onChannel = this.#driver.sendMessage
  }

  /** Whether it can write this message now. What it does not take is amqplib's, which says why nothing can be sent. */
  takes(outgoing: Outgoing): boolean {
    return (
      outgoing.isPlain &&
      this.#frameMax > overhead &&
      this.#driver.sendMessage === this.#onChannel &&
      this.#connection.sendMessage === this.#onConnection
    )
  }

  /** Whether there is room for more; if not, amqplib's channel emits `drain` later. */
  publish(outgoing: Outgoing): boolean {
    // amqplib's: else it would send a heartbeat as well.
    this.#connection.sentSinceLastCheck = true
    return writePublish(this.#buffer, this.#number, this.#frameMax, outgoing)
  }
}
