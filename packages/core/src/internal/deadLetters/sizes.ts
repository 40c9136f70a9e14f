/** About how much memory a message takes: headers may be much larger than the content. */
import type { FieldValue } from "../../model/message.ts"
import type { DeliveredMessage } from "../driver/driver.ts"

/** The size of a value, a name or a number, without its text. */
const overhead = 16

const sizeOfValue = (value: FieldValue | undefined): number => {
  if (typeof value === "string") return overhead + value.length
  if (typeof value !== "object" || value === null || value instanceof Date) return overhead
  if (value instanceof Uint8Array) return overhead + value.length
  return Array.isArray(value)
    ? value.reduce<number>((sum, item: FieldValue) => sum + sizeOfValue(item), overhead)
    : sizeOfHeaders(value as Readonly<Record<string, FieldValue | undefined>>)
}

/** The size of headers, in bytes. */
export const sizeOfHeaders = (headers: Readonly<Record<string, FieldValue | undefined>>): number => {
  let size = overhead
  for (const name of Object.keys(headers)) size += name.length + sizeOfValue(headers[name])
  return size
}

/** The size of a message, in bytes. */
export const sizeOf = ({ content, properties }: DeliveredMessage): number =>
  content.length + sizeOfHeaders(properties.headers)
