/**
 * Field tables, the typed key-value lists of AMQP's headers and arguments, checked and prepared for amqplib's encoder.
 *
 * Where amqplib would choose the wrong type, the type is named in amqplib's notation, `{ "!": type, value }`. A value
 * that amqplib cannot encode, or would encode as something else, is refused with its path before anything is sent.
 *
 * Type tags are those of RabbitMQ (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
 */
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable } from "../../model/message.ts"
import { sizeOfShortString } from "./shortString.ts"

/** Returns the bytes of an entry's value, including the tag, or undefined if the value is to be encoded. */
export type Unchanged = (key: string, value: unknown) => Buffer | undefined

/** amqplib encodes a table into a buffer of this size, in bytes, including the table's length. */
export const maxTableSize = 65_536

/** Every AMQP connection accepts frames of this size, in bytes, so smaller tables need no exact measurement. */
const smallTableSize = 1024

/**
 * Maximum nesting of tables. Deeper ones are refused, or left as bytes, because recursion must not depend on what
 * others publish.
 */
export const maxNesting = 512

const maxNameLength = 255

type Key = string | number

/** Returns the error for a refused argument, in the wording that all of them share. */
export const invalidArgument = (operation: string, argument: string, expected: string, got: string): InvalidArgument =>
  new InvalidArgument({
    message: `${operation}: ${argument}: expected ${expected}, got ${got}. Nothing was sent.`,
    operation,
    argument
  })

/** Whether a value fits where AMQP expects a short string: a name, a routing key, most properties. */
export const isName = (value: unknown): value is string =>
  typeof value === "string" &&
  // UTF-8 needs at most three bytes per UTF-16 code unit.
  (value.length * 3 <= maxNameLength || Buffer.byteLength(value) <= maxNameLength) &&
  value.isWellFormed()

/** Whether a value fits where AMQP expects a short string, including strings as they are read: see `shortString`. */
export const isShortString = (value: unknown): value is string =>
  isName(value) || (typeof value === "string" && !value.isWellFormed() && fitsShort(value))

const fitsShort = (text: string): boolean => (sizeOfShortString(text) ?? Infinity) <= maxNameLength

/** What errors expect where `isName` fails. */
export const expectedName = `a string of at most ${maxNameLength} bytes in UTF-8`

/** Describes the value for which `isName` fails. */
export const describeName = (value: unknown): string =>
  typeof value === "string" && value.isWellFormed()
    ? `a string of ${Buffer.byteLength(value)} bytes`
    : describeType(value)

/** Describes a value without its content, because messages contain secrets. */
export const describeType = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return value.isWellFormed() ? "a string" : "a string with a lone surrogate"
    case "number":
    case "undefined":
      return String(value)
    case "object":
      return value === null ? "null" : kindOfObject(value)
    case "boolean":
    case "function":
    case "symbol":
      return `a ${typeof value}`
    default:
      return "a bigint"
  }
}

const kindOfObject = (value: object): string => {
  if (Array.isArray(value)) return "an array"
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "an invalid Date" : value.toISOString()
  const name: unknown = isPlainObject(value) ? undefined : Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === "string" && name !== "" ? `an instance of ${name}` : "an object"
}

/** Whether an object is a plain one: neither an array nor an instance of a class. */
export const isPlainObject = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  // The `Object.prototype` of another realm has no prototype either.
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Seconds since 1970, as in timestamps on the wire. NaN if the value is not a valid date. */
export const toSeconds = (value: unknown): number => {
  if (value instanceof Date) return Math.floor(value.getTime() / 1000)
  return DateTime.isDateTime(value) ? Math.floor(DateTime.toEpochMillis(value) / 1000) : Number.NaN
}

/** A view of the same bytes as a `Buffer`, which amqplib requires. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

// amqplib chooses the right type for these: a double for a fraction of this size, an integer for a safe integer.
const isPlainNumber = (value: number): boolean =>
  Number.isSafeInteger(value)
    ? value !== 0 || 1 / value > 0
    : Math.abs(value) < 2 ** 50 && !Number.isInteger(value) && value === value

/**
 * Whether a table is encoded as it is, and so small that it fits into any frame. Most tables are, so this allocates
 * nothing.
 */
