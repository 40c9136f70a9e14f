/**
 * The content header of a delivered message, read here instead of by amqplib: its properties are exact then, and in the
 * shape that they are handed out in.
 */
import type { DeliveredProperties, FieldTable } from "../../model/message.ts"
import { latest, malformed, Reader } from "./fieldReader.ts"
import { classBasic } from "./protocol.ts"

/** A frame as amqplib's channels take it. */
export interface HeaderFrame {
  readonly id: number
  readonly channel: number
  /** Bytes of content that follow. */
  readonly size: number
  readonly fields: DeliveredProperties
  /** Why not all of it could be read: then `fields` are those properties that could. */
  readonly undecodable: Error | undefined
}

/** The part of a payload that no publisher can write: class, weight, and the size of the content. */
export const fixedPart = 12

// Flags, AMQP 0-9-1, section 4.2.6.1 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
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

/** `expiration`, which is text on the wire; undefined: not what RabbitMQ allows there. */
export const toMilliseconds = (expiration: string): number | undefined => {
  const milliseconds = /^\d+$/.test(expiration) ? Number(expiration) : Number.NaN
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined
}

/** A timestamp's seconds; undefined: beyond the years of a `Date`. */
export const toDate = (seconds: number): Date | undefined => (seconds <= latest ? new Date(seconds * 1000) : undefined)

/** Of a message of which none can be read. */
const noProperties: DeliveredProperties = Object.freeze({ headers: noHeaders, persistent: false })

/** Reads the properties that these flags announce, up to the end. */
const readProperties = (reader: Reader, flags: number): DeliveredProperties => {
  // In the order of the flags.
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

/** What follows flags that say that more flags follow (AMQP 0-9-1, section 4.2.6.1): class basic has no more. */
const readContinued = (reader: Reader, flags: number): DeliveredProperties => {
  for (let more = flags; more & continues;) {
    more = reader.short()
    if (more & ~continues) throw malformed("it has properties that class basic does not have")
  }
  return readProperties(reader, flags)
}

/**
 * A header that does not come out even as RabbitMQ 3 reads it, which ignores the two lowest flags and passes them on: where
 * they are set it may be as AMQP has it, or else it cannot be read.
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
    if (flags & continues) return { ...frame, fields: readContinued(reader, flags), undecodable: reader.problem }
  } catch {
    // The first reading says as much.
  }
  return { ...frame, fields: noProperties, undecodable: problem }
}

/** The header of a message of which nothing is read. */
export const unread = (header: HeaderFrame, because: string): HeaderFrame => ({
  ...header,
  fields: noProperties,
  undecodable: malformed(because)
})

/**
 * Reads the payload of a content header frame: from its class on. What a publisher has written there throws nothing: its
 * message alone cannot be read.
 */
export const readContentHeader = (rest: Buffer, channel: number, start: number, end: number): HeaderFrame => {
  const reader = new Reader(rest, start, end)
  const id = reader.short()
  if (id !== classBasic) throw malformed(`class ${id} has no content`)
  reader.short()
  const size = reader.longlong()
  try {
    const fields = readProperties(reader, reader.short())
    return { id, channel, size, fields, undecodable: reader.problem }
  } catch (cause) {
    return readOtherwise(rest, { id, channel, size }, start + fixedPart, end, reader.problem ?? (cause as Error))
  }
}
