/**
 * The frames of `basic.ack` and `basic.nack`, written straight to where the bytes of their channel wait.
 *
 * As long as an ack waits there with nothing behind it, it can become one of several deliveries: a consumer that handles a
 * hundred of them in one turn of the event loop sends one frame, which costs the broker a hundredth of the work. With replies
 * between them, the acks move behind the last one.
 */
import { beginFrame, endFrame, setUint32, setUint64 } from "./frameWriter.ts"
import { basicAck, basicNack, methodFrame, overhead } from "./protocol.ts"
import type { WriteBuffer } from "./writeBuffer.ts"

const size = overhead + 4 + 8 + 1

/** From the end of such a frame back to its tag, and to its bits. */
const tagBefore = 10
const bitsBefore = 2
const multipleBit = 1
const requeueBit = 2

/** Writes them for one channel. */
export class SettleFrames {
  readonly #buffer: WriteBuffer
  readonly #channel: number
  /** The ack that was written last: where it ends, in what was written and in the slab, and up to which delivery it is. */
  #ackPosition = -1
  #ackEnd = 0
  #ackTag = 0

  constructor(buffer: WriteBuffer, channel: number) {
    this.#buffer = buffer
    this.#channel = channel
  }

  /** Where it ends. */
  #write(id: number, deliveryTag: number, bits: number): number {
    const buffer = this.#buffer
    const at = buffer.reserve(size)
    const { room } = buffer
    const start = beginFrame(room, at, methodFrame, this.#channel)
    const end = setUint64(room, setUint32(room, start, id), deliveryTag)
    room[end] = bits
    endFrame(room, start, end + 1)
    buffer.commit(size)
    return at + size
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#ackEnd = this.#write(basicAck, deliveryTag, multiple ? multipleBit : 0)
    this.#ackPosition = this.#buffer.position
    this.#ackTag = deliveryTag
  }

  /** Whether the last ack still waits, with nothing behind it, and is of an earlier delivery. */
  canExtendTo(deliveryTag: number): boolean {
    return deliveryTag > this.#ackTag && this.#buffer.isLast(this.#ackPosition)
  }

  /** Makes of the last ack one of all deliveries up to this one. */
  extendTo(deliveryTag: number): void {
    this.#ackTag = deliveryTag
    const { room } = this.#buffer
    setUint64(room, this.#ackEnd - tagBefore, deliveryTag)
    room[this.#ackEnd - bitsBefore] = multipleBit
  }

  /**
   * Takes the last ack back, if it is of an earlier delivery and still waits, whatever was written behind it: one of all
   * deliveries up to this one may follow there.
   */
  takesBackFor(deliveryTag: number): boolean {
    return deliveryTag > this.#ackTag && this.#buffer.takeBack(this.#ackPosition, size)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#write(basicNack, deliveryTag, (multiple ? multipleBit : 0) | (requeue ? requeueBit : 0))
  }
}