export const isPlainTable = (table: unknown): boolean => {
  if (typeof table !== "object" || table === null) return false
  const prototype: unknown = Object.getPrototypeOf(table)
  if (prototype !== Object.prototype && prototype !== null) return false
  let bytes = 0
  for (const key in table) {
    if (!isName(key) || !Object.hasOwn(table, key)) return false
    const value = (table as Record<string, unknown>)[key]
    bytes += key.length * 3 + 10
    switch (typeof value) {
      case "string":
        if (!value.isWellFormed()) return false
        bytes += value.length * 3
        break
      case "number":
        if (!isPlainNumber(value)) return false
        break
      case "boolean":
      case "undefined":
        break
      default:
        if (value !== null) return false
    }
  }
  return bytes <= smallTableSize
}

class Refusal {
  readonly path: ReadonlyArray<Key>
  readonly expected: string
  readonly got: string

  constructor(path: ReadonlyArray<Key>, expected: string, got: string) {
    this.path = path
    this.expected = expected
    this.got = got
  }
}

const typed = (type: string, value: unknown) => ({ "!": type, value })

const expectedValue =
  "null, a boolean, a number, a bigint, a string, a Uint8Array, a Date, a DateTime, a BigDecimal, an array or a plain object"

class Writer {
  /** Size of the table on the wire, in bytes. */
  size = 0
  readonly #room: number
  readonly #path: Array<Key> = []
  readonly #ancestors: Array<object> = []
  readonly #unchanged: Unchanged | undefined

  constructor(room: number, unchanged: Unchanged | undefined) {
    this.#room = room
    this.#unchanged = unchanged
  }

  #refuse(expected: string, got: string): never {
    throw new Refusal(this.#path, expected, got)
  }

