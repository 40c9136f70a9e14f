/** Why a message that came was not taken in: it is too large, or cannot be read. */
import { DecodeFailed, MessageTooLarge } from "../../model/errorReason.ts"
import type { Refused } from "../driver/driver.ts"

/** The operation that asked for a message. */
const operations = {
  "basic.get": "basic.get",
  "basic.deliver": "basic.consume",
  "basic.return": "basic.publish"
} as const

// What was taken with noAck does not come again.
const whatNow = {
  "basic.get":
    "The channel was closed, and the message is in its queue still unless it was taken with noAck: raise maxInboundMessageBodySize, or take it out by other means.",
  "basic.deliver":
    "Raise maxInboundMessageBodySize, or have less sent. A message that was to be acknowledged is in its queue still, and would come again.",
  "basic.return": "The channel was closed: raise maxInboundMessageBodySize to be able to read what comes back."
} as const

/** Why a message was not taken in: it is larger than `maxInboundMessageBodySize`. */
export const tooLarge = (
  { message: { exchange, routingKey }, method, size }: Refused,
  limit: number
): MessageTooLarge => {
  const operation = operations[method]
  const what = method === "basic.return" ? "a message that the broker returned" : "a message"
  return new MessageTooLarge({
    message:
      `${operation}: ${what} (exchange ${JSON.stringify(exchange)}, routing key ${JSON.stringify(routingKey)}) has a body of ${size} bytes, ` +
      `more than the ${limit} of maxInboundMessageBodySize, and was not taken in. ${whatNow[method]}`,
    operation,
    replyCode: 311
  })
}

/** What has become of a message that cannot be read. */
const becameOf = {
  acked: "It was acknowledged, since a stream keeps its messages: it stays there, and is skipped.",
  rejected: "It was rejected: it is in the queue's dead-letter exchange, if the queue has one, and gone otherwise.",
  nothing: "It needed no acknowledgement, and is gone.",
  returned: "It reached no queue."
} as const

export type Became = keyof typeof becameOf

/** Why a message was not handed to anybody: its properties cannot be read. */
export const unreadable = (method: Refused["method"], became: Became, problem: Error): DecodeFailed => {
  const operation = operations[method]
  const what = method === "basic.return" ? "a message that the broker returned" : "a message"
  return new DecodeFailed({
    message: `${operation}: the properties of ${what} cannot be read: ${problem.message}. ${becameOf[became]}`,
    operation,
    cause: problem
  })
}
