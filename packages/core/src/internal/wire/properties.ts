/** Checks messages, and prepares them to be written. */
import * as Duration from "effect/Duration"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable, Message } from "../../model/message.ts"
import { maxTtlMillis } from "./declarations.ts"
import { malformedCopyHeader, isMalformedAddress, malformedAddress, expectedAddress } from "./directReply.ts"
import { frameOverhead } from "./protocol.ts"
import { sizeOfShortString } from "./shortString.ts"
import { bytesOfTable } from "./tableBytes.ts"
import { unchangedBytesOf } from "./unchanged.ts"
import {
  isPlainTable,
  isShortString,
  describeType,
  describeName,
  invalidArgument,
  toSeconds,
  toTable,
  asBuffer,
  expectedName
} from "./fieldTable.ts"

/**
 * A message that is checked and ready to be written.
 *
 * It is a class, and all of its fields always exist. V8 soon allocates object literals that live as long as a confirm
 * takes where only a full collection finds them, and objects of many shapes are slow to read.
 */
export class Outgoing {
  exchange = ""
  routingKey = ""
  content: Buffer = nothing
  /** The headers as bytes, unless they are few and all of them are strings, plain numbers, booleans or null. */
  table: Buffer | undefined = undefined
  mandatory = false
  // Messages are persistent by default, so that the risk of losing them is an explicit choice.
  persistent = true
  headers: FieldTable | undefined = undefined
  contentType: string | undefined = undefined
  contentEncoding: string | undefined = undefined
  priority: number | undefined = undefined
  correlationId: string | undefined = undefined
  replyTo: string | undefined = undefined
  expiration: string | undefined = undefined
  messageId: string | undefined = undefined
  /** Seconds since 1970. */
  timestamp: number | undefined = undefined
  type: string | undefined = undefined
  userId: string | undefined = undefined
  appId: string | undefined = undefined

  withContent(content: Buffer): Outgoing {
    return Object.assign(new Outgoing(), this, { content })
  }
}

/** The content as it is written. Bytes are a view, not a copy. */
export const toBuffer = (content: string | Uint8Array): Buffer =>
  typeof content === "string" ? Buffer.from(content) : asBuffer(content)

const nothing = Buffer.alloc(0)

const expectedContent = "a string without lone surrogates, or a Uint8Array"
const expectedMessage =
  "one of the properties exchange, routingKey, content, contentType, contentEncoding, headers, persistent, priority, correlationId, replyTo, expiration, messageId, timestamp, type, userId, appId"

/** `expiration` in milliseconds, as it is written, or undefined if it cannot be written. */
export const toExpiration = (value: unknown): number | undefined => {
  let milliseconds = value
  if (typeof value !== "number") {
    try {
      milliseconds = Duration.toMillis(Duration.fromInputUnsafe(value as Duration.Input))
    } catch {
      return undefined
    }
  }
  return Number.isInteger(milliseconds) && Number(milliseconds) >= 0 && Number(milliseconds) <= maxTtlMillis
    ? Number(milliseconds)
    : undefined
}

/**
 * Returns a message as it is published, or why it is not: the first property that cannot be sent.
 *
 * @param frameMax the connection's frame-max, because a content header is one frame; 0: no limit
 */
