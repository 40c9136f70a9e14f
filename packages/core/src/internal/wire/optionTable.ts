/**
 * Records of options, each read by one table of rules.
 *
 * A table has a rule for every option of a public type (`Table`). An option that the type has and the table lacks does
 * not compile. Neither does an option that no type has, nor a rule that refuses what the type allows. The values that
 * are read have their own type, which is derived from the rules (`Values`), with the defaults filled in. An option that
 * no table has is refused by its name, whatever its value, with the name that was meant.
 */
import * as Duration from "effect/Duration"
import { InvalidArgument } from "../../model/errorReason.ts"
import { closestName } from "../config/suggestion.ts"
import { invalidArgument } from "./fieldTable.ts"

/**
 * How an option is read: from what its type allows (`In`) to the value that the library uses (`Out`, or `Absent` if the
 * option is not given).
 */
export interface Rule<in In, out Out = unknown, out Absent = unknown> {
  /** Does not exist at run time: what the type of the option may allow. */
  readonly "~allows"?: (value: In) => void
  readonly expected: string
  /** Returns `undefined` for a refused value. The error then says what was `expected`. */
  readonly read: (value: unknown, operation: string) => Out | InvalidArgument | undefined
  /** The value of an option that is not given. */
  readonly defaultValue: Absent
  readonly isRequired?: true
  /** Its name in the table of arguments. Absent if the option is a field of the method. */
  readonly argument?: string
}

type KeyOf<Options> = Options extends unknown ? keyof Options : never

type ValueOf<Options, Key> = Options extends unknown ? (Key extends keyof Options ? Options[Key] : never) : never

/** A rule for each option of a type. For a union, the options are those of all its members. */
export type Table<Options> = {
  readonly [Key in KeyOf<Options>]: Rule<Exclude<ValueOf<Options, Key>, undefined>>
}

/** Rules by the names of their options. */
export interface Rules {
  readonly [name: string]: Rule<never>
}

/** The values that a table reads. */
export type Values<Rules> = {
  readonly [Name in keyof Rules]: Rules[Name] extends Rule<never, infer Out, infer Absent> ? Out | Absent : never
}

export const isInvalidArgument = (value: unknown): value is InvalidArgument => value instanceof InvalidArgument

export const formatValue = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object"
  return typeof value === "bigint" ? `${value}n` : String(value)
}

// --- Reading ---------------------------------------------------------------------------------------------------------

/**
 * Reads a record of options by a table. Without a record, it returns all defaults. A known option that is
 * `undefined` counts as not given.
 */
export type Reader<Known> = (operation: string, options: unknown) => Values<Known> | InvalidArgument

export const readerOf = <Known extends Rules>(rules: Known): Reader<Known> => {
  const names = Object.keys(rules)
  const required = names.filter((name) => rules[name]!.isRequired === true)
  const absent: Readonly<Record<string, unknown>> = Object.freeze(
    Object.fromEntries(names.map((name) => [name, rules[name]!.defaultValue]))
  )
  return (operation, options) => {
    if (options === undefined && required.length === 0) return absent as Values<Known>
    const values = { ...absent }
    const refused = options === undefined ? undefined : readInto(values, operation, options, rules)
    if (refused !== undefined) return refused
    for (const name of required) {
      if (values[name] === undefined) return refusal(operation, name, rules[name]!, undefined)
    }
    return values as Values<Known>
  }
}

const refusal = (operation: string, name: string, { expected }: Rule<never>, value: unknown): InvalidArgument =>
  invalidArgument(operation, name, expected, formatValue(value))

const readInto = (
  values: Record<string, unknown>,
  operation: string,
  options: unknown,
  rules: Rules
): InvalidArgument | undefined => {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    return invalidArgument(operation, "options", "an object", formatValue(options))
  }
  for (const name of Object.keys(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    // Whatever its value: a misspelled option that is `undefined` here may have a value in production.
    if (rule === undefined) {
      const known = Object.keys(rules)
      const meant = closestName(name, known)
      const expected = meant === undefined ? `one of the options ${known.join(", ")}` : `${meant} (rename or remove it)`
      return invalidArgument(operation, name, expected, "an unknown option")
    }
    const given = (options as Readonly<Record<string, unknown>>)[name]
    if (given === undefined) continue
    const value = rule.read(given, operation)
    if (value === undefined) return refusal(operation, name, rule, given)
    if (isInvalidArgument(value)) return value
    values[name] = value
  }
  return undefined
}

