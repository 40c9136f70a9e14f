/**
 * The rules of streams: how a queue is recognized as one, where reading begins, and what a stream refuses.
 *
 * RabbitMQ answers `basic.nack` and `basic.reject` of a stream's delivery (up to 3.12.6), `basic.recover` (3.10),
 * `noAck` and an offset that it cannot read (both on every version) with a connection error. The library sends none of
 * these where the queue is known to be a stream.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldValue } from "../../model/message.ts"
import { invalidArgument } from "./fieldTable.ts"

/** The argument of `basic.consume` that says where to begin, and the header that contains the offset of a delivery. */
export const offsetName = "x-stream-offset"

/** The error for an `operation` that cannot settle a delivery of a stream. */
export const settledByAckOnly = (operation: string, queue?: string): InvalidArgument => {
  const stream = queue === undefined ? "a stream" : `the stream ${JSON.stringify(queue)}`
  return new InvalidArgument({
    message: `${operation}: expected a delivery of a queue whose messages can be returned, got one of ${stream}, where only basic.ack settles: acknowledge it to skip it, or end the consumer to read it again. Nothing was sent.`,
    operation,
    argument: "delivery"
  })
}

/** The error for a consumer that started as that of another queue, and finds that the queue is a stream. */
export const undeclaredStream = (queue: string): InvalidArgument =>
  invalidArgument(
    "basic.consume",
    "queueType",
    `"stream" among the options, because ${JSON.stringify(queue)} was declared as a stream after the consumer had started`,
    "nothing"
  )

export const expectedOffset =
  '"first", "last", "next", an offset from 0, a Date or DateTime from 1970 on, or an interval such as "30s", "5m", "2h" or "7D"'

// These are the broker's units: years, months, days, hours, minutes, seconds.
const isInterval = (text: string): boolean => /^[1-9]\d{0,9}[YMDhms]$/.test(text)

/**
 * Whether the broker can read this `x-stream-offset`. It closes the connection (541) for most values that it cannot
 * read.
 */
const isOffset = (value: unknown): boolean => {
  switch (typeof value) {
    case "string":
      return value === "first" || value === "last" || value === "next" || isInterval(value)
    case "number":
      return Number.isSafeInteger(value) && value >= 0
    case "bigint":
      return value >= 0n && BigInt.asIntN(64, value) === value
    default:
      return DateTime.isDateTime(value) || (value instanceof Date && value.getTime() >= 0)
  }
}

/**
 * Returns why the offset among the arguments of `basic.consume` is not sent, or `undefined` if it may be sent or there
 * is none.
 */
export const checkOffset = (operation: string, table: unknown): InvalidArgument | undefined => {
  if (!Predicate.hasProperty(table, offsetName) || table[offsetName] === undefined) return undefined
  const value = table[offsetName]
  if (isOffset(value)) return undefined
  const got = typeof value === "string" ? JSON.stringify(value.slice(0, 60)) : String(value)
  return invalidArgument(operation, `arguments.${offsetName}`, expectedOffset, got)
}

/** Returns the option `offset` as the argument on the wire, or `undefined` if it is not an offset. */
export const readOffset = (value: unknown): FieldValue | undefined => {
  if (typeof value === "object" && value !== null && !(value instanceof Date) && !DateTime.isDateTime(value)) {
    const keys = Object.keys(value)
    if (keys.length !== 1 || keys[0] !== "ago") return undefined
    return intervalOf((value as { readonly ago: unknown }).ago)
  }
  // The option has `ago` for an interval, in place of the broker's notation.
  if (!isOffset(value) || (typeof value === "string" && isInterval(value))) return undefined
  return value as FieldValue
}

/** Maximum interval, in seconds: the broker computes with whole seconds since 1970. */
const maxAgoSeconds = 50 * 365 * 86_400

const intervalOf = (ago: unknown): string | undefined => {
  try {
    const seconds = Math.ceil(Duration.toSeconds(Duration.fromInputUnsafe(ago as Duration.Input)))
    return seconds >= 1 && seconds <= maxAgoSeconds ? `${seconds}s` : undefined
  } catch {
    return undefined
  }
}
