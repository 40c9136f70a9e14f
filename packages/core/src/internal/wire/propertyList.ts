/**
 * Writes property lists: the flags and the values of a message's properties, as they stand in its content header
 * (AMQP 0-9-1, section 4.2.6.1; https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf). `contentHeader` reads them.
 */
import { setUint16, setUint32, setUint64 } from "./frameWriter.ts"
import type { Outgoing } from "./properties.ts"
import { writeShortString } from "./shortString.ts"
import { setNumber } from "./tableBytes.ts"

/**
 * Size of a property list except the bytes of its strings and of its table's entries: the flags, the delivery mode, the
 * priority, the timestamp, the lengths of eight short strings and of the table.
 */
const fixedSize = 2 + 1 + 1 + 8 + 8 + 4
/**
 * Size of a table entry without the bytes of its strings: the key's length, the type, and the value's length or number.
 */
const fixedValueSize = 10

// Names are short and mostly ASCII: for those this loop is faster than Node's own write. -1: the text is too long or
// not ASCII.
const setAscii = (buffer: Buffer, at: number, text: string): number => {
  const { length } = text
  if (length > 48) return -1
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code > 0x7f) return -1
    buffer[at + i] = code
  }
  return at + length
}

/** Writes a short string with its length. */
export const setShortstr = (buffer: Buffer, at: number, text: string): number => {
  let end = setAscii(buffer, at + 1, text)
  if (end < 0) end = writeShortString(buffer, at + 1, text)
  buffer[at] = end - at - 1
  return end
}

const setLongstr = (buffer: Buffer, at: number, text: string): number => {
  let end = setAscii(buffer, at + 4, text)
  if (end < 0) end = at + 4 + buffer.write(text, at + 4)
  setUint32(buffer, at, end - at - 4)
  return end
}

type Plain = Readonly<Record<string, string | number | boolean | null | undefined>>

const setTable = (buffer: Buffer, start: number, table: Plain): number => {
  let at = start + 4
  for (const key in table) {
    const value = table[key]
    if (value === undefined) continue
    at = setShortstr(buffer, at, key)
    switch (typeof value) {
      case "string":
        buffer[at] = 0x53 // S
        at = setLongstr(buffer, at + 1, value)
        break
      case "number":
        at = setNumber(buffer, at, value)
        break
      case "boolean":
        buffer[at] = 0x74 // t
        buffer[at + 1] = value ? 1 : 0
        at += 2
        break
      default:
        buffer[at++] = 0x56 // V
    }
  }
  setUint32(buffer, start, at - start - 4)
  return at
}

/**
 * Upper bound of the size of a property list: UTF-8 needs at most three bytes per UTF-16 code unit, so nothing has to be
 * counted.
 */
export const maxPropertyListSize = (outgoing: Outgoing): number => {
  let characters = 0
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

/** Writes a property list, and returns where it ends. */
export const setPropertyList = (buffer: Buffer, start: number, outgoing: Outgoing): number => {
  // The properties follow in the order of their flags. The flags are complete only at the end.
  let flags = 0
  let end = start + 2
  if (outgoing.contentType !== undefined) {
    flags |= 1 << 15
    end = setShortstr(buffer, end, outgoing.contentType)
  }
  if (outgoing.contentEncoding !== undefined) {
    flags |= 1 << 14
    end = setShortstr(buffer, end, outgoing.contentEncoding)
  }
  if (outgoing.table !== undefined) {
    flags |= 1 << 13
    end += outgoing.table.copy(buffer, end)
  } else if (outgoing.headers !== undefined) {
    flags |= 1 << 13
    end = setTable(buffer, end, outgoing.headers as Plain)
  }
  flags |= 1 << 12
  buffer[end++] = outgoing.persistent ? 2 : 1
  if (outgoing.priority !== undefined) {
    flags |= 1 << 11
    buffer[end++] = outgoing.priority
  }
  if (outgoing.correlationId !== undefined) {
    flags |= 1 << 10
    end = setShortstr(buffer, end, outgoing.correlationId)
  }
  if (outgoing.replyTo !== undefined) {
    flags |= 1 << 9
    end = setShortstr(buffer, end, outgoing.replyTo)
  }
  if (outgoing.expiration !== undefined) {
    flags |= 1 << 8
    end = setShortstr(buffer, end, outgoing.expiration)
  }
  if (outgoing.messageId !== undefined) {
    flags |= 1 << 7
    end = setShortstr(buffer, end, outgoing.messageId)
  }
  if (outgoing.timestamp !== undefined) {
    flags |= 1 << 6
    end = setUint64(buffer, end, outgoing.timestamp)
  }
  if (outgoing.type !== undefined) {
    flags |= 1 << 5
    end = setShortstr(buffer, end, outgoing.type)
  }
  if (outgoing.userId !== undefined) {
    flags |= 1 << 4
    end = setShortstr(buffer, end, outgoing.userId)
  }
  if (outgoing.appId !== undefined) {
    flags |= 1 << 3
    end = setShortstr(buffer, end, outgoing.appId)
  }
  setUint16(buffer, start, flags)
  return end
}

/** Returns the property list of a message, in memory of its own. */
export const propertyListOf = (outgoing: Outgoing): Uint8Array => {
  const buffer = Buffer.allocUnsafe(maxPropertyListSize(outgoing))
  return new Uint8Array(buffer.subarray(0, setPropertyList(buffer, 0, outgoing)))
}
