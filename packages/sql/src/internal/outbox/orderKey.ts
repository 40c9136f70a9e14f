/**
 * Shards and locks of order keys.
 *
 * Both are functions of the key alone, and are the same in every process and in every version of this package: a key that
 * changed its shard could have two owners while versions are mixed.
 */

/** Number of shards. Each shard of an outbox is leased by one relay, so no more relays than this share the work. */
export const shardCount = 32

// 32 bits of FNV-1a over UTF-16 code units, then the finalizer of MurmurHash3, which spreads similar keys.
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return value ^ (value >>> 16)
}

/** The shard of a key. */
export const shardOf = (key: string): number => (hash(key) >>> 0) % shardCount

/** A shard for a message without a key. */
export const anyShard = (): number => Math.floor(Math.random() * shardCount)

/** The advisory lock of a key: 32 bits, signed. Two keys with the same lock only wait for one another. */
export const lockOf = (key: string): number => hash(`lock:${key}`)

/** The class of this package's advisory locks, which other locks of the database are unlikely to have ("amqp"). */
export const lockClass = 0x616d7170
