/** The methods that we read and write ourselves: their fields from bytes, and their frames. */
import { noHeaders } from "../wire/contentHeader.ts"
import { Reader } from "../wire/fieldReader.ts"
import { beginFrame, endFrame, setUint16, setUint32 } from "../wire/frameWriter.ts"
import { channelClose, frameEnd, methodFrame, nameOf, overhead } from "../wire/protocol.ts"
import { readShortText, writeShortText } from "../wire/shortText.ts"
import type { ChannelOutput } from "./channelOutput.ts"
import { BrokerClose, frameError, ProtocolViolation } from "./ends.ts"
import { uint16, uint64 } from "./framing.ts"
import { Delivered, Returned } from "./incoming.ts"

// --- Reading -----------------------------------------------------------------------------------------------------------

const malformed = (id: number) =>
  new ProtocolViolation(`Invalid frame: ${nameOf(id)} ends before its fields do, or behind them`, frameError)

/** Reads fields that are to fill the payload, as far as `read` goes. */
const fields = <A>(id: number, bytes: Buffer, start: number, end: number, read: (reader: Reader) => A): A => {
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

/** The short text that was read last in one place: the next delivery mostly has the same. */
class LastText {
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
    return (this.#text = readShortText(from, start, end))
  }
}

/** Reads `basic.deliver`, for one connection. */
export class DeliverReader {
  readonly #consumerTag = new LastText()
  readonly #exchange = new LastText()
  readonly #routingKey = new LastText()

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
  fields(id, bytes, start, end, (reader) => {
    const deliveryTag = reader.longlong()
    const redelivered = (reader.octet() & 1) === 1
    const exchange = reader.shortstr()
    const routingKey = reader.shortstr()
    return new Delivered("", deliveryTag, redelivered, exchange, routingKey, reader.long())
  })

export const readReturn = (id: number, bytes: Buffer, start: number, end: number): Returned =>
  fields(
    id,
    bytes,
    start,
    end,
    (reader) => new Returned(reader.short(), reader.shortstr(), reader.shortstr(), reader.shortstr())
  )

/** The consumer's tag, and whether no answer is wanted. */
export const readCancel = (id: number, bytes: Buffer, start: number, end: number) =>
  fields(id, bytes, start, end, (reader) => ({ consumerTag: reader.shortstr(), nowait: (reader.octet() & 1) === 1 }))

/** The one bit of `channel.flow` and its answer. */
export const readBit = (id: number, bytes: Buffer, start: number, end: number): boolean =>
  fields(id, bytes, start, end, (reader) => (reader.octet() & 1) === 1)

export const readText = (id: number, bytes: Buffer, start: number, end: number): string =>
  fields(id, bytes, start, end, (reader) => reader.shortstr())

/** Of a channel or a connection. */
export const readClose = (id: number, bytes: Buffer, start: number, end: number): BrokerClose => {
  const of = id === channelClose ? "channel" : "connection"
  const text = start + 7
  const afterText = text + bytes[text - 1]!
  if (text > end || afterText + 4 !== end) throw malformed(id)
  // RabbitMQ cuts it off after 255 bytes, which may be in the midst of a character: Node marks that.
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
  const read = fields(id, bytes, start, end, (reader) => {
    reader.short()
    const properties = reader.tableOr(noHeaders)
    const mechanisms = String(reader.longstr())
    reader.longstr()
    // amqplib would exhaust its stack.
    const problem = reader.problem?.message ?? (reader.isTooDeep ? "they are nested too deep" : undefined)
    return { properties, mechanisms: mechanisms.split(" "), problem }
  })
  if (read.problem !== undefined) {
    throw new ProtocolViolation(`the broker's server properties cannot be read: ${read.problem}`, frameError)
  }
  return read
}

export const readTune = (id: number, bytes: Buffer, start: number, end: number) =>
  fields(id, bytes, start, end, (reader) => ({
    channelMax: reader.short(),
    frameMax: reader.long(),
    heartbeat: reader.short()
  }))

// --- Writing -----------------------------------------------------------------------------------------------------------

/** The size of a method without fields. */
const bare = overhead + 4

const longestShortstr = 256

/** A method without fields, or with one bit. */
export const writeMethod = (output: ChannelOutput, channel: number, id: number, bit?: boolean): void => {
  const at = output.reserve(bare + 1)
  const { room } = output
  const start = beginFrame(room, at, methodFrame, channel)
  let end = setUint32(room, start, id)
  if (bit !== undefined) room[end++] = bit ? 1 : 0
  output.commit(endFrame(room, start, end) - at)
}

const setShortstr = (room: Buffer, at: number, text: string): number => {
  const end = writeShortText(room, at + 1, text)
  room[at] = end - at - 1
  return end
}

export const writeGet = (output: ChannelOutput, channel: number, id: number, queue: string, noAck: boolean): void => {
  const at = output.reserve(bare + 2 + longestShortstr + 1)
  const { room } = output
  const start = beginFrame(room, at, methodFrame, channel)
  const end = setShortstr(room, setUint16(room, setUint32(room, start, id), 0), queue)
  room[end] = noAck ? 1 : 0
  output.commit(endFrame(room, start, end + 1) - at)
}

export const writeCancelOk = (output: ChannelOutput, channel: number, id: number, consumerTag: string): void => {
  const at = output.reserve(bare + longestShortstr)
  const { room } = output
  const start = beginFrame(room, at, methodFrame, channel)
  output.commit(endFrame(room, start, setShortstr(room, setUint32(room, start, id), consumerTag)) - at)
}

/** A frame of a method without fields that amqplib is to read. */
export const frameOf = (channel: number, id: number, payload: ReadonlyArray<number>): Buffer => {
  const size = 4 + payload.length
  const frame = Buffer.alloc(size + overhead)
  const start = beginFrame(frame, 0, methodFrame, channel)
  setUint32(frame, start, id)
  frame.set(payload, start + 4)
  setUint32(frame, start - 4, size)
  frame[start + size] = frameEnd
  return frame
}
