/** Writes to one channel what is written often, without amqplib: to the same buffer, so in order with what amqplib writes. */
import type { Channel, ChannelInternals, Internals } from "./amqplib.ts"
import type { Outgoing } from "./properties.ts"
import { overhead } from "./protocol.ts"
import { writePublish } from "./publishFrames.ts"
import { SettleFrames } from "./settleFrames.ts"
import type { WriteBuffer } from "./writeBuffer.ts"

/** `unsettled`: in the order of their tags. */
const isBeforeAll = (deliveryTag: number, unsettled: ReadonlySet<number>): boolean => {
  for (const first of unsettled) return first > deliveryTag
  return true
}

export class ChannelWriter {
  readonly #connection: Internals
  readonly #driver: ChannelInternals
  readonly #number: number
  readonly #frameMax: number
  readonly #buffer: WriteBuffer
  readonly #settling: SettleFrames
  // amqplib replaces these when nothing may be sent any more.
  readonly #onConnection: unknown
  readonly #onChannel: unknown

  constructor(connection: Internals, driver: Channel, number: number, buffer: WriteBuffer) {
    this.#connection = connection
    this.#driver = driver as unknown as ChannelInternals
    this.#number = number
    this.#frameMax = connection.frameMax ?? 0
    this.#buffer = buffer
    this.#settling = new SettleFrames(buffer, number)
    this.#onConnection = connection.sendMessage
    this.#onChannel = this.#driver.sendMessage
  }

  /** Whether anything may be sent. If not, it is amqplib's to say why. */
  get isOpen(): boolean {
    return this.#driver.sendMessage === this.#onChannel && this.#connection.sendMessage === this.#onConnection
  }

  /** Whether it can write: amqplib has its ways with tiny frames. */
  get canWrite(): boolean {
    return this.#frameMax > overhead && this.isOpen
  }

  /** Whether there is room for more; if not, amqplib's channel emits `drain` later. */
  publish(outgoing: Outgoing): boolean {
    this.#sending()
    return writePublish(this.#buffer, this.#number, this.#frameMax, outgoing)
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#sending()
    this.#settling.ack(deliveryTag, multiple)
  }

  /** Acknowledges one of those that nobody has settled, with the last one if these are all up to it. */
  ackOneOf(unsettled: ReadonlySet<number>, deliveryTag: number): void {
    const settling = this.#settling
    if (!isBeforeAll(deliveryTag, unsettled)) this.ack(deliveryTag, false)
    else if (settling.canExtendTo(deliveryTag)) settling.extendTo(deliveryTag)
    else this.ack(deliveryTag, settling.takesBackFor(deliveryTag))
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#sending()
    this.#settling.nack(deliveryTag, multiple, requeue)
  }

  // amqplib's: else it would send a heartbeat as well.
  #sending(): void {
    this.#connection.sentSinceLastCheck = true
  }
}
