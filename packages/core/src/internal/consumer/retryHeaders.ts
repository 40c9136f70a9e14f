/**
 * Reads the headers of a retry, and creates those of the next one.
 *
 * A retry is another message, so it carries the counts of its predecessors. Any publisher can write these headers, and
 * a message that continues to another queue, or is moved back from a dead-letter queue, still has them. So they count
 * only if the message has come directly from one of this library's delay queues, according to the newest entry of
 * `x-death`. That is no proof, because RabbitMQ passes on an `x-death` that a publisher has written. A secret signs the
 * headers; then only signed headers count.
 */
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import type { Origin } from "../../model/consumer.ts"
import type { DeliveredProperties, FieldValue, Headers } from "../../model/message.ts"
import { isDelayQueueOf } from "../topology/delayQueues.ts"
import { deathsOf, isTable } from "../message/deaths.ts"
import { boundedFailure, type Failure } from "../message/failure.ts"
import { timeOf } from "../message/isoTime.ts"
import {
  attempt as attemptHeader,
  failedPrefix,
  firstAt as firstFailedAtHeader,
  queue as queueHeaderOfFailure
} from "./failedNames.ts"

const queueHeader = "x-retry-queue"

const countHeader = "x-retry-count"

const deliveriesHeader = "x-retry-deliveries"

const exchangeHeader = "x-retry-exchange"

const routingKeyHeader = "x-retry-routing-key"

const errorHeader = "x-retry-error"

const reasonHeader = "x-retry-reason"

const firstAtHeader = "x-retry-first-at"

const signatureHeader = "x-retry-signature"

/** The signing keys: the first one signs, and a signature by any of them is accepted. */
export type Secrets = ReadonlyArray<Redacted.Redacted<string>>

/** What a message carries from its earlier attempts in a queue. */
export interface History {
  /** The number of retries. */
  readonly retries: number
  /** How often the message was handled before the last retry. */
  readonly deliveries: number
  /** Where the message was first published. */
  readonly origin: Origin | undefined
  /** When it failed for the first time, in milliseconds since 1970. */
  readonly firstAt: number | undefined
}

const noHistory: History = { retries: 0, deliveries: 0, origin: undefined, firstAt: undefined }

const toCount = (value: unknown): number =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : 0

const cameFromDelay = (queue: string, headers: Headers): boolean => {
  const [newest] = deathsOf(headers)
  return (
    isTable(newest) &&
    newest["reason"] === "expired" &&
    typeof newest["queue"] === "string" &&
    isDelayQueueOf(queue, newest["queue"])
  )
}

/** The parts of a message that its signature covers. */
interface SignedMessage {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
}

// Each part is signed with its length, so that no two lists of parts produce the same input. Only parts that every
// retry preserves are signed.
const signatureOf = (
  secret: Redacted.Redacted<string>,
  queue: string,
  history: History,
  message: SignedMessage
): Buffer => {
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
    timestamp === undefined ? undefined : String(timestamp.getTime()),
    ...(history.firstAt === undefined ? [] : [String(history.firstAt)])
  ]) {
    hmac.update(part === undefined ? "-;" : `${Buffer.byteLength(part)};${part}`)
  }
  return hmac.update(message.content).digest()
}

const isSigned = (secrets: Secrets, queue: string, history: History, message: SignedMessage): boolean => {
  const given = message.properties.headers[signatureHeader]
  if (typeof given !== "string") return false
  const bytes = Buffer.from(given, "base64url")
  return secrets.some((secret) => {
    const expected = signatureOf(secret, queue, history, message)
    return bytes.length === expected.length && Crypto.timingSafeEqual(bytes, expected)
  })
}

/** The history in the headers of a message, as far as it is accepted in this queue. */
export const historyOf = (queue: string, secrets: Secrets, message: SignedMessage): History => {
  const { headers } = message.properties
  if (headers[queueHeader] !== queue || !cameFromDelay(queue, headers)) return noHistory
  const from = headers[exchangeHeader]
  const key = headers[routingKeyHeader]
  const history: History = {
    retries: toCount(headers[countHeader]),
    deliveries: toCount(headers[deliveriesHeader]),
    origin: typeof from === "string" && typeof key === "string" ? { exchange: from, routingKey: key } : undefined,
    firstAt: timeOf(headers[firstAtHeader])
  }
  return secrets.length === 0 || isSigned(secrets, queue, history, message) ? history : noHistory
}

