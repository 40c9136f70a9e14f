/** Whether values of field tables are the same, as far as the wire tells. */
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import type { FieldTable } from "../../model/message.ts"
import { isRecord, toSeconds, viewOf } from "./fieldTable.ts"

// Keys whose value is undefined are left out when a table is sent.
export const keysOf = (table: FieldTable): Array<string> => Object.keys(table).filter((key) => table[key] !== undefined)

export const includes = (sent: FieldTable, keys: ReadonlyArray<string>, arrived: FieldTable): boolean =>
  keys.every((key) => Object.hasOwn(arrived, key) && sameValue(sent[key], arrived[key]))

const sameTable = (sent: FieldTable, arrived: FieldTable): boolean => {
  const keys = keysOf(sent)
  return keys.length === Object.keys(arrived).length && includes(sent, keys, arrived)
}

export const sameValue = (sent: unknown, arrived: unknown): boolean => {
  // A 64-bit integer arrives as a number if it fits.
  if (typeof sent === "bigint") return sent === (Number.isInteger(arrived) ? BigInt(arrived as number) : arrived)
  if (typeof sent !== "object" || sent === null) return Object.is(sent, arrived)
  if (typeof arrived !== "object" || arrived === null) return false
  if (sent instanceof Uint8Array) return arrived instanceof Uint8Array && viewOf(sent).equals(arrived)
  if (sent instanceof Date || DateTime.isDateTime(sent)) return toSeconds(sent) === toSeconds(arrived)
  if (BigDecimal.isBigDecimal(sent)) return BigDecimal.isBigDecimal(arrived) && BigDecimal.equals(sent, arrived)
  if (!Array.isArray(sent)) return isRecord(arrived) && sameTable(sent as FieldTable, arrived as FieldTable)
  return (
    Array.isArray(arrived) && sent.length === arrived.length && sent.every((item, i) => sameValue(item, arrived[i]))
  )
}
