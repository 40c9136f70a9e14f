/** The messages that a redrive publishes, and the copies of messages that cannot be returned to their queue. */
import type { AmqpConfig } from "../../model/config.ts"
import type { FieldValue, Headers, Message } from "../../model/message.ts"
import { failedPrefix } from "../consumer/failedNames.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { fromDelivery } from "../message/forward.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"
import { type Letter, redrivenHeader, runHeader } from "./letter.ts"

export interface Target {
  readonly exchange: string
  readonly routingKey: string
}

const isCount = (name: string) => name === "x-delivery-count" || name === "x-acquired-count"

// Excluded are reports of earlier failures, the counts of attempts, and headers that would make the broker send more
// copies.
const isOfPast = (name: string): boolean =>
  name === "CC" ||
  name === "BCC" ||
  name === "x-death" ||
  isCount(name) ||
  name.startsWith(failedPrefix) ||
  name.startsWith("x-retry-") ||
  name.startsWith("x-first-death-") ||
  name.startsWith("x-last-death-")

const headersWithout = (headers: Headers, isExcluded: (name: string) => boolean) => {
  const copied: Record<string, FieldValue | undefined> = Object.create(null)
  for (const name of Object.keys(headers)) if (!isExcluded(name)) copied[name] = headers[name]
  copyReceivedBytes(copied, headers)
  return copied
}

/** The broker refuses a `userId` that is not the user of the connection. */
const ownUserId = ({ credentials }: AmqpConfig, userId: string | undefined) =>
  credentials._tag === "Plain" && credentials.username === userId ? userId : undefined

/** The message of a redrive. Its attempts start again. */
export const redriveOf = (letter: Letter, to: Target, run: string, config: AmqpConfig): Message => {
  const headers = headersWithout(letter.properties.headers, isOfPast)
  headers[redrivenHeader] = Math.min(letter.redriven + 1, 1_000_000_000)
  headers[runHeader] = run
  return fromDelivery(letter, {
    exchange: to.exchange,
    routingKey: to.routingKey,
    headers,
    expiration: undefined,
    userId: ownUserId(config, letter.properties.userId)
  })
}

/** The same message at the end of its queue. Its count of returns starts again. */
export const sameAtEnd = (queue: string, message: DeliveredMessage, config: AmqpConfig): Message =>
  fromDelivery(message, {
    exchange: "",
    routingKey: queue,
    headers: headersWithout(message.properties.headers, (name) => isCount(name) || name === "CC" || name === "BCC"),
    userId: ownUserId(config, message.properties.userId)
  })
