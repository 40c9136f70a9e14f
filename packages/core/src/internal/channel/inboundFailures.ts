/** The errors for inbound messages that are not delivered: they are too large, or cannot be read. */
import { DecodeFailed, MessageTooLarge } from "../../model/errorReason.ts"
import type { DroppedMessage } from "../driver/driver.ts"

/** The operation that leads to each method. */
const operations = {
  "basic.get": "basic.get",
  "basic.deliver": "basic.consume",
  "basic.return": "basic.publish"
} as const

// A message that was taken with noAck is not delivered again.
const remedies = {
  "basic.get":
    "The channel was closed. The message is still in its queue unless it was taken with noAck. Raise maxInboundMessageBodySize, or remove the message by other means.",
  "basic.deliver":
    "Raise maxInboundMessageBodySize, or send smaller messages. Unless it was consumed with noAck, the message is still in its queue and will be delivered again.",
  "basic.return": "The channel was closed. Raise maxInboundMessageBodySize to read returned messages of this size."
} as const

/** The error for a message that is larger than `maxInboundMessageBodySize`. */
export const messageTooLarge = (
  { message: { exchange, routingKey }, method, size }: DroppedMessage,
  limit: number
): MessageTooLarge => {
  const operation = operations[method]
  const what = method === "basic.return" ? "a returned message" : "a message"
  return new MessageTooLarge({
    message:
      `${operation}: ${what} (exchange ${JSON.stringify(exchange)}, routing key ${JSON.stringify(routingKey)}) was dropped: ` +
      `expected a body of at most ${limit} bytes (maxInboundMessageBodySize), got ${size}. ${remedies[method]}`,
    operation,
    replyCode: 311
  })
}

/** What was done with a message that cannot be read. */
const dispositionTexts = {
  acked: "It was acknowledged and skipped; it remains in the stream.",
  rejected: "It was rejected: the queue's dead-letter exchange gets it, if there is one; otherwise it is lost.",
  kept: "It stays in its queue.",
  nothing: "It needed no acknowledgement (noAck) and is lost.",
  returned: "It reached no queue."
} as const

export type Disposition = keyof typeof dispositionTexts

/** The error for a message that was not delivered because its properties cannot be read. */
export const unreadable = (
  method: DroppedMessage["method"],
  disposition: Disposition,
  problem: Error
): DecodeFailed => {
  const operation = operations[method]
  const what = method === "basic.return" ? "a returned message" : "a message"
  return new DecodeFailed({
    message: `${operation}: the properties of ${what} cannot be read: ${problem.message}. ${dispositionTexts[disposition]}`,
    operation,
    cause: problem
  })
}
