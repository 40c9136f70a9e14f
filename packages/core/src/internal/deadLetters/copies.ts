/** The messages that a redrive publishes. */
import type { AmqpConfig } from "../../model/config.ts"
import type { Message } from "../../model/message.ts"
import { failedPrefix } from "../consumer/failedNames.ts"
import { headersWithout, isDeliveryCount, isRecipients, ownUserId } from "../message/copies.ts"
import { fromDelivery } from "../message/forward.ts"
import { type Letter, redrivenHeader, runHeader } from "./letter.ts"

export interface Target {
  readonly exchange: string
  readonly routingKey: string
}

// Excluded are reports of earlier failures, the counts of attempts, and headers that would make the broker send more
// copies.
const isOfPast = (name: string): boolean =>
  isRecipients(name) ||
  name === "x-death" ||
  isDeliveryCount(name) ||
  name.startsWith(failedPrefix) ||
  name.startsWith("x-retry-") ||
  name.startsWith("x-first-death-") ||
  name.startsWith("x-last-death-")

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
