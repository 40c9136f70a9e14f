/** The entries of `x-death`: where a message has been dead-lettered, the newest first. */
import type { FieldTable, FieldValue, Headers } from "../../model/message.ts"

/** All entries, as they came: a publisher may have written values that are no tables. */
export const deathsOf = (headers: Headers): ReadonlyArray<FieldValue> => {
  const deaths = headers["x-death"]
  return Array.isArray(deaths) ? deaths : []
}

export const isTable = (value: FieldValue | undefined): value is FieldTable =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  !(value instanceof Date) &&
  !(value instanceof Uint8Array)
