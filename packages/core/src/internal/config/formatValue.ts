/** How errors show a value: enough to find the mistake, never a secret, and never the contents of an object. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import { counted } from "../waiting/phrases.ts"

const maxShownLength = 60

/** Describes a value without its content, for secrets and for text that may contain one. */
export const describeType = (value: unknown): string => {
  switch (typeof value) {
    case "undefined":
      return "nothing"
    case "string":
      return value === "" ? "an empty string" : "a string"
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
      if (value instanceof Uint8Array) return counted(value.length, "byte")
      return Predicate.isPromiseLike(value) ? "a promise" : "an object"
    }
  }
}

/** Shows the value of a setting that is not secret. */
export const formatValue = (value: unknown): string => {
  switch (typeof value) {
    case "string": {
      // The user may give a whole URL, or its tail, where only a part belongs. It may contain a password.
      if (value.includes("@") || value.includes("://"))
        return "a string with @ or :// (not shown, as it may contain a password)"
      if (value.length > maxShownLength) return `a string of ${counted(value.length, "character")}`
      return value === "" ? describeType(value) : JSON.stringify(value)
    }
    case "number":
    case "boolean":
      return String(value)
    case "bigint":
      return `${value}n`
    default:
      return Duration.isDuration(value) ? Duration.format(value) : describeType(value)
  }
}

/** Shows the name of an option, parameter or variable that the user chose. */
export const formatName = (name: string): string =>
  /^[\w.-]{1,60}$/.test(name) ? name : name.length > maxShownLength ? "a long name" : JSON.stringify(name)
