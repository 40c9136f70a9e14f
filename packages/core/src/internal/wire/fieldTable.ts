/**
 * Field tables, the typed key-value lists of AMQP's headers and arguments: checked, and made ready for amqplib's encoder.
 *
 * What it would guess wrong is named for it: `{ "!": type, value }` is its way to be told. What it cannot encode, or would
 * encode as something else, is refused with its path, before anything is sent.
 *
 * Type tags are those of RabbitMQ (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
 */
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable } from "../../model/message.ts"
import { sizeOfShortText } from "./shortText.ts"

/** The bytes of an entry's value, its tag included; undefined: it is to be written as what it is. */
export type Unchanged = (key: string, value: unknown) => Buffer | undefined

/** amqplib encodes a table into a buffer of this size, its length included. */
export const largestTable = 65_536

/** Every AMQP connection takes frames of this size: what is surely smaller needs no closer look. */
const surelyFits = 1024

/** Tables in a table, one in the other. More are refused, or left as bytes: recursion must not depend on what others publish. */
export const deepest = 512

const longestName = 255

type Key = string | number

/** An argument that was refused, in the words of all of them. */
export const refused = (operation: string, argument: string, wants: string, got: string): InvalidArgument =>
  new InvalidArgument({
    message: `${operation}: ${argument}: wants ${wants}, got ${got}. Nothing was sent.`,
    operation,
    argument
  })

/** Whether it fits where AMQP wants a short string: a name, a routing key, most properties. */
export const isName = (value: unknown): value is string =>
  typeof value === "string" &&
  // Three bytes a character is the most that UTF-8 takes for one of UTF-16.
  (value.length * 3 <= longestName || Buffer.byteLength(value) <= longestName) &&
  value.isWellFormed()

/** Whether it fits where AMQP wants a short string, as it may also have been read: see `shortText`. */
export const isShortText = (value: unknown): value is string =>
  isName(value) || (typeof value === "string" && !value.isWellFormed() && fitsShort(value))

const fitsShort = (text: string): boolean => (sizeOfShortText(text) ?? Infinity) <= longestName

/** What `isName` wants. */
export const wantsName = `a text of at most ${longestName} bytes in UTF-8`

/** What it got instead. */
export const kindOfName = (value: unknown): string =>
  typeof value === "string" && value.isWellFormed() ? `one of ${Buffer.byteLength(value)} bytes` : kindOf(value)

/** What a value is, without telling what it says: messages carry secrets. */
export const kindOf = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return value.isWellFormed() ? "a text" : "a text with a lone surrogate"
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
  const name: unknown = isRecord(value) ? undefined : Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === "string" && name !== "" ? `an instance of ${name}` : "an object"
}

/** A plain object: neither an array nor an instance of something. */
export const isRecord = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  // The `Object.prototype` of another realm has no prototype either.
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Seconds since 1970, as timestamps are on the wire; NaN: not a date, or not a valid one. */
export const toSeconds = (value: unknown): number => {
  if (value instanceof Date) return Math.floor(value.getTime() / 1000)
  return DateTime.isDateTime(value) ? Math.floor(DateTime.toEpochMillis(value) / 1000) : Number.NaN
}

/** A view of the same bytes, which amqplib insists on being a `Buffer`. */
export const viewOf = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

// amqplib guesses these right: a fraction of this size is a double for it, a safe integer an integer.
const isPlainNumber = (value: number): boolean =>
  Number.isSafeInteger(value)
    ? value !== 0 || 1 / value > 0
    : Math.abs(value) < 2 ** 50 && !Number.isInteger(value) && value === value

/** Whether it is encoded as it is, and so small that it fits into any frame: the most tables are, so this makes nothing. */
export const isPlain = (table: unknown): boolean => {
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
  return bytes <= surelyFits
}

class Refusal {
  readonly path: ReadonlyArray<Key>
  readonly wants: string
  readonly got: string

  constructor(path: ReadonlyArray<Key>, wants: string, got: string) {
    this.path = path
    this.wants = wants
    this.got = got
  }
}

const typed = (type: string, value: unknown) => ({ "!": type, value })

const wantsValue =
  "null, a boolean, a number, a bigint, a text, bytes (Uint8Array), a Date, a DateTime, a BigDecimal, an array or a plain object"

class Writer {
  /** What the table takes on the wire. */
  size = 0
  readonly #room: number
  readonly #path: Array<Key> = []
  readonly #ancestors: Array<object> = []
  readonly #unchanged: Unchanged | undefined

  constructor(room: number, unchanged: Unchanged | undefined) {
    this.#room = room
    this.#unchanged = unchanged
  }

  #refuse(wants: string, got: string): never {
    throw new Refusal(this.#path, wants, got)
  }

