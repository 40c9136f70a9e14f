/** Whether a message that the broker gave back (`basic.return`) is the one that was published. */
import type { FieldTable, Message, Properties } from "../../model/message.ts"
import { noHeaders } from "./contentHeader.ts"
import { directReplyTo, isReplyAddress } from "./directReply.ts"
import { toSeconds } from "./fieldTable.ts"
import { toBuffer, toExpiration } from "./properties.ts"
import { includes, keysOf } from "./sameValue.ts"

/** What `sameMessage` compares a message with. */
export interface Arrived {
  readonly content: Uint8Array
  readonly properties: Properties
  readonly exchange: string
  readonly routingKey: string
}

/**
 * Whether a message that the broker gave back is the one that was published.
 *
 * Not exactly what was published comes back: the broker takes the header `BCC` away, and may have been set up to add a
 * timestamp and headers of its own (https://www.rabbitmq.com/docs/configure#config-items, `message_interceptors`).
 */
export const sameMessage = (message: Message, arrived: Arrived): boolean =>
  sameEnvelope(message, arrived, arrived.content.byteLength) && toBuffer(message.content).equals(arrived.content)

/** The same, of all but the content: of that, its size in bytes. */
export const sameEnvelope = (message: Message, arrived: Omit<Arrived, "content">, size: number): boolean => {
  const { content } = message
  const { properties } = arrived
  return (
    message.routingKey === arrived.routingKey &&
    (message.exchange ?? "") === arrived.exchange &&
    (typeof content === "string" ? Buffer.byteLength(content) : content.byteLength) === size &&
    message.messageId === properties.messageId &&
    message.correlationId === properties.correlationId &&
    message.contentType === properties.contentType &&
    message.contentEncoding === properties.contentEncoding &&
    (message.persistent ?? true) === properties.persistent &&
    message.priority === properties.priority &&
    (message.replyTo === properties.replyTo ||
      // The broker has written the channel's own address in its place (direct reply-to).
      (message.replyTo === directReplyTo && properties.replyTo !== undefined && isReplyAddress(properties.replyTo))) &&
    (message.expiration === undefined ? undefined : toExpiration(message.expiration)) === properties.expiration &&
    (message.timestamp === undefined || toSeconds(message.timestamp) === toSeconds(properties.timestamp)) &&
    message.type === properties.type &&
    message.userId === properties.userId &&
    message.appId === properties.appId &&
    sameHeaders(message.headers ?? noHeaders, properties.headers ?? noHeaders)
  )
}

const sameHeaders = (sent: FieldTable, arrived: FieldTable): boolean => {
  const keys = keysOf(sent).filter((key) => key !== "BCC")
  return (
    includes(sent, keys, arrived) &&
    Object.keys(arrived).every((key) => keys.includes(key) || key.startsWith("x-") || key === "timestamp_in_ms")
  )
}
