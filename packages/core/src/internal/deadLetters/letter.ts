/** A dead letter, read from a message: its id, its origin and why it failed. */
import * as Crypto from "node:crypto"
import type { DeadLetter, DeadLetterOrigin, DeadLetterReason } from "../../model/deadLetters.ts"
import type { DeliveredProperties, FieldTable, FieldValue, Headers } from "../../model/message.ts"
import { isVerified } from "../consumer/deadLetterHeaders.ts"
import * as Names from "../consumer/failedNames.ts"
import type { Secrets } from "../consumer/retryHeaders.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { deathsOf, isTable } from "../message/deaths.ts"
import { timeOf } from "../message/isoTime.ts"
import { extractContext } from "../telemetry/tracingContext.ts"

/** The header with the number of redrives so far. */
export const redrivenHeader = "x-redriven"

/** The header with the id of the last redrive. */
export const runHeader = "x-redriven-run"

// Headers come from outside, so texts from them are bounded.
const longestText = 1024

const textOf = (headers: Headers, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === "string" ? value.slice(0, longestText) : undefined
}

// A name is not cut: it would be another name.
const nameOf = (value: FieldValue | undefined): string | undefined =>
  typeof value === "string" && Buffer.byteLength(value) <= 255 ? value : undefined

const countOf = (value: FieldValue | undefined): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined

const dateOf = (headers: Headers, name: string): Date | undefined => {
  const time = timeOf(headers[name])
  return time === undefined ? undefined : new Date(time)
}

const kinds = ["rejected", "expired", "maxlen", "delivery_limit"] as const

const tablesOf = (headers: Headers): ReadonlyArray<FieldTable> => deathsOf(headers).filter(isTable)

const earlier = (a: Date | undefined, b: Date | undefined) => (a === undefined || (b !== undefined && b < a) ? b : a)

/** Reads a message lazily: most predicates look at few of its parts. */
export class Letter implements DeadLetter {
  readonly queue: string
  readonly exchange: string
  readonly routingKey: string
  readonly redelivered: boolean
  readonly properties: DeliveredProperties
  readonly content: Uint8Array
  readonly deliveryTag: number
  /** Whether an earlier pass of the same operation has counted it, so that its acknowledgement was lost. */
  isReturned = false
  readonly #secrets: Secrets
  #id: string | undefined = undefined
  #reason: DeadLetterReason | undefined = undefined

  constructor(queue: string, message: DeliveredMessage, secrets: Secrets) {
    this.queue = queue
    this.exchange = message.exchange
    this.routingKey = message.routingKey
    this.redelivered = message.redelivered
    this.properties = message.properties
    this.content = message.content
    this.deliveryTag = message.deliveryTag
    this.#secrets = secrets
  }

  get size(): number {
    return this.content.length
  }

  get id(): string {
    const { messageId } = this.properties
    // An empty id would choose every message that has one.
    return (this.#id ??= messageId === undefined || messageId === "" ? this.#digest() : messageId)
  }

  // The counts and flags of the broker change with each delivery, and exchange and routing key change if the message is
  // published again at the end of its queue. So they are not part of it.
  #digest(): string {
    const { appId, correlationId, headers, timestamp, type } = this.properties
    const hash = Crypto.createHash("sha256")
    const [newest] = tablesOf(headers)
    const time = newest?.["time"]
    for (const part of [
      nameOf(headers[Names.queue]) ?? nameOf(newest?.["queue"]),
      nameOf(headers[Names.routingKey]),
      correlationId,
      type,
      appId,
      timestamp === undefined ? undefined : String(timestamp.getTime()),
      textOf(headers, Names.lastAt),
      time instanceof Date ? String(time.getTime()) : undefined
    ]) {
      hash.update(part === undefined ? "-;" : `${Buffer.byteLength(part)};${part}`)
    }
    return `sha256:${hash.update(this.content).digest("base64url").slice(0, 22)}`
  }

  get redriven(): number {
    return countOf(this.properties.headers[redrivenHeader]) ?? 0
  }

  /** The id of the redrive that has published this message; `undefined` if none has. */
  get run(): string | undefined {
    return nameOf(this.properties.headers[runHeader])
  }

  get origin(): DeadLetterOrigin | undefined {
    const { headers } = this.properties
    const failed = nameOf(headers[Names.queue])
    // Where headers are signed, an unsigned name could be chosen by every client that may publish to the dead-letter
    // queue. That applies to `x-death` too: the broker keeps one that a publisher has written.
    if (this.#secrets.length > 0 && !this.reason.verified) return undefined
    if (failed !== undefined && failed !== "") {
      return {
        queue: failed,
        offset: countOf(headers[Names.offset]),
        exchange: nameOf(headers[Names.exchange]),
        routingKey: nameOf(headers[Names.routingKey])
      }
    }
    const [newest] = tablesOf(headers)
    const queue = nameOf(newest?.["queue"])
    if (queue === undefined || queue === "") return undefined
    const keys = newest?.["routing-keys"]
    return {
      queue,
      offset: undefined,
      exchange: nameOf(newest?.["exchange"]),
      routingKey: Array.isArray(keys) ? nameOf(keys[0]) : undefined
    }
  }

  get reason(): DeadLetterReason {
    return (this.#reason ??= this.#readReason())
  }

  #readReason(): DeadLetterReason {
    const { headers } = this.properties
    const deaths = tablesOf(headers)
    if (nameOf(headers[Names.queue]) !== undefined) {
      const trace = textOf(headers, Names.traceId)
      const lastAt = dateOf(headers, Names.lastAt)
      return {
        kind: "failed",
        error: textOf(headers, Names.error),
        message: textOf(headers, Names.reason),
        attempt: countOf(headers[Names.attempt]),
        consumer: textOf(headers, Names.consumer),
        host: textOf(headers, Names.host),
        firstAt: dateOf(headers, Names.firstAt) ?? lastAt,
        lastAt,
        traceId: trace !== undefined && Names.isTraceId(trace) ? trace : undefined,
        verified: isVerified(this.#secrets, this)
      }
    }
    const [newest] = deaths
    let firstAt: Date | undefined
    for (const { time } of deaths) if (time instanceof Date) firstAt = earlier(firstAt, time)
    const reason = newest?.["reason"]
    return {
      kind: kinds.find((kind) => kind === reason) ?? "unknown",
      error: textOf(headers, "x-retry-error"),
      message: textOf(headers, "x-retry-reason"),
      attempt: undefined,
      consumer: undefined,
      host: undefined,
      firstAt,
      lastAt: newest?.["time"] instanceof Date ? newest["time"] : undefined,
      traceId: extractContext(headers)?.traceId,
      verified: false
    }
  }
}

/** A plain copy of a letter that keeps at most `most` bytes of the content, and nothing of the socket's memory. */
export const copyOf = (letter: Letter, most: number): DeadLetter => {
  const { exchange, id, origin, properties, queue, reason, redelivered, redriven, routingKey, size } = letter
  const content = new Uint8Array(letter.content.subarray(0, most))
  return { id, queue, exchange, routingKey, origin, reason, redriven, redelivered, size, properties, content }
}
