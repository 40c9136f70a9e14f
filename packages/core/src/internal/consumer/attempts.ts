/**
 * How often a message was delivered, as far as its headers tell, and the headers that a retry adds.
 *
 * A quorum queue counts what comes back to it (`x-delivery-count`); the broker counts what was rejected into a
 * dead-letter exchange (`x-death`); a retry is another message, so it carries the sum of its predecessors. A message that
 * has gone on to another queue, dead-lettered or forwarded, still has these headers: there they count for nothing.
 */
import type { FieldTable, FieldValue, Headers } from "../../AmqpMessage.ts"

const of = "x-retry-queue"
const count = "x-retry-count"
const deliveries = "x-retry-deliveries"
const exchange = "x-retry-exchange"
const routingKey = "x-retry-routing-key"
const error = "x-retry-error"
const reason = "x-retry-reason"

// Longer ones are cut: headers have to fit into one frame.
const longestTag = 128
const longestReason = 1024

const toCount = (value: unknown): number =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : 0

/** How often it was tried again in this queue. */
export const retriesOf = (queue: string, headers: Headers): number =>
  headers[of] === queue ? toCount(headers[count]) : 0

/** The exchange and the routing key of the first time, if this is not it. */
export const originOf = (
  queue: string,
  headers: Headers
): { readonly exchange: string; readonly routingKey: string } | undefined => {
  if (headers[of] !== queue) return undefined
  const from = headers[exchange]
  const key = headers[routingKey]
  return typeof from === "string" && typeof key === "string" ? { exchange: from, routingKey: key } : undefined
}

const rejectionsFrom = (queue: string, deaths: FieldValue | undefined): number => {
  let rejections = 0
  if (!Array.isArray(deaths)) return rejections
  for (const death of deaths as ReadonlyArray<FieldTable | null>) {
    if (typeof death === "object" && death !== null && death["queue"] === queue && death["reason"] === "rejected") {
      rejections += toCount(death["count"])
    }
  }
  return rejections
}

/** Which delivery this is: 1 for the first, as far as can be told. */
export const attemptOf = (queue: string, headers: Headers, redelivered: boolean): number => {
  const before =
    (headers[of] === queue ? toCount(headers[deliveries]) : 0) +
    toCount(headers["x-delivery-count"]) +
    rejectionsFrom(queue, headers["x-death"])
  // A classic queue does not count, but says that it was not the first time.
  return 1 + (before === 0 && redelivered ? 1 : before)
}

// What the broker or an earlier retry has put there, and what would make the broker send copies again.
const isLeftOut = (name: string): boolean =>
  name === "CC" ||
  name === "BCC" ||
  name === "x-death" ||
  name.startsWith("x-first-death-") ||
  name.startsWith("x-last-death-") ||
  name === "x-delivery-count" ||
  name === "x-acquired-count" ||
  name === error ||
  name === reason

const cut = (text: string, longest: number): string =>
  // A surrogate pair may have been cut in two.
  (text.length > longest ? `${text.slice(0, longest - 1)}…` : text).toWellFormed()

/** An error as far as it is told: its tag, or its name, and its message. */
export interface Failure {
  readonly tag: string
  readonly message: string
}

// A getter of somebody's error may throw.
const textOf = (value: unknown, key: string): string | undefined => {
  try {
    const text: unknown = (value as Record<string, unknown>)[key]
    return typeof text === "string" ? text : undefined
  } catch {
    return undefined
  }
}

export const failureOf = (value: unknown): Failure => {
  if (typeof value !== "object" || value === null) return { tag: typeof value, message: primitive(value) }
  const tag = textOf(value, "_tag") ?? textOf(value, "name") ?? "Object"
  return { tag, message: textOf(value, "message") ?? "" }
}

const primitive = (value: unknown): string => (typeof value === "function" ? "a function" : String(value))

/** The headers of the message that is published for a retry. */
export const retryHeaders = (
  delivery: {
    readonly headers: Headers
    readonly attempt: number
    readonly exchange: string
    readonly routingKey: string
  },
  queue: string,
  failure: Failure | undefined,
  withOrigin = true
): Headers => {
  const headers: Record<string, FieldValue | undefined> = Object.create(null)
  for (const name of Object.keys(delivery.headers)) {
    if (!isLeftOut(name)) headers[name] = delivery.headers[name]
  }
  headers[of] = queue
  headers[count] = retriesOf(queue, delivery.headers) + 1
  headers[deliveries] = delivery.attempt
  if (withOrigin) {
    headers[exchange] = delivery.exchange.toWellFormed()
    headers[routingKey] = delivery.routingKey.toWellFormed()
  } else {
    delete headers[exchange]
    delete headers[routingKey]
  }
  if (failure !== undefined) {
    headers[error] = cut(failure.tag, longestTag)
    headers[reason] = cut(failure.message, longestReason)
  }
  return headers
}
