-- @effect-amqp/sql: outbox, for PostgreSQL 14 and later. Apply it once, in a transaction.

CREATE TABLE amqp_outbox (
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
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);

CREATE INDEX amqp_outbox_postponed ON amqp_outbox (shard, order_key, position) WHERE due_at IS NOT NULL;

CREATE TABLE amqp_outbox_set_aside (
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
);

CREATE TABLE amqp_outbox_published (
  position bigint PRIMARY KEY,
  message_id text NOT NULL,
  exchange text NOT NULL,
  routing_key text NOT NULL,
  created_at timestamptz NOT NULL,
  published_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX amqp_outbox_published_at ON amqp_outbox_published (published_at);

CREATE TABLE amqp_outbox_shard (
  shard smallint PRIMARY KEY,
  owner text,
  leased_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

INSERT INTO amqp_outbox_shard (shard) SELECT generate_series(0, 31);

CREATE TABLE amqp_outbox_relay (
  relay text PRIMARY KEY,
  alive_until timestamptz NOT NULL
) WITH (fillfactor = 50);
