/** How the value of one setting is read, from an object's field or from text, and what is said of one that is refused. */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { kind } from "./shown.ts"

/**
 * Where a value comes from: an object's field (`Duration.Input`, whose numbers are milliseconds), the text of a URL or
 * an environment variable (numbers are seconds), or a record of Pika's (numbers are seconds, text is read as text).
 */
export type Form = "plain" | "text" | "pika"

export interface Mistake {
  /** Which part of the value, such as `[1]`. */
  readonly at?: string
  /** What was found, in words of this library, if the value itself would say too little or too much. */
  readonly got?: string
  /** The value that was found, if it is not the whole one. */
  readonly value?: unknown
  /** Whether `at` holds names that the user made up. */
  readonly named?: boolean
  readonly wants: string
}

export type Decoded<A> = Result.Result<A, ReadonlyArray<Mistake>>

export interface Decoder<out A> {
  /** Whether the value must never be shown. */
  readonly secret: boolean
  readonly decode: (value: unknown, form: Form) => Decoded<A>
}

export const refuse = (wants: string, got?: string): Decoded<never> =>
  Result.fail([got === undefined ? { wants } : { wants, got }])

export const decoder = <A>(decode: (value: unknown, form: Form) => Decoded<A>): Decoder<A> => ({
  secret: false,
  decode
})

export const secret = <A>(decode: (value: unknown, form: Form) => Decoded<A>): Decoder<A> => ({ secret: true, decode })

const isText = (value: unknown, form: Form): value is string => form !== "plain" && typeof value === "string"

export const integer = (least: number, most: number, hint = ""): Decoder<number> =>
  decoder((value, form) => {
    const number = isText(value, form) && /^\s*\d+\s*$/.test(value) ? Number(value) : value
    return typeof number === "number" && Number.isSafeInteger(number) && number >= least && number <= most
      ? Result.succeed(number)
      : refuse(`a whole number from ${least} to ${most}${hint}`)
  })

const booleans: ReadonlyMap<string, boolean> = new Map([
  ...["true", "yes", "on", "1", "y", "t"].map((text) => [text, true] as const),
  ...["false", "no", "off", "0", "n", "f"].map((text) => [text, false] as const)
])

export const boolean: Decoder<boolean> = decoder((value, form) => {
  const flag = isText(value, form) ? booleans.get(value.trim().toLowerCase()) : value
  return typeof flag === "boolean" ? Result.succeed(flag) : refuse("true or false")
})

/** Off by the word `false` alone, where off is dangerous. */
export const verification: Decoder<boolean> = decoder((value, form) => {
  const decoded = boolean.decode(value, form)
  const isOff = Result.isSuccess(decoded) && !decoded.success
  return isOff && isText(value, form) && value.trim().toLowerCase() !== "false" ? refuse("true or false") : decoded
})

/** One of a few words; `spellings` maps each that is understood to what it means. */
export const choice = <A>(spellings: { readonly [word: string]: A }, wants: string): Decoder<A> =>
  decoder((value) => {
    const word = typeof value === "string" ? value.trim() : ""
    return Object.hasOwn(spellings, word) ? Result.succeed(spellings[word] as A) : refuse(wants)
  })

/** Whether a text can be sent as UTF-8: no half of a surrogate pair stands alone. */
export const isUnicode = (text: string): boolean => !/\p{Surrogate}/u.test(text)

/** Text as AMQP's short strings carry it: at most 255 bytes, and no NUL, which ends a user name in SASL PLAIN. */
export const text = (noun: string): Decoder<string> =>
  decoder((value) => {
    const wants = `${noun}: a text of 1 to 255 bytes without NUL`
    if (typeof value !== "string" || value === "") return refuse(wants)
    if (!isUnicode(value)) return refuse(wants, "a text that is not Unicode")
    if (value.includes("\0")) return refuse(wants, "a text with NUL")
    const bytes = Buffer.byteLength(value)
    return bytes > 255 ? refuse(wants, `a text of ${bytes} bytes`) : Result.succeed(value)
  })

/** The text inside a string or a `Redacted`, or `undefined` for anything else. */
export const exposed = (value: unknown): string | undefined => {
  if (typeof value === "string") return value
  if (!Redacted.isRedacted(value)) return undefined
  try {
    const inside = Redacted.value(value)
    return typeof inside === "string" ? inside : undefined
  } catch {
    // Wiped.
    return undefined
  }
}

