/**
 * Encodes field tables that `fieldTable` has checked. amqplib encodes into 64 KiB, and types that it cannot choose
 * itself are named as `{ "!": type, value }`.
 */
import { setUint16, setUint32, setUint64 } from "./frameWriter.ts"
import { sizeOfShortString, writeShortString } from "./shortString.ts"

/** A value with a named type. `raw` contains the bytes that it was read from, including the tag. */
type Typed =
  | { readonly "!": "int64"; readonly value: bigint }
  | { readonly "!": "double"; readonly value: number }
  | { readonly "!": "timestamp"; readonly value: number }
  | { readonly "!": "decimal"; readonly value: { readonly places: number; readonly digits: number } }
  | { readonly "!": "raw"; readonly value: Buffer }

const isTyped = (value: object): value is Typed => Object.hasOwn(value, "!")

const sizeOfNumber = (value: number): number => {
  if (!Number.isInteger(value)) return 9
  if (value >= -0x80 && value < 0x80) return 2
  if (value >= -0x8000 && value < 0x8000) return 3
  return value >= -0x8000_0000 && value < 0x8000_0000 ? 5 : 9
}

const sizeOfTyped = (typed: Typed): number => {
  switch (typed["!"]) {
    case "raw":
      return typed.value.length
    case "decimal":
      return 6
    default:
      return 9
  }
}

const sizeOfValue = (value: unknown): number => {
  switch (typeof value) {
    case "string":
      return 5 + Buffer.byteLength(value)
    case "number":
      return sizeOfNumber(value)
    case "boolean":
      return 2
    default:
      if (value === null) return 1
      if (Buffer.isBuffer(value)) return 5 + value.length
      if (Array.isArray(value)) return value.reduce<number>((size, item) => size + sizeOfValue(item), 5)
      return isTyped(value as object) ? sizeOfTyped(value as Typed) : 1 + sizeOfTable(value as object)
  }
}

/** Size of an encoded table in bytes, including its length. */
export const sizeOfTable = (table: object): number => {
  let size = 4
  // The loop includes inherited keys, as amqplib's does: a table with a key "!" of its own hides its keys in its
  // prototype.
  for (const key in table) {
    const value: unknown = table[key as keyof typeof table]
    if (value !== undefined) size += 1 + sizeOfShortString(key)! + sizeOfValue(value)
  }
  return size
}

/**
 * Writes a number with the type that amqplib chooses. The tags are RabbitMQ's
 * (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
 */
export const setNumber = (room: Buffer, at: number, value: number): number => {
  if (!Number.isInteger(value)) {
    room[at] = 0x64 // d
    return room.writeDoubleBE(value, at + 1)
  }
  if (value >= -0x80 && value < 0x80) {
    room[at] = 0x62 // b
    room[at + 1] = value
    return at + 2
  }
  if (value >= -0x8000 && value < 0x8000) {
    room[at] = 0x73 // s
    return setUint16(room, at + 1, value)
  }
  if (value >= -0x8000_0000 && value < 0x8000_0000) {
    room[at] = 0x49 // I
    return setUint32(room, at + 1, value)
  }
  room[at] = 0x6c // l
  return setUint64(room, at + 1, value)
}

const setTyped = (room: Buffer, at: number, typed: Typed): number => {
  switch (typed["!"]) {
    case "raw":
      return at + typed.value.copy(room, at)
    case "int64":
      room[at] = 0x6c // l
      return room.writeBigInt64BE(typed.value, at + 1)
    case "double":
      room[at] = 0x64 // d
      return room.writeDoubleBE(typed.value, at + 1)
    case "timestamp":
      room[at] = 0x54 // T
      return setUint64(room, at + 1, typed.value)
    case "decimal":
      room[at] = 0x44 // D
      room[at + 1] = typed.value.places
      return setUint32(room, at + 2, typed.value.digits)
  }
}

const setValue = (room: Buffer, at: number, value: unknown): number => {
  switch (typeof value) {
    case "string": {
      room[at] = 0x53 // S
      const size = room.write(value, at + 5)
      setUint32(room, at + 1, size)
      return at + 5 + size
    }
    case "number":
      return setNumber(room, at, value)
    case "boolean":
      room[at] = 0x74 // t
      room[at + 1] = value ? 1 : 0
      return at + 2
    default:
      if (value === null) {
        room[at] = 0x56 // V
        return at + 1
      }
      if (Buffer.isBuffer(value)) {
        room[at] = 0x78 // x
        setUint32(room, at + 1, value.length)
        return at + 5 + value.copy(room, at + 5)
      }
      if (Array.isArray(value)) {
        room[at] = 0x41 // A
        let end = at + 5
        for (const item of value) end = setValue(room, end, item)
        setUint32(room, at + 1, end - at - 5)
        return end
      }
      if (isTyped(value as object)) return setTyped(room, at, value as Typed)
      room[at] = 0x46 // F
      return setTable(room, at + 1, value as object)
  }
}

const setTable = (room: Buffer, start: number, table: object): number => {
  let at = start + 4
  for (const key in table) {
    const value: unknown = table[key as keyof typeof table]
    if (value === undefined) continue
    const end = writeShortString(room, at + 1, key)
    room[at] = end - at - 1
    at = setValue(room, end, value)
  }
  setUint32(room, start, at - start - 4)
  return at
}

/** Encodes a table, including its length. */
export const bytesOfTable = (table: object): Buffer => {
  const room = Buffer.allocUnsafe(sizeOfTable(table))
  setTable(room, 0, table)
  return room
}