  #takes(bytes: number): void {
    this.size += bytes
    if (this.size > this.#room) {
      throw new Refusal([], `a table of at most ${this.#room} bytes when encoded`, "a larger one")
    }
  }

  #enter(value: object): void {
    if (this.#ancestors.includes(value)) this.#refuse("a value that does not contain itself", "a cycle")
    if (this.#ancestors.length > deepest) this.#refuse(`at most ${deepest} tables in one another`, "one more")
    this.#ancestors.push(value)
    this.#takes(4)
  }

  table(value: object): Record<string, unknown> {
    this.#enter(value)
    // Without a prototype `__proto__` is a key, and nothing is inherited that amqplib would encode too.
    const copy: Record<string, unknown> = Object.create(null)
    for (const key of Object.keys(value)) {
      const item = (value as Record<string, unknown>)[key]
      if (item === undefined) continue
      this.#path.push(key)
      const size = sizeOfShortText(key)
      if (size === undefined) this.#refuse("a key of well-formed text", "one with a lone surrogate")
      if (size > longestName) this.#refuse(`a key of at most ${longestName} bytes in UTF-8`, `one of ${size}`)
      this.#takes(1 + size)
      const bytes = this.#ancestors.length === 1 ? this.#unchanged?.(key, item) : undefined
      if (bytes === undefined) copy[key] = this.#value(item)
      else {
        this.#takes(bytes.length)
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
        if (!value.isWellFormed()) this.#refuse("well-formed text", kindOf(value))
        this.#takes(5 + Buffer.byteLength(value))
        return value
      case "boolean":
        this.#takes(2)
        return value
      case "number":
        return this.#number(value)
      case "bigint":
        if (BigInt.asIntN(64, value) !== value) {
          this.#refuse("an integer from -2^63 to 2^63 - 1", value < 0n ? "a smaller one" : "a larger one")
        }
        this.#takes(9)
        return typed("int64", value)
      case "object":
        if (value === null) {
          this.#takes(1)
          return value
        }
        this.#takes(1)
        return this.#object(value)
      default:
        return this.#refuse(wantsValue, kindOf(value))
    }
  }

  #number(value: number): unknown {
    // RabbitMQ closes the connection on the others.
    if (!Number.isFinite(value)) this.#refuse("a finite number", String(value))
    const plain = isPlainNumber(value)
    if (!plain || !Number.isInteger(value)) this.#takes(9)
    else if (value >= -0x80 && value < 0x80) this.#takes(2)
    else if (value >= -0x8000 && value < 0x8000) this.#takes(3)
    else if (value >= -0x8000_0000 && value < 0x8000_0000) this.#takes(5)
    else this.#takes(9)
    return plain ? value : typed("double", value)
  }

  #object(value: object): unknown {
    if (value instanceof Uint8Array) {
      this.#takes(4 + value.byteLength)
      return viewOf(value)
    }
    if (Array.isArray(value)) return this.#array(value)
    if (value instanceof Date || DateTime.isDateTime(value)) {
      const seconds = toSeconds(value)
      if (!(seconds >= 0)) this.#refuse("a date from 1970 on", kindOf(value))
      this.#takes(8)
      return typed("timestamp", seconds)
    }
    if (BigDecimal.isBigDecimal(value)) return this.#decimal(value)
    if (!isRecord(value)) this.#refuse(wantsValue, kindOf(value))
    const copy = this.table(value)
    // A key "!" of its own would be taken for a type. amqplib looks at own keys for it, and encodes inherited ones too.
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
    // Ten digits at most: a power of ten beyond that is too large anyway, and possibly huge.
    const digits = scale >= 0 ? value : scale < -9 ? 2n ** 32n : value * 10n ** BigInt(-scale)
    if (value < 0n || digits >= 2n ** 32n || scale > 255) {
      this.#refuse(
        "a decimal of 0 to 4294967295, divided by ten up to 255 times",
        value < 0n ? "a negative one" : scale > 255 ? `one with ${scale} places` : "a larger one"
      )
    }
    this.#takes(5)
    return typed("decimal", { places: Math.max(scale, 0), digits: Number(digits) })
  }
}

const pathOf = (argument: string, path: ReadonlyArray<Key>): string => {
  let text = argument
  for (const key of path) {
    if (typeof key === "number") text += `[${key}]`
    else if (/^[\w$-]+$/.test(key) && key.length <= longestName) text += `.${key}`
    else text += `[${JSON.stringify(key.length > 60 ? `${key.slice(0, 60)}…` : key)}]`
  }
  return text
}

/**
 * A table as amqplib is to encode it: itself if it is plain, else a copy in which types are named. Or why it cannot be, with the path of
 * the value, which begins with `argument`.
 *
 * @param room how many bytes it may take when encoded, by default what amqplib can encode
 * @param unchanged what of it is written as the bytes that it was read from: for `bytesOfTable`, amqplib cannot
 */
export const toTable = (
  table: unknown,
  argument: string,
  operation: string,
  room: number = largestTable,
  unchanged?: Unchanged
): FieldTable | InvalidArgument => {
  if (typeof table !== "object" || table === null || Array.isArray(table) || table instanceof Uint8Array) {
    return refused(operation, argument, "a plain object", kindOf(table))
  }
  if (unchanged === undefined && isPlain(table) && room >= surelyFits) return table as FieldTable
  if (!isRecord(table)) return refused(operation, argument, "a plain object", kindOf(table))
  try {
    return new Writer(room, unchanged).table(table) as FieldTable
  } catch (cause) {
    if (!(cause instanceof Refusal)) throw cause
    return refused(operation, pathOf(argument, cause.path), cause.wants, cause.got)
  }
}
