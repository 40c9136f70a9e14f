/**
 * Frames from the bytes that a connection has received: those that come often are read here, the rest by amqplib.
 *
 * amqplib makes four objects of a frame before it looks at it, and rounds and guesses in content headers. What is here is
 * read in place; what is incomplete, malformed or rare is amqplib's, which has its ways with it.
 */
import type { Frame } from "./amqplib.ts"
import { fixedPart, type HeaderFrame, readContentHeader, unread } from "./contentHeader.ts"
import { Reader } from "./fieldReader.ts"
import {
  basicAck,
  basicDeliver,
  basicGetOk,
  basicNack,
  basicReturn,
  bodyFrame,
  frameEnd,
  headerFrame,
  methodFrame,
  prefix
} from "./protocol.ts"
import { readShortText } from "./shortText.ts"
import type { SocketInput } from "./socketInput.ts"

/** A frame of a body that is larger is not waited for. */
const smallBody = 4096

/**
 * How large a content header is read, beyond frame-max and in bytes. RabbitMQ does not split headers: they are as large as
 * the publisher's frame-max allows, which may be larger than ours (both are at most the broker's `frame_max`, 128 KiB by
 * default), and each queue that dead-letters a message adds some hundred bytes (`x-death`), as retries do.
 */
const largestHeader = 2 ** 20
const headerGrowth = 65_536

/** A header of more bytes than are read is skipped, and its message with it; beyond this it is no AMQP. */
const mostSkipped = 2 ** 26

const mostOfHeader = (maxFrameSize: number) => Math.max(maxFrameSize, largestHeader) + headerGrowth

const nothing = Buffer.alloc(0)
const none: Frame["fields"] = Object.freeze({})

interface Connection {
  readonly stream: { readonly read: () => Buffer | null; readonly emit: (event: "readable") => boolean }
  rest: Buffer
  recvSinceLastCheck: boolean
  readonly maxFrameSize: number
  recvFrame: () => unknown
}

const isConnection = (value: object): value is Connection =>
  "rest" in value &&
  Buffer.isBuffer(value.rest) &&
  "recvSinceLastCheck" in value &&
  "maxFrameSize" in value &&
  typeof value.maxFrameSize === "number" &&
  "recvFrame" in value &&
  typeof value.recvFrame === "function"

