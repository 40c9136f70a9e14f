/** What an error says of a value: enough to find the mistake, never a secret, never the inside of an object. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"

const longest = 60

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`

/** What a value is, without any of its content: for secrets, and for text that may hold one. */
export const kind = (value: unknown): string => {
  switch (typeof value) {
    case "undefined":
      return "nothing"
    case "string":
      return value === "" ? "an empty text" : "a text"
    case "number":
      return Number.isNaN(value) ? "NaN" : "a number"
    case "boolean":
      return "a boolean"
    case "bigint":
    case "symbol":
    case "function":
      return `a ${typeof value}`
    default: {
      if (value === null) return "null"
      if (Redacted.isRedacted(value)) return "a redacted value"
      if (Array.isArray(value)) return `an array of ${value.length}`
      if (Duration.isDuration(value)) return "a duration"
      if (value instanceof Uint8Array) return count(value.length, "byte")
      return Predicate.isPromiseLike(value) ? "a promise" : "an object"
    }
  }
}

/** A value of a setting that is no secret. */
export const shown = (value: unknown): string => {
  switch (typeof value) {
    case "string": {
      // A whole URL, or its tail, given where a part belongs: it may carry a password.
      if (value.includes("@") || value.includes("://")) return "a text with @ or ://, not shown here"
      if (value.length > longest) return `a text of ${count(value.length, "character")}`
      return value === "" ? kind(value) : JSON.stringify(value)
    }
    case "number":
    case "boolean":
      return String(value)
    case "bigint":
      return `${value}n`
    default:
      return Duration.isDuration(value) ? Duration.format(value) : kind(value)
  }
}

/** The name of an option, parameter or variable that the user made up. */
export const shownName = (name: string): string =>
  /^[\w.-]{1,60}$/.test(name) ? name : name.length > longest ? "a long name" : JSON.stringify(name)
