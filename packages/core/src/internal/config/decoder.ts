/**
 * How the value of one setting is decoded, from an object's field or from text, and how a refused value is described.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { describeType } from "./formatValue.ts"

/**
 * The source of a value: `"plain"` is an object's field (a `Duration.Input`, whose numbers are milliseconds), `"text"`
 * is the text of a URL or an environment variable (numbers are seconds), and `"pika"` is a field of one of Pika's
 * records (numbers are seconds, and strings are read as `"text"`).
 */
export type Form = "plain" | "text" | "pika"

export interface Mistake {
  /** The part of the value that is wrong, such as `[1]`. */
  readonly at?: string
  /** What was found, in the library's own words, where the value itself would say too little or too much. */
  readonly got?: string
  /** The value that was found, if it is not the whole value. */
  readonly value?: unknown
  /** Whether `at` contains names that the user chose. */
  readonly named?: boolean
  readonly expected: string
}

export type Decoded<A> = Result.Result<A, ReadonlyArray<Mistake>>

export interface Decoder<out A> {
  /** Whether the value must never be shown. */
  readonly secret: boolean
  readonly decode: (value: unknown, form: Form) => Decoded<A>
}

export const refuse = (expected: string, got?: string): Decoded<never> =>
  Result.fail([got === undefined ? { expected } : { expected, got }])

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
      : refuse(`an integer from ${least} to ${most}${hint}`)
  })

const booleans: ReadonlyMap<string, boolean> = new Map([
  ...["true", "yes", "on", "1", "y", "t"].map((text) => [text, true] as const),
  ...["false", "no", "off", "0", "n", "f"].map((text) => [text, false] as const)
])

export const boolean: Decoder<boolean> = decoder((value, form) => {
  const flag = isText(value, form) ? booleans.get(value.trim().toLowerCase()) : value
  return typeof flag === "boolean" ? Result.succeed(flag) : refuse("true or false")
})

/** A boolean that only the word `false` turns off, for settings that are dangerous to turn off. */
export const verification: Decoder<boolean> = decoder((value, form) => {
  const decoded = boolean.decode(value, form)
  const isOff = Result.isSuccess(decoded) && !decoded.success
  return isOff && isText(value, form) && value.trim().toLowerCase() !== "false" ? refuse("true or false") : decoded
})

/** One of a few words. `spellings` maps each accepted word to its meaning. */
export const choice = <A>(spellings: { readonly [word: string]: A }, expected: string): Decoder<A> =>
  decoder((value) => {
    const word = typeof value === "string" ? value.trim() : ""
    return Object.hasOwn(spellings, word) ? Result.succeed(spellings[word] as A) : refuse(expected)
  })

/** Whether a text can be sent as UTF-8: it has no lone surrogate. */
export const isUnicode = (text: string): boolean => !/\p{Surrogate}/u.test(text)

/**
 * A string that fits AMQP's short string: at most 255 bytes, and no NUL, because NUL ends a user name in SASL PLAIN.
 */
export const text = (noun: string): Decoder<string> =>
  decoder((value) => {
    const expected = `${noun} (a string of 1 to 255 bytes without NUL)`
    if (typeof value !== "string" || value === "") return refuse(expected)
    if (!isUnicode(value)) return refuse(expected, "a string with a lone surrogate")
    if (value.includes("\0")) return refuse(expected, "a string with NUL")
    const bytes = Buffer.byteLength(value)
    return bytes > 255 ? refuse(expected, `a string of ${bytes} bytes`) : Result.succeed(value)
  })

/** Returns the text inside a string or a `Redacted`, or `undefined` for anything else. */
export const unredact = (value: unknown): string | undefined => {
  if (typeof value === "string") return value
  if (!Redacted.isRedacted(value)) return undefined
  try {
    const inside = Redacted.value(value)
    return typeof inside === "string" ? inside : undefined
  } catch {
    // The `Redacted` was wiped.
    return undefined
  }
}

export const secretText = (noun: string): Decoder<Redacted.Redacted<string>> =>
  secret((value) => {
    const expected = `${noun} (a non-empty string without NUL, or a Redacted of one)`
    const inside = unredact(value)
    if (inside === undefined) {
      return refuse(expected, Redacted.isRedacted(value) ? "a Redacted without a string" : describeType(value))
    }
    if (inside === "") return refuse(expected, "an empty string")
    if (!isUnicode(inside)) return refuse(expected, "a string with a lone surrogate")
    if (inside.includes("\0")) return refuse(expected, "a string with NUL")
    return Result.succeed(Redacted.make(inside))
  })

// setTimeout fires immediately for a longer delay.
const maxTimer = Duration.millis(2 ** 31 - 1)

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

// `Duration.fromInput` reads NaN, and an object with a misspelled field, as zero.
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
  readonly min: Duration.Input
  /** Default: Node's longest timer, 24.8 days. */
  readonly max?: Duration.Input
  /** Whether only whole seconds are accepted, as in AMQP's heartbeat. */
  readonly wholeSeconds?: boolean
  /** Whether "never" (`Duration.infinity`) is accepted. */
  readonly allowsNever?: boolean
  /** Whether -1, Flask-Pika's spelling of never, is accepted where numbers are seconds. */
  readonly allowsMinusOne?: boolean
}

const expectedDuration = (bounds: DurationBounds, form: Form): string => {
  const least = Duration.format(Duration.fromInputUnsafe(bounds.min))
  const range = `from ${least} to ${Duration.format(Duration.fromInputUnsafe(bounds.max ?? maxTimer))}`
  const kind = bounds.wholeSeconds === true ? "a duration of whole seconds" : "a duration"
  const spelling = form === "plain" ? "a number of milliseconds, or a string" : "a number of seconds, or a string"
  const never = bounds.allowsNever === true ? (form === "plain" ? `, or "Infinity" for never` : `, or "never"`) : ""
  return `${kind} ${range} (${spelling} such as "10 seconds")${never}`
}

/** Decodes a duration within bounds. Never is `Duration.infinity`. */
export const duration = (bounds: DurationBounds): Decoder<Duration.Duration> => {
  const least = Duration.toMillis(bounds.min)
  const most = Duration.toMillis(bounds.max ?? maxTimer)
  return decoder((value, form) => {
    const isMinusOne = form !== "plain" && (value === -1 || (typeof value === "string" && value.trim() === "-1"))
    if (bounds.allowsMinusOne === true && isMinusOne) return Result.succeed(Duration.infinity)
    const read = readDuration(value, form)
    if (Option.isNone(read)) return refuse(expectedDuration(bounds, form))
    const millis = Duration.toMillis(read.value)
    if (bounds.allowsNever === true && millis === Infinity) return Result.succeed(Duration.infinity)
    return millis >= least && millis <= most && (bounds.wholeSeconds !== true || millis % 1000 === 0)
      ? Result.succeed(read.value)
      : refuse(expectedDuration(bounds, form))
  })
}
