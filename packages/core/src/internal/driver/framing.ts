/**
 * Frames from the bytes that a connection receives, however they are cut.
 *
 * A frame that is complete is read where it lies. What is incomplete is kept until the rest has come, except bodies: they
 * are handed on in the parts in which they come, since they are put together anyway.
 *
 * AMQP 0-9-1, section 4.2.3 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import { fixedPart } from "../wire/contentHeader.ts"
import { bodyFrame, frameEnd, headerFrame, heartbeatFrame, methodFrame, overhead, prefix } from "../wire/protocol.ts"
import { frameError, ProtocolViolation } from "./ends.ts"

/** Takes frames. What it gets is memory that is used again: it must copy what it keeps. */
export interface FrameSink {
  /** A whole frame: of a method, a content header, or a heartbeat. The payload is from `start` to `end`. */
  readonly frame: (type: number, channel: number, bytes: Buffer, start: number, end: number) => void
  /** A part of a body, never empty. */
  readonly body: (channel: number, bytes: Buffer, start: number, end: number) => void
  /** A content header of so many bytes, more than are read: of its payload there is the fixed part. */
  readonly largeHeader: (channel: number, bytes: Buffer, start: number, size: number, most: number) => void
}

/**
 * How large a content header is read, beyond frame-max and in bytes. RabbitMQ does not split headers: they are as large as
 * the publisher's frame-max allows, which may be larger than ours (both are at most the broker's `frame_max`, 128 KiB by
 * default), and each queue that dead-letters a message adds some hundred bytes (`x-death`), as retries do.
 */
const largestHeader = 2 ** 20
const headerGrowth = 65_536

/** A header of more bytes than are read is skipped, and its message with it. Beyond this it is no AMQP. */
const mostSkipped = 2 ** 26

/** Room for what is incomplete, in bytes. More is given back when the frame is complete. */
const usualRoom = 4096

