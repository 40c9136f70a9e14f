-- @effect-amqp/sql: outbox, for SQLite 3.42 and later. Apply it once, in a transaction.

CREATE TABLE amqp_outbox (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  shard INTEGER NOT NULL,
  order_key TEXT,
  message_id TEXT NOT NULL,
  mandatory INTEGER NOT NULL,
  exchange TEXT NOT NULL,
  routing_key TEXT NOT NULL,
  properties BLOB NOT NULL,
  content BLOB NOT NULL,
  created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
  attempts INTEGER NOT NULL DEFAULT 0,
  due_at INTEGER,
  failure TEXT
) STRICT;

CREATE INDEX amqp_outbox_postponed ON amqp_outbox (shard, order_key, position) WHERE due_at IS NOT NULL;

CREATE TABLE amqp_outbox_set_aside (
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
  set_aside_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
) STRICT;

CREATE TABLE amqp_outbox_published (
  position INTEGER PRIMARY KEY,
  message_id TEXT NOT NULL,
  exchange TEXT NOT NULL,
  routing_key TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  published_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
) STRICT;

CREATE INDEX amqp_outbox_published_at ON amqp_outbox_published (published_at);

CREATE TABLE amqp_outbox_shard (
  shard INTEGER PRIMARY KEY,
  owner TEXT,
  leased_until INTEGER NOT NULL DEFAULT 0
) STRICT;

WITH RECURSIVE shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM shards WHERE shard < 31)
INSERT INTO amqp_outbox_shard (shard) SELECT shard FROM shards;

CREATE TABLE amqp_outbox_relay (
  relay TEXT PRIMARY KEY,
  alive_until INTEGER NOT NULL
) STRICT;
