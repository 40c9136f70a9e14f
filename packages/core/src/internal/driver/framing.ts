/**
 * Splits the bytes that a connection receives into frames, wherever the bytes are split.
 * A complete frame is read in place. An incomplete frame is kept until the rest has arrived. The exception is a body:
 * its parts are passed on as they arrive, because the receiver assembles them anyway.
 * AMQP 0-9-1, section 4.2.3 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import { fixedHeaderSize } from "../wire/contentHeader.ts"
import {
  bodyFrame,
  frameEnd,
  headerFrame,
  heartbeatFrame,
  methodFrame,
  frameOverhead,
  frameHeaderSize
} from "../wire/protocol.ts"
import { frameError, ProtocolViolation } from "./errors.ts"

/** Receives frames. The memory of its arguments is reused: it must copy what it keeps. */
export interface FrameSink {
  /** A whole method, content header or heartbeat frame. The payload is from `start` to `end`. */
  readonly frame: (type: number, channel: number, bytes: Buffer, start: number, end: number) => void
  /** A part of a body, never empty. */
  readonly body: (channel: number, bytes: Buffer, start: number, end: number) => void
  /**
   * A content header of `size` bytes, more than the `most` bytes that are read. Of its payload only the fixed part is
   * available.
   */
  readonly oversizedHeader: (channel: number, bytes: Buffer, start: number, size: number, most: number) => void
}

/**
 * Largest content header that is read beyond frame-max, and the growth that is allowed on top, in bytes. RabbitMQ does
 * not split headers: they are as large as the publisher's frame-max allows, which may be larger than ours (both are at
 * most the broker's `frame_max`, 128 KiB by default). Each queue that dead-letters a message adds some hundred bytes
 * (`x-death`), as retries do.
 */
const maxHeaderSize = 2 ** 20
const headerGrowth = 65_536

/** A larger content header is skipped, together with its message. A frame beyond this size, in bytes, is not AMQP. */
const maxSkippedSize = 2 ** 26

/** Capacity for an incomplete frame, in bytes. A larger buffer is released when the frame is complete. */
const initialCapacity = 4096

