/**
 * Reads strings, numbers and field tables from the wire.
 *
 * amqplib's own reader rounds 64-bit integers, reads bytes that are not UTF-8 as text, and makes a key `__proto__` the
 * prototype of its object.
 */
import * as BigDecimal from "effect/BigDecimal"
import { isUtf8 } from "node:buffer"
import type { FieldTable, FieldValue } from "../../model/message.ts"
import { maxNesting } from "./fieldTable.ts"
import { storeReceivedBytes } from "./receivedBytes.ts"
import { readShortString } from "./shortString.ts"

/**
 * The error for a malformed content header.
 *
 * The reader accepts the type tags of RabbitMQ and of every client that documents its own:
 *
 * | tag                   | read as                      | written by                                                      |
 * | --------------------- | ---------------------------- | --------------------------------------------------------------- |
 * | `S`                   | long string                  | all                                                             |
 * | `t`                   | boolean                      | all                                                             |
 * | `I`                   | signed 32-bit integer        | all                                                             |
 * | `l`                   | signed 64-bit integer        | pika, amqp091-go, Java, .NET, bunny, php-amqplib, RabbitMQ      |
 * | `L`                   | signed 64-bit integer        | py-amqp (Celery) above 2^31; php-amqplib with AMQP 0-9-1's types |
 * | `b`, `s`              | signed 8 and 16-bit integer  | amqp091-go, Java, .NET, bunny, php-amqplib, RabbitMQ            |
 * | `B`, `u`, `i`         | unsigned, of 8, 16, 32 bits  | .NET, RabbitMQ                                                  |
 * | `U`                   | signed 16-bit integer        | AMQP 0-9-1's own tag; RabbitMQ refuses it                       |
 * | `f`, `d`              | float, double                | amqp091-go, Java, .NET, bunny; py-amqp: `d`                     |
 * | `D`                   | decimal                      | all                                                             |
 * | `T`                   | timestamp                    | all                                                             |
 * | `F`, `A`, `V`         | table, array, void           | all                                                             |
 * | `x`                   | bytes                        | pika, amqp091-go, Java, .NET, bunny, php-amqplib                |
 *
 * RabbitMQ 3 passes on the publisher's bytes. RabbitMQ 4 encodes headers again, and writes `L` as `l`. AMQP 0-9-1 gives
 * `s` and `l` other meanings (a short string, an unsigned integer), but neither RabbitMQ nor any of these clients uses
 * them with those meanings.
 *
 * Sources: RabbitMQ's rabbit_binary_parser and rabbit_binary_generator;
 * https://www.rabbitmq.com/amqp-0-9-1-errata#section_3.
 */
export const malformed = (what: string) => new Error(`Invalid frame: malformed content header: ${what}`)

/** The last second that a `Date` can represent. */
export const maxDateSeconds = 8.64e12

/** Reads AMQP data from a part of a buffer, and never beyond it. Data that does not fit is an error. */
export class Reader {
  readonly #buffer: Buffer
  #at: number
  #end: number
  #depth = 0
  /** Why a table was skipped. */
  problem: Error | undefined = undefined
  /** Whether a value is nested too deep and was left as bytes. */
  isTooDeep = false
  /** Whether the values that were read would be written as the same bytes, except for the order of keys. */
  #isExact = true

  constructor(buffer: Buffer, start: number, end: number) {
    this.#buffer = buffer
    this.#at = start
    this.#end = end
  }

  get isAtEnd(): boolean {
    return this.#at === this.#end
  }

  /** Takes the next `bytes` bytes, and returns where they begin. */
  #take(bytes: number): number {
    const at = this.#at
    if (bytes > this.#end - at) throw malformed(`expected ${bytes} more bytes, got ${this.#end - at}`)
    this.#at = at + bytes
    return at
  }

  octet(): number {
    return this.#buffer[this.#take(1)]!
  }

  short(): number {
    return this.#buffer.readUInt16BE(this.#take(2))
  }

  long(): number {
    return this.#buffer.readUInt32BE(this.#take(4))
  }

  /** Reads 8 bytes as a number, which is exact or at least 2^53. */
  longlong(): number {
    const at = this.#take(8)
    return this.#buffer.readUInt32BE(at) * 2 ** 32 + this.#buffer.readUInt32BE(at + 4)
  }

