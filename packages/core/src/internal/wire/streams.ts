/**
 * What is special about streams: how a queue is known to be one, where reading begins, and what a stream refuses.
 *
 * RabbitMQ answers `basic.nack` and `basic.reject` of a stream's delivery (up to 3.12.6), `basic.recover` (3.10), `noAck`
 * and an offset that it cannot read (both on every version) with an error of the connection. None of these is sent where
 * the queue is known to be a stream.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldValue } from "../../model/message.ts"
import { refused } from "./fieldTable.ts"

/** The argument of `basic.consume` that says where to begin, and the header that says where a delivery stands. */
export const offsetName = "x-stream-offset"

/** What a stream's delivery is not settled by, in the words of whoever tried. */
export const settledByAckOnly = (operation: string, queue?: string): InvalidArgument => {
  const stream = queue === undefined ? "a stream" : `the stream ${JSON.stringify(queue)}`
  return new InvalidArgument({
    message: `${operation}: the delivery is of ${stream}, where messages stay and are settled by basic.ack alone: acknowledge it to pass over it, or end the consumer to read it again. Nothing was sent.`,
    operation,
    argument: "delivery"
  })
}

/** A consumer has begun as that of another queue, and finds that it is a stream. */
export const undeclaredStream = (queue: string): InvalidArgument =>
  refused(
    "basic.consume",
    "queueType",
    `"stream", since ${JSON.stringify(queue)} was declared as one after the consumer had begun: say so among its options`,
    "no such option"
  )

export const wantsOffset =
  '"first", "last", "next", an offset from 0, a Date or DateTime from 1970 on, or an interval such as "30s", "5m", "2h" or "7D"'

// The broker's units: years, months, days, hours, minutes, seconds.
const isInterval = (text: string): boolean => /^[1-9]\d{0,9}[YMDhms]$/.test(text)

/** Whether the broker can read `x-stream-offset`: it closes the connection (541) over most of what it cannot. */
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

/** Why the offset among the arguments of `basic.consume` is not sent; `undefined`: it may be, or there is none. */
export const checkOffset = (operation: string, table: unknown): InvalidArgument | undefined => {
  if (!Predicate.hasProperty(table, offsetName) || table[offsetName] === undefined) return undefined
  const value = table[offsetName]
  if (isOffset(value)) return undefined
  const got = typeof value === "string" ? JSON.stringify(value.slice(0, 60)) : String(value)
  return refused(operation, `arguments.${offsetName}`, wantsOffset, got)
}

/** The option `offset` as the argument on the wire; `undefined`: it is none. */
export const readOffset = (value: unknown): FieldValue | undefined => {
  if (typeof value === "object" && value !== null && !(value instanceof Date) && !DateTime.isDateTime(value)) {
    const keys = Object.keys(value)
    if (keys.length !== 1 || keys[0] !== "ago") return undefined
    return intervalOf((value as { readonly ago: unknown }).ago)
  }
  // An interval in the broker's own words is given by `ago`.
  if (!isOffset(value) || (typeof value === "string" && isInterval(value))) return undefined
  return value as FieldValue
}

/** The most that an interval may be: the broker computes with whole seconds since 1970. */
const longestAgo = 50 * 365 * 86_400

const intervalOf = (ago: unknown): string | undefined => {
  try {
    const seconds = Math.ceil(Duration.toSeconds(Duration.fromInputUnsafe(ago as Duration.Input)))
    return seconds >= 1 && seconds <= longestAgo ? `${seconds}s` : undefined
  } catch {
    return undefined
  }
}
