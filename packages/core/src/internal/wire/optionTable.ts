/**
 * Records of options, each read by one table of rules.
 *
 * A table has a rule for every option of a public type (`Table`): an option that the type has and the table lacks does not
 * compile, nor does one that no type has, or whose rule refuses what the type allows. What is read has a type of its own,
 * derived from the rules (`Values`), with the defaults filled in. An option that no table has is refused by its name.
 */
import * as Duration from "effect/Duration"
import { InvalidArgument } from "../../model/errorReason.ts"
import { refused } from "./fieldTable.ts"

/** How an option is read: from what its type allows (`In`), to what is worked with (`Out`; `Absent` where it is not given). */
export interface Rule<in In, out Out = unknown, out Absent = unknown> {
  /** Not there at run time: what the type of the option may allow. */
  readonly "~allows"?: (value: In) => void
  readonly wants: string
  /** `undefined`: refused, in the words of `wants`. */
  readonly read: (value: unknown, operation: string) => Out | InvalidArgument | undefined
  /** What stands for an option that is not given. */
  readonly absent: Absent
  readonly isRequired?: true
  /** Its name in the table of arguments; absent: a field of the method. */
  readonly argument?: string
}

type KeyOf<Options> = Options extends unknown ? keyof Options : never

type ValueOf<Options, Key> = Options extends unknown ? (Key extends keyof Options ? Options[Key] : never) : never

/** A rule for each option of a type; of a union, for the options of all its members. */
export type Table<Options> = {
  readonly [Key in KeyOf<Options>]: Rule<Exclude<ValueOf<Options, Key>, undefined>>
}

/** Rules by the names of their options. */
export interface Rules {
  readonly [name: string]: Rule<never>
}

/** What a table reads. */
export type Values<Rules> = {
  readonly [Name in keyof Rules]: Rules[Name] extends Rule<never, infer Out, infer Absent> ? Out | Absent : never
}

export const isRefused = (value: unknown): value is InvalidArgument => value instanceof InvalidArgument

export const shown = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object"
  return typeof value === "bigint" ? `${value}n` : String(value)
}

// --- Reading ---------------------------------------------------------------------------------------------------------

/** Reads a record of options by a table; of no options, what stands for each. What is `undefined` is not given. */
export type Reader<Known> = (operation: string, options: unknown) => Values<Known> | InvalidArgument

export const readerOf = <Known extends Rules>(rules: Known): Reader<Known> => {
  const names = Object.keys(rules)
  const required = names.filter((name) => rules[name]!.isRequired === true)
  const absent: Readonly<Record<string, unknown>> = Object.freeze(
    Object.fromEntries(names.map((name) => [name, rules[name]!.absent]))
  )
  return (operation, options) => {
    if (options === undefined && required.length === 0) return absent as Values<Known>
    const values = { ...absent }
    const refused = options === undefined ? undefined : readInto(values, operation, options, rules)
    if (refused !== undefined) return refused
    for (const name of required) {
      if (values[name] === undefined) return wanted(operation, name, rules[name]!, undefined)
    }
    return values as Values<Known>
  }
}

const wanted = (operation: string, name: string, { wants }: Rule<never>, value: unknown): InvalidArgument =>
  refused(operation, name, wants, shown(value))

const readInto = (
  values: Record<string, unknown>,
  operation: string,
  options: unknown,
  rules: Rules
): InvalidArgument | undefined => {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    return refused(operation, "options", "an object", shown(options))
  }
  for (const name of Object.keys(options)) {
    const given = (options as Readonly<Record<string, unknown>>)[name]
    if (given === undefined) continue
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule === undefined) {
      return refused(operation, name, `one of the options ${Object.keys(rules).join(", ")}`, "an option of this name")
    }
    const value = rule.read(given, operation)
    if (value === undefined) return wanted(operation, name, rule, given)
    if (isRefused(value)) return value
    values[name] = value
  }
  return undefined
}

/** Options that are all true or false: each has a default, and what is not given has that. */
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
  wants: string,
  read: (value: unknown, operation: string) => Out | InvalidArgument | undefined
): Rule<In, Out, undefined> => ({ wants, read, absent: undefined })

/** The same, with a default. */
export const or = <In, Out, const Absent>(given: Rule<In, Out>, absent: Absent): Rule<In, Out, Absent> => ({
  ...given,
  absent
})

/** The same, where the type demands the option. */
export const required = <In, Out>(given: Rule<In, Out>): Rule<In, Out, never> => ({
  ...given,
  absent: undefined as never,
  isRequired: true
})

/** The same table without some of its rules. */
export const omit = <Known extends Rules, Name extends keyof Known>(
  rules: Known,
  ...names: ReadonlyArray<Name>
): Omit<Known, Name> =>
  Object.fromEntries(Object.entries(rules).filter(([name]) => !names.includes(name as Name))) as never

/** The same options, handed on as they are to an operation that reads them by its own table. */
export const passedOn = <Known extends object>(
  rules: Known
): {
  readonly [Name in keyof Known]: Known[Name] extends Rule<infer In> ? Rule<In, In, undefined> : never
} => Object.fromEntries(Object.keys(rules).map((name) => [name, rule("", (value) => value)])) as never

export const boolean: Rule<boolean, boolean, undefined> = rule("true or false", (value) =>
  typeof value === "boolean" ? value : undefined
)

export const integer = (least: number, most: number): Rule<number, number, undefined> =>
  rule(
    most === Number.MAX_SAFE_INTEGER ? `a whole number from ${least}` : `a whole number from ${least} to ${most}`,
    (value) =>
      Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most ? (value as number) : undefined
  )

export const choice = <const Value extends string>(values: ReadonlyArray<Value>): Rule<Value, Value, undefined> =>
  rule(values.map((value) => JSON.stringify(value)).join(" or "), (value) =>
    (values as ReadonlyArray<unknown>).includes(value) ? (value as Value) : undefined
  )

/** Node fires longer timers at once. In milliseconds. */
export const longestTimer = 2 ** 31 - 1

/** A duration, read as milliseconds. */
export const duration = (least: number, most = longestTimer): Rule<Duration.Input, number, undefined> =>
  rule(`a duration from ${least} ms to ${Duration.format(Duration.millis(most))}`, (value) => {
    const millis = toMillis(value)
    return millis !== undefined && millis >= least && millis <= most ? millis : undefined
  })

/** A duration in milliseconds. `Duration` itself takes a negative number and NaN for zero. */
export const toMillis = (value: unknown): number | undefined => {
  if (typeof value === "number") return value >= 0 && value < Infinity ? value : undefined
  try {
    const duration = Duration.fromInputUnsafe(value as Duration.Input)
    return Duration.isFinite(duration) ? Duration.toMillis(duration) : undefined
  } catch {
    return undefined
  }
}
