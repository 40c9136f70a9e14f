/**
 * Headers that cannot be written as they were read, and the bytes that they were read from: integers of other types
 * than the library chooses, timestamps beyond the years of a `Date`, strings that are not UTF-8, and data that is
 * nested too deep.
 *
 * Every message that was read can be published again. For this, each entry of a table that still has the value that was
 * read is written as its original bytes. So a retry does not change the types that other clients chose, and nothing
 * that a broker has delivered is refused.
 */
import type { FieldTable } from "../../model/message.ts"

/** Adds the fields of a subclass to an object that already exists. */
const ReturnedObject = function (object: object) {
  return object
} as unknown as new (object: object) => object

/**
 * A private field of a table: no other code sees it, and it stays with the table. A `WeakMap` would do the same in
 * several times the time, for every message from a client in another language, whose integers have other types.
 */
class Received extends ReturnedObject {
  /** One character per byte: a string is created faster than a buffer. */
  #bytes: string

  private constructor(table: FieldTable, bytes: string) {
    super(table)
    this.#bytes = bytes
  }

  static of(table: object): string | undefined {
    return #bytes in table ? table.#bytes : undefined
  }

  static store(table: FieldTable, bytes: string): void {
    if (#bytes in table) (table as unknown as Received).#bytes = bytes
    else void new Received(table, bytes)
  }
}

/** Stores the bytes of a table, without its length. */
export const storeReceivedBytes = (table: FieldTable, bytes: Buffer, start: number, end: number): void =>
  Received.store(table, bytes.toString("latin1", start, end))

/** Stores the bytes of a table for a table that was made from it. */
export const copyReceivedBytes = (table: FieldTable, from: FieldTable | undefined): void => {
  const bytes = from === undefined ? undefined : Received.of(from)
  if (bytes !== undefined) Received.store(table, bytes)
}

/** Returns the stored bytes of a table. Undefined if it can be written as it was read, or was not read. */
export const receivedBytesOf = (table: unknown): Buffer | undefined => {
  const bytes = typeof table === "object" && table !== null ? Received.of(table) : undefined
  return bytes === undefined ? undefined : Buffer.from(bytes, "latin1")
}
