/**
 * A transactional outbox and inbox for AMQP, on Effect's `SqlClient`.
 *
 * @since 0.1.0
 */

/**
 * Handlers that run in a transaction which also records their message.
 *
 * **When to use**
 *
 * Use when a handler must change a database once, however often its message is delivered.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpInbox from "./AmqpInbox.ts"

/**
 * Messages that are written in the application's own transaction, and published after it has committed.
 *
 * **When to use**
 *
 * Use when a message must be published exactly if a change of the database is committed.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpOutbox from "./AmqpOutbox.ts"

/**
 * The tables of the outbox and the inbox.
 *
 * **When to use**
 *
 * Use to create the tables, and to choose their names.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpSql from "./AmqpSql.ts"
