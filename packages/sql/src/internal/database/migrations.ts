/**
 * The tables, as statements.
 *
 * A migration that was released never changes: later ones follow it. `packages/sql/migrations` has the same statements as
 * files, for other tools; a test compares the two.
 */
import type { Dialect } from "./tables.ts"

/** One migration: its number and name, and its statements for a dialect and a prefix. */
export interface TableMigration {
  readonly id: number
  readonly name: string
  readonly statements: Readonly<Record<Dialect, (prefix: string) => ReadonlyArray<string>>>
}

// A row is only inserted and deleted while all goes well, so an outbox has one index, and the autovacuum has to run more
// often than its default of 20 % of a table whose size changes between nothing and millions of rows.
const outboxOnPostgres = (prefix: string) => [
  `CREATE TABLE ${prefix}outbox (
  shard smallint NOT NULL,
  position bigint GENERATED ALWAYS AS IDENTITY,
  order_key text,
  message_id text NOT NULL,
  mandatory boolean NOT NULL,
  exchange text NOT NULL,
  routing_key text NOT NULL,
  properties bytea NOT NULL,
  content bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  attempts integer NOT NULL DEFAULT 0,
  due_at timestamptz,
  failure text,
  PRIMARY KEY (shard, position)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000)`,
  `CREATE INDEX ${nameOf(prefix)}outbox_postponed ON ${prefix}outbox (shard, order_key, position) WHERE due_at IS NOT NULL`,
  `CREATE TABLE ${prefix}outbox_set_aside (
  position bigint PRIMARY KEY,
  shard smallint NOT NULL,
  order_key text,
  message_id text NOT NULL,
  mandatory boolean NOT NULL,
  exchange text NOT NULL,
  routing_key text NOT NULL,
  properties bytea NOT NULL,
  content bytea NOT NULL,
  created_at timestamptz NOT NULL,
  attempts integer NOT NULL,
  failure text NOT NULL,
  set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp()
)`,
  `CREATE TABLE ${prefix}outbox_published (
  position bigint PRIMARY KEY,
  message_id text NOT NULL,
  exchange text NOT NULL,
  routing_key text NOT NULL,
  created_at timestamptz NOT NULL,
  published_at timestamptz NOT NULL DEFAULT clock_timestamp()
)`,
  `CREATE INDEX ${nameOf(prefix)}outbox_published_at ON ${prefix}outbox_published (published_at)`,
  `CREATE TABLE ${prefix}outbox_shard (
  shard smallint PRIMARY KEY,
  owner text,
  leased_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50)`,
  `INSERT INTO ${prefix}outbox_shard (shard) SELECT generate_series(0, 31)`,
  `CREATE TABLE ${prefix}outbox_relay (
  relay text PRIMARY KEY,
  alive_until timestamptz NOT NULL
) WITH (fillfactor = 50)`
]

const inboxOnPostgres = (prefix: string) => [
  `CREATE TABLE ${prefix}inbox (
  consumer text NOT NULL,
  key text NOT NULL,
  handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (consumer, key)
)`,
  `CREATE INDEX ${nameOf(prefix)}inbox_handled_at ON ${prefix}inbox USING brin (handled_at) WITH (autosummarize = on)`
]

// Times are milliseconds since 1970. `AUTOINCREMENT` never gives a position again, also after the last row is deleted.
const sqliteNow = "(CAST(unixepoch('subsec') * 1000 AS INTEGER))"

const outboxOnSqlite = (prefix: string) => [
  `CREATE TABLE ${prefix}outbox (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  shard INTEGER NOT NULL,
  order_key TEXT,
  message_id TEXT NOT NULL,
  mandatory INTEGER NOT NULL,
  exchange TEXT NOT NULL,
  routing_key TEXT NOT NULL,
  properties BLOB NOT NULL,
  content BLOB NOT NULL,
  created_at INTEGER NOT NULL DEFAULT ${sqliteNow},
  attempts INTEGER NOT NULL DEFAULT 0,
  due_at INTEGER,
  failure TEXT
) STRICT`,
  `CREATE INDEX ${prefix}outbox_postponed ON ${nameOf(prefix)}outbox (shard, order_key, position) WHERE due_at IS NOT NULL`,
  `CREATE TABLE ${prefix}outbox_set_aside (
  position INTEGER PRIMARY KEY,
  shard INTEGER NOT NULL,
  order_key TEXT,
  message_id TEXT NOT NULL,
  mandatory INTEGER NOT NULL,
  exchange TEXT NOT NULL,
  routing_key TEXT NOT NULL,
  properties BLOB NOT NULL,
  content BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  failure TEXT NOT NULL,
  set_aside_at INTEGER NOT NULL DEFAULT ${sqliteNow}
) STRICT`,
  `CREATE TABLE ${prefix}outbox_published (
  position INTEGER PRIMARY KEY,
  message_id TEXT NOT NULL,
  exchange TEXT NOT NULL,
  routing_key TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  published_at INTEGER NOT NULL DEFAULT ${sqliteNow}
) STRICT`,
  `CREATE INDEX ${prefix}outbox_published_at ON ${nameOf(prefix)}outbox_published (published_at)`,
  `CREATE TABLE ${prefix}outbox_shard (
  shard INTEGER PRIMARY KEY,
  owner TEXT,
  leased_until INTEGER NOT NULL DEFAULT 0
) STRICT`,
  `WITH RECURSIVE shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM shards WHERE shard < 31)
INSERT INTO ${prefix}outbox_shard (shard) SELECT shard FROM shards`,
  `CREATE TABLE ${prefix}outbox_relay (
  relay TEXT PRIMARY KEY,
  alive_until INTEGER NOT NULL
) STRICT`
]

const inboxOnSqlite = (prefix: string) => [
  `CREATE TABLE ${prefix}inbox (
  consumer TEXT NOT NULL,
  key TEXT NOT NULL,
  handled_at INTEGER NOT NULL DEFAULT ${sqliteNow},
  PRIMARY KEY (consumer, key)
) STRICT, WITHOUT ROWID`,
  `CREATE INDEX ${prefix}inbox_handled_at ON ${nameOf(prefix)}inbox (handled_at)`
]

// PostgreSQL creates an index in the schema of its table, and takes no schema in the index's name. SQLite takes it there
// only.
const nameOf = (prefix: string): string => prefix.slice(prefix.indexOf(".") + 1)

/** All migrations, oldest first. */
export const tableMigrations: ReadonlyArray<TableMigration> = [
  { id: 1, name: "outbox", statements: { pg: outboxOnPostgres, sqlite: outboxOnSqlite } },
  { id: 2, name: "inbox", statements: { pg: inboxOnPostgres, sqlite: inboxOnSqlite } }
]