export const uint16 = (bytes: Buffer, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!

export const uint32 = (bytes: Buffer, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

export const uint64 = (bytes: Buffer, at: number): number => uint32(bytes, at) * 2 ** 32 + uint32(bytes, at + 4)

const notAFrame = () => new ProtocolViolation("Invalid frame: it does not end where it says that it ends", frameError)

export class Framing {
  readonly #sink: FrameSink
  /** Of the payload of a method, and of a body, in bytes. */
  mostOfFrame: number
  /** The beginning of a frame that is incomplete. */
  #held: Buffer | undefined = undefined
  #heldLength = 0
  /** What is still to come of a body's frame, without its end. */
  #bodyLeft = 0
  #bodyChannel = 0
  /**
   * The last byte of a body, when nothing behind it has come: a body is complete when its frame is. -1: there is none.
   */
  #lastOfBody = -1
  /** What is still to come of a header that is not read, with its end. */
  #skipLeft = 0

  constructor(sink: FrameSink, mostOfFrame: number) {
    this.#sink = sink
    this.mostOfFrame = mostOfFrame
  }

  /** Takes what was received. Throws a `ProtocolViolation` at what is no frame: nothing may be received after that. */
  receive(bytes: Buffer): void {
    const { length } = bytes
    let at = 0
    while (at < length) {
      if (this.#heldLength > 0) at = this.#complete(bytes, at)
      else if (this.#bodyLeft > 0) at = this.#bodyPart(bytes, at)
      else if (this.#skipLeft > 0) at = this.#skip(bytes, at)
      else at = this.#frames(bytes, at)
    }
  }

  /** Reads what begins here: complete frames, and the beginning of one that is not. Returns where it has stopped. */
  #frames(bytes: Buffer, from: number): number {
    const { length } = bytes
    let at = from
    while (length - at >= prefix) {
      const type = bytes[at]!
      const size = uint32(bytes, at + 3)
      const start = at + prefix
      const end = start + size
      if (end >= length || type === bodyFrame || size > this.mostOfFrame) {
        const next = this.#unusual(bytes, at, type, size)
        if (next >= 0) {
          at = next
          // The rest of a body, or of what is skipped, is read elsewhere.
          if (this.#bodyLeft > 0 || this.#skipLeft > 0) return at
          continue
        }
        break
      }
      if (type !== methodFrame) mustBeKnown(type)
      if (bytes[end] !== frameEnd) throw notAFrame()
      this.#sink.frame(type, uint16(bytes, at + 1), bytes, start, end)
      at = end + 1
    }
    if (at < length) this.#hold(bytes, at)
    return length
  }

  /** A frame that is not to be handed on as a whole, or is not complete. Where to go on; -1: it has to be completed. */
  #unusual(bytes: Buffer, at: number, type: number, size: number): number {
    mustBeKnown(type)
    const start = at + prefix
    const end = start + size
    const { mostOfFrame } = this
    if (type === bodyFrame) {
      this.#mustFit(size, mostOfFrame)
      if (end < bytes.length) {
        if (bytes[end] !== frameEnd) throw notAFrame()
        if (size > 0) this.#sink.body(uint16(bytes, at + 1), bytes, start, end)
        return end + 1
      }
      // An empty one is complete with its end.
      if (size === 0) return -1
      this.#bodyChannel = uint16(bytes, at + 1)
      this.#bodyLeft = size
      return start
    }
    if (type === headerFrame && size > mostOfFrame) {
      this.#mustFit(size, mostSkipped)
      const most = Math.max(mostOfFrame, largestHeader) + headerGrowth
      if (size > most) {
        if (bytes.length - start < fixedPart) return -1
        this.#sink.largeHeader(uint16(bytes, at + 1), bytes, start, size, most)
        this.#skipLeft = size - fixedPart + 1
        return start + fixedPart
      }
    } else this.#mustFit(size, mostOfFrame)
    if (end >= bytes.length) return -1
    if (bytes[end] !== frameEnd) throw notAFrame()
    this.#sink.frame(type, uint16(bytes, at + 1), bytes, start, end)
    return end + 1
  }

  #mustFit(size: number, most: number): void {
    if (size <= most) return
    throw new ProtocolViolation(`Frame size ${size} exceeds the ${most} bytes that were agreed on`, frameError)
  }

  #hold(bytes: Buffer, at: number): void {
    const size = bytes.length - at
    if (this.#held === undefined || this.#held.length < size)
      this.#held = Buffer.allocUnsafeSlow(Math.max(size, usualRoom))
    bytes.copy(this.#held, 0, at)
    this.#heldLength = size
  }

  /** Adds to what is incomplete no more than it lacks. Returns where to go on. */
  #complete(bytes: Buffer, at: number): number {
    const wanted = this.#wanted
    const size = Math.min(wanted - this.#heldLength, bytes.length - at)
    let held = this.#held!
    if (held.length < this.#heldLength + size) {
      // What is held grows with what has come, not with what was announced.
      held = Buffer.allocUnsafeSlow(Math.min(wanted, Math.max(usualRoom, 2 * (this.#heldLength + size))))
      this.#held!.copy(held, 0, 0, this.#heldLength)
      this.#held = held
    }
    bytes.copy(held, this.#heldLength, at, at + size)
    this.#heldLength += size
    if (this.#heldLength < wanted) return at + size
    const whole = held.subarray(0, wanted)
    this.#heldLength = 0
    // It is read in place: nothing of it is held while it is read, unless it is incomplete still.
    if (held.length > usualRoom) this.#held = undefined
    this.#frames(whole, 0)
    return at + size
  }

  /** How many bytes have to be there before it can be looked at again. */
  get #wanted(): number {
    if (this.#heldLength < prefix) return prefix
    const held = this.#held!
    const size = uint32(held, 3)
    const { mostOfFrame } = this
    const isSkipped = held[0] === headerFrame && size > Math.max(mostOfFrame, largestHeader) + headerGrowth
    return isSkipped ? prefix + fixedPart : size + overhead
  }

  /** A part of a body. Its last byte is handed on with the frame's end only. */
  #bodyPart(bytes: Buffer, at: number): number {
    const channel = this.#bodyChannel
    if (this.#lastOfBody >= 0) {
      if (bytes[at] !== frameEnd) throw notAFrame()
      const last = Buffer.of(this.#lastOfBody)
      this.#lastOfBody = -1
      this.#bodyLeft = 0
      this.#sink.body(channel, last, 0, 1)
      return at + 1
    }
    const left = bytes.length - at
    const wanted = this.#bodyLeft
    if (left > wanted) {
      const end = at + wanted
      if (bytes[end] !== frameEnd) throw notAFrame()
      this.#bodyLeft = 0
      this.#sink.body(channel, bytes, at, end)
      return end + 1
    }
    const size = Math.min(left, wanted - 1)
    this.#bodyLeft = wanted - size
    if (size > 0) this.#sink.body(channel, bytes, at, at + size)
    if (left === size) return bytes.length
    this.#lastOfBody = bytes[at + size]!
    return bytes.length
  }

  #skip(bytes: Buffer, at: number): number {
    const size = Math.min(bytes.length - at, this.#skipLeft)
    this.#skipLeft -= size
    if (this.#skipLeft === 0 && bytes[at + size - 1] !== frameEnd) throw notAFrame()
    return at + size
  }
}

const mustBeKnown = (type: number): void => {
  if (type === methodFrame || type === headerFrame || type === bodyFrame || type === heartbeatFrame) return
  throw new ProtocolViolation(`Unknown frame type ${type}`, frameError)
}
