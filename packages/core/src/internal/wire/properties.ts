/** Messages as they are written, checked on the way. */
import * as Duration from "effect/Duration"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable, Message } from "../../model/message.ts"
import { longestTtl } from "./declarations.ts"
import { isCopiedToMalformed, isMalformed, malformedAddress, wantsAddress } from "./directReply.ts"
import { overhead } from "./protocol.ts"
import { sizeOfShortText } from "./shortText.ts"
import { bytesOfTable } from "./tableBytes.ts"
import { unchangedIn } from "./unchanged.ts"
import {
  isPlain,
  isShortText,
  kindOf,
  kindOfName,
  refused,
  toSeconds,
  toTable,
  viewOf,
  wantsName
} from "./fieldTable.ts"

/**
 * A message that is checked, and ready to be written.
 *
 * A class, and all of its fields always there: object literals that live as long as a confirm takes are soon made by V8
 * where only a full collection finds them, and objects of many shapes are slow to read.
 */
export class Outgoing {
  exchange = ""
  routingKey = ""
  content: Buffer = nothing
  /** Its headers as bytes, unless they are texts, plain numbers, booleans and null, and few. */
  table: Buffer | undefined = undefined
  mandatory = false
  // Losing messages is a choice, not an oversight.
  persistent = true
  headers: FieldTable | undefined = undefined
  contentType: string | undefined = undefined
  contentEncoding: string | undefined = undefined
  priority: number | undefined = undefined
  correlationId: string | undefined = undefined
  replyTo: string | undefined = undefined
  expiration: string | undefined = undefined
  messageId: string | undefined = undefined
  /** In seconds since 1970. */
  timestamp: number | undefined = undefined
  type: string | undefined = undefined
  userId: string | undefined = undefined
  appId: string | undefined = undefined

  withContent(content: Buffer): Outgoing {
    return Object.assign(new Outgoing(), this, { content })
  }
}

/** The content as it is written: a view, not a copy. */
export const toBuffer = (content: string | Uint8Array): Buffer =>
  typeof content === "string" ? Buffer.from(content) : viewOf(content)

const nothing = Buffer.alloc(0)

const wantsContent = "a well-formed text or bytes (Uint8Array)"
const wantsMessage =
  "one of exchange, routingKey, content, contentType, contentEncoding, headers, persistent, priority, correlationId, replyTo, expiration, messageId, timestamp, type, userId, appId"

/** `expiration` in milliseconds, as it is written; undefined: it cannot be. */
export const toExpiration = (value: unknown): number | undefined => {
  let milliseconds = value
  if (typeof value !== "number") {
    try {
      milliseconds = Duration.toMillis(Duration.fromInputUnsafe(value as Duration.Input))
    } catch {
      return undefined
    }
  }
  return Number.isInteger(milliseconds) && Number(milliseconds) >= 0 && Number(milliseconds) <= longestTtl
    ? Number(milliseconds)
    : undefined
}

/**
 * A message as it is published, or why it is not: the first property that cannot be sent.
 *
 * @param frameMax the connection's, since a content header is one frame; 0: no limit
 */
