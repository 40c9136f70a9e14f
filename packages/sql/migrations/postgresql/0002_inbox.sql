-- @effect-amqp/sql: inbox, for PostgreSQL 14 and later. Apply it once, in a transaction.

CREATE TABLE amqp_inbox (
  consumer text NOT NULL,
  key text NOT NULL,
  handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (consumer, key)
);

CREATE INDEX amqp_inbox_handled_at ON amqp_inbox USING brin (handled_at) WITH (autosummarize = on);
