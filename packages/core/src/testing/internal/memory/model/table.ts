/**
 * Field tables with the type of each value. The broker passes headers on unchanged, compares arguments by type, and names
 * types in its errors, so a value stays as its bytes until it is needed.
 */
import { type Failure, syntaxError } from "../failure.ts"

/** A value as it was received: its type's tag, and its bytes. */
export interface Value {
  readonly tag: string
  readonly bytes: Buffer
}

export interface Entry extends Value {
  readonly key: string
}

export type Plain =
  | string
  | number
  | bigint
  | boolean
  | null
  | Buffer
  | ReadonlyArray<Plain>
  | { readonly [key: string]: Plain }

/** Sizes of the types whose values have one. */
const sizes: Readonly<Record<string, number>> = {
  t: 1,
  b: 1,
  B: 1,
  s: 2,
  u: 2,
  I: 4,
  i: 4,
  f: 4,
  l: 8,
  L: 8,
  d: 8,
  T: 8,
  D: 5,
  V: 0
}

/** The names of types in RabbitMQ's errors. */
const names: Readonly<Record<string, string>> = {
  t: "bool",
  b: "byte",
  B: "unsignedbyte",
  s: "short",
  u: "unsignedshort",
  I: "signedint",
  i: "unsignedint",
  f: "float",
  l: "long",
  L: "long",
  d: "double",
  T: "timestamp",
  D: "decimal",
  V: "void",
  S: "longstr",
  x: "binary",
  A: "array",
  F: "table"
}

export const typeName = ({ tag }: Value): string => names[tag] ?? tag

export const isInteger = ({ tag }: Value): boolean => "bBsuIilL".includes(tag)

const malformed = (): Failure => syntaxError("malformed field table")

const readValue = (bytes: Buffer, at: number): { readonly value: Value; readonly end: number } => {
  const tag = String.fromCharCode(bytes[at] ?? 0)
  const fixed = sizes[tag]
  if (fixed !== undefined) {
    if (at + 1 + fixed > bytes.length) throw malformed()
    return { value: { tag, bytes: bytes.subarray(at + 1, at + 1 + fixed) }, end: at + 1 + fixed }
  }
  if (!"SxAF".includes(tag) || at + 5 > bytes.length) throw malformed()
  const end = at + 5 + bytes.readUInt32BE(at + 1)
  if (end > bytes.length) throw malformed()
  return { value: { tag, bytes: bytes.subarray(at + 5, end) }, end }
}

/** Reads the entries of a table, without its length. A key may be any bytes, which are kept as Latin-1. */
export const readEntries = (bytes: Buffer): ReadonlyArray<Entry> => {
  const entries: Array<Entry> = []
  for (let at = 0; at < bytes.length;) {
    const start = at + 1
    const end = start + bytes[at]!
    if (end > bytes.length) throw malformed()
    const read = readValue(bytes, end)
    entries.push({ key: bytes.toString("latin1", start, end), ...read.value })
    at = read.end
  }
  return entries
}

const readItems = (bytes: Buffer): ReadonlyArray<Value> => {
  const items: Array<Value> = []
  for (let at = 0; at < bytes.length;) {
    const read = readValue(bytes, at)
    items.push(read.value)
    at = read.end
  }
  return items
}

const narrow = (value: bigint): number | bigint => (Number.isSafeInteger(Number(value)) ? Number(value) : value)

/** The value as JavaScript has it. */
export const plain = ({ bytes, tag }: Value): Plain => {
  switch (tag) {
    case "t":
      return bytes[0] !== 0
    case "b":
      return bytes.readInt8()
    case "B":
      return bytes.readUInt8()
    case "s":
      return bytes.readInt16BE()
    case "u":
      return bytes.readUInt16BE()
    case "I":
      return bytes.readInt32BE()
    case "i":
      return bytes.readUInt32BE()
    case "l":
    case "L":
      return narrow(bytes.readBigInt64BE())
    case "T":
      return narrow(bytes.readBigUInt64BE())
    case "f":
      return bytes.readFloatBE()
    case "d":
      return bytes.readDoubleBE()
    case "S":
      return bytes.toString("utf8")
    case "A":
      return readItems(bytes).map(plain)
    case "F":
      return Object.fromEntries(readEntries(bytes).map((entry) => [entry.key, plain(entry)]))
    case "V":
      return null
    default:
      return bytes
  }
}

/** The items of an array, or nothing if the value is not one. */
export const items = (value: Value | undefined): ReadonlyArray<Value> =>
  value?.tag === "A" ? readItems(value.bytes) : []

export const text = (value: Value | undefined): string | undefined =>
  value?.tag === "S" ? value.bytes.toString("utf8") : undefined

export const integer = (value: Value | undefined): number | undefined =>
  value !== undefined && isInteger(value) ? Number(plain(value)) : undefined

/** Compares as Erlang's `==`: a number is equal to the same number of another type. */
export const sameValue = (a: Value, b: Value): boolean => {
  const numbers = isInteger(a) || a.tag === "d" || a.tag === "f"
  if (numbers) return (isInteger(b) || b.tag === "d" || b.tag === "f") && plain(a) === plain(b)
  return a.bytes.equals(b.bytes) && (a.tag === b.tag || "Sx".includes(a.tag) === "Sx".includes(b.tag))
}

export const longstr = (value: string): Value => ({ tag: "S", bytes: Buffer.from(value) })

const eight = (tag: string, value: number): Value => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(BigInt(value))
  return { tag, bytes }
}

export const long = (value: number): Value => eight("l", value)
export const timestamp = (seconds: number): Value => eight("T", seconds)

const bytesOf = ({ bytes, tag }: Value): Buffer => {
  const head = Buffer.alloc("SxAF".includes(tag) ? 5 : 1)
  head[0] = tag.charCodeAt(0)
  if (head.length === 5) head.writeUInt32BE(bytes.length, 1)
  return Buffer.concat([head, bytes])
}

export const array = (values: ReadonlyArray<Value>): Value => ({ tag: "A", bytes: Buffer.concat(values.map(bytesOf)) })

/** Writes entries, without the table's length. */
export const writeEntries = (entries: ReadonlyArray<Entry>): Buffer =>
  Buffer.concat(
    entries.flatMap((entry) => {
      const key = Buffer.from(entry.key, "latin1")
      return [Buffer.from([key.length]), key, bytesOf(entry)]
    })
  )

export const entry = (key: string, value: Value): Entry => ({ key, tag: value.tag, bytes: value.bytes })

export const table = (entries: ReadonlyArray<Entry>): Value => ({ tag: "F", bytes: writeEntries(entries) })

export const find = (entries: ReadonlyArray<Entry>, key: string): Entry | undefined =>
  entries.find((candidate) => candidate.key === key)

/** Sets an entry, in its place or at the end. */
export const set = (entries: ReadonlyArray<Entry>, key: string, value: Value): ReadonlyArray<Entry> =>
  find(entries, key) === undefined
    ? [...entries, entry(key, value)]
    : entries.map((other) => (other.key === key ? entry(key, value) : other))

export const remove = (entries: ReadonlyArray<Entry>, key: string): ReadonlyArray<Entry> =>
  entries.some((other) => other.key === key) ? entries.filter((other) => other.key !== key) : entries

/** The entries in the order of their keys: the same array, if that is their order. */
export const sorted = (entries: ReadonlyArray<Entry>): ReadonlyArray<Entry> =>
  entries.every(({ key }, at) => at === 0 || entries[at - 1]!.key <= key)
    ? entries
    : entries.toSorted((a, b) => (a.key < b.key ? -1 : 1))