  shortstr(): string {
    const size = this.octet()
    const at = this.#take(size)
    return readShortString(this.#buffer, at, at + size)
  }

  longstr(): string | Uint8Array {
    const size = this.long()
    const at = this.#take(size)
    const text = this.#buffer.toString("utf8", at, at + size)
    // Node puts U+FFFD in place of bytes that are not UTF-8, but the text itself may also contain U+FFFD.
    if (!text.includes("\uFFFD") || isUtf8(this.#buffer.subarray(at, at + size))) return text
    this.#isExact = false
    return this.#copy(at, size)
  }

  // A view would keep everything in memory that the socket read with it.
  #copy(at: number, size: number): Uint8Array {
    return new Uint8Array(this.#buffer.subarray(at, at + size))
  }

  /**
   * Reads a table, and keeps its bytes where they are needed to write it again. A table that cannot be read is skipped,
   * so that the data after it can be read. `problem` says why.
   */
  tableOr(instead: FieldTable): FieldTable {
    const start = this.#at
    const outer = this.#end
    try {
      const table = this.table()
      if (!this.#isExact) storeReceivedBytes(table, this.#buffer, start + 4, this.#at)
      return table
    } catch (cause) {
      this.#at = start
      this.#end = outer
      this.#depth = 0
      const size = this.long()
      this.#take(size)
      this.problem = cause as Error
      return instead
    }
  }

  table(): FieldTable {
    const table: Record<string, FieldValue> = Object.create(null)
    const outer = this.#open()
    while (this.#at < this.#end) table[this.shortstr()] = this.#value()
    this.#end = outer
    return table
  }

  #array(): ReadonlyArray<FieldValue> {
    const values: Array<FieldValue> = []
    const outer = this.#open()
    while (this.#at < this.#end) values.push(this.#value())
    this.#end = outer
    return values
  }

  /** Enters a table or an array of the announced size, and returns the end to restore afterwards. */
  #open(): number {
    const size = this.long()
    const outer = this.#end
    this.#end = this.#take(size) + size
    this.#at = this.#end - size
    return outer
  }

  // A publisher must not be able to end the connections of consumers, so data that is nested too deep is not an error
  // here.
  #nested(read: () => FieldValue): FieldValue {
    if (this.#depth >= maxNesting) {
      this.isTooDeep = true
      this.#isExact = false
      const size = this.long()
      return this.#copy(this.#take(size), size)
    }
    this.#depth++
    const value = read.call(this)
    this.#depth--
    return value
  }

  #value(): FieldValue {
    const tag = this.octet()
    switch (tag) {
      case 0x53: // S
        return this.longstr()
      case 0x49: // I
        return this.#integer(this.#buffer.readInt32BE(this.#take(4)), 0x8000)
      case 0x74: {
        // t
        const byte = this.octet()
        if (byte > 1) this.#isExact = false
        return byte !== 0
      }
      case 0x6c: // l
        return this.#signed64()
      case 0x4c: // L
        this.#isExact = false
        return this.#signed64()
      case 0x62: // b
        return this.#buffer.readInt8(this.#take(1))
      case 0x42: // B
        this.#isExact = false
        return this.octet()
      case 0x73: // s
        return this.#integer(this.#buffer.readInt16BE(this.#take(2)), 0x80)
      case 0x55: // U
        this.#isExact = false
        return this.#buffer.readInt16BE(this.#take(2))
      case 0x75: // u
        this.#isExact = false
        return this.short()
      case 0x69: // i
        this.#isExact = false
        return this.long()
      case 0x64: {
        // d
        const double = this.#buffer.readDoubleBE(this.#take(8))
        // An integer would be written as an integer, and a number that is not finite would not be written at all.
        if (!Number.isFinite(double) || (Number.isSafeInteger(double) && !Object.is(double, -0))) this.#isExact = false
        return double
      }
      case 0x66: // f
        this.#isExact = false
        return this.#buffer.readFloatBE(this.#take(4))
      case 0x54: // T
        return this.#timestamp()
      case 0x44: {
        // D
        const scale = this.octet()
        return BigDecimal.make(BigInt(this.long()), scale)
      }
      case 0x46: // F
        return this.#nested(this.table)
      case 0x41: // A
        return this.#nested(this.#array)
      case 0x78: {
        // x
        const size = this.long()
        return this.#copy(this.#take(size), size)
      }
      case 0x56: // V
        return null
      default:
        throw malformed(`unexpected type tag ${JSON.stringify(String.fromCharCode(tag))}`)
    }
  }

  /** Returns an integer. It is written in fewer bytes if it is from `-small` to `small - 1`. */
  #integer(value: number, small: number): number {
    if (value >= -small && value < small) this.#isExact = false
    return value
  }

  #signed64(): number | bigint {
    const at = this.#take(8)
    const number = this.#buffer.readInt32BE(at) * 2 ** 32 + this.#buffer.readUInt32BE(at + 4)
    return Number.isSafeInteger(number) ? this.#integer(number, 0x8000_0000) : this.#buffer.readBigInt64BE(at)
  }

  #timestamp(): Date | bigint {
    const seconds = this.longlong()
    if (seconds <= maxDateSeconds) return new Date(seconds * 1000)
    this.#isExact = false
    return this.#buffer.readBigUInt64BE(this.#at - 8)
  }

  /** Returns the entries of a table without its length, each with the bytes of its value, including the tag. */
  entries(): Map<string, Entry> {
    const entries = new Map<string, Entry>()
    while (this.#at < this.#end) {
      const key = this.shortstr()
      const start = this.#at
      const value = this.#value()
      entries.set(key, { value, bytes: this.#buffer.subarray(start, this.#at) })
    }
    return entries
  }
}

export interface Entry {
  readonly value: FieldValue
  readonly bytes: Buffer
}
