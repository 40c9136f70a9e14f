/**
 * Headers that cannot be written as they were read, and the bytes that they were read from: integers of other types than we
 * choose, timestamps beyond the years of a `Date`, texts that are not UTF-8, what is nested too deep.
 *
 * Whatever was read can be published again. For that each entry of a table that still is what was read is written as the
 * bytes that it was: nobody else's types are changed by a retry, and nothing is refused that a broker has delivered.
 */
import type { FieldTable } from "../AmqpMessage.ts"

const received = new WeakMap<FieldTable, Buffer>()

/** Keeps the bytes of a table, without its length. */
export const keepReceived = (table: FieldTable, bytes: Buffer): void => {
  received.set(table, bytes)
}

/** Keeps for a table what is kept for one that it was made from. */
export const deriveReceived = (table: FieldTable, from: FieldTable | undefined): void => {
  const bytes = from === undefined ? undefined : received.get(from)
  if (bytes !== undefined) received.set(table, bytes)
}

export const bytesReceived = (table: FieldTable): Buffer | undefined => received.get(table)
