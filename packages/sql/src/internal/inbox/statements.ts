/** The statements of the inbox. Their parameters are the same in both dialects, and all times are the database's. */
import type { Dialect } from "../database/tables.ts"
import { statementsOf } from "../database/tables.ts"

export interface InboxStatements {
  readonly dialect: Dialect
  /** The table, for error messages. */
  readonly table: string
  /** Fails if the table does not exist. */
  readonly check: string
  /**
   * Records a message; returns a row, or none if it is recorded already. On PostgreSQL it waits for a transaction that
   * has recorded the same message and has not ended. Parameters: consumer, key.
   */
  readonly record: string
  /** Parameters: consumer, milliseconds, maximum. Returns a row per removed record. */
  readonly removeOld: string
}

const onPostgres = (prefix: string): InboxStatements => {
  const table = `${prefix}inbox`
  return {
    dialect: "pg",
    table,
    check: `SELECT 1 AS found FROM ${table} LIMIT 0`,
    record: `INSERT INTO ${table} (consumer, key) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1 AS recorded`,
    // A record is never updated, so its place stays the same until it is removed. `now()` is constant within the
    // statement, so it can use the index; `clock_timestamp()` cannot.
    removeOld: `DELETE FROM ${table} WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM ${table}
  WHERE consumer = $1 AND handled_at < now() - $2::double precision * interval '1 millisecond' LIMIT $3::integer
)) RETURNING 1 AS removed`
  }
}

const onSqlite = (prefix: string): InboxStatements => {
  const table = `${prefix}inbox`
  return {
    dialect: "sqlite",
    table,
    check: `SELECT 1 AS found FROM ${table} LIMIT 0`,
    record: `INSERT INTO ${table} (consumer, key) VALUES (?1, ?2) ON CONFLICT DO NOTHING RETURNING 1 AS recorded`,
    removeOld: `DELETE FROM ${table} WHERE consumer = ?1 AND key IN (
  SELECT key FROM ${table}
  WHERE consumer = ?1 AND handled_at < CAST(unixepoch('subsec') * 1000 AS INTEGER) - CAST(?2 AS INTEGER)
  LIMIT CAST(?3 AS INTEGER)
) RETURNING 1 AS removed`
  }
}

/** The statements of the inbox for the client and the prefix in the context. */
export const statementsFor = statementsOf({ pg: onPostgres, sqlite: onSqlite })
