/**
 * The content header of a delivered message. It is read here instead of by amqplib, so that its properties are exact
 * and have the shape in which they are handed out.
 */
import type { DeliveredProperties, FieldTable, Properties } from "../../model/message.ts"
import { maxDateSeconds, malformed, Reader } from "./fieldReader.ts"
import { classBasic } from "./protocol.ts"

/** A frame as amqplib's channels accept it. */
export interface HeaderFrame {
  readonly id: number
  readonly channel: number
  /** Size of the content that follows, in bytes. */
  readonly size: number
  readonly fields: DeliveredProperties
  /** Why not all properties could be read. Then `fields` contains those that could. */
  readonly decodeError: Error | undefined
}

/** Size of the part of a payload that no publisher can write, in bytes: class, weight, and the size of the content. */
export const fixedHeaderSize = 12

// These are the flags of AMQP 0-9-1, section 4.2.6.1 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
const hasContentType = 1 << 15
const hasContentEncoding = 1 << 14
const hasHeaders = 1 << 13
const hasDeliveryMode = 1 << 12
const hasPriority = 1 << 11
const hasCorrelationId = 1 << 10
const hasReplyTo = 1 << 9
const hasExpiration = 1 << 8
const hasMessageId = 1 << 7
const hasTimestamp = 1 << 6
const hasType = 1 << 5
const hasUserId = 1 << 4
const hasAppId = 1 << 3
const hasClusterId = 1 << 2
const continues = 1

/** The headers of a message without any. */
export const noHeaders: FieldTable = Object.freeze(Object.create(null) as FieldTable)

/** Reads `expiration`, which is text on the wire. Returns undefined for text that RabbitMQ does not allow there. */
export const toMilliseconds = (expiration: string): number | undefined => {
  const milliseconds = /^\d+$/.test(expiration) ? Number(expiration) : Number.NaN
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined
}

/** Converts a timestamp's seconds. Returns undefined beyond the years of a `Date`. */
export const toDate = (seconds: number): Date | undefined =>
  seconds <= maxDateSeconds ? new Date(seconds * 1000) : undefined

/** The properties of a message of which none can be read. */
const noProperties: DeliveredProperties = Object.freeze({ headers: noHeaders, persistent: false })

/** Reads the properties that these flags announce, up to the end. */
const readProperties = (reader: Reader, flags: number): DeliveredProperties => {
  // The properties follow in the order of the flags.
  const contentType = flags & hasContentType ? reader.shortstr() : undefined
  const contentEncoding = flags & hasContentEncoding ? reader.shortstr() : undefined
  const headers = flags & hasHeaders ? reader.tableOr(noHeaders) : noHeaders
  const persistent = flags & hasDeliveryMode ? reader.octet() === 2 : false
  const priority = flags & hasPriority ? reader.octet() : undefined
  const correlationId = flags & hasCorrelationId ? reader.shortstr() : undefined
  const replyTo = flags & hasReplyTo ? reader.shortstr() : undefined
  const expiration = flags & hasExpiration ? toMilliseconds(reader.shortstr()) : undefined
  const messageId = flags & hasMessageId ? reader.shortstr() : undefined
  const timestamp = flags & hasTimestamp ? toDate(reader.longlong()) : undefined
  const type = flags & hasType ? reader.shortstr() : undefined
  const userId = flags & hasUserId ? reader.shortstr() : undefined
  const appId = flags & hasAppId ? reader.shortstr() : undefined
  if (flags & hasClusterId) reader.shortstr()
  if (!reader.isAtEnd) throw malformed("bytes are left over")
  return {
    contentType,
    contentEncoding,
    headers,
    persistent,
    priority,
    correlationId,
    replyTo,
    expiration,
    messageId,
    timestamp,
    type,
    userId,
    appId
  }
}

/**
 * Reads a property list alone, as `propertyList` writes it. Throws if the bytes are not one, or have a property that a
 * message could not be published with.
 */
export const readPropertyList = (bytes: Buffer): Properties => {
  const reader = new Reader(bytes, 0, bytes.length)
  const flags = reader.short()
  const properties = readProperties(reader, flags)
  if (reader.problem !== undefined) throw reader.problem
  if (flags & (hasClusterId | 3)) throw malformed("it has properties that messages do not have")
  const { expiration, timestamp } = properties
  if (flags & hasExpiration && expiration === undefined) throw malformed("the expiration is not a number")
  if (flags & hasTimestamp && timestamp === undefined) throw malformed("the timestamp is beyond the years of a Date")
  // No headers and empty headers are different bytes.
  return flags & hasHeaders ? properties : { ...properties, headers: undefined }
}

/** Reads what follows flags that announce more flags (AMQP 0-9-1, section 4.2.6.1). Class basic has no more flags. */
const readContinued = (reader: Reader, flags: number): DeliveredProperties => {
  for (let more = flags; more & continues;) {
    more = reader.short()
    if (more & ~continues) throw malformed("it has properties that class basic does not have")
  }
  return readProperties(reader, flags)
}

/**
 * Reads a header that does not fit when it is read as RabbitMQ 3 reads it: RabbitMQ 3 ignores the two lowest flags and
 * passes them on. Where they are set, the header may be written as AMQP specifies. Otherwise it cannot be read.
 */
const readOtherwise = (
  rest: Buffer,
  frame: { readonly id: number; readonly channel: number; readonly size: number },
  start: number,
  end: number,
  problem: Error
): HeaderFrame => {
  try {
    const reader = new Reader(rest, start, end)
    const flags = reader.short()
    if (flags & continues) return { ...frame, fields: readContinued(reader, flags), decodeError: reader.problem }
  } catch {
    // The error of the first reading is reported.
  }
  return { ...frame, fields: noProperties, decodeError: problem }
}

/** Returns the header of a message whose properties are not read. */
export const undecodedHeader = (header: HeaderFrame, because: string): HeaderFrame => ({
  ...header,
  fields: noProperties,
  decodeError: malformed(because)
})

/**
 * Reads the payload of a content header frame, from its class on. Nothing that a publisher has written there makes it
 * throw: only that message cannot be read.
 */
export const readContentHeader = (rest: Buffer, channel: number, start: number, end: number): HeaderFrame => {
  const reader = new Reader(rest, start, end)
  const id = reader.short()
  if (id !== classBasic) throw malformed(`class ${id} has no content`)
  reader.short()
  const size = reader.longlong()
  try {
    const fields = readProperties(reader, reader.short())
    return { id, channel, size, fields, decodeError: reader.problem }
  } catch (cause) {
    return readOtherwise(rest, { id, channel, size }, start + fixedHeaderSize, end, reader.problem ?? (cause as Error))
  }
}
