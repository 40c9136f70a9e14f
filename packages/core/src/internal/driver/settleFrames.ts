/**
 * Writes the frames of `basic.ack`, `basic.nack` and `basic.reject` in place, into the output of their channel.
 * While an ack is the last frame in the output, it can be extended to several deliveries. A consumer that handles a
 * hundred deliveries in one turn of the event loop sends one frame, which costs the broker a hundredth of the work.
 * When replies lie between acks, the acks move behind the last reply.
 */
import { beginFrame, endFrame, setUint32, setUint64 } from "../wire/frameWriter.ts"
import { basicAck, basicNack, basicReject, methodFrame, frameOverhead } from "../wire/protocol.ts"
import type { ChannelOutput } from "./channelOutput.ts"

const size = frameOverhead + 4 + 8 + 1

/** Distances from the end of such a frame back to its tag and to its bits, in bytes. */
const tagBefore = 10
const bitsBefore = 2
const multipleBit = 1
const requeueBit = 2

/** Whether a delivery is older than all of `unsettled`, which is in the order of the tags. */
const isBeforeAll = (deliveryTag: number, unsettled: ReadonlySet<number>): boolean => {
  for (const first of unsettled) return first > deliveryTag
  return true
}

/** Writes the settlements of one channel. */
export class SettleFrames {
  readonly #output: ChannelOutput
  readonly #channel: number
  /**
   * The ack that was written last: its end as a position in the output and as an index in the slab, and the last
   * delivery that it covers.
   */
  #ackPosition = -1
  #ackEnd = 0
  #ackTag = 0

  constructor(output: ChannelOutput, channel: number) {
    this.#output = output
    this.#channel = channel
  }

  /** Returns the index in the slab at which the frame ends. */
  #write(id: number, deliveryTag: number, bits: number): number {
    const output = this.#output
    const at = output.reserve(size)
    const { buffer } = output
    const start = beginFrame(buffer, at, methodFrame, this.#channel)
    const end = setUint64(buffer, setUint32(buffer, start, id), deliveryTag)
    buffer[end] = bits
    endFrame(buffer, start, end + 1)
    output.commit(size)
    return at + size
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#ackEnd = this.#write(basicAck, deliveryTag, multiple ? multipleBit : 0)
    this.#ackPosition = this.#output.position
    this.#ackTag = deliveryTag
  }

  /** Whether the last ack is still the last frame in the output, and covers earlier deliveries only. */
  canExtendTo(deliveryTag: number): boolean {
    return deliveryTag > this.#ackTag && this.#output.isLast(this.#ackPosition)
  }

  /** Extends the last ack to all deliveries up to this one. */
  extendTo(deliveryTag: number): void {
    this.#ackTag = deliveryTag
    const { buffer } = this.#output
    setUint64(buffer, this.#ackEnd - tagBefore, deliveryTag)
    buffer[this.#ackEnd - bitsBefore] = multipleBit
  }

  /**
   * Removes the last ack, if it covers earlier deliveries only and is not taken, even when other frames follow it. An
   * ack of all deliveries up to this one may then be written at the end.
   */
  tryRetractFor(deliveryTag: number): boolean {
    return deliveryTag > this.#ackTag && this.#output.tryRetract(this.#ackPosition, size)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#write(basicNack, deliveryTag, (multiple ? multipleBit : 0) | (requeue ? requeueBit : 0))
  }

  reject(deliveryTag: number, requeue: boolean): void {
    this.#write(basicReject, deliveryTag, requeue ? 1 : 0)
  }

  /** Acknowledges one delivery. Merges it with the last ack, if no unsettled delivery is older. */
  ackAmong(unsettled: ReadonlySet<number>, deliveryTag: number): void {
    if (!isBeforeAll(deliveryTag, unsettled)) this.ack(deliveryTag, false)
    else if (this.canExtendTo(deliveryTag)) this.extendTo(deliveryTag)
    else this.ack(deliveryTag, this.tryRetractFor(deliveryTag))
  }
}
