/** Whether a message that the broker returned (`basic.return`) is the one that was published. */
import type { FieldTable, Message, Properties } from "../../model/message.ts"
import { noHeaders } from "./contentHeader.ts"
import { isPseudoQueue, isReplyAddress } from "./directReply.ts"
import { toSeconds } from "./fieldTable.ts"
import { toBuffer, toExpiration } from "./properties.ts"
import { includesEntries, definedKeys } from "./sameValue.ts"

/** The message that `isSameMessage` compares with the published one. */
export interface ReceivedMessage {
  readonly content: Uint8Array
  readonly properties: Properties
  readonly exchange: string
  readonly routingKey: string
}

/**
 * Whether a message that the broker returned is the one that was published.
 *
 * The returned message may differ from the published one: the broker removes the header `BCC`, and may be configured to
 * add a timestamp and headers of its own (https://www.rabbitmq.com/docs/configure#config-items,
 * `message_interceptors`).
 */
export const isSameMessage = (message: Message, arrived: ReceivedMessage): boolean =>
  isSameEnvelope(message, arrived, arrived.content.byteLength) && toBuffer(message.content).equals(arrived.content)

/** The same comparison without the content. Of the content, only the size in bytes is compared. */
export const isSameEnvelope = (message: Message, arrived: Omit<ReceivedMessage, "content">, size: number): boolean => {
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
      // The broker replaced it with the channel's own address (direct reply-to).
      (isPseudoQueue(message.replyTo) && properties.replyTo !== undefined && isReplyAddress(properties.replyTo))) &&
    (message.expiration === undefined ? undefined : toExpiration(message.expiration)) === properties.expiration &&
    (message.timestamp === undefined || toSeconds(message.timestamp) === toSeconds(properties.timestamp)) &&
    message.type === properties.type &&
    message.userId === properties.userId &&
    message.appId === properties.appId &&
    sameHeaders(message.headers ?? noHeaders, properties.headers ?? noHeaders)
  )
}

const sameHeaders = (sent: FieldTable, arrived: FieldTable): boolean => {
  const keys = definedKeys(sent).filter((key) => key !== "BCC")
  return (
    includesEntries(sent, keys, arrived) &&
    Object.keys(arrived).every((key) => keys.includes(key) || key.startsWith("x-") || key === "timestamp_in_ms")
  )
}
