/**
 * The properties of a message as bytes: flags and values, as they stand in its content header (AMQP 0-9-1, section
 * 4.2.6.1). The broker passes them on unchanged, and reads those that it acts on.
 */
import { syntaxError } from "../failure.ts"
import { type Entry, readEntries, writeEntries } from "./table.ts"

/** In the order of their flags. */
const types = [
  "shortstr", // content type
  "shortstr", // content encoding
  "table",
  "octet", // delivery mode
  "octet", // priority
  "shortstr", // correlation id
  "shortstr", // reply to
  "shortstr", // expiration
  "shortstr", // message id
  "timestamp",
  "shortstr", // type
  "shortstr", // user id
  "shortstr", // app id
  "shortstr" // cluster id
] as const

const headers = 2
const deliveryMode = 3
const priority = 4
const replyTo = 6
const expiration = 7
const userId = 11

const shortstr = (value: string): Buffer => {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length]), bytes])
}

const sizeAt = (bytes: Buffer, at: number, type: (typeof types)[number]): number => {
  switch (type) {
    case "shortstr":
      return 1 + bytes[at]!
    case "table":
      return 4 + bytes.readUInt32BE(at)
    case "octet":
      return 1
    case "timestamp":
      return 8
  }
}

export class Properties {
  readonly bytes: Buffer
  #values: ReadonlyArray<Buffer | undefined> | undefined
  #headers: ReadonlyArray<Entry> | undefined

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  /** Reads all values. Throws a `Failure` if the bytes are malformed. */
  get #all(): ReadonlyArray<Buffer | undefined> {
    if (this.#values !== undefined) return this.#values
    const { bytes } = this
    if (bytes.length < 2) throw syntaxError("malformed content header")
    const flags = bytes.readUInt16BE(0)
    let at = 2
    const values = types.map((type, index) => {
      if ((flags & (0x8000 >> index)) === 0) return undefined
      if (at >= bytes.length) throw syntaxError("malformed content header")
      const end = at + sizeAt(bytes, at, type)
      if (end > bytes.length) throw syntaxError("malformed content header")
      const value = bytes.subarray(at, end)
      at = end
      return value
    })
    return (this.#values = values)
  }

  #has(index: number): boolean {
    return (this.bytes.readUInt16BE(0) & (0x8000 >> index)) !== 0
  }

  #text(index: number): string | undefined {
    return this.#has(index) ? this.#all[index]!.toString("utf8", 1) : undefined
  }

  #with(changes: ReadonlyArray<readonly [index: number, value: Buffer | undefined]>): Properties {
    const values = this.#all.slice()
    for (const [index, value] of changes) values[index] = value
    const flags = Buffer.alloc(2)
    flags.writeUInt16BE(values.reduce((all, value, index) => (value === undefined ? all : all | (0x8000 >> index)), 0))
    return new Properties(Buffer.concat([flags, ...values.filter((value) => value !== undefined)]))
  }

  /** The entries of the headers. Nothing if there are none. */
  get headers(): ReadonlyArray<Entry> {
    if (!this.#has(headers)) return []
    return (this.#headers ??= readEntries(this.#all[headers]!.subarray(4)))
  }

  get isPersistent(): boolean {
    return this.#has(deliveryMode) && this.#all[deliveryMode]![0] === 2
  }

  get priority(): number | undefined {
    return this.#has(priority) ? this.#all[priority]![0] : undefined
  }

  get replyTo(): string | undefined {
    return this.#text(replyTo)
  }

  get expiration(): string | undefined {
    return this.#text(expiration)
  }

  get userId(): string | undefined {
    return this.#text(userId)
  }

  withHeaders(entries: ReadonlyArray<Entry>): Properties {
    if (entries.length === 0 && !this.#has(headers)) return this
    const bytes = writeEntries(entries)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(bytes.length)
    return this.#with([[headers, Buffer.concat([length, bytes])]])
  }

  withReplyTo(address: string): Properties {
    return this.#with([[replyTo, shortstr(address)]])
  }

  withoutExpiration(): Properties {
    return this.#has(expiration) ? this.#with([[expiration, undefined]]) : this
  }
}