export const toPublish = (message: Message, frameMax = 0, operation = "basic.publish"): Outgoing | InvalidArgument => {
  if (typeof message !== "object" || message === null) {
    return refused(operation, "message", "an object with routingKey and content", kindOf(message))
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
        if (!isShortText(value)) return refused(operation, key, wantsName, kindOfName(value))
        outgoing.exchange = value
        break
      case "routingKey":
        if (!isShortText(value)) return refused(operation, key, wantsName, kindOfName(value))
        outgoing.routingKey = value
        hasRoutingKey = true
        break
      case "content":
        if (typeof value === "string" ? !value.isWellFormed() : !(value instanceof Uint8Array)) {
          return refused(operation, key, wantsContent, kindOf(value))
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
        if (!isShortText(value)) return refused(operation, key, wantsName, kindOfName(value))
        outgoing[key] = value
        break
      case "persistent":
        if (value === undefined) break
        if (typeof value !== "boolean") return refused(operation, key, "true or false", kindOf(value))
        outgoing.persistent = value
        break
      case "priority":
        if (value === undefined) break
        if (!(Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 255)) {
          return refused(operation, key, "an integer from 0 to 255", kindOf(value))
        }
        outgoing.priority = value as number
        break
      case "expiration": {
        if (value === undefined) break
        const milliseconds = toExpiration(value)
        if (milliseconds === undefined) {
          return refused(operation, key, `a duration of 0 to ${longestTtl} whole milliseconds`, kindOf(value))
        }
        outgoing.expiration = String(milliseconds)
        break
      }
      case "timestamp": {
        if (value === undefined) break
        const seconds = toSeconds(value)
        if (!(seconds >= 0)) return refused(operation, key, "a Date or DateTime from 1970 on", kindOf(value))
        outgoing.timestamp = seconds
        break
      }
      default:
        // Somebody may have put something on `Object.prototype`: that is no property of this message.
        if (Object.hasOwn(message, key)) return refused(operation, key, wantsMessage, "a property of this name")
    }
  }
  if (!hasRoutingKey) return refused(operation, "routingKey", wantsName, "undefined")
  if (!hasContent) return refused(operation, "content", wantsContent, "undefined")
  if (headers !== undefined) {
    const unchanged = unchangedIn(headers as FieldTable)
    if (unchanged === undefined && isPlain(headers) && (frameMax === 0 || frameMax >= leastFrame)) {
      outgoing.headers = headers as FieldTable
    } else {
      const table = toTable(headers, "headers", operation, roomForHeaders(outgoing, frameMax), unchanged)
      if (table instanceof InvalidArgument) return table
      outgoing.headers = table
      if (table !== headers) outgoing.table = bytesOfTable(table)
    }
    if (outgoing.exchange === "") {
      const name = isCopiedToMalformed(headers as FieldTable)
      if (name !== undefined) return refused(operation, `headers.${name}`, wantsAddress, malformedAddress)
    }
  }
  if (outgoing.exchange === "" && isMalformed(outgoing.routingKey)) {
    return refused(operation, "routingKey", wantsAddress, malformedAddress)
  }
  return outgoing
}

/** A message to check the rest of: its own properties and inherited ones, each as what it is. */
export const withoutContent = (message: Message): Message =>
  Object.create(
    Object.getPrototypeOf(message) as object | null,
    Object.getOwnPropertyDescriptors({ ...message, content: "" })
  ) as Message

/** No connection has smaller frames (AMQP 0-9-1, section 4.2.3): a plain table fits in any case. */
const leastFrame = 4096

/** The length of a table is a long. */
const mostOfTable = 2 ** 32 - 1

/** The most that `expiration` is as text. */
const longestExpiration = String(longestTtl).length

/** Headers have to go into one frame with all other properties, of a message that is checked or is to be. */
const roomForHeaders = (properties: Outgoing | Message, frameMax: number): number => {
  if (frameMax === 0) return mostOfTable
  // The frame's own 8 bytes; class, weight, content size, flags; delivery mode.
  let others = overhead + 14 + 1
  if (properties.priority !== undefined) others += 1
  if (properties.timestamp !== undefined) others += 8
  const { appId, contentEncoding, contentType, correlationId, expiration, messageId, replyTo, type, userId } =
    properties
  if (expiration !== undefined) others += 1 + (typeof expiration === "string" ? expiration.length : longestExpiration)
  for (const text of [contentType, contentEncoding, correlationId, replyTo, messageId, type, userId, appId]) {
    if (text !== undefined) others += 1 + (sizeOfShortText(text) ?? 0)
  }
  return frameMax - others
}

/** Whether a message with these headers in the place of its own could be sent, as far as they decide it. */
export const fitsHeaders = (message: Message, headers: FieldTable, frameMax = 0): boolean => {
  const room = roomForHeaders(message, frameMax)
  return !(toTable(headers, "headers", "basic.publish", room, unchangedIn(headers)) instanceof InvalidArgument)
}
