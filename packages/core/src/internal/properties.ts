/** Message properties to and from amqplib's shapes. */
import * as Option from "effect/Option"
import type { Headers, Message, Properties } from "../AmqpMessage.ts"
import type { GetMessage, PublishOptions } from "./amqplib.ts"

/** The content as amqplib takes it: a view, not a copy. */
export const toBuffer = (content: string | Uint8Array): Buffer =>
  typeof content === "string"
    ? Buffer.from(content)
    : Buffer.isBuffer(content)
      ? content
      : Buffer.from(content.buffer, content.byteOffset, content.byteLength)

/** amqplib's publish options. `persistent` is the default here: losing messages is a choice, not an oversight. */
export const toPublishOptions = (message: Message): PublishOptions => {
  const options: PublishOptions = { persistent: message.persistent ?? true }
  if (message.contentType !== undefined) options.contentType = message.contentType
  if (message.contentEncoding !== undefined) options.contentEncoding = message.contentEncoding
  if (message.headers !== undefined) options.headers = message.headers
  if (message.priority !== undefined) options.priority = message.priority
  if (message.correlationId !== undefined) options.correlationId = message.correlationId
  if (message.replyTo !== undefined) options.replyTo = message.replyTo
  if (message.expiration !== undefined) options.expiration = String(message.expiration)
  if (message.messageId !== undefined) options.messageId = message.messageId
  if (message.timestamp !== undefined) options.timestamp = Math.floor(message.timestamp.getTime() / 1000)
  if (message.type !== undefined) options.type = message.type
  if (message.userId !== undefined) options.userId = message.userId
  if (message.appId !== undefined) options.appId = message.appId
  return options
}

// A header called `__proto__` has become the prototype of amqplib's object: without one, it is a key like any other.
const copyHeaders = (headers: Record<string, unknown>): Headers => {
  const copy: Record<string, unknown> = Object.create(null)
  for (const key of Object.keys(headers)) copy[key] = headers[key]
  const prototype: unknown = Object.getPrototypeOf(headers)
  if (prototype !== Object.prototype && prototype !== null) {
    Object.defineProperty(copy, "__proto__", { value: prototype, enumerable: true, writable: true, configurable: true })
  }
  return copy
}

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)
const number = (value: unknown): number | undefined => (typeof value === "number" ? value : undefined)

const fromMilliseconds = (value: unknown): number | undefined =>
  Option.getOrUndefined(
    Option.filter(Option.map(Option.fromNullishOr(text(value)), Number), (milliseconds) =>
      Number.isSafeInteger(milliseconds)
    )
  )

/** The properties of a message that amqplib delivered. */
export const fromAmqplib = (properties: GetMessage["properties"]): Properties => {
  const timestamp = number(properties.timestamp)
  const headers: unknown = properties.headers
  return {
    contentType: text(properties.contentType),
    contentEncoding: text(properties.contentEncoding),
    headers:
      typeof headers === "object" && headers !== null ? copyHeaders(headers as Record<string, unknown>) : undefined,
    persistent: properties.deliveryMode === 2,
    priority: number(properties.priority),
    correlationId: text(properties.correlationId),
    replyTo: text(properties.replyTo),
    expiration: fromMilliseconds(properties.expiration),
    messageId: text(properties.messageId),
    timestamp: timestamp === undefined ? undefined : new Date(timestamp * 1000),
    type: text(properties.type),
    userId: text(properties.userId),
    appId: text(properties.appId)
  }
}
