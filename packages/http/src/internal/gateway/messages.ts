/** Messages in HTTP: properties in headers or in JSON, contents as text or in base64. */
import type { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import * as Base64 from "effect/encoding/Base64"
import type * as Headers from "effect/http/Headers"
import * as Result from "effect/Result"
import { type Refusal, refuse } from "./refusals.ts"

/** Properties that are strings, by the header that sets them. */
const stringProperties = {
  "amqp-content-type": "contentType",
  "amqp-content-encoding": "contentEncoding",
  "amqp-correlation-id": "correlationId",
  "amqp-reply-to": "replyTo",
  "amqp-message-id": "messageId",
  "amqp-type": "type",
  "amqp-user-id": "userId",
  "amqp-app-id": "appId"
} as const

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const parse = (json: string): unknown => {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

const openings = new Set([0x5b, 0x7b])
const quote = 0x22
const backslash = 0x5c

/** Whether JSON is nested deeper than so many levels. It is checked before any recursive function reads the JSON. */
const isDeeper = (json: string, most: number): boolean => {
  // Each level takes at least one character.
  if (json.length <= most) return false
  let depth = 0
  let isText = false
  for (let i = 0; i < json.length; i++) {
    const character = json.charCodeAt(i)
    if (isText) {
      if (character === backslash) i++
      else if (character === quote) isText = false
    } else if (character === quote) isText = true
    else if (openings.has(character)) {
      if (++depth > most) return true
    } else if (character === 0x5d || character === 0x7d) depth--
  }
  return false
}

const tooDeep = (what: string, depth: number): Refusal =>
  refuse(400, `${what}: expected JSON of at most ${depth} levels, got more.`)

/** Rules for messages of clients, in addition to those for all messages. */
export interface Rules {
  /** Maximum nesting of JSON, in levels. */
  readonly depth: number
  /** The user that this service logs in with; `undefined` if only the broker knows it. */
  readonly user: string | undefined
}

/** How the pseudo-queue of direct reply-to is called, and how its addresses begin: by RabbitMQ, and by LavinMQ. */
const directReplyNames = ["amq.rabbitmq.reply-to", "amq.direct.reply-to"]

/** Checks the properties that name a user, and the queue for replies. */
const refusalOfStrings = ({ replyTo, userId }: AmqpMessage.Properties, { user }: Rules): Refusal | undefined => {
  if (userId !== undefined && user !== undefined && userId !== user) {
    return refuse(400, "user-id: expected the user that this service logs in with at the message broker, or none.")
  }
  if (replyTo !== undefined && directReplyNames.some((name) => replyTo.startsWith(name))) {
    return refuse(
      400,
      "reply-to: expected the name of a queue, got an address of direct reply-to, which needs a channel."
    )
  }
  return undefined
}

/**
 * Checks application headers. `CC` and `BCC` are refused because they would send copies to other routing keys, which
 * `authorize` has not seen (https://www.rabbitmq.com/docs/sender-selected).
 */
const refusalOfHeaders = (value: unknown): Refusal | undefined => {
  if (!isRecord(value)) return refuse(400, "headers: expected a JSON object.")
  return Object.hasOwn(value, "CC") || Object.hasOwn(value, "BCC")
    ? refuse(400, "headers: CC and BCC are not allowed, because they send copies to other queues.")
    : undefined
}

/** A number, or a string that contains one. Anything else is `NaN`. */
const toNumber = (value: unknown): number =>
  typeof value === "number" ? value : typeof value === "string" && value.trim() !== "" ? Number(value) : Number.NaN

const toBoolean = (value: unknown): boolean | undefined =>
  value === true || value === "true" ? true : value === false || value === "false" ? false : undefined

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Reads the properties that are not strings, from headers or from JSON. Returns `undefined` if they are valid. */
const readOthers = (
  properties: Mutable<AmqpMessage.Properties>,
  given: { readonly [K in "persistent" | "priority" | "expiration" | "timestamp" | "headers"]: unknown }
): Refusal | undefined => {
  if (given.persistent !== undefined) {
    const persistent = toBoolean(given.persistent)
    if (persistent === undefined) return refuse(400, "persistent: expected true or false.")
    properties.persistent = persistent
  }
  if (given.priority !== undefined) {
    const priority = toNumber(given.priority)
    if (!Number.isInteger(priority) || priority < 0 || priority > 255) {
      return refuse(400, "priority: expected an integer from 0 to 255.")
    }
    properties.priority = priority
  }
  if (given.expiration !== undefined) {
    const expiration = toNumber(given.expiration)
    if (!Number.isInteger(expiration) || expiration < 0) {
      return refuse(400, "expiration: expected an integer from 0, in milliseconds.")
    }
    properties.expiration = expiration
  }
  if (given.timestamp !== undefined) {
    const timestamp = new Date(typeof given.timestamp === "string" ? given.timestamp : Number.NaN)
    if (!(timestamp.getTime() >= 0)) return refuse(400, "timestamp: expected a date in ISO 8601, from 1970 on.")
    properties.timestamp = timestamp
  }
  if (given.headers !== undefined) {
    const refusal = refusalOfHeaders(given.headers)
    if (refusal !== undefined) return refusal
    properties.headers = given.headers as AmqpMessage.Headers
  }
  return undefined
}

/** Whether a result is a refusal. Only a refusal has a status. */
export const isRefused = (value: AmqpMessage.Message | AmqpMessage.Properties | Refusal): value is Refusal =>
  "status" in value

/** Reads the properties from a request's headers. */
export const propertiesOf = (headers: Headers.Headers, rules: Rules): AmqpMessage.Properties | Refusal => {
  const properties: Mutable<AmqpMessage.Properties> = {}
  if (headers["content-type"] !== undefined) properties.contentType = headers["content-type"]
  if (headers["content-encoding"] !== undefined) properties.contentEncoding = headers["content-encoding"]
  for (const [header, property] of Object.entries(stringProperties)) {
    if (headers[header] !== undefined) properties[property] = headers[header]
  }
  const table = headers["amqp-headers"]
  if (table !== undefined && isDeeper(table, rules.depth)) return tooDeep("amqp-headers", rules.depth)
  const refusal = readOthers(properties, {
    persistent: headers["amqp-persistent"],
    priority: headers["amqp-priority"],
    expiration: headers["amqp-expiration"],
    timestamp: headers["amqp-timestamp"],
    headers: table === undefined ? undefined : (parse(table) ?? null)
  })
  return refusal ?? refusalOfStrings(properties, rules) ?? properties
}

const knownFields = new Set(["content", "base64", "json", "properties"])
const knownProperties = new Set<string>([
  ...Object.values(stringProperties),
  "persistent",
  "priority",
  "expiration",
  "timestamp",
  "headers"
])

const contentOf = (line: Readonly<Record<string, unknown>>): string | Uint8Array | undefined => {
  const { base64, content, json } = line
  if (typeof content === "string" && base64 === undefined && json === undefined) return content
  if (typeof base64 === "string" && content === undefined && json === undefined) {
    return Result.getOrUndefined(Base64.decode(base64))
  }
  return json !== undefined && content === undefined && base64 === undefined ? JSON.stringify(json) : undefined
}

/** Reads the message from a line of a batch. */
export const readLine = (text: string, to: AmqpMessage.Envelope, rules: Rules): AmqpMessage.Message | Refusal => {
  if (isDeeper(text, rules.depth)) return tooDeep("line", rules.depth)
  const line = parse(text)
  if (!isRecord(line)) return refuse(400, "line: expected a JSON object.")
  const unknown = Object.keys(line).find((key) => !knownFields.has(key))
  if (unknown !== undefined) return refuse(400, "line: expected only content, base64, json and properties.")
  const content = contentOf(line)
  if (content === undefined) return refuse(400, "line: expected either content (a string), base64 or json.")
  const properties: Mutable<AmqpMessage.Properties> =
    line["json"] === undefined ? {} : { contentType: "application/json" }
  const given = line["properties"] ?? {}
  if (!isRecord(given) || Object.keys(given).some((key) => !knownProperties.has(key))) {
    return refuse(400, `properties: expected an object with only ${[...knownProperties].join(", ")}.`)
  }
  for (const property of Object.values(stringProperties)) {
    const value = given[property]
    if (value === undefined) continue
    if (typeof value !== "string") return refuse(400, `${property}: expected a string.`)
    properties[property] = value
  }
  const { expiration, headers, persistent, priority, timestamp } = given
  const refusal = readOthers(properties, { expiration, headers, persistent, priority, timestamp })
  return refusal ?? refusalOfStrings(properties, rules) ?? { ...to, ...properties, content }
}

// --- Deliveries ---

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The content as text if it is valid UTF-8, otherwise in base64. */
export const contentAsJson = (content: Uint8Array) => {
  try {
    return { content: utf8.decode(content) }
  } catch {
    return { base64: Base64.encode(content) }
  }
}

const valueAsJson = (value: AmqpMessage.FieldValue | undefined): unknown => {
  if (typeof value === "bigint") return String(value)
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value)
  if (typeof value !== "object" || value === null) return value
  if (value instanceof Uint8Array) return { base64: Base64.encode(value) }
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString()
  if (DateTime.isDateTime(value)) return DateTime.formatIso(value)
  if (BigDecimal.isBigDecimal(value)) return BigDecimal.format(value)
  if (Array.isArray(value)) return value.map(valueAsJson)
  return tableAsJson(value as AmqpMessage.FieldTable)
}

/** A field table as JSON. */
export const tableAsJson = (table: AmqpMessage.FieldTable): object =>
  // Assignment would lose a header `__proto__`, which is a header like any other.
  Object.fromEntries(Object.entries(table).map(([key, value]) => [key, valueAsJson(value)]))

/** A delivery as JSON. */
export const deliveryAsJson = (delivery: AmqpConsumer.Delivery): object => {
  const { headers, ...properties } = delivery.properties
  return {
    exchange: delivery.exchange,
    routingKey: delivery.routingKey,
    redelivered: delivery.redelivered,
    attempt: delivery.attempt,
    properties: { ...properties, headers: tableAsJson(headers) },
    ...contentAsJson(delivery.content)
  }
}
