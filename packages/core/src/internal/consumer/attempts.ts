/**
 * What the headers of a retry say about a message, and the headers that a retry adds.
 *
 * A retry is another message, so it carries the count of its predecessors. Any publisher can write these headers, and a
 * message that goes on to another queue, or is moved back from a dead-letter queue, still has them. So they count only
 * where the message has come straight from one of our delay queues: the newest entry of `x-death` says so. That is no
 * proof, since RabbitMQ hands on an `x-death` that a publisher has written. A secret signs the headers: then only signed
 * ones count.
 */
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import type { Origin } from "../../model/consumer.ts"
import type { DeliveredProperties, FieldTable, FieldValue, Headers } from "../../model/message.ts"
import { isDelayQueueOf } from "../topology/delayQueues.ts"
import type { Failure } from "../message/failure.ts"

const of = "x-retry-queue"

const count = "x-retry-count"

const deliveries = "x-retry-deliveries"

const exchange = "x-retry-exchange"

const routingKey = "x-retry-routing-key"

const error = "x-retry-error"

const reason = "x-retry-reason"

const signature = "x-retry-signature"

// Longer ones are cut: headers have to fit into one frame.
const longestTag = 128

const longestReason = 1024

/** The keys that sign: the first one signs, and each of them is believed. */
export type Secrets = ReadonlyArray<Redacted.Redacted<string>>

/** What a message brings from its earlier tries in a queue. */
export interface History {
  /** How often it was tried again. */
  readonly retries: number
  /** How often it was handled before it was tried again last. */
  readonly deliveries: number
  /** Where it was published first. */
  readonly origin: Origin | undefined
}

const none: History = { retries: 0, deliveries: 0, origin: undefined }

const toCount = (value: unknown): number =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : 0

const isTable = (value: FieldValue | undefined): value is FieldTable =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const deathsOf = (headers: Headers): ReadonlyArray<FieldValue> => {
  const deaths = headers["x-death"]
  return Array.isArray(deaths) ? deaths : []
}

const cameFromDelay = (queue: string, headers: Headers): boolean => {
  const [newest] = deathsOf(headers)
  return (
    isTable(newest) &&
    newest["reason"] === "expired" &&
    typeof newest["queue"] === "string" &&
    isDelayQueueOf(queue, newest["queue"])
  )
}

/** A message, as far as its headers are signed with it. */
interface Signed {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
}

// Each part with its length, so that no two lists of parts look alike. Only what every retry keeps is signed.
const signatureOf = (secret: Redacted.Redacted<string>, queue: string, history: History, message: Signed): Buffer => {
  const { appId, contentEncoding, contentType, correlationId, messageId, replyTo, timestamp, type } = message.properties
  const { origin, retries } = history
  const hmac = Crypto.createHmac("sha256", Redacted.value(secret))
  for (const part of [
    "effect-amqp retry 1",
    queue,
    String(retries),
    String(history.deliveries),
    origin?.exchange,
    origin?.routingKey,
    messageId,
    correlationId,
    type,
    appId,
    replyTo,
    contentType,
    contentEncoding,
    timestamp === undefined ? undefined : String(timestamp.getTime())
  ]) {
    hmac.update(part === undefined ? "-;" : `${Buffer.byteLength(part)};${part}`)
  }
  return hmac.update(message.content).digest()
}

const isSigned = (secrets: Secrets, queue: string, history: History, message: Signed): boolean => {
  const given = message.properties.headers[signature]
  if (typeof given !== "string") return false
  const bytes = Buffer.from(given, "base64url")
  return secrets.some((secret) => {
    const expected = signatureOf(secret, queue, history, message)
    return bytes.length === expected.length && Crypto.timingSafeEqual(bytes, expected)
  })
}

/** What the headers of a message say, as far as they are believed in this queue. */
export const historyOf = (queue: string, secrets: Secrets, message: Signed): History => {
  const { headers } = message.properties
  if (headers[of] !== queue || !cameFromDelay(queue, headers)) return none
  const from = headers[exchange]
  const key = headers[routingKey]
  const history: History = {
    retries: toCount(headers[count]),
    deliveries: toCount(headers[deliveries]),
    origin: typeof from === "string" && typeof key === "string" ? { exchange: from, routingKey: key } : undefined
  }
  return secrets.length === 0 || isSigned(secrets, queue, history, message) ? history : none
}

/**
 * How often consumers of this queue have rejected a message that a topology of dead letters has brought back, by way of
 * another queue. Straight from this one it comes only when somebody moves a dead letter back: then it begins again.
 */
export const rejectionsOf = (queue: string, headers: Headers): number => {
  const deaths = deathsOf(headers)
  let rejections = 0
  for (const [i, death] of deaths.entries()) {
    if (!isTable(death) || death["queue"] !== queue) continue
    if (i === 0) return 0
    if (death["reason"] === "rejected") rejections += toCount(death["count"])
  }
  return rejections
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
  name === reason ||
  name === signature

const cut = (text: string, longest: number): string =>
  // A surrogate pair may have been cut in two.
  (text.length > longest ? `${text.slice(0, longest - 1)}…` : text).toWellFormed()

/** A delivery that is tried again. */
interface Retried extends Signed {
  readonly queue: string
  readonly attempt: number
  readonly retries: number
  readonly origin: Origin | undefined
  readonly exchange: string
  readonly routingKey: string
}

/** The headers of the message that is published for a retry. Without its origin where there is no room for it. */
export const retryHeaders = (
  delivery: Retried,
  secrets: Secrets,
  failure: Failure | undefined,
  withOrigin: boolean
): Headers => {
  const headers: Record<string, FieldValue | undefined> = Object.create(null)
  const before = delivery.properties.headers
  for (const name of Object.keys(before)) {
    if (!isLeftOut(name)) headers[name] = before[name]
  }
  // What is no UTF-8 has characters in its place that cannot be sent.
  const { exchange: from, routingKey: key } = delivery.origin ?? delivery
  const origin = withOrigin ? { exchange: from.toWellFormed(), routingKey: key.toWellFormed() } : undefined
  const history = { retries: delivery.retries + 1, deliveries: delivery.attempt, origin }
  headers[of] = delivery.queue
  headers[count] = history.retries
  headers[deliveries] = history.deliveries
  headers[exchange] = origin?.exchange
  headers[routingKey] = origin?.routingKey
  const [secret] = secrets
  if (secret !== undefined) {
    headers[signature] = signatureOf(secret, delivery.queue, history, delivery).toString("base64url")
  }
  if (failure !== undefined) {
    headers[error] = cut(failure.tag, longestTag)
    headers[reason] = cut(failure.message, longestReason)
  }
  return headers
}
