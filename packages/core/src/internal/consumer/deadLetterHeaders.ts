/**
 * The headers `x-failed-*` of a dead letter: why a message failed, in version 1 of their format.
 *
 * Any publisher can write these headers. A secret signs them; only signed headers are verified.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import { hostname } from "node:os"
import type { Origin } from "../../model/consumer.ts"
import type { AmqpError } from "../../model/error.ts"
import type { DeliveredProperties, FieldValue, Headers } from "../../model/message.ts"
import { boundedFailure, type Failure, truncate } from "../message/failure.ts"
import { extractContext } from "../telemetry/tracingContext.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"
import { offsetName } from "../wire/streams.ts"
import * as Names from "./failedNames.ts"
import type { Secrets } from "./retryHeaders.ts"

/** The version of the format. */
export const formatVersion = 1

// The name of a host does not change while a process runs, or matters little if it does.
let host: string | undefined
const hostName = (): string => (host ??= truncate(hostname(), 255))

/** What the headers say about a failure. */
export interface FailedFacts {
  readonly queue: string
  /** The position in the stream; `undefined` if the queue is none. */
  readonly offset: number | undefined
  readonly origin: Origin
  readonly failure: Failure
  readonly attempt: number
  readonly consumer: string
  readonly firstAt: number
  readonly lastAt: number
  readonly traceId: string | undefined
}

/** The parts of a message that its signature covers. */
interface SignedMessage {
  readonly content: Uint8Array
  readonly properties: Pick<DeliveredProperties, "headers" | "messageId" | "correlationId" | "type" | "contentType">
}

const signed = [
  Names.version,
  Names.queue,
  Names.exchange,
  Names.routingKey,
  Names.error,
  Names.reason,
  Names.attempt,
  Names.consumer,
  Names.host,
  Names.firstAt,
  Names.lastAt,
  Names.traceId
]

// Each part is signed with its length, so that no two lists of parts produce the same input.
const signatureOf = (secret: Redacted.Redacted<string>, headers: Headers, message: SignedMessage): Buffer => {
  const { contentType, correlationId, messageId, type } = message.properties
  const hmac = Crypto.createHmac("sha256", Redacted.value(secret))
  const offset = headers[Names.offset]
  const parts = [
    ...(offset === undefined
      ? ["effect-amqp dead letter 1"]
      : ["effect-amqp dead letter of a stream 1", String(offset)]),
    ...signed.map((name) => {
      const value = headers[name]
      return value === undefined ? undefined : String(value)
    }),
    messageId,
    correlationId,
    type,
    contentType
  ]
  for (const part of parts) hmac.update(part === undefined ? "-;" : `${Buffer.byteLength(part)};${part}`)
  return hmac.update(message.content).digest()
}

/** Whether the headers `x-failed-*` of a message are signed with one of the secrets. */
export const isVerified = (secrets: Secrets, message: SignedMessage): boolean => {
  const { headers } = message.properties
  const given = headers[Names.signature]
  if (secrets.length === 0 || typeof given !== "string") return false
  // A table has no text, and an array has that of its only element. No consumer writes them.
  if (typeof headers[Names.offset] === "object" || signed.some((name) => typeof headers[name] === "object"))
    return false
  const bytes = Buffer.from(given, "base64url")
  return secrets.some((secret) => {
    const expected = signatureOf(secret, headers, message)
    return bytes.length === expected.length && Crypto.timingSafeEqual(bytes, expected)
  })
}

// A custom tracer may use ids of another format.
const traceIdOf = (traceId: string | undefined): string | undefined => {
  const padded = traceId?.padStart(32, "0")
  return padded !== undefined && Names.isTraceId(padded) ? padded : undefined
}

/** The trace in which a message failed: that of its handler, otherwise that of its publisher. */
export const traceIdOfFailure = (fiber: Fiber.Fiber<unknown, unknown>, headers: Headers): string | undefined =>
  traceIdOf(fiber.cache.span?.traceId) ?? extractContext(headers)?.traceId

/** How much the headers say, if the message's own headers leave little room in the frame. */
export type Detail = "all" | "withoutError" | "origin"

/** Publishes with all details, and with fewer if the message's own headers already fill most of a frame. */
export const publishWithDetails = <A>(
  publish: (detail: Detail) => Effect.Effect<A, AmqpError>
): Effect.Effect<A, AmqpError> =>
  Effect.suspend(() => publish("all")).pipe(
    Effect.catchReason("AmqpError", "InvalidArgument", () => publish("withoutError")),
    Effect.catchReason("AmqpError", "InvalidArgument", () => publish("origin"))
  )

/**
 * The headers of a dead letter: those of the message, and why it failed.
 *
 * @param keepsCopies whether `CC` stays: the broker routes a dead letter by it, unless the queue has a dead-letter
 *   routing key
 */
export const deadLetterHeaders = (
  message: SignedMessage,
  facts: FailedFacts,
  secrets: Secrets,
  detail: Detail,
  keepsCopies: boolean
): Record<string, FieldValue | undefined> => {
  const headers: Record<string, FieldValue | undefined> = Object.create(null)
  const before = message.properties.headers
  for (const name of Object.keys(before)) {
    if (name === "BCC" || (name === "CC" && !keepsCopies) || name.startsWith(Names.failedPrefix)) continue
    if (name === "x-delivery-count" || name === "x-acquired-count") continue
    // The broker adds it to what it delivers from a stream.
    if (name === offsetName && facts.offset !== undefined) continue
    headers[name] = before[name]
  }
  headers[Names.version] = formatVersion
  headers[Names.queue] = facts.queue
  if (facts.offset !== undefined) headers[Names.offset] = facts.offset
  // A name that is not UTF-8 was read with replacement characters, some of which cannot be sent.
  headers[Names.exchange] = facts.origin.exchange.toWellFormed()
  headers[Names.routingKey] = facts.origin.routingKey.toWellFormed()
  headers[Names.attempt] = facts.attempt
  if (detail !== "origin") {
    headers[Names.consumer] = truncate(facts.consumer, 255)
    headers[Names.host] = hostName()
    headers[Names.firstAt] = new Date(facts.firstAt).toISOString()
    headers[Names.lastAt] = new Date(facts.lastAt).toISOString()
    if (facts.traceId !== undefined) headers[Names.traceId] = facts.traceId
    const failure = boundedFailure(facts.failure)
    headers[Names.error] = failure.tag
    if (detail === "all") headers[Names.reason] = failure.message
  }
  const [secret] = secrets
  if (secret !== undefined) {
    headers[Names.signature] = signatureOf(secret, headers, message).toString("base64url")
  }
  copyReceivedBytes(headers, before)
  return headers
}
