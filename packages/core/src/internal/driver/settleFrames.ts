/**
 * The frames of `basic.ack`, `basic.nack` and `basic.reject`, written straight to where the bytes of their channel wait.
 *
 * As long as an ack waits there with nothing behind it, it can become one of several deliveries: a consumer that handles a
 * hundred of them in one turn of the event loop sends one frame, which costs the broker a hundredth of the work. With replies
 * between them, the acks move behind the last one.
 */
import { beginFrame, endFrame, setUint32, setUint64 } from "../wire/frameWriter.ts"
import { basicAck, basicNack, basicReject, methodFrame, overhead } from "../wire/protocol.ts"
import type { ChannelOutput } from "./channelOutput.ts"

const size = overhead + 4 + 8 + 1

/** From the end of such a frame back to its tag, and to its bits. */
const tagBefore = 10
const bitsBefore = 2
const multipleBit = 1
const requeueBit = 2

/** `unsettled`: in the order of their tags. */
const isBeforeAll = (deliveryTag: number, unsettled: ReadonlySet<number>): boolean => {
  for (const first of unsettled) return first > deliveryTag
  return true
}

/** Writes them for one channel. */
export class SettleFrames {
  readonly #output: ChannelOutput
  readonly #channel: number
  /** The ack that was written last: where it ends, in what was written and in the slab, and up to which delivery it is. */
  #ackPosition = -1
  #ackEnd = 0
  #ackTag = 0

  constructor(output: ChannelOutput, channel: number) {
    this.#output = output
    this.#channel = channel
  }

  /** Where it ends. */
  #write(id: number, deliveryTag: number, bits: number): number {
    const output = this.#output
    const at = output.reserve(size)
    const { room } = output
    const start = beginFrame(room, at, methodFrame, this.#channel)
    const end = setUint64(room, setUint32(room, start, id), deliveryTag)
    room[end] = bits
    endFrame(room, start, end + 1)
    output.commit(size)
    return at + size
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#ackEnd = this.#write(basicAck, deliveryTag, multiple ? multipleBit : 0)
    this.#ackPosition = this.#output.position
    this.#ackTag = deliveryTag
  }

  /** Whether the last ack still waits, with nothing behind it, and is of an earlier delivery. */
  canExtendTo(deliveryTag: number): boolean {
    return deliveryTag > this.#ackTag && this.#output.isLast(this.#ackPosition)
  }

  /** Makes of the last ack one of all deliveries up to this one. */
  extendTo(deliveryTag: number): void {
    this.#ackTag = deliveryTag
    const { room } = this.#output
    setUint64(room, this.#ackEnd - tagBefore, deliveryTag)
    room[this.#ackEnd - bitsBefore] = multipleBit
  }

  /**
   * Takes the last ack back, if it is of an earlier delivery and still waits, whatever was written behind it: one of all
   * deliveries up to this one may follow there.
   */
  takesBackFor(deliveryTag: number): boolean {
    return deliveryTag > this.#ackTag && this.#output.takeBack(this.#ackPosition, size)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#write(basicNack, deliveryTag, (multiple ? multipleBit : 0) | (requeue ? requeueBit : 0))
  }

  reject(deliveryTag: number, requeue: boolean): void {
    this.#write(basicReject, deliveryTag, requeue ? 1 : 0)
  }

  /** Acknowledges one of those that nobody has settled, with the last ack if these are all up to it. */
  ackAmong(unsettled: ReadonlySet<number>, deliveryTag: number): void {
    if (!isBeforeAll(deliveryTag, unsettled)) this.ack(deliveryTag, false)
    else if (this.canExtendTo(deliveryTag)) this.extendTo(deliveryTag)
    else this.ack(deliveryTag, this.takesBackFor(deliveryTag))
  }
}
