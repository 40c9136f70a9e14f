/**
 * The frames of a publish, written straight to where the bytes of its channel wait for the connection.
 *
 * AMQP 0-9-1, sections 2.3.5, 4.2.5 and 4.2.6 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import { beginFrame, endFrame, setUint16, setUint32, setUint64 } from "../wire/frameWriter.ts"
import type { Outgoing } from "../wire/properties.ts"
import { basicPublish, bodyFrame, classBasic, headerFrame, methodFrame, overhead } from "../wire/protocol.ts"
import { largestSlab } from "./slab.ts"
import { writeShortText } from "../wire/shortText.ts"
import { setNumber } from "../wire/tableBytes.ts"
import type { ChannelOutput } from "./channelOutput.ts"

/** A body of more bytes is not put into one piece with its header. */
const smallBody = 4096
/** All but the texts: both frames, the fields of fixed size, the lengths of the texts and of the table. */
const fixedSize = 2 * overhead + 4 + 2 + 1 + 14 + 10 + 10 + 4
/** Of a value in a table, but for the bytes of a text: its key's length, its type, and its length or number. */
const fixedValueSize = 10

// Names are short, and mostly ASCII: then this is faster than Node's own, which is called for the rest. -1: not this one.
const setAscii = (room: Buffer, at: number, text: string): number => {
  const { length } = text
  if (length > 48) return -1
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code > 0x7f) return -1
    room[at + i] = code
  }
  return at + length
}

const setShortstr = (room: Buffer, at: number, text: string): number => {
  let end = setAscii(room, at + 1, text)
  if (end < 0) end = writeShortText(room, at + 1, text)
  room[at] = end - at - 1
  return end
}

const setLongstr = (room: Buffer, at: number, text: string): number => {
  let end = setAscii(room, at + 4, text)
  if (end < 0) end = at + 4 + room.write(text, at + 4)
  setUint32(room, at, end - at - 4)
  return end
}

type Plain = Readonly<Record<string, string | number | boolean | null | undefined>>

const setTable = (room: Buffer, start: number, table: Plain): number => {
  let at = start + 4
  for (const key in table) {
    const value = table[key]
    if (value === undefined) continue
    at = setShortstr(room, at, key)
    switch (typeof value) {
      case "string":
        room[at] = 0x53 // S
        at = setLongstr(room, at + 1, value)
        break
      case "number":
        at = setNumber(room, at, value)
        break
      case "boolean":
        room[at] = 0x74 // t
        room[at + 1] = value ? 1 : 0
        at += 2
        break
      default:
        room[at++] = 0x56 // V
    }
  }
  setUint32(room, start, at - start - 4)
  return at
}

/** The most bytes that it can take: three for each of UTF-16, which spares us from counting them. */
const mostOf = (outgoing: Outgoing): number => {
  let characters = outgoing.exchange.length + outgoing.routingKey.length
  const { contentType, contentEncoding, correlationId, replyTo, expiration, messageId, type, userId, appId } = outgoing
  if (contentType !== undefined) characters += contentType.length
  if (contentEncoding !== undefined) characters += contentEncoding.length
  if (correlationId !== undefined) characters += correlationId.length
  if (replyTo !== undefined) characters += replyTo.length
  if (expiration !== undefined) characters += expiration.length
  if (messageId !== undefined) characters += messageId.length
  if (type !== undefined) characters += type.length
  if (userId !== undefined) characters += userId.length
  if (appId !== undefined) characters += appId.length
  let most = fixedSize + characters * 3
  if (outgoing.table !== undefined) return most + outgoing.table.length
  const headers = outgoing.headers as Plain | undefined
  for (const key in headers) {
    const value = headers[key]
    most += fixedValueSize + key.length * 3
    if (typeof value === "string") most += value.length * 3
  }
  return most
}

const setPublish = (
  room: Buffer,
  at: number,
  channel: number,
  { exchange, mandatory, routingKey }: Outgoing
): number => {
  const start = beginFrame(room, at, methodFrame, channel)
  let end = setUint32(room, start, basicPublish)
  end = setUint16(room, end, 0)
  end = setShortstr(room, end, exchange)
  end = setShortstr(room, end, routingKey)
  room[end] = mandatory ? 1 : 0
  return endFrame(room, start, end + 1)
}

