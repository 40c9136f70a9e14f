/**
 * The statements of the outbox. Their parameters are the same in both dialects, unless a comment says otherwise.
 *
 * All times are those of the database, so the clocks of relays do not matter.
 */
import type { Dialect } from "../database/tables.ts"
import { shardCount } from "./orderKey.ts"

export interface OutboxStatements {
  readonly dialect: Dialect
  /** The table, for error messages. */
  readonly table: string
  /** Parameters: shard, order key, message id, mandatory, exchange, routing key, properties, content. */
  readonly insert: string
  /**
   * The same, after the lock of the key. Two more parameters: the class and the id of the lock. Only on PostgreSQL: SQLite
   * has one writer at a time, so its positions are in the order of the commits without a lock.
   */
  readonly insertOrdered: string
  /** Takes the lock of a key until the transaction ends. Parameters: its class and its id. Only on PostgreSQL. */
  readonly lock: string
  /** Inserts a number of rows. Parameters: those of `insert` for each row on SQLite, and `columnsOf` on PostgreSQL. */
  readonly insertMany: (rows: number) => string
  /**
   * Reads rows to publish, in the order of their positions. Parameters: shards, the position in each shard that was read
   * before, positions to leave out, keys to leave out, the maximum per shard, the maximum, the bytes of contents and
   * properties after which no further row follows.
   *
   * The first row has the snapshot of the read on PostgreSQL, as text.
   *
   * A row whose key has a postponed row before it is left out until that one is gone, also when it is due: a relay that
   * reads from a later position would not see it.
   */
  readonly read: string
  /** Removes published rows. Parameters: shards, positions. */
  readonly remove: string
  /** Records published rows. Parameters as of `remove`, which follows in the same transaction. */
  readonly recordPublished: string
  /** Postpones rows after attempts. Parameters: `postponeParameters`. */
  readonly postpone: string
  /**
   * Postpones rows without an attempt. Parameters: shards, positions, milliseconds, milliseconds over which they are spread,
   * and the failure; without one, the rows keep theirs.
   */
  readonly postponeAll: string
  /**
   * Copies a row to those that are set aside. Parameters: shard, position, failure. Returns a row if it has done so; then
   * `remove` follows.
   *
   * A position may be taken by another message: it begins at 1 again in a table that was truncated or made again, and after
   * a failover to a logical replica.
   */
  readonly setAside: string
  /** The number of rows that are set aside. Parameter: the maximum to count. */
  readonly countSetAside: string
  /** The number of waiting rows. Parameter: the maximum to count. */
  readonly countWaiting: string
  /** The age of the oldest waiting row, in milliseconds; nothing if there is none. */
  readonly oldest: string
  /** Parameters: relay, milliseconds. */
  readonly reportAlive: string
  readonly forgetDead: string
  /** Returns the number of relays that are alive as `count`, and that of the shards as `shards`. */
  readonly countAlive: string
  /** Adds shards that are missing, which have no owner after a lease. Parameter: milliseconds. */
  readonly addShards: string
  /** Parameters: relay, milliseconds. Returns the shards. */
  readonly renew: string
  /** Takes shards that have no owner. Parameters: relay, milliseconds, maximum. Returns the shards. */
  readonly claim: string
  /** Parameters: relay, shards. */
  readonly release: string
  /** Parameter: relay. */
  readonly releaseAll: string
  /** Parameter: relay. */
  readonly leave: string
  /** Parameters: milliseconds, maximum. Returns a row per removed row. */
  readonly forgetPublished: string
  /** Parameter: maximum. */
  readonly listSetAside: string
  /** Locks chosen rows that are set aside, and returns their keys. Parameter: positions. Only on PostgreSQL. */
  readonly lockSetAside: string
  /** Returns chosen rows to the outbox, as new rows. Parameter: positions. `discardSetAside` follows. */
  readonly restoreSetAside: string
  /** Parameter: positions. Returns a row per removed row. */
  readonly discardSetAside: string
}

const columns = "shard, order_key, message_id, mandatory, exchange, routing_key, properties, content"