const uint16 = (bytes: Buffer, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!

const uint32 = (bytes: Buffer, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

const uint64 = (bytes: Buffer, at: number): number => uint32(bytes, at) * 2 ** 32 + uint32(bytes, at + 4)

/** The short text that was read last in one place: the next delivery mostly has the same. */
class LastText {
  #text = ""
  #size = 0
  readonly #bytes = Buffer.alloc(255)

  read(rest: Buffer, start: number, end: number): string {
    const bytes = this.#bytes
    const size = end - start
    let i = size === this.#size ? 0 : size + 1
    while (i < size && rest[start + i] === bytes[i]) i++
    if (i === size) return this.#text
    this.#size = rest.copy(bytes, 0, start, end)
    return (this.#text = readShortText(rest, start, end))
  }
}

class FrameReader {
  readonly #connection: Connection
  readonly #others: () => unknown
  /** Where the next frame begins, or the next part of a body's, in what the connection has received. */
  #at = 0
  /** What was received behind that. */
  #following: Buffer | undefined = undefined
  /** Whether that is all that there is. */
  #isTaking = false
  /** Of a body's frame that comes in parts: what is still to come of it, and for which channel. */
  #bodyLeft = 0
  #bodyChannel = 0
  /** Of a header that is too large to be read: what is still to come of it, its end included, and what it becomes. */
  #skipLeft = 0
  #skipped: HeaderFrame | undefined = undefined
  readonly #consumerTag = new LastText()
  readonly #exchange = new LastText()
  readonly #routingKey = new LastText()

  constructor(connection: Connection) {
    this.#connection = connection
    this.#others = connection.recvFrame
  }

  /** The next frame, or the next part of a body's; false if there is none yet. */
  readonly next = (): unknown => {
    const connection = this.#connection
    for (;;) {
      const { maxFrameSize, rest } = connection
      const at = this.#at
      const left = rest.length - at
      let missing = prefix + 1 - left
      if (this.#bodyLeft > 0) {
        const part = this.#part(rest, at, left)
        if (part !== undefined) return part
        missing = this.#bodyLeft + 1 - left
      } else if (this.#skipped !== undefined) {
        if (left > 0 && this.#skip(rest, at, left)) return this.#taken()
        missing = this.#skipLeft
      } else if (left > prefix) {
        const size = uint32(rest, at + 3)
        const end = at + prefix + size
        if (maxFrameSize > 0 && size > maxFrameSize) {
          if (rest[at] !== headerFrame || size > mostSkipped) return this.#other(at)
          if (size > mostOfHeader(maxFrameSize)) {
            if (left < prefix + fixedPart) {
              if (!this.#more(rest, at, prefix + fixedPart - left)) return false
            } else this.#beginToSkip(rest, at, size, mostOfHeader(maxFrameSize))
            continue
          }
        }
        if (end < rest.length) return rest[end] === frameEnd ? this.#frame(rest, at, end) : this.#other(at)
        if (rest[at] === bodyFrame && size > smallBody) {
          this.#bodyChannel = uint16(rest, at + 1)
          this.#bodyLeft = size
          this.#at = at + prefix
          continue
        }
        missing = end + 1 - rest.length
      }
      if (!this.#more(rest, at, missing)) return false
    }
  }

  /** Whether there is more to read. Of that, no more than is missing is joined, by a copy, to what is here already. */
  #more(rest: Buffer, at: number, missing: number): boolean {
    const connection = this.#connection
    let incoming: Buffer | null | undefined = this.#following
    this.#following = undefined
    if (incoming === undefined) {
      incoming = this.#isTaking ? null : connection.stream.read()
      if (incoming !== null) connection.recvSinceLastCheck = true
    }
    if (incoming === null) {
      // Nothing is kept of what is read.
      if (at === rest.length) this.#keep(nothing)
      return false
    }
    if (at === rest.length) {
      this.#keep(incoming)
      return true
    }
    if (incoming.length > missing) {
      this.#following = incoming.subarray(missing)
      incoming = incoming.subarray(0, missing)
    }
    this.#keep(Buffer.concat([rest.subarray(at), incoming]))
    return true
  }

  /**
   * Has what was received read by whoever reads frames. Nothing of it is referred to afterwards: its memory is used again.
   */
  readonly take = (bytes: Buffer): void => {
    const connection = this.#connection
    connection.recvSinceLastCheck = true
    this.#following = bytes
    this.#isTaking = true
    connection.stream.emit("readable")
    this.#isTaking = false
    // Nobody went on reading: the connection is ending.
    if (this.#following !== undefined) this.#following = Buffer.from(this.#following)
    const { rest } = connection
    if (rest.buffer === bytes.buffer)
      this.#keep(rest.length === this.#at ? nothing : Buffer.from(rest.subarray(this.#at)))
  }

  #keep(rest: Buffer): void {
    this.#connection.rest = rest
    this.#at = 0
  }

  /**
   * What has come of a large body's frame: a body is put together anyway. Its last byte is given out with the frame's end
   * only, since a frame without is no frame.
   */
  #part(rest: Buffer, at: number, left: number): Frame | undefined {
    const wanted = this.#bodyLeft
    const size = left > wanted ? wanted : Math.min(left, wanted - 1)
    if (size === 0) return undefined
    const end = at + size
    this.#bodyLeft = wanted - size
    this.#at = end
    if (this.#bodyLeft === 0) {
      // As amqplib says it.
      if (rest[end] !== frameEnd) throw new Error("Invalid frame")
      this.#at = end + 1
    }
    return { channel: this.#bodyChannel, fields: none, content: rest.subarray(at, end) }
  }

  #beginToSkip(rest: Buffer, at: number, size: number, most: number): void {
    const start = at + prefix
    const header = readContentHeader(rest, uint16(rest, at + 1), start, start + fixedPart)
    this.#skipped = unread(header, `it has ${size} bytes, at most ${most} are read`)
    this.#skipLeft = size - fixedPart + 1
    this.#at = start + fixedPart
  }

  /** Whether that was the end of it. */
  #skip(rest: Buffer, at: number, left: number): boolean {
    const bytes = Math.min(left, this.#skipLeft)
    this.#at = at + bytes
    this.#skipLeft -= bytes
    if (this.#skipLeft > 0) return false
    // As amqplib says it.
    if (rest[this.#at - 1] !== frameEnd) throw new Error("Invalid frame")
    return true
  }

  #taken(): HeaderFrame | undefined {
    const skipped = this.#skipped
    this.#skipped = undefined
    return skipped
  }

  /** The frame that begins here, as amqplib reads it. */
  #other(at: number): unknown {
    this.#keep(this.#connection.rest.subarray(at))
    return this.#others.call(this.#connection)
  }

  /** `at`: where the frame begins; `end`: of its payload. */
  #frame(rest: Buffer, at: number, end: number): unknown {
    const start = at + prefix
    const channel = uint16(rest, at + 1)
    switch (rest[at]) {
      case methodFrame: {
        const frame = this.#method(rest, channel, start, end)
        if (frame === undefined) return this.#other(at)
        this.#at = end + 1
        return frame
      }
      case headerFrame:
        // Taken before it is read, as amqplib does: a malformed one must not be met again.
        this.#at = end + 1
        return readContentHeader(rest, channel, start, end)
      case bodyFrame:
        this.#at = end + 1
        return { channel, fields: none, content: rest.subarray(start, end) }
      default:
        return this.#other(at)
    }
  }

  /** Undefined: for amqplib to read. */
  #method(rest: Buffer, channel: number, start: number, end: number): Frame | undefined {
    const size = end - start
    if (size < 13) return undefined
    const id = uint32(rest, start)
    switch (id) {
      case basicAck: {
        const bits = rest[start + 12]!
        return { id, channel, fields: { deliveryTag: uint64(rest, start + 4), multiple: (bits & 1) === 1 } }
      }
      case basicNack: {
        const bits = rest[start + 12]!
        return {
          id,
          channel,
          fields: { deliveryTag: uint64(rest, start + 4), multiple: (bits & 1) === 1, requeue: (bits & 2) === 2 }
        }
      }
      case basicDeliver:
        return this.#deliver(rest, channel, start + 4, end)
      case basicGetOk:
      case basicReturn:
        return this.#announced(rest, id, channel, start + 4, end)
      default:
        return undefined
    }
  }

  /** Like a delivery, and rarer. */
  #announced(rest: Buffer, id: number, channel: number, start: number, end: number): Frame | undefined {
    const reader = new Reader(rest, start, end)
    try {
      const fields =
        id === basicReturn
          ? {
              replyCode: reader.short(),
              replyText: reader.shortstr(),
              exchange: reader.shortstr(),
              routingKey: reader.shortstr()
            }
          : {
              deliveryTag: reader.longlong(),
              redelivered: (reader.octet() & 1) === 1,
              exchange: reader.shortstr(),
              routingKey: reader.shortstr(),
              messageCount: reader.long()
            }
      return reader.isAtEnd ? { id, channel, fields } : undefined
    } catch {
      return undefined
    }
  }

  #deliver(rest: Buffer, channel: number, start: number, end: number): Frame | undefined {
    const tag = start + 1
    const afterTag = tag + rest[start]!
    const exchange = afterTag + 10
    if (exchange > end) return undefined
    const afterExchange = exchange + rest[exchange - 1]!
    const routingKey = afterExchange + 1
    if (routingKey > end || routingKey + rest[afterExchange]! !== end) return undefined
    return {
      id: basicDeliver,
      channel,
      fields: {
        consumerTag: this.#consumerTag.read(rest, tag, afterTag),
        deliveryTag: uint64(rest, afterTag),
        redelivered: (rest[afterTag + 8]! & 1) === 1,
        exchange: this.#exchange.read(rest, exchange, afterExchange),
        routingKey: this.#routingKey.read(rest, routingKey, end)
      }
    }
  }
}

/**
 * Reads the frames of an amqplib connection here from now on, those of `input` without the stream's help: then contents are
 * views of memory that is used again, and to be copied at once. An amqplib that receives frames in another way goes on reading
 * them itself.
 */
export const readFrames = (connection: object, input?: SocketInput): void => {
  if (!isConnection(connection)) return
  const reader = new FrameReader(connection)
  connection.recvFrame = reader.next
  if (input !== undefined) input.take = reader.take
}
