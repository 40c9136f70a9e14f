/** What of a table still is what was read, as the bytes that it was read from: see `received`. */
import type { FieldTable } from "../../model/message.ts"
import { type Entry, Reader } from "./fieldReader.ts"
import type { Unchanged } from "./fieldTable.ts"
import { bytesReceived } from "./received.ts"
import { sameValue } from "./sameValue.ts"

/** Undefined: all of the table is to be written as what it is. */
export const unchangedIn = (table: FieldTable): Unchanged | undefined => {
  const bytes = bytesReceived(table)
  if (bytes === undefined) return undefined
  const entries: ReadonlyMap<string, Entry> = new Reader(bytes, 0, bytes.length).entries()
  return (key, value) => {
    const entry = entries.get(key)
    return entry !== undefined && sameValue(value, entry.value) ? entry.bytes : undefined
  }
}
