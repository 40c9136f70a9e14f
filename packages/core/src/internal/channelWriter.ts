/** Writes to one channel what is written often, without amqplib: to the same buffer, so in order with what amqplib writes. */
import type { Channel, ChannelInternals, Internals } from "./amqplib.ts"
import { overhead } from "./frameWriter.ts"
import type { Outgoing } from "./properties.ts"
import { writePublish } from "./publishFrames.ts"
import { writeAck, writeNack } from "./settleFrames.ts"
import type { WriteBuffer } from "./writeBuffer.ts"

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

  /** Whether anything may be sent. If not, it is amqplib's to say why. */
  get isOpen(): boolean {
    return this.#driver.sendMessage === this.#onChannel && this.#connection.sendMessage === this.#onConnection
  }

  /** Whether it can write this message: amqplib has its ways with rare types of headers, and with tiny frames. */
  takes(outgoing: Outgoing): boolean {
    return outgoing.isPlain && this.#frameMax > overhead && this.isOpen
  }

  /** Whether there is room for more; if not, amqplib's channel emits `drain` later. */
  publish(outgoing: Outgoing): boolean {
    this.#sending()
    return writePublish(this.#buffer, this.#number, this.#frameMax, outgoing)
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#sending()
    writeAck(this.#buffer, this.#number, deliveryTag, multiple)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#sending()
    writeNack(this.#buffer, this.#number, deliveryTag, multiple, requeue)
  }

  // amqplib's: else it would send a heartbeat as well.
  #sending(): void {
    this.#connection.sentSinceLastCheck = true
  }
}
