/** Reads the options of the outbox and the inbox, and refuses what is wrong. */
import { AmqpError } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

/** A value that was refused. The message has no value of the application. */
export const invalid = (operation: string, argument: string, expected: string, got: string): AmqpError.AmqpError =>
  AmqpError.fromReason(
    new AmqpError.InvalidArgument({
      operation,
      argument,
      message: `${operation}: ${argument}: expected ${expected}, got ${got}`
    })
  )

const describe = (value: unknown): string =>
  typeof value === "string" ? JSON.stringify(value.slice(0, 60)) : value === null ? "null" : String(value).slice(0, 60)

/** Refuses a name that is not known. */
export const refuseUnknown = (where: string, options: object, known: ReadonlyArray<string>): void => {
  if (typeof options !== "object" || options === null) {
    throw new Error(`${where}: expected an object with options, got ${describe(options)}`)
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) {
      throw new Error(`${where}: expected only ${known.join(", ")}, got ${JSON.stringify(name)}`)
    }
  }
}

/** Reads an integer. Anything else is a mistake in the program. */
export const integer = (where: string, value: unknown, least: number, most: number, absent: number): number => {
  if (value === undefined) return absent
  if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value
  throw new Error(`${where}: expected an integer from ${least} to ${most}, got ${describe(value)}`)
}

/** Reads a duration, in milliseconds. */
export const millis = (
  where: string,
  value: Duration.Input | undefined,
  least: number,
  most: number,
  absent: number
): number => {
  if (value === undefined) return absent
  const read = Option.map(Duration.fromInput(value), Duration.toMillis)
  if (Option.isSome(read) && read.value >= least && read.value <= most) return Math.ceil(read.value)
  throw new Error(
    `${where}: expected a duration from ${Duration.format(Duration.millis(least))} to ${Duration.format(Duration.millis(most))}, got ${describe(value)}`
  )
}

/** Reads one of several words. */
export const choice = <const Word extends string>(
  where: string,
  value: unknown,
  words: ReadonlyArray<Word>,
  absent: Word
): Word => {
  if (value === undefined) return absent
  if ((words as ReadonlyArray<unknown>).includes(value)) return value as Word
  throw new Error(
    `${where}: expected ${words.map((word) => JSON.stringify(word)).join(" or ")}, got ${describe(value)}`
  )
}
