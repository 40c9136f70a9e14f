/**
 * A key that identifies a message across its redeliveries.
 *
 * AMQP has no such key: a delivery tag belongs to a channel, and a message id is chosen by the publisher, so another
 * message may have the same one. A hash of everything that the broker delivers unchanged identifies a message, except
 * among indistinguishable messages.
 */
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import * as Crypto from "node:crypto"
import type { DeliveredProperties, FieldTable, FieldValue } from "../../model/message.ts"

/** The parts of a delivery that identify its message. */
export interface Identified {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  readonly exchange: string
  readonly routingKey: string
}

// Of a content larger than twice this, only the size, the beginning and the end are hashed: hashing 128 KiB takes a
// tenth of a millisecond.
const mostBytes = 65_536

// Each value is hashed with its type and length, so that no two different messages produce the same input.
const add = (hash: Crypto.Hash, type: string, value: string | Uint8Array): void => {
  hash.update(`${type}${typeof value === "string" ? Buffer.byteLength(value) : value.byteLength};`).update(value)
}

const addValue = (hash: Crypto.Hash, value: FieldValue | undefined): void => {
  if (typeof value === "string") return add(hash, "s", value)
  if (typeof value !== "object" || value === null) return add(hash, typeof value, String(value))
  if (value instanceof Uint8Array) return add(hash, "b", value)
  if (value instanceof Date) return add(hash, "t", String(value.getTime()))
  if (DateTime.isDateTime(value)) return add(hash, "t", String(DateTime.toEpochMillis(value)))
  if (BigDecimal.isBigDecimal(value)) return add(hash, "d", BigDecimal.format(value))
  if (Array.isArray(value)) {
    hash.update(`a${value.length};`)
    for (const each of value as ReadonlyArray<FieldValue>) addValue(hash, each)
    return
  }
  addTable(hash, value as FieldTable)
}

const addTable = (hash: Crypto.Hash, table: FieldTable): void => {
  const keys = Object.keys(table)
    // The broker changes these counts with every delivery.
    .filter((key) => key !== "x-delivery-count" && key !== "x-acquired-count")
    .sort()
  hash.update(`o${keys.length};`)
  for (const key of keys) {
    add(hash, "k", key)
    addValue(hash, table[key])
  }
}

/** The key of a message in a queue: 43 characters of the URL-safe base64 alphabet. */
export const messageKey = (queue: string, { content, exchange, properties, routingKey }: Identified): string => {
  const { headers, ...others } = properties
  const hash = Crypto.createHash("sha256")
  for (const name of [queue, exchange, routingKey]) add(hash, "n", name)
  addTable(hash, others as FieldTable)
  addTable(hash, headers)
  if (content.byteLength <= 2 * mostBytes) add(hash, "c", content)
  else {
    add(hash, "c", String(content.byteLength))
    add(hash, "c", content.subarray(0, mostBytes))
    add(hash, "c", content.subarray(-mostBytes))
  }
  return hash.digest("base64url")
}