export const uint16 = (bytes: Buffer, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!

export const uint32 = (bytes: Buffer, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

export const uint64 = (bytes: Buffer, at: number): number => uint32(bytes, at) * 2 ** 32 + uint32(bytes, at + 4)

const notAFrame = () =>
  new ProtocolViolation(
    "Invalid frame: expected the frame-end octet after the announced size, got another byte",
    frameError
  )

export class Framing {
  readonly #sink: FrameSink
  /** Maximum payload size of a method or a body, in bytes. */
  maxPayloadSize: number
  /** The start of an incomplete frame. */
  #held: Buffer | undefined = undefined
  #heldLength = 0
  /** Bytes of the body frame that have not arrived yet, without the frame's end. */
  #bodyLeft = 0
  #bodyChannel = 0
  /**
   * The last byte of a body whose frame end has not arrived yet, because a body is complete only when its frame is. -1:
   * there is none.
   */
  #heldBodyByte = -1
  /** Bytes of a skipped header that have not arrived yet, including its frame end. */
  #skipLeft = 0

  constructor(sink: FrameSink, maxPayloadSize: number) {
    this.#sink = sink
    this.maxPayloadSize = maxPayloadSize
  }

  /** Reads received bytes. Throws a `ProtocolViolation` when they are not a frame; it must not be called after that. */
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

  /** Reads complete frames, and keeps the start of an incomplete one. Returns the index at which it stopped. */
  #frames(bytes: Buffer, from: number): number {
    const { length } = bytes
    let at = from
    while (length - at >= frameHeaderSize) {
      const type = bytes[at]!
      const size = uint32(bytes, at + 3)
      const start = at + frameHeaderSize
      const end = start + size
      if (end >= length || type === bodyFrame || size > this.maxPayloadSize) {
        const next = this.#readUnusual(bytes, at, type, size)
        if (next >= 0) {
          at = next
          // `receive` reads the rest of a body or of a skipped header.
          if (this.#bodyLeft > 0 || this.#skipLeft > 0) return at
          continue
        }
        break
      }
      if (type !== methodFrame) assertKnownType(type)
      if (bytes[end] !== frameEnd) throw notAFrame()
      this.#sink.frame(type, uint16(bytes, at + 1), bytes, start, end)
      at = end + 1
    }
    if (at < length) this.#hold(bytes, at)
    return length
  }

  /**
   * Reads a frame that is incomplete or not passed on as a whole. Returns the index at which to continue; -1: the frame
   * must be completed first.
   */
  #readUnusual(bytes: Buffer, at: number, type: number, size: number): number {
    assertKnownType(type)
    const start = at + frameHeaderSize
    const end = start + size
    const { maxPayloadSize } = this
    if (type === bodyFrame) {
      this.#assertFits(size, maxPayloadSize)
      if (end < bytes.length) {
        if (bytes[end] !== frameEnd) throw notAFrame()
        if (size > 0) this.#sink.body(uint16(bytes, at + 1), bytes, start, end)
        return end + 1
      }
      // An empty body frame is complete when its end has arrived.
      if (size === 0) return -1
      this.#bodyChannel = uint16(bytes, at + 1)
      this.#bodyLeft = size
      return start
    }
    if (type === headerFrame && size > maxPayloadSize) {
      this.#assertFits(size, maxSkippedSize)
      const most = Math.max(maxPayloadSize, maxHeaderSize) + headerGrowth
      if (size > most) {
        if (bytes.length - start < fixedHeaderSize) return -1
        this.#sink.oversizedHeader(uint16(bytes, at + 1), bytes, start, size, most)
        this.#skipLeft = size - fixedHeaderSize + 1
        return start + fixedHeaderSize
      }
    } else this.#assertFits(size, maxPayloadSize)
    if (end >= bytes.length) return -1
    if (bytes[end] !== frameEnd) throw notAFrame()
    this.#sink.frame(type, uint16(bytes, at + 1), bytes, start, end)
    return end + 1
  }

  #assertFits(size: number, most: number): void {
    if (size <= most) return
    throw new ProtocolViolation(`Invalid frame: expected a payload of at most ${most} bytes, got ${size}`, frameError)
  }

  #hold(bytes: Buffer, at: number): void {
    const size = bytes.length - at
    if (this.#held === undefined || this.#held.length < size)
      this.#held = Buffer.allocUnsafeSlow(Math.max(size, initialCapacity))
    bytes.copy(this.#held, 0, at)
    this.#heldLength = size
  }

  /** Adds the missing bytes to the incomplete frame. Returns the index at which to continue. */
  #complete(bytes: Buffer, at: number): number {
    const wanted = this.#bytesNeeded
    const size = Math.min(wanted - this.#heldLength, bytes.length - at)
    let held = this.#held!
    if (held.length < this.#heldLength + size) {
      // The buffer grows with the bytes that have arrived, not with the announced size.
      held = Buffer.allocUnsafeSlow(Math.min(wanted, Math.max(initialCapacity, 2 * (this.#heldLength + size))))
      this.#held!.copy(held, 0, 0, this.#heldLength)
      this.#held = held
    }
    bytes.copy(held, this.#heldLength, at, at + size)
    this.#heldLength += size
    if (this.#heldLength < wanted) return at + size
    const whole = held.subarray(0, wanted)
    this.#heldLength = 0
    // The frame is read in place. Nothing is held while it is read, unless it is still incomplete.
    if (held.length > initialCapacity) this.#held = undefined
    this.#frames(whole, 0)
    return at + size
  }

  /** Number of bytes that the incomplete frame needs before it can be read further. */
  get #bytesNeeded(): number {
    if (this.#heldLength < frameHeaderSize) return frameHeaderSize
    const held = this.#held!
    const size = uint32(held, 3)
    const { maxPayloadSize } = this
    const isSkipped = held[0] === headerFrame && size > Math.max(maxPayloadSize, maxHeaderSize) + headerGrowth
    return isSkipped ? frameHeaderSize + fixedHeaderSize : size + frameOverhead
  }

  /** Reads a part of a body. Its last byte is passed on only together with the frame's end. */
  #bodyPart(bytes: Buffer, at: number): number {
    const channel = this.#bodyChannel
    if (this.#heldBodyByte >= 0) {
      if (bytes[at] !== frameEnd) throw notAFrame()
      const last = Buffer.of(this.#heldBodyByte)
      this.#heldBodyByte = -1
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
    this.#heldBodyByte = bytes[at + size]!
    return bytes.length
  }

  #skip(bytes: Buffer, at: number): number {
    const size = Math.min(bytes.length - at, this.#skipLeft)
    this.#skipLeft -= size
    if (this.#skipLeft === 0 && bytes[at + size - 1] !== frameEnd) throw notAFrame()
    return at + size
  }
}

const assertKnownType = (type: number): void => {
  if (type === methodFrame || type === headerFrame || type === bodyFrame || type === heartbeatFrame) return
  throw new ProtocolViolation(`Invalid frame: expected frame type 1, 2, 3 or 8, got ${type}`, frameError)
}
