-- @effect-amqp/sql: inbox, for SQLite 3.42 and later. Apply it once, in a transaction.

CREATE TABLE amqp_inbox (
  consumer TEXT NOT NULL,
  key TEXT NOT NULL,
  handled_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
  PRIMARY KEY (consumer, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX amqp_inbox_handled_at ON amqp_inbox (handled_at);
