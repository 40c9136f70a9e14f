import type { FieldValue } from "../../model/message.ts"

/** Reads a time that was written as an ISO 8601 text: in milliseconds since 1970. */
export const timeOf = (value: FieldValue | undefined): number | undefined => {
  // Headers come from outside: a longer text is no time.
  if (typeof value !== "string" || value.length > 40) return undefined
  const time = Date.parse(value)
  return Number.isNaN(time) ? undefined : time
}
