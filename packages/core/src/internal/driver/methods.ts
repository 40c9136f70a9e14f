/** Reads and writes the methods that the driver handles itself: fields from bytes, and frames from fields. */
import { noHeaders } from "../wire/contentHeader.ts"
import { Reader } from "../wire/fieldReader.ts"
import { beginFrame, endFrame, setUint16, setUint32 } from "../wire/frameWriter.ts"
import { channelClose, frameEnd, methodFrame, methodName, frameOverhead } from "../wire/protocol.ts"
import { readShortString, writeShortString } from "../wire/shortString.ts"
import type { ChannelOutput } from "./channelOutput.ts"
import { BrokerClose, frameError, ProtocolViolation } from "./errors.ts"
import { uint16, uint64 } from "./framing.ts"
import { Delivered, Returned } from "./contentAssembler.ts"

// --- Reading -----------------------------------------------------------------------------------------------------------

const malformed = (id: number) =>
  new ProtocolViolation(`Invalid frame: the size of ${methodName(id)} does not match its fields`, frameError)

/** Reads the fields that follow the method's number. They must end exactly where the payload ends. */
const readFields = <A>(id: number, bytes: Buffer, start: number, end: number, read: (reader: Reader) => A): A => {
  const reader = new Reader(bytes, start + 4, end)
  let value: A
  try {
    value = read(reader)
  } catch {
    throw malformed(id)
  }
  if (!reader.isAtEnd) throw malformed(id)
  return value
}

/** Caches the short string that was read last in one position, because the next delivery usually has the same one. */
class ShortStringCache {
  #text = ""
  #size = 0
  readonly #bytes = Buffer.alloc(255)

  read(from: Buffer, start: number, end: number): string {
    const bytes = this.#bytes
    const size = end - start
    let i = size === this.#size ? 0 : size + 1
    while (i < size && from[start + i] === bytes[i]) i++
    if (i === size) return this.#text
    this.#size = from.copy(bytes, 0, start, end)
    return (this.#text = readShortString(from, start, end))
  }
}

/** Reads the `basic.deliver` methods of one connection. */
export class DeliverReader {
  readonly #consumerTag = new ShortStringCache()
  readonly #exchange = new ShortStringCache()
  readonly #routingKey = new ShortStringCache()

