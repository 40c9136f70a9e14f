/**
 * Field tables: the typed key-value lists of AMQP headers and arguments, with the type tags that RabbitMQ uses.
 *
 * A value decoded is a plain JavaScript value in a record without a prototype, so `__proto__` is a key like any other.
 * A value to encode is plain too, or `typed(tag, value)` where a test cares which of the wire's types it becomes.
 */
import { WireError, WireReader, WireWriter } from "./wire.ts"

export type FieldTag =
  | "t" // boolean
  | "b" // signed 8 bit
  | "B" // unsigned 8 bit
  | "s" // signed 16 bit
  | "u" // unsigned 16 bit
  | "I" // signed 32 bit
  | "i" // unsigned 32 bit
  | "l" // signed 64 bit
  | "L" // the same, as some clients write it
  | "U" // signed 16 bit, AMQP 0-9-1's own
  | "f" // float
  | "d" // double
  | "D" // decimal
  | "S" // long string
  | "x" // byte array
  | "A" // array
  | "T" // timestamp, in seconds
  | "F" // table
  | "V" // void

export interface Decimal {
  readonly places: number
  readonly digits: number
}

export type FieldValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | Date
  | Uint8Array
  | Decimal
  | TypedValue
  | FieldArray
  | FieldTable

export type FieldArray = ReadonlyArray<FieldValue>

export interface FieldTable {
  readonly [key: string]: FieldValue
}

export class TypedValue {
  readonly tag: FieldTag
  readonly value: FieldValue

  constructor(tag: FieldTag, value: FieldValue) {
    this.tag = tag
    this.value = value
  }
}

/** A value together with the type tag that it gets on the wire. */
export const typed = (tag: FieldTag, value: FieldValue): TypedValue => new TypedValue(tag, value)

const isDecimal = (value: object): value is Decimal => {
  const keys = Object.keys(value)
  return keys.length === 2 && Object.hasOwn(value, "places") && Object.hasOwn(value, "digits")
}

const tagOfNumber = (value: number): FieldTag => {
  if (!Number.isSafeInteger(value) || Object.is(value, -0)) return "d"
  return value >= -0x8000_0000 && value <= 0x7fff_ffff ? "I" : "l"
}

const tagOf = (value: FieldValue): FieldTag => {
  switch (typeof value) {
    case "string":
      return "S"
    case "boolean":
      return "t"
    case "bigint":
      return "l"
    case "number":
      return tagOfNumber(value)
    default:
      if (value === null) return "V"
      if (value instanceof TypedValue) return value.tag
      if (value instanceof Date) return "T"
      if (value instanceof Uint8Array) return "x"
      if (Array.isArray(value)) return "A"
      return isDecimal(value) ? "D" : "F"
  }
}

const writeValue = (writer: WireWriter, input: FieldValue): void => {
  const tag = tagOf(input)
  const value = input instanceof TypedValue ? input.value : input
  writer.octet(tag.charCodeAt(0))
  switch (tag) {
    case "t":
      return writer.octet(value === true ? 1 : 0)
    case "b":
      return writer.signedOctet(Number(value))
    case "B":
      return writer.octet(Number(value))
    case "s":
    case "U":
      return writer.signedShort(Number(value))
    case "u":
      return writer.short(Number(value))
    case "I":
      return writer.signedLong(Number(value))
    case "i":
      return writer.long(Number(value))
    case "l":
    case "L":
      return writer.signedLonglong(BigInt(value as number | bigint))
    case "f":
      return writer.float(Number(value))
    case "d":
      return writer.double(Number(value))
    case "D":
      writer.octet((value as Decimal).places)
      return writer.long((value as Decimal).digits)
    case "S":
    case "x":
      return writer.longstr(value as string | Uint8Array)
    case "A": {
      const items = new WireWriter()
      for (const item of value as FieldArray) writeValue(items, item)
      return writer.longstr(items.finish())
    }
    case "T":
      return writer.longlong(value instanceof Date ? BigInt(Math.floor(value.getTime() / 1000)) : BigInt(Number(value)))
    case "F":
      return writeTable(writer, value as FieldTable)
    case "V":
      return
  }
}

export const writeTable = (writer: WireWriter, table: FieldTable): void => {
  const entries = new WireWriter()
  for (const [key, value] of Object.entries(table)) {
    entries.shortstr(key)
    writeValue(entries, value)
  }
  writer.longstr(entries.finish())
}

const narrow = (value: bigint): number | bigint => {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

const readValue = (reader: WireReader): FieldValue => {
  const tag = String.fromCharCode(reader.octet())
  switch (tag) {
    case "t":
      return reader.octet() !== 0
    case "b":
      return reader.signedOctet()
    case "B":
      return reader.octet()
    case "s":
      return reader.signedShort()
    case "u":
      return reader.short()
    case "I":
      return reader.signedLong()
    case "i":
      return reader.long()
    case "l":
      return narrow(reader.signedLonglong())
    case "f":
      return reader.float()
    case "d":
      return reader.double()
    case "D":
      return { places: reader.octet(), digits: reader.long() }
    case "S":
      return reader.longstr()
    case "x":
      return reader.octets(reader.long())
    case "A": {
      const items = new WireReader(reader.octets(reader.long()))
      const values: Array<FieldValue> = []
      while (!items.done) values.push(readValue(items))
      return values
    }
    case "T":
      return new Date(Number(reader.longlong()) * 1000)
    case "F":
      return readTable(reader)
    case "V":
      return null
    default:
      throw new WireError(`unknown field type ${JSON.stringify(tag)}`)
  }
}

export const readTable = (reader: WireReader): FieldTable => {
  const entries = new WireReader(reader.octets(reader.long()))
  const table: Record<string, FieldValue> = Object.create(null)
  while (!entries.done) {
    const key = entries.shortstr()
    table[key] = readValue(entries)
  }
  return table
}