/**
 * How often consumers of this queue have rejected a message that a dead-letter topology has brought back through
 * another queue. A message that comes directly from this queue was moved back from a dead-letter queue, for example by
 * an operator; then the count starts again.
 */
export const rejectionsOf = (queue: string, headers: Headers): number => {
  const deaths = deathsOf(headers)
  let rejections = 0
  for (const [i, death] of deaths.entries()) {
    if (!isTable(death) || death["queue"] !== queue) continue
    if (i === 0) return 0
    if (death["reason"] === "rejected") rejections += toCount(death["count"])
  }
  // RabbitMQ 4 keeps its own record only, and forgets a rejection that this library has written into `x-death`.
  return cameBack(queue, headers) ? Math.max(rejections, toCount(headers[attemptHeader])) : rejections
}

/**
 * Whether a dead letter that a consumer of this queue has published has come back by dead-lettering from another queue.
 */
const cameBack = (queue: string, headers: Headers): boolean => {
  const [newest] = deathsOf(headers)
  return headers[queueHeaderOfFailure] === queue && isTable(newest) && newest["queue"] !== queue
}

/** When a message that has come back in this way has failed first, in milliseconds since 1970. */
export const firstFailureOf = (queue: string, headers: Headers): number | undefined =>
  cameBack(queue, headers) ? timeOf(headers[firstFailedAtHeader]) : undefined

// Excluded are the headers that the broker or an earlier retry has added, and those that would make the broker send
// copies again.
const isExcluded = (name: string): boolean =>
  name === "CC" ||
  name === "BCC" ||
  name === "x-death" ||
  name.startsWith("x-first-death-") ||
  name.startsWith("x-last-death-") ||
  name === "x-delivery-count" ||
  name === "x-acquired-count" ||
  name === errorHeader ||
  name === reasonHeader ||
  name === firstAtHeader ||
  // A dead letter that was moved back starts from the beginning.
  name.startsWith(failedPrefix) ||
  name === signatureHeader

/** A delivery that is retried. */
interface RetriedDelivery extends SignedMessage {
  readonly queue: string
  readonly attempt: number
  readonly retries: number
  readonly origin: Origin | undefined
  readonly exchange: string
  readonly routingKey: string
}

/**
 * The headers of the message that is published for a retry. Without `withOrigin`, they leave out where the message was
 * first published, because there is no room for it.
 */
export const retryHeaders = (
  delivery: RetriedDelivery,
  secrets: Secrets,
  failure: Failure | undefined,
  withOrigin: boolean,
  firstAt: number
): Headers => {
  const headers: Record<string, FieldValue | undefined> = Object.create(null)
  const before = delivery.properties.headers
  for (const name of Object.keys(before)) {
    if (!isExcluded(name)) headers[name] = before[name]
  }
  // A name that is not UTF-8 was read with replacement characters, some of which cannot be sent.
  const { exchange: from, routingKey: key } = delivery.origin ?? delivery
  const origin = withOrigin ? { exchange: from.toWellFormed(), routingKey: key.toWellFormed() } : undefined
  const history = { retries: delivery.retries + 1, deliveries: delivery.attempt, origin, firstAt }
  headers[queueHeader] = delivery.queue
  headers[countHeader] = history.retries
  headers[deliveriesHeader] = history.deliveries
  headers[firstAtHeader] = new Date(firstAt).toISOString()
  headers[exchangeHeader] = origin?.exchange
  headers[routingKeyHeader] = origin?.routingKey
  const [secret] = secrets
  if (secret !== undefined) {
    headers[signatureHeader] = signatureOf(secret, delivery.queue, history, delivery).toString("base64url")
  }
  if (failure !== undefined) {
    const { message, tag } = boundedFailure(failure)
    headers[errorHeader] = tag
    headers[reasonHeader] = message
  }
  return headers
}