  read(id: number, bytes: Buffer, start: number, end: number): Delivered {
    const tag = start + 5
    const afterTag = tag + bytes[start + 4]!
    const exchange = afterTag + 10
    if (exchange > end) throw malformed(id)
    const afterExchange = exchange + bytes[exchange - 1]!
    const routingKey = afterExchange + 1
    if (routingKey > end || routingKey + bytes[afterExchange]! !== end) throw malformed(id)
    return new Delivered(
      this.#consumerTag.read(bytes, tag, afterTag),
      uint64(bytes, afterTag),
      (bytes[afterTag + 8]! & 1) === 1,
      this.#exchange.read(bytes, exchange, afterExchange),
      this.#routingKey.read(bytes, routingKey, end),
      undefined
    )
  }
}

export const readGetOk = (id: number, bytes: Buffer, start: number, end: number): Delivered =>
  readFields(id, bytes, start, end, (reader) => {
    const deliveryTag = reader.longlong()
    const redelivered = (reader.octet() & 1) === 1
    const exchange = reader.shortstr()
    const routingKey = reader.shortstr()
    return new Delivered("", deliveryTag, redelivered, exchange, routingKey, reader.long())
  })

export const readReturn = (id: number, bytes: Buffer, start: number, end: number): Returned =>
  readFields(
    id,
    bytes,
    start,
    end,
    (reader) => new Returned(reader.short(), reader.shortstr(), reader.shortstr(), reader.shortstr())
  )

/** Reads the consumer's tag, and whether the broker expects no answer. */
export const readCancel = (id: number, bytes: Buffer, start: number, end: number) =>
  readFields(id, bytes, start, end, (reader) => ({
    consumerTag: reader.shortstr(),
    nowait: (reader.octet() & 1) === 1
  }))

/** Reads the bit of `channel.flow` or `channel.flow-ok`. */
export const readBit = (id: number, bytes: Buffer, start: number, end: number): boolean =>
  readFields(id, bytes, start, end, (reader) => (reader.octet() & 1) === 1)

export const readText = (id: number, bytes: Buffer, start: number, end: number): string =>
  readFields(id, bytes, start, end, (reader) => reader.shortstr())

/** Reads `channel.close` or `connection.close`. */
export const readClose = (id: number, bytes: Buffer, start: number, end: number): BrokerClose => {
  const of = id === channelClose ? "channel" : "connection"
  const text = start + 7
  const afterText = text + bytes[text - 1]!
  if (text > end || afterText + 4 !== end) throw malformed(id)
  // RabbitMQ truncates the text after 255 bytes, possibly inside a character: Node decodes the rest of that character
  // as U+FFFD.
  const replyText = bytes.toString("utf8", text, afterText)
  return new BrokerClose(
    of,
    uint16(bytes, start + 4),
    replyText,
    uint16(bytes, afterText),
    uint16(bytes, afterText + 2)
  )
}

export const readStart = (id: number, bytes: Buffer, start: number, end: number) => {
  const read = readFields(id, bytes, start, end, (reader) => {
    reader.short()
    const properties = reader.tableOr(noHeaders)
    const mechanisms = String(reader.longstr())
    reader.longstr()
    // amqplib would exhaust its stack on tables that are nested too deeply.
    const problem = reader.problem?.message ?? (reader.isTooDeep ? "they are nested too deeply" : undefined)
    return { properties, mechanisms: mechanisms.split(" "), problem }
  })
  if (read.problem !== undefined) {
    throw new ProtocolViolation(`the broker's server properties cannot be read: ${read.problem}`, frameError)
  }
  return read
}

export const readTune = (id: number, bytes: Buffer, start: number, end: number) =>
  readFields(id, bytes, start, end, (reader) => ({
    channelMax: reader.short(),
    frameMax: reader.long(),
    heartbeat: reader.short()
  }))

// --- Writing -----------------------------------------------------------------------------------------------------------

/** Frame size of a method without fields, in bytes. */
const emptyMethodSize = frameOverhead + 4

const maxShortstrSize = 256

/** Writes a method without fields, or with one bit. */
export const writeMethod = (output: ChannelOutput, channel: number, id: number, bit?: boolean): void => {
  const at = output.reserve(emptyMethodSize + 1)
  const { buffer } = output
  const start = beginFrame(buffer, at, methodFrame, channel)
  let end = setUint32(buffer, start, id)
  if (bit !== undefined) buffer[end++] = bit ? 1 : 0
  output.commit(endFrame(buffer, start, end) - at)
}

const setShortstr = (buffer: Buffer, at: number, text: string): number => {
  const end = writeShortString(buffer, at + 1, text)
  buffer[at] = end - at - 1
  return end
}

export const writeGet = (output: ChannelOutput, channel: number, id: number, queue: string, noAck: boolean): void => {
  const at = output.reserve(emptyMethodSize + 2 + maxShortstrSize + 1)
  const { buffer } = output
  const start = beginFrame(buffer, at, methodFrame, channel)
  const end = setShortstr(buffer, setUint16(buffer, setUint32(buffer, start, id), 0), queue)
  buffer[end] = noAck ? 1 : 0
  output.commit(endFrame(buffer, start, end + 1) - at)
}

export const writeCancelOk = (output: ChannelOutput, channel: number, id: number, consumerTag: string): void => {
  const at = output.reserve(emptyMethodSize + maxShortstrSize)
  const { buffer } = output
  const start = beginFrame(buffer, at, methodFrame, channel)
  output.commit(endFrame(buffer, start, setShortstr(buffer, setUint32(buffer, start, id), consumerTag)) - at)
}

/** Builds a method frame that amqplib reads. */
export const frameOf = (channel: number, id: number, payload: ReadonlyArray<number>): Buffer => {
  const size = 4 + payload.length
  const frame = Buffer.alloc(size + frameOverhead)
  const start = beginFrame(frame, 0, methodFrame, channel)
  setUint32(frame, start, id)
  frame.set(payload, start + 4)
  setUint32(frame, start - 4, size)
  frame[start + size] = frameEnd
  return frame
}
