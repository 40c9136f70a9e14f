/**
 * The entries of a table that still have the values that were read, as the bytes that they were read from: see
 * `receivedBytes`.
 */
import type { FieldTable } from "../../model/message.ts"
import { type Entry, Reader } from "./fieldReader.ts"
import type { Unchanged } from "./fieldTable.ts"
import { receivedBytesOf } from "./receivedBytes.ts"
import { isSameValue } from "./sameValue.ts"

/** Returns undefined if the whole table is to be encoded. */
export const unchangedBytesOf = (table: FieldTable): Unchanged | undefined => {
  const bytes = receivedBytesOf(table)
  if (bytes === undefined) return undefined
  const entries: ReadonlyMap<string, Entry> = new Reader(bytes, 0, bytes.length).entries()
  return (key, value) => {
    const entry = entries.get(key)
    return entry !== undefined && isSameValue(value, entry.value) ? entry.bytes : undefined
  }
}