  #addSize(bytes: number): void {
    this.size += bytes
    if (this.size > this.#room) {
      throw new Refusal([], `a table of at most ${this.#room} bytes when encoded`, "a larger table")
    }
  }

  #enter(value: object): void {
    if (this.#ancestors.includes(value)) this.#refuse("a value that does not contain itself", "a cycle")
    if (this.#ancestors.length > maxNesting) this.#refuse(`at most ${maxNesting} nested tables`, "more")
    this.#ancestors.push(value)
    this.#addSize(4)
  }

  table(value: object): Record<string, unknown> {
    this.#enter(value)
    // In an object without a prototype `__proto__` is a key, and nothing is inherited that amqplib would encode too.
    const copy: Record<string, unknown> = Object.create(null)
    for (const key of Object.keys(value)) {
      const item = (value as Record<string, unknown>)[key]
      if (item === undefined) continue
      this.#path.push(key)
      const size = sizeOfShortString(key)
      if (size === undefined) this.#refuse("a key without lone surrogates", "a key with one")
      if (size > maxNameLength)
        this.#refuse(`a key of at most ${maxNameLength} bytes in UTF-8`, `a key of ${size} bytes`)
      this.#addSize(1 + size)
      const bytes = this.#ancestors.length === 1 ? this.#unchanged?.(key, item) : undefined
      if (bytes === undefined) copy[key] = this.#value(item)
      else {
        this.#addSize(bytes.length)
        copy[key] = typed("raw", bytes)
      }
      this.#path.pop()
    }
    this.#ancestors.pop()
    return copy
  }

  #value(value: unknown): unknown {
    switch (typeof value) {
      case "string":
        if (!value.isWellFormed()) this.#refuse("a string without lone surrogates", describeType(value))
        this.#addSize(5 + Buffer.byteLength(value))
        return value
      case "boolean":
        this.#addSize(2)
        return value
      case "number":
        return this.#number(value)
      case "bigint":
        if (BigInt.asIntN(64, value) !== value) {
          this.#refuse("an integer from -2^63 to 2^63 - 1", value < 0n ? "a smaller integer" : "a larger integer")
        }
        this.#addSize(9)
        return typed("int64", value)
      case "object":
        if (value === null) {
          this.#addSize(1)
          return value
        }
        this.#addSize(1)
        return this.#object(value)
      default:
        return this.#refuse(expectedValue, describeType(value))
    }
  }

  #number(value: number): unknown {
    // RabbitMQ closes the connection for numbers that are not finite.
    if (!Number.isFinite(value)) this.#refuse("a finite number", String(value))
    const plain = isPlainNumber(value)
    if (!plain || !Number.isInteger(value)) this.#addSize(9)
    else if (value >= -0x80 && value < 0x80) this.#addSize(2)
    else if (value >= -0x8000 && value < 0x8000) this.#addSize(3)
    else if (value >= -0x8000_0000 && value < 0x8000_0000) this.#addSize(5)
    else this.#addSize(9)
    return plain ? value : typed("double", value)
  }

  #object(value: object): unknown {
    if (value instanceof Uint8Array) {
      this.#addSize(4 + value.byteLength)
      return asBuffer(value)
    }
    if (Array.isArray(value)) return this.#array(value)
    if (value instanceof Date || DateTime.isDateTime(value)) {
      const seconds = toSeconds(value)
      if (!(seconds >= 0)) this.#refuse("a date from 1970 on", describeType(value))
      this.#addSize(8)
      return typed("timestamp", seconds)
    }
    if (BigDecimal.isBigDecimal(value)) return this.#decimal(value)
    if (!isPlainObject(value)) this.#refuse(expectedValue, describeType(value))
    const copy = this.table(value)
    // amqplib would read a key "!" of the table as a type. It looks for that key among own keys only, and encodes
    // inherited keys too.
    return "!" in copy ? Object.create(copy) : copy
  }

  #array(value: ReadonlyArray<unknown>): ReadonlyArray<unknown> {
    this.#enter(value)
    const copy: Array<unknown> = []
    for (let i = 0; i < value.length; i++) {
      this.#path.push(i)
      copy.push(this.#value(value[i]))
      this.#path.pop()
    }
    this.#ancestors.pop()
    return copy
  }

  #decimal({ scale, value }: BigDecimal.BigDecimal): unknown {
    // An integer below 2^32 has at most ten digits. A greater power of ten is too large anyway, and possibly huge.
    const digits = scale >= 0 ? value : scale < -9 ? 2n ** 32n : value * 10n ** BigInt(-scale)
    if (value < 0n || digits >= 2n ** 32n || scale > 255) {
      this.#refuse(
        "a decimal with digits from 0 to 4294967295 and at most 255 decimal places",
        value < 0n ? "a negative decimal" : scale > 255 ? `a decimal with ${scale} places` : "a larger decimal"
      )
    }
    this.#addSize(5)
    return typed("decimal", { places: Math.max(scale, 0), digits: Number(digits) })
  }
}

const pathOf = (argument: string, path: ReadonlyArray<Key>): string => {
  let text = argument
  for (const key of path) {
    if (typeof key === "number") text += `[${key}]`
    else if (/^[\w$-]+$/.test(key) && key.length <= maxNameLength) text += `.${key}`
    else text += `[${JSON.stringify(key.length > 60 ? `${key.slice(0, 60)}…` : key)}]`
  }
  return text
}

/**
 * Returns a table as amqplib encodes it: the table itself if it is plain, otherwise a copy in which types are named. Or
 * returns why it cannot be encoded, with the path of the value, which begins with `argument`.
 *
 * @param room maximum size of the encoded table in bytes; default: what amqplib can encode
 * @param unchanged entries that are written as the bytes that they were read from; only for `bytesOfTable`
 */
export const toTable = (
  table: unknown,
  argument: string,
  operation: string,
  room: number = maxTableSize,
  unchanged?: Unchanged
): FieldTable | InvalidArgument => {
  if (typeof table !== "object" || table === null || Array.isArray(table) || table instanceof Uint8Array) {
    return invalidArgument(operation, argument, "a plain object", describeType(table))
  }
  if (unchanged === undefined && isPlainTable(table) && room >= smallTableSize) return table as FieldTable
  if (!isPlainObject(table)) return invalidArgument(operation, argument, "a plain object", describeType(table))
  try {
    return new Writer(room, unchanged).table(table) as FieldTable
  } catch (cause) {
    if (!(cause instanceof Refusal)) throw cause
    return invalidArgument(operation, pathOf(argument, cause.path), cause.expected, cause.got)
  }
}
