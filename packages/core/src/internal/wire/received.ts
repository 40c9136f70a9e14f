/**
 * Headers that cannot be written as they were read, and the bytes that they were read from: integers of other types than we
 * choose, timestamps beyond the years of a `Date`, texts that are not UTF-8, what is nested too deep.
 *
 * Whatever was read can be published again. For that each entry of a table that still is what was read is written as the
 * bytes that it was: nobody else's types are changed by a retry, and nothing is refused that a broker has delivered.
 */
import type { FieldTable } from "../../model/message.ts"

/** Gives the fields of a subclass to an object that exists already. */
const Given = function (object: object) {
  return object
} as unknown as new (object: object) => object

/**
 * A private field of a table: nobody else sees it, and it goes where the table goes. A `WeakMap` would do the same, for
 * several times as long: with every message from a client in another language, whose integers have other types.
 */
class Received extends Given {
  /** A character for each byte: a text is made sooner than a buffer. */
  #bytes: string

  private constructor(table: FieldTable, bytes: string) {
    super(table)
    this.#bytes = bytes
  }

  static of(table: object): string | undefined {
    return #bytes in table ? table.#bytes : undefined
  }

  static keep(table: FieldTable, bytes: string): void {
    if (#bytes in table) (table as unknown as Received).#bytes = bytes
    else void new Received(table, bytes)
  }
}

/** Keeps the bytes of a table, without its length. */
export const keepReceived = (table: FieldTable, bytes: Buffer, start: number, end: number): void =>
  Received.keep(table, bytes.toString("latin1", start, end))

/** Keeps for a table what is kept for one that it was made from. */
export const deriveReceived = (table: FieldTable, from: FieldTable | undefined): void => {
  const bytes = from === undefined ? undefined : Received.of(from)
  if (bytes !== undefined) Received.keep(table, bytes)
}

/** Undefined: the table can be written as it was read, if it was. */
export const bytesReceived = (table: unknown): Buffer | undefined => {
  const bytes = typeof table === "object" && table !== null ? Received.of(table) : undefined
  return bytes === undefined ? undefined : Buffer.from(bytes, "latin1")
}