const values = (rows: number) =>
  Array.from(
    { length: rows },
    (_, row) => `(${Array.from({ length: 8 }, (_, column) => `?${row * 8 + column + 1}`).join(", ")})`
  ).join(", ")

/** Whether the broker has closed a channel over the row, and not only returned it. */
const closedChannel = "attempts > 0 AND failure NOT LIKE 'PublishReturned:%'"

const freePosition = (table: string) =>
  `CASE WHEN EXISTS (SELECT 1 FROM ${table}_set_aside AS a WHERE a.position = o.position)
  THEN (SELECT max(a.position) + 1 FROM ${table}_set_aside AS a) ELSE o.position END`

const onPostgres = (prefix: string): OutboxStatements => {
  const table = `${prefix}outbox`
  const millis = (parameter: string) => `${parameter}::double precision * interval '1 millisecond'`
  const chosen = `SELECT shard, position FROM unnest($1::smallint[], $2::bigint[]) AS chosen (shard, position)`
  return {
    dialect: "pg",
    table,
    insert: `INSERT INTO ${table} (${columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
    lock: `SELECT pg_advisory_xact_lock($1::integer, $2::integer)`,
    // One statement for every number of rows: the driver prepares each text, and PostgreSQL needs 1.6 MB for one with 1,000
    // rows of parameters, per connection. No key is an empty text.
    insertMany: () => `INSERT INTO ${table} (${columns})
SELECT shard, nullif(order_key, ''), message_id, mandatory, exchange, routing_key, properties, content
FROM unnest($1::smallint[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::bytea[], $8::bytea[])
  AS rows (${columns})`,
    // A default is evaluated per row, after the row's source: the position is later than the lock.
    insertOrdered: `WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock($9::integer, $10::integer))
INSERT INTO ${table} (${columns})
SELECT $1::smallint, $2::text, $3::text, $4::boolean, $5::text, $6::text, $7::bytea, $8::bytea FROM locked`,
    // `NOT (x = ANY (...))` uses a hash table since PostgreSQL 14, `x <> ALL (...)` only since 15.
    //
    // Rows are compared, not shards: without statistics, or with those of a table that had a few rows, the planner expects
    // a handful of rows per shard, and would read and sort all of them. It never estimates a comparison of rows so low.
    read: `SELECT o.shard, o.position, o.order_key, o.message_id, o.mandatory, o.exchange, o.routing_key, o.properties, o.content, o.attempts,
  o.due_at IS NOT NULL AS postponed, ${closedChannel} AS closed_channel, CASE WHEN o.number = 1 THEN pg_current_snapshot()::text END AS snapshot
FROM (
SELECT o.*, row_number() OVER () AS number,
  sum(octet_length(o.content) + octet_length(o.properties)) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
FROM unnest($1::smallint[], $2::bigint[]) AS s (shard, after)
CROSS JOIN LATERAL (
  SELECT * FROM ${table} AS o
  WHERE (o.shard, o.position) > (s.shard, s.after) AND (o.shard, o.position) < (s.shard + 1, 0)
    AND NOT (o.position = ANY ($3::bigint[]))
    AND (o.due_at IS NULL OR o.due_at <= clock_timestamp())
    AND (o.order_key IS NULL OR (
      NOT (o.order_key = ANY ($4::text[]))
      AND NOT EXISTS (
        SELECT FROM ${table} AS before
        WHERE before.shard = o.shard AND before.order_key = o.order_key AND before.position < o.position
          AND before.due_at IS NOT NULL
      )
    ))
  ORDER BY o.shard, o.position LIMIT $5::integer
) AS o
LIMIT $6::integer
) AS o
WHERE o.number = 1 OR o.bytes_before < $7::bigint`,
    remove: `DELETE FROM ${table} AS o USING (${chosen}) AS c WHERE o.shard = c.shard AND o.position = c.position`,
    recordPublished: `INSERT INTO ${table}_published (position, message_id, exchange, routing_key, created_at)
SELECT o.position, o.message_id, o.exchange, o.routing_key, o.created_at
FROM ${table} AS o JOIN (${chosen}) AS c ON o.shard = c.shard AND o.position = c.position
ON CONFLICT (position) DO NOTHING`,
    postpone: `UPDATE ${table} AS o
SET attempts = o.attempts + c.counted, due_at = clock_timestamp() + ${millis("c.delay")}, failure = c.failure
FROM unnest($1::smallint[], $2::bigint[], $3::integer[], $4::integer[], $5::text[]) AS c (shard, position, delay, counted, failure)
WHERE o.shard = c.shard AND o.position = c.position`,
    postponeAll: `UPDATE ${table} AS o
SET due_at = clock_timestamp() + ${millis("$3")} + random() * ${millis("$4")}, failure = coalesce($5::text, failure)
FROM (${chosen}) AS c WHERE o.shard = c.shard AND o.position = c.position`,
    setAside: `INSERT INTO ${table}_set_aside (position, ${columns}, created_at, attempts, failure)
SELECT ${freePosition(table)}, ${columns}, created_at, attempts + 1, $3::text FROM ${table} AS o WHERE shard = $1 AND position = $2
ON CONFLICT (position) DO NOTHING RETURNING 1 AS recorded`,
    countSetAside: `SELECT count(*)::integer AS count FROM (SELECT FROM ${table}_set_aside LIMIT $1::integer) AS counted`,
    countWaiting: `SELECT count(*)::integer AS count FROM (SELECT FROM ${table} LIMIT $1::integer) AS counted`,
    oldest: `SELECT max(extract(epoch FROM clock_timestamp() - o.created_at) * 1000)::double precision AS age
FROM generate_series(0, ${shardCount - 1}) AS s (shard)
CROSS JOIN LATERAL (SELECT created_at FROM ${table} WHERE shard = s.shard ORDER BY position LIMIT 1) AS o`,
    reportAlive: `INSERT INTO ${table}_relay (relay, alive_until) VALUES ($1, clock_timestamp() + ${millis("$2")})
ON CONFLICT (relay) DO UPDATE SET alive_until = excluded.alive_until`,
    forgetDead: `DELETE FROM ${table}_relay WHERE alive_until < clock_timestamp() - interval '1 minute'`,
    countAlive: `SELECT count(*)::integer AS count, (SELECT count(*)::integer FROM ${table}_shard) AS shards
FROM ${table}_relay WHERE alive_until >= clock_timestamp()`,
    addShards: `INSERT INTO ${table}_shard (shard, leased_until)
SELECT shard, clock_timestamp() + ${millis("$1")} FROM generate_series(0, ${shardCount - 1}) AS all_shards (shard)
ON CONFLICT (shard) DO NOTHING`,
    renew: `UPDATE ${table}_shard SET leased_until = clock_timestamp() + ${millis("$2")} WHERE owner = $1 RETURNING shard`,
    claim: `UPDATE ${table}_shard SET owner = $1, leased_until = clock_timestamp() + ${millis("$2")}
WHERE shard IN (
  SELECT shard FROM ${table}_shard WHERE leased_until < clock_timestamp()
  ORDER BY random() LIMIT $3::integer FOR UPDATE SKIP LOCKED
) RETURNING shard`,
    release: `UPDATE ${table}_shard SET owner = NULL, leased_until = '-infinity' WHERE owner = $1 AND shard = ANY ($2::smallint[])`,
    releaseAll: `UPDATE ${table}_shard SET owner = NULL, leased_until = '-infinity' WHERE owner = $1`,
    leave: `DELETE FROM ${table}_relay WHERE relay = $1`,
    forgetPublished: `DELETE FROM ${table}_published WHERE position IN (
  SELECT position FROM ${table}_published WHERE published_at < clock_timestamp() - ${millis("$1")} LIMIT $2::integer
) RETURNING 1 AS removed`,
    listSetAside: `SELECT position, message_id, order_key, mandatory, exchange, routing_key, properties, content, attempts, failure, created_at, set_aside_at
FROM ${table}_set_aside ORDER BY position LIMIT $1::integer`,
    lockSetAside: `SELECT order_key FROM ${table}_set_aside WHERE position = ANY ($1::bigint[]) ORDER BY position FOR UPDATE`,
    restoreSetAside: `INSERT INTO ${table} (${columns})
SELECT ${columns} FROM ${table}_set_aside WHERE position = ANY ($1::bigint[]) ORDER BY position`,
    discardSetAside: `DELETE FROM ${table}_set_aside WHERE position = ANY ($1::bigint[]) RETURNING 1 AS removed`
  }
}

// Arrays are JSON texts. The driver may bind integers as doubles, so numbers that SQLite compares by type are cast.
const onSqlite = (prefix: string): OutboxStatements => {
  const table = `${prefix}outbox`
  const now = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
  const within = (parameter: string) => `(SELECT value FROM json_each(${parameter}))`
  const chosen = (shards: string, positions: string) =>
    `position IN ${within(positions)} AND shard IN ${within(shards)}`
  return {
    dialect: "sqlite",
    table,
    insert: `INSERT INTO ${table} (${columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`,
    insertOrdered: "",
    lock: "",
    insertMany: (rows) => `INSERT INTO ${table} (${columns}) VALUES ${values(rows)}`,
    read: `SELECT shard, position, order_key, message_id, mandatory, exchange, routing_key, properties, content, attempts,
  due_at IS NOT NULL AS postponed, ${closedChannel} AS closed_channel, NULL AS snapshot
FROM (
SELECT o.*, sum(length(o.content) + length(o.properties)) OVER (ORDER BY o.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
FROM ${table} AS o
WHERE o.position > (SELECT min(value) FROM json_each(?2)) AND o.shard IN ${within("?1")}
  AND o.position NOT IN ${within("?3")}
  AND (o.due_at IS NULL OR o.due_at <= ${now})
  AND (o.order_key IS NULL OR (
    o.order_key NOT IN ${within("?4")}
    AND NOT EXISTS (
      SELECT 1 FROM ${table} AS before
      WHERE before.due_at IS NOT NULL AND before.shard = o.shard AND before.order_key = o.order_key
        AND before.position < o.position
    )
  ))
ORDER BY o.position LIMIT CAST(min(?5 * 8, ?6) AS INTEGER)
)
WHERE bytes_before IS NULL OR bytes_before < ?7
ORDER BY position`,
    remove: `DELETE FROM ${table} WHERE ${chosen("?1", "?2")}`,
    recordPublished: `INSERT OR IGNORE INTO ${table}_published (position, message_id, exchange, routing_key, created_at)
SELECT position, message_id, exchange, routing_key, created_at FROM ${table} WHERE ${chosen("?1", "?2")}`,
    postpone: `UPDATE ${table} AS o SET attempts = o.attempts + c.counted, due_at = ${now} + c.delay, failure = c.failure
FROM (
  SELECT value ->> 0 AS shard, value ->> 1 AS position, value ->> 2 AS delay, value ->> 3 AS counted, value ->> 4 AS failure
  FROM json_each(?1)
) AS c
WHERE o.position = c.position AND o.shard = c.shard`,
    postponeAll: `UPDATE ${table}
SET due_at = ${now} + CAST(?3 AS INTEGER) + abs(random() % (CAST(?4 AS INTEGER) + 1)), failure = coalesce(?5, failure) WHERE ${chosen("?1", "?2")}`,
    setAside: `INSERT OR IGNORE INTO ${table}_set_aside (position, ${columns}, created_at, attempts, failure)
SELECT ${freePosition(table)}, ${columns}, created_at, attempts + 1, ?3 FROM ${table} AS o WHERE shard = ?1 AND position = ?2
RETURNING 1 AS recorded`,
    countSetAside: `SELECT count(*) AS count FROM (SELECT 1 FROM ${table}_set_aside LIMIT ?1)`,
    countWaiting: `SELECT count(*) AS count FROM (SELECT 1 FROM ${table} LIMIT ?1)`,
    oldest: `SELECT ${now} - created_at AS age FROM ${table} ORDER BY position LIMIT 1`,
    reportAlive: `INSERT INTO ${table}_relay (relay, alive_until) VALUES (?1, ${now} + CAST(?2 AS INTEGER))
ON CONFLICT (relay) DO UPDATE SET alive_until = excluded.alive_until`,
    forgetDead: `DELETE FROM ${table}_relay WHERE alive_until < ${now} - 60000`,
    countAlive: `SELECT count(*) AS count, (SELECT count(*) FROM ${table}_shard) AS shards
FROM ${table}_relay WHERE alive_until >= ${now}`,
    addShards: `INSERT OR IGNORE INTO ${table}_shard (shard, leased_until)
WITH RECURSIVE all_shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM all_shards WHERE shard < ${shardCount - 1})
SELECT shard, ${now} + CAST(?1 AS INTEGER) FROM all_shards`,
    renew: `UPDATE ${table}_shard SET leased_until = ${now} + CAST(?2 AS INTEGER) WHERE owner = ?1 RETURNING shard`,
    claim: `UPDATE ${table}_shard SET owner = ?1, leased_until = ${now} + CAST(?2 AS INTEGER)
WHERE shard IN (SELECT shard FROM ${table}_shard WHERE leased_until < ${now} ORDER BY random() LIMIT CAST(?3 AS INTEGER))
RETURNING shard`,
    release: `UPDATE ${table}_shard SET owner = NULL, leased_until = 0 WHERE owner = ?1 AND shard IN ${within("?2")}`,
    releaseAll: `UPDATE ${table}_shard SET owner = NULL, leased_until = 0 WHERE owner = ?1`,
    leave: `DELETE FROM ${table}_relay WHERE relay = ?1`,
    forgetPublished: `DELETE FROM ${table}_published WHERE position IN (
  SELECT position FROM ${table}_published WHERE published_at < ${now} - CAST(?1 AS INTEGER) LIMIT CAST(?2 AS INTEGER)
) RETURNING 1 AS removed`,
    listSetAside: `SELECT position, message_id, order_key, mandatory, exchange, routing_key, properties, content, attempts, failure, created_at, set_aside_at
FROM ${table}_set_aside ORDER BY position LIMIT CAST(?1 AS INTEGER)`,
    lockSetAside: "",
    restoreSetAside: `INSERT INTO ${table} (${columns})
SELECT ${columns} FROM ${table}_set_aside WHERE position IN ${within("?1")} ORDER BY position`,
    discardSetAside: `DELETE FROM ${table}_set_aside WHERE position IN ${within("?1")} RETURNING 1 AS removed`
  }
}

export const outboxStatements = { pg: onPostgres, sqlite: onSqlite }

const isNumbers = (values: ReadonlyArray<number> | ReadonlyArray<string>): values is ReadonlyArray<number> =>
  typeof values[0] === "number"

/** An array as a parameter of a dialect. */
export const arrayParameter = (
  { dialect }: OutboxStatements,
  values: ReadonlyArray<number> | ReadonlyArray<string>
): unknown => {
  if (dialect === "sqlite") return JSON.stringify(values)
  // The driver gives each number a type by its size, and refuses an array with two types: positions exceed 2^31.
  return isNumbers(values) ? `{${values.join()}}` : values
}

/** A row that is to be postponed after an attempt. */
export interface Postponement {
  readonly shard: number
  readonly position: number
  /** In milliseconds. */
  readonly delay: number
  readonly failure: string
  /** Whether the attempt counts. */
  readonly counts: boolean
}

/** The parameters of `postpone`: an array per column on PostgreSQL, and one of all rows on SQLite. */
export const postponeParameters = (
  statements: OutboxStatements,
  rows: ReadonlyArray<Postponement>
): ReadonlyArray<unknown> => {
  const columns: ReadonlyArray<(row: Postponement) => number | string> = [
    ({ shard }) => shard,
    ({ position }) => position,
    ({ delay }) => Math.ceil(delay),
    ({ counts }) => Number(counts),
    ({ failure }) => failure
  ]
  return statements.dialect === "sqlite"
    ? [JSON.stringify(rows.map((row) => columns.map((column) => column(row))))]
    : columns.map((column) => arrayParameter(statements, rows.map(column) as ReadonlyArray<number>))
}