const setHeader = (room: Buffer, at: number, channel: number, outgoing: Outgoing): number => {
  const start = beginFrame(room, at, headerFrame, channel)
  const size = outgoing.content.length
  setUint16(room, start, classBasic)
  setUint16(room, start + 2, 0)
  setUint64(room, start + 4, size)
  // In the order of the flags, which are known at the end.
  let flags = 0
  let end = start + 14
  if (outgoing.contentType !== undefined) {
    flags |= 1 << 15
    end = setShortstr(room, end, outgoing.contentType)
  }
  if (outgoing.contentEncoding !== undefined) {
    flags |= 1 << 14
    end = setShortstr(room, end, outgoing.contentEncoding)
  }
  if (outgoing.table !== undefined) {
    flags |= 1 << 13
    end += outgoing.table.copy(room, end)
  } else if (outgoing.headers !== undefined) {
    flags |= 1 << 13
    end = setTable(room, end, outgoing.headers as Plain)
  }
  flags |= 1 << 12
  room[end++] = outgoing.persistent ? 2 : 1
  if (outgoing.priority !== undefined) {
    flags |= 1 << 11
    room[end++] = outgoing.priority
  }
  if (outgoing.correlationId !== undefined) {
    flags |= 1 << 10
    end = setShortstr(room, end, outgoing.correlationId)
  }
  if (outgoing.replyTo !== undefined) {
    flags |= 1 << 9
    end = setShortstr(room, end, outgoing.replyTo)
  }
  if (outgoing.expiration !== undefined) {
    flags |= 1 << 8
    end = setShortstr(room, end, outgoing.expiration)
  }
  if (outgoing.messageId !== undefined) {
    flags |= 1 << 7
    end = setShortstr(room, end, outgoing.messageId)
  }
  if (outgoing.timestamp !== undefined) {
    flags |= 1 << 6
    end = setUint64(room, end, outgoing.timestamp)
  }
  if (outgoing.type !== undefined) {
    flags |= 1 << 5
    end = setShortstr(room, end, outgoing.type)
  }
  if (outgoing.userId !== undefined) {
    flags |= 1 << 4
    end = setShortstr(room, end, outgoing.userId)
  }
  if (outgoing.appId !== undefined) {
    flags |= 1 << 3
    end = setShortstr(room, end, outgoing.appId)
  }
  setUint16(room, start + 12, flags)
  return endFrame(room, start, end)
}

/** Writes a body in frames of their own, as many as it takes. */
const writeBody = (output: ChannelOutput, channel: number, content: Buffer, mostOfFrame: number): void => {
  const { length } = content
  for (let from = 0; from < length; from += mostOfFrame) {
    const end = Math.min(from + mostOfFrame, length)
    const at = output.reserve(end - from + overhead)
    const start = beginFrame(output.room, at, bodyFrame, channel)
    output.commit(endFrame(output.room, start, start + content.copy(output.room, start, from, end)) - at)
  }
}

/** A message whose headers have no room where small ones are put together. */
const writeLarge = (
  output: ChannelOutput,
  channel: number,
  most: number,
  mostOfFrame: number,
  outgoing: Outgoing
): void => {
  const room = Buffer.allocUnsafeSlow(most)
  const end = setHeader(room, setPublish(room, 0, channel, outgoing), channel, outgoing)
  output.write(room.subarray(0, end))
  writeBody(output, channel, outgoing.content, mostOfFrame)
}

/**
 * Writes the frames of one message; whether there is room for more.
 *
 * @param frameMax the connection's, more than the overhead of a frame
 */
export const writePublish = (output: ChannelOutput, channel: number, frameMax: number, outgoing: Outgoing): boolean => {
  const { content } = outgoing
  const { length } = content
  const mostOfFrame = Math.min(frameMax, largestSlab) - overhead
  const isSmall = length <= smallBody && length <= mostOfFrame
  const most = mostOf(outgoing) + (isSmall ? length + overhead : 0)
  if (most > largestSlab) {
    writeLarge(output, channel, most, mostOfFrame, outgoing)
    return !output.isFull
  }
  const at = output.reserve(most)
  const { room } = output
  let end = setPublish(room, at, channel, outgoing)
  end = setHeader(room, end, channel, outgoing)
  if (isSmall && length > 0) {
    const start = beginFrame(room, end, bodyFrame, channel)
    room.set(content, start)
    end = endFrame(room, start, start + length)
  }
  output.commit(end - at)
  if (!isSmall) writeBody(output, channel, content, mostOfFrame)
  return !output.isFull
}