export const toOutgoing = (message: Message, frameMax = 0, operation = "basic.publish"): Outgoing | InvalidArgument => {
  if (typeof message !== "object" || message === null) {
    return invalidArgument(operation, "message", "an object with routingKey and content", describeType(message))
  }
  const outgoing = new Outgoing()
  let hasRoutingKey = false
  let hasContent = false
  let headers: unknown
  for (const key in message) {
    const value: unknown = message[key as keyof Message]
    switch (key) {
      case "exchange":
        if (value === undefined) break
        if (!isShortString(value)) return invalidArgument(operation, key, expectedName, describeName(value))
        outgoing.exchange = value
        break
      case "routingKey":
        if (!isShortString(value)) return invalidArgument(operation, key, expectedName, describeName(value))
        outgoing.routingKey = value
        hasRoutingKey = true
        break
      case "content":
        if (typeof value === "string" ? !value.isWellFormed() : !(value instanceof Uint8Array)) {
          return invalidArgument(operation, key, expectedContent, describeType(value))
        }
        outgoing.content = toBuffer(value as string | Uint8Array)
        hasContent = true
        break
      case "headers":
        headers = value
        break
      case "contentType":
      case "contentEncoding":
      case "correlationId":
      case "replyTo":
      case "messageId":
      case "type":
      case "userId":
      case "appId":
        if (value === undefined) break
        if (!isShortString(value)) return invalidArgument(operation, key, expectedName, describeName(value))
        outgoing[key] = value
        break
      case "persistent":
        if (value === undefined) break
        if (typeof value !== "boolean") return invalidArgument(operation, key, "true or false", describeType(value))
        outgoing.persistent = value
        break
      case "priority":
        if (value === undefined) break
        if (!(Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 255)) {
          return invalidArgument(operation, key, "an integer from 0 to 255", describeType(value))
        }
        outgoing.priority = value as number
        break
      case "expiration": {
        if (value === undefined) break
        const milliseconds = toExpiration(value)
        if (milliseconds === undefined) {
          return invalidArgument(
            operation,
            key,
            `a duration of 0 to ${maxTtlMillis} whole milliseconds`,
            describeType(value)
          )
        }
        outgoing.expiration = String(milliseconds)
        break
      }
      case "timestamp": {
        if (value === undefined) break
        const seconds = toSeconds(value)
        if (!(seconds >= 0))
          return invalidArgument(operation, key, "a Date or DateTime from 1970 on", describeType(value))
        outgoing.timestamp = seconds
        break
      }
      default:
        // Code may have put something on `Object.prototype`, which is not a property of this message.
        if (Object.hasOwn(message, key)) return invalidArgument(operation, key, expectedMessage, "an unknown property")
    }
  }
  if (!hasRoutingKey) return invalidArgument(operation, "routingKey", expectedName, "undefined")
  if (!hasContent) return invalidArgument(operation, "content", expectedContent, "undefined")
  if (headers !== undefined) {
    const unchanged = unchangedBytesOf(headers as FieldTable)
    if (unchanged === undefined && isPlainTable(headers) && (frameMax === 0 || frameMax >= minFrameMax)) {
      outgoing.headers = headers as FieldTable
    } else {
      const table = toTable(headers, "headers", operation, maxHeadersSize(outgoing, frameMax), unchanged)
      if (table instanceof InvalidArgument) return table
      outgoing.headers = table
      if (table !== headers) outgoing.table = bytesOfTable(table)
    }
    if (outgoing.exchange === "") {
      const name = malformedCopyHeader(headers as FieldTable)
      if (name !== undefined) return invalidArgument(operation, `headers.${name}`, expectedAddress, malformedAddress)
    }
  }
  if (outgoing.exchange === "" && isMalformedAddress(outgoing.routingKey)) {
    return invalidArgument(operation, "routingKey", expectedAddress, malformedAddress)
  }
  return outgoing
}

/**
 * Returns a message with empty content, to check the rest of it. Own properties stay own, and inherited ones inherited.
 */
export const withoutContent = (message: Message): Message =>
  Object.create(
    Object.getPrototypeOf(message) as object | null,
    Object.getOwnPropertyDescriptors({ ...message, content: "" })
  ) as Message

/** The smallest frame-max that a connection can have (AMQP 0-9-1, section 4.2.3). A plain table fits in any case. */
const minFrameMax = 4096

/** Maximum size of a table in bytes: its length is a long. */
const maxTableLength = 2 ** 32 - 1

/** Maximum number of digits of `expiration`. */
const maxExpirationDigits = String(maxTtlMillis).length

/**
 * Maximum size of the headers, in bytes: they share one frame with all other properties. The message is checked, or is
 * to be.
 */
const maxHeadersSize = (properties: Outgoing | Message, frameMax: number): number => {
  if (frameMax === 0) return maxTableLength
  // The frame's own 8 bytes; class, weight, content size and flags; the delivery mode.
  let others = frameOverhead + 14 + 1
  if (properties.priority !== undefined) others += 1
  if (properties.timestamp !== undefined) others += 8
  const { appId, contentEncoding, contentType, correlationId, expiration, messageId, replyTo, type, userId } =
    properties
  if (expiration !== undefined) others += 1 + (typeof expiration === "string" ? expiration.length : maxExpirationDigits)
  for (const text of [contentType, contentEncoding, correlationId, replyTo, messageId, type, userId, appId]) {
    if (text !== undefined) others += 1 + (sizeOfShortString(text) ?? 0)
  }
  return frameMax - others
}

/** Whether a message with these headers in place of its own could be sent, as far as the headers decide it. */
export const fitsHeaders = (message: Message, headers: FieldTable, frameMax = 0): boolean => {
  const room = maxHeadersSize(message, frameMax)
  return !(toTable(headers, "headers", "basic.publish", room, unchangedBytesOf(headers)) instanceof InvalidArgument)
}