/** Reads options that are all booleans, each with a default. */
export const readFlags = <Options extends object>(
  operation: string,
  options: Options | undefined,
  defaults: { readonly [Name in keyof NoInfer<Options>]-?: boolean }
): { readonly [Name in keyof Options]-?: boolean } | InvalidArgument => {
  if (options === undefined) return defaults
  const flags: Record<string, unknown> = { ...defaults }
  const rules = Object.fromEntries(Object.keys(defaults).map((name) => [name, boolean]))
  return readInto(flags, operation, options, rules) ?? (flags as { readonly [Name in keyof Options]-?: boolean })
}

// --- Rules -----------------------------------------------------------------------------------------------------------

export const rule = <In, Out = In>(
  expected: string,
  read: (value: unknown, operation: string) => Out | InvalidArgument | undefined
): Rule<In, Out, undefined> => ({ expected, read, defaultValue: undefined })

/** The same rule, with a default. */
export const withDefault = <In, Out, const Absent>(given: Rule<In, Out>, absent: Absent): Rule<In, Out, Absent> => ({
  ...given,
  defaultValue: absent
})

/** The same rule, for an option that the type requires. */
export const required = <In, Out>(given: Rule<In, Out>): Rule<In, Out, never> => ({
  ...given,
  defaultValue: undefined as never,
  isRequired: true
})

/** The same table without some of its rules. */
export const omit = <Known extends Rules, Name extends keyof Known>(
  rules: Known,
  ...names: ReadonlyArray<Name>
): Omit<Known, Name> =>
  Object.fromEntries(Object.entries(rules).filter(([name]) => !names.includes(name as Name))) as never

/** The same options, passed unchanged to an operation that reads them by its own table. */
export const passThrough = <Known extends object>(
  rules: Known
): {
  readonly [Name in keyof Known]: Known[Name] extends Rule<infer In> ? Rule<In, In, undefined> : never
} => Object.fromEntries(Object.keys(rules).map((name) => [name, rule("", (value) => value)])) as never

export const boolean: Rule<boolean, boolean, undefined> = rule("true or false", (value) =>
  typeof value === "boolean" ? value : undefined
)

export const integer = (least: number, most: number): Rule<number, number, undefined> =>
  rule(most === Number.MAX_SAFE_INTEGER ? `an integer from ${least}` : `an integer from ${least} to ${most}`, (value) =>
    Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most ? (value as number) : undefined
  )

const listOf = (values: ReadonlyArray<string>): string => {
  const quoted = values.map((value) => JSON.stringify(value))
  const others = quoted.slice(0, -1).join(", ")
  return others === "" ? quoted.join() : `${others} or ${quoted.at(-1)}`
}

export const choice = <const Value extends string>(values: ReadonlyArray<Value>): Rule<Value, Value, undefined> =>
  rule(listOf(values), (value) => ((values as ReadonlyArray<unknown>).includes(value) ? (value as Value) : undefined))

/** Maximum duration of a timer, in milliseconds. Node fires longer timers immediately. */
export const maxTimerMillis = 2 ** 31 - 1

/** A duration, read as milliseconds. */
export const duration = (least: number, most = maxTimerMillis): Rule<Duration.Input, number, undefined> =>
  rule(`a duration from ${least} ms to ${Duration.format(Duration.millis(most))}`, (value) => {
    const millis = toMillis(value)
    return millis !== undefined && millis >= least && millis <= most ? millis : undefined
  })

/** Converts a duration to milliseconds. `Duration` itself reads a negative number and NaN as zero. */
export const toMillis = (value: unknown): number | undefined => {
  if (typeof value === "number") return value >= 0 && value < Infinity ? value : undefined
  try {
    const duration = Duration.fromInputUnsafe(value as Duration.Input)
    return Duration.isFinite(duration) ? Duration.toMillis(duration) : undefined
  } catch {
    return undefined
  }
}
