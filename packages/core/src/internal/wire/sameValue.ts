/** Whether values of field tables are the same, as far as the wire distinguishes them. */
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import type { FieldTable } from "../../model/message.ts"
import { isPlainObject, toSeconds, asBuffer } from "./fieldTable.ts"

// Keys with the value undefined are not sent with a table.
export const definedKeys = (table: FieldTable): Array<string> =>
  Object.keys(table).filter((key) => table[key] !== undefined)

export const includesEntries = (sent: FieldTable, keys: ReadonlyArray<string>, arrived: FieldTable): boolean =>
  keys.every((key) => Object.hasOwn(arrived, key) && isSameValue(sent[key], arrived[key]))

const sameTable = (sent: FieldTable, arrived: FieldTable): boolean => {
  const keys = definedKeys(sent)
  return keys.length === Object.keys(arrived).length && includesEntries(sent, keys, arrived)
}

export const isSameValue = (sent: unknown, arrived: unknown): boolean => {
  // A 64-bit integer arrives as a number if it fits into one.
  if (typeof sent === "bigint") return sent === (Number.isInteger(arrived) ? BigInt(arrived as number) : arrived)
  if (typeof sent !== "object" || sent === null) return Object.is(sent, arrived)
  if (typeof arrived !== "object" || arrived === null) return false
  if (sent instanceof Uint8Array) return arrived instanceof Uint8Array && asBuffer(sent).equals(arrived)
  if (sent instanceof Date || DateTime.isDateTime(sent)) return toSeconds(sent) === toSeconds(arrived)
  if (BigDecimal.isBigDecimal(sent)) return BigDecimal.isBigDecimal(arrived) && BigDecimal.equals(sent, arrived)
  if (!Array.isArray(sent)) return isPlainObject(arrived) && sameTable(sent as FieldTable, arrived as FieldTable)
  return (
    Array.isArray(arrived) && sent.length === arrived.length && sent.every((item, i) => isSameValue(item, arrived[i]))
  )
}