export const secretText = (noun: string): Decoder<Redacted.Redacted<string>> =>
  secret((value) => {
    const wants = `${noun}: a text, or a Redacted of one, that is not empty and has no NUL`
    const inside = exposed(value)
    if (inside === undefined) {
      return refuse(wants, Redacted.isRedacted(value) ? "a Redacted without a text" : kind(value))
    }
    if (inside === "") return refuse(wants, "an empty text")
    if (!isUnicode(inside)) return refuse(wants, "a text that is not Unicode")
    if (inside.includes("\0")) return refuse(wants, "a text with NUL")
    return Result.succeed(Redacted.make(inside))
  })

// setTimeout fires at once when asked for more.
const longestTimer = Duration.millis(2 ** 31 - 1)

const durationFields = new Set([
  "weeks",
  "days",
  "hours",
  "minutes",
  "seconds",
  "milliseconds",
  "microseconds",
  "nanoseconds"
])

const isNumber = (value: unknown): boolean => typeof value === "number" && !Number.isNaN(value)

// `Duration.fromInput` reads NaN, and an object with a misspelt field, as zero.
const isDurationInput = (value: unknown): value is Duration.Input => {
  switch (typeof value) {
    case "number":
      return !Number.isNaN(value)
    case "bigint":
    case "string":
      return true
    case "object": {
      if (value === null || Duration.isDuration(value)) return value !== null
      if (Array.isArray(value)) return value.length === 2 && value.every(isNumber)
      const entries = Object.entries(value).filter(([, amount]) => amount !== undefined)
      return entries.length > 0 && entries.every(([name, amount]) => durationFields.has(name) && isNumber(amount))
    }
    default:
      return false
  }
}

const isNever = (value: string): boolean => /^(?:never|none|infinity)$/i.test(value)

const readDuration = (value: unknown, form: Form): Option.Option<Duration.Duration> => {
  if (isText(value, form)) {
    const trimmed = value.trim()
    if (isNever(trimmed)) return Option.some(Duration.infinity)
    const seconds = /^-?\d+(?:\.\d+)?$/.test(trimmed)
    return Duration.fromInput((seconds ? `${trimmed} seconds` : trimmed) as Duration.Input)
  }
  if (form === "pika" && typeof value === "number") {
    return Number.isFinite(value) ? Option.some(Duration.seconds(value)) : Option.none()
  }
  return isDurationInput(value) ? Duration.fromInput(value) : Option.none()
}

export interface DurationBounds {
  readonly least: Duration.Input
  /** Default: the longest timer of Node, 24.8 days. */
  readonly most?: Duration.Input
  /** Whole seconds only, as AMQP's heartbeat is. */
  readonly whole?: boolean
  /** Whether "never" (`Duration.infinity`) may be said. */
  readonly never?: boolean
  /** Whether -1, Flask-Pika's never, may be said in seconds. */
  readonly minusOne?: boolean
}

const durationWants = (bounds: DurationBounds, form: Form): string => {
  const least = Duration.format(Duration.fromInputUnsafe(bounds.least))
  const range = `from ${least} to ${Duration.format(Duration.fromInputUnsafe(bounds.most ?? longestTimer))}`
  const whole = bounds.whole === true ? "whole seconds" : form === "plain" ? "a duration" : "seconds"
  const spelling = form === "plain" ? "milliseconds or a text" : "a number of seconds or a text"
  const never = bounds.never === true ? (form === "plain" ? `, or "Infinity" for never` : `, or "never"`) : ""
  return `${whole} ${range} (${spelling} such as "10 seconds")${never}`
}

/** A duration within bounds. Never is `Duration.infinity`. */
export const duration = (bounds: DurationBounds): Decoder<Duration.Duration> => {
  const least = Duration.toMillis(bounds.least)
  const most = Duration.toMillis(bounds.most ?? longestTimer)
  return decoder((value, form) => {
    const isMinusOne = form !== "plain" && (value === -1 || (typeof value === "string" && value.trim() === "-1"))
    if (bounds.minusOne === true && isMinusOne) return Result.succeed(Duration.infinity)
    const read = readDuration(value, form)
    if (Option.isNone(read)) return refuse(durationWants(bounds, form))
    const millis = Duration.toMillis(read.value)
    if (bounds.never === true && millis === Infinity) return Result.succeed(Duration.infinity)
    return millis >= least && millis <= most && (bounds.whole !== true || millis % 1000 === 0)
      ? Result.succeed(read.value)
      : refuse(durationWants(bounds, form))
  })
}
