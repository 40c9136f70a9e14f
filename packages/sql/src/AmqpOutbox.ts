/**
 * A transactional outbox: messages are written in the application's own transaction, and published after it has committed.
 *
 * **When to use**
 *
 * Use when a message must be published exactly if a change of the database is committed. `AmqpPublisher.publish` inside
 * of a transaction cannot do that: the message is lost if the process dies after the commit, and wrong if the
 * transaction rolls back after the publish.
 *
 * **Details**
 *
 * `publish` inserts a row. `layerRelay`, in this process or another one, publishes the rows of committed transactions,
 * confirmed and mandatory, and removes each row after its confirm. A message is published at least once: a relay that
 * dies between confirm and removal publishes it again. Its `messageId` is the same each time, so `AmqpInbox` recognizes
 * it.
 *
 * The promise is that of the database: with `synchronous_commit = off`, or after a failover to a replica that lags behind,
 * a commit may be lost whose message was published already.
 *
 * **Example** (An order and its event in one transaction)
 *
 * ```ts
 * import { AmqpOutbox } from "@effect-amqp/sql"
 * import { Effect } from "effect"
 * import { SqlClient } from "effect/sql"
 *
 * const placeOrder = Effect.fn("placeOrder")(function* (order: { readonly id: number; readonly item: string }) {
 *   const sql = yield* SqlClient.SqlClient
 *   yield* sql.withTransaction(
 *     Effect.andThen(
 *       sql`INSERT INTO orders ${sql.insert(order)}`,
 *       AmqpOutbox.publish({ exchange: "orders", routingKey: "placed", content: JSON.stringify(order) })
 *     )
 *   )
 * })
 * ```
 *
 * @since 0.1.0
 */
import { type AmqpConnection, type AmqpError, AmqpMessage, type AmqpPublisher } from "@effect-amqp/core"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { explainMissingTable } from "./internal/database/errors.ts"
import { inTransaction } from "./internal/database/transaction.ts"
import { statsOf, type OutboxStats } from "./internal/outbox/monitor.ts"
import { choice, integer, millis, refuseUnknown } from "./internal/input/options.ts"
import { type RelaySettings, runRelay } from "./internal/outbox/relay.ts"
import { arrayParameter } from "./internal/outbox/statements.ts"
import { lockKeys, statementsFor, wakeAfterCommit, write, writeAll } from "./internal/outbox/writing.ts"

export { oldestAge, relayedMessages, setAsideMessages, waitingMessages } from "./internal/outbox/metrics.ts"

/**
 * Options of a message in the outbox.
 *
 * **When to use**
 *
 * Use with `publish`.
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishOptions {
  /**
   * Whether a message that no queue takes counts as not published (`AmqpPublisher.publish`). Default: `true`, so that a
   * missing binding loses nothing.
   */
  readonly mandatory?: boolean | undefined
  /**
   * The key whose messages are published in the order of their commits, such as the id of an order. 1 to 512 characters.
   * Default: none, so the message is published in any order.
   *
   * On PostgreSQL the transaction holds an advisory lock of the key until it ends: another transaction that publishes
   * with the same key waits for it. A transaction with several keys takes the locks in the order of its publishes; to
   * take them in one order everywhere, which rules out deadlocks, use `publishAll`.
   */
  readonly orderBy?: string | undefined
}

/**
 * A message that was written to the outbox.
 *
 * **When to use**
 *
 * Use as the result of `publish`, for logs and for answers to clients.
 *
 * @category models
 * @since 0.1.0
 */
export interface Written {
  /** The message's own `messageId`, or a UUID of version 7 if it had none or an empty one. It is published with the message. */
  readonly messageId: string
}

/**
 * Writes a message to the outbox, in the transaction of the context.
 *
 * **When to use**
 *
 * Use inside of `sql.withTransaction`, next to the changes that the message is about. Outside of a transaction it is a
 * single insert, so that the message survives this process.
 *
 * **Details**
 *
 * The message is checked as `AmqpPublisher.publish` checks it, and stored exactly: its properties, its headers with
 * their types, and the current trace context. A message whose `messageId` is missing or empty gets a UUID of version 7, by
 * which `AmqpInbox` recognizes it. Relays of this process are woken after the commit.
 *
 * It fails with
 *
 * - `AmqpError`, reason `InvalidArgument` or `MessageTooLarge`: the message or an option was refused, and nothing was
 *   written. An exchange, a routing key or a message id with NUL or a lone surrogate is refused, because databases do not
 *   store them, and so is a content above 15 MiB, because clients of PostgreSQL read rows of 16 MiB at most by default;
 * - `SqlError`: the database refused the insert or is away. If the table is missing, the message says how to create it.
 *
 * **Gotchas**
 *
 * On PostgreSQL a failed statement aborts its transaction: let the failure end the transaction.
 *
 * **Example** (Ordered by key)
 *
 * ```ts
 * import { AmqpOutbox } from "@effect-amqp/sql"
 *
 * const shipped = (orderId: string) =>
 *   AmqpOutbox.publish({ exchange: "orders", routingKey: "shipped", content: orderId }, { orderBy: orderId })
 * ```
 *
 * @category publishing
 * @since 0.1.0
 */
export const publish: (
  message: AmqpMessage.Message,
  options?: PublishOptions
) => Effect.Effect<Written, AmqpError.AmqpError | SqlError, SqlClient> = write

/**
 * Options of several messages in the outbox.
 *
 * **When to use**
 *
 * Use with `publishAll`.
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishAllOptions {
  /** As of `publish`, for every message. Default: `true`. */
  readonly mandatory?: boolean | undefined
  /** The key of a message; `undefined` for a message without one. Default: no message has a key. */
  readonly orderBy?: ((message: AmqpMessage.Message) => string | undefined) | undefined
}

/**
 * Writes several messages to the outbox with one statement, in their order.
 *
 * **When to use**
 *
 * Use for a transaction with many messages, and for one with several keys: the locks of the keys are taken in one order,
 * so two such transactions cannot deadlock.
 *
 * **Details**
 *
 * All messages are written, or none. It fails as `publish` does; a message that is refused refuses them all.
 *
 * @category publishing
 * @since 0.1.0
 */
export const publishAll: (
  messages: ReadonlyArray<AmqpMessage.Message>,
  options?: PublishAllOptions
) => Effect.Effect<ReadonlyArray<Written>, AmqpError.AmqpError | SqlError, SqlClient> = writeAll

/**
 * Options of a relay.
 *
 * **When to use**
 *
 * Use with `layerRelay`, when the defaults do not fit.
 *
 * @category options
 * @since 0.1.0
 */
export interface RelayOptions {
  /**
   * Maximum number of messages that are read and not yet removed. 1 to 10,000. Default: 1000. Whatever it is, a relay reads
   * no further message while it has contents and properties of 64 MiB in hand.
   */
  readonly maxInFlight?: number | undefined
  /**
   * Longest pause between two reads while nothing waits, which is the longest delay of a message that another process
   * has written. Messages of this process wake the relay at once. 10 ms to 1 minute. Default: 1 second.
   */
  readonly pollInterval?: Duration.Input | undefined
  /**
   * How long a relay owns its shards without renewing them. The shards of a relay that died are taken over after that
   * time at the latest. 1 second to 10 minutes. Default: 15 seconds.
   */
  readonly lease?: Duration.Input | undefined
  /**
   * Timeout of one attempt to publish. 1 second to 10 minutes. Default: 30 seconds. A message that was sent and not confirmed
   * in time is tried again after 30 times `retryDelay`, up to 1 minute, which counts no attempt.
   */
  readonly publishTimeout?: Duration.Input | undefined
  /**
   * Number of attempts for a message that no queue takes, or that the broker refuses because of its exchange, its
   * permissions or its properties. Failures of the connection, messages that a full queue refuses, and messages that are
   * not confirmed in time do not count. 1 to 1000. Default: 10, which is about five minutes with the default `retryDelay`,
   * and longer for thousands of messages to an exchange that does not exist, which are published one at a time.
   */
  readonly maxAttempts?: number | undefined
  /**
   * What follows the last attempt, and a message that is too large.
   *
   * - `"setAside"`: the message moves to the table `amqp_outbox_set_aside`, with its reason, and later messages of its
   *   key continue. See `listSetAside`.
   * - `"hold"`: the message stays, and is tried again every minute. Later messages of its key wait for it.
   *
   * Default: `"setAside"`.
   */
  readonly whenExhausted?: "setAside" | "hold" | undefined
  /** Delay after the first refused attempt. It doubles up to 1 minute. 10 ms to 1 minute. Default: 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * How long the table `amqp_outbox_published` has a record of each published message. 1 second to 3650 days. Default:
   * published messages leave no record.
   */
  readonly keepPublished?: Duration.Input | undefined
  /**
   * Age of the oldest message from which health reports the condition `OutboxBehind`. 1 second to 1 day. Default: 1
   * minute. The condition `OutboxDatabaseFailed` appears after as long, and after 10 seconds at most.
   */
  readonly alarmAfter?: Duration.Input | undefined
}

const relayOptionNames: ReadonlyArray<string> = [
  "maxInFlight",
  "pollInterval",
  "lease",
  "publishTimeout",
  "maxAttempts",
  "whenExhausted",
  "retryDelay",
  "keepPublished",
  "alarmAfter"
] satisfies ReadonlyArray<keyof RelayOptions>

const second = 1000
const minute = 60 * second
const day = 24 * 60 * minute

const relaySettings = (options: RelayOptions): RelaySettings => {
  const where = "AmqpOutbox.layerRelay"
  refuseUnknown(where, options, relayOptionNames)
  return {
    maxInFlight: integer(`${where}: maxInFlight`, options.maxInFlight, 1, 10_000, 1000),
    pollMillis: millis(`${where}: pollInterval`, options.pollInterval, 10, minute, second),
    leaseMillis: millis(`${where}: lease`, options.lease, second, 10 * minute, 15 * second),
    publishMillis: millis(`${where}: publishTimeout`, options.publishTimeout, second, 10 * minute, 30 * second),
    maxAttempts: integer(`${where}: maxAttempts`, options.maxAttempts, 1, 1000, 10),
    whenExhausted: choice(`${where}: whenExhausted`, options.whenExhausted, ["setAside", "hold"], "setAside"),
    retryMillis: millis(`${where}: retryDelay`, options.retryDelay, 10, minute, second),
    keepMillis:
      options.keepPublished === undefined
        ? undefined
        : millis(`${where}: keepPublished`, options.keepPublished, second, 3650 * day, day),
    alarmMillis: millis(`${where}: alarmAfter`, options.alarmAfter, second, day, minute)
  }
}

/**
 * Publishes what was committed, for as long as the layer exists.
 *
 * **When to use**
 *
 * Use in the service that writes to the outbox, or in a process of its own. Any number of relays may run: they share the
 * work, and one takes over from another that has stopped or died.
 *
 * **Details**
 *
 * The messages of the outbox are spread over 32 shards, by their keys. A relay leases its share of the shards, so no two
 * relays publish the same message at the same time, and a key has one owner. No transaction is open while the broker is
 * awaited. Messages with a key are published one after another, the others concurrently.
 *
 * A message that the broker refuses is tried again as the options say, and does not block messages of other keys.
 * Messages to an exchange and routing key for which the broker confirms nothing, such as those of a quorum queue without a
 * majority, are tried one at a time, each on a channel that is closed afterwards, so that others have room.
 *
 * The broker closes the channel over some messages, such as those to an exchange that does not exist, and what is in flight
 * on that channel is published again. After that, messages to this exchange are published one at a time on a channel of
 * their own, until the broker has confirmed 20 of them. A message that was in flight on two channels that closed over others
 * takes that channel too. At most 20 messages wait for it; the others are postponed, which counts no attempt.
 *
 * While the connection or the database is away, messages wait in the table; the relay continues when both are back.
 *
 * Health, the dashboard and metrics report what waits, what is set aside, and that the relay's work on the database has
 * failed or got no answer for 10 seconds: the conditions `OutboxBehind`, `OutboxSetAside` and `OutboxDatabaseFailed`
 * (`AmqpConnection.conditions`), which leave the application ready, and `waitingMessages`, `oldestAge`, `setAsideMessages` and
 * `relayedMessages`. When its scope closes, the relay finishes the publishes under way, for 5 seconds at most, removes
 * their rows, and gives up its shards.
 *
 * Unknown options and values out of bounds are defects: they are mistakes in the program.
 *
 * **Gotchas**
 *
 * - A lease that ended while its relay was suspended, or a relay that died after a publish, publishes messages twice.
 *   `AmqpInbox` recognizes them.
 * - Some hundred messages for a queue that confirms nothing make RabbitMQ stop reading the connection, so that the
 *   application's own publishes wait too. A relay with a process or a connection of its own (`Layer.fresh(AmqpLive)`)
 *   leaves the application's free.
 *
 * **Example** (A service that writes and relays)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { PgClient } from "@effect/sql-pg"
 * import { Amqp, AmqpLive } from "@effect-amqp/core"
 * import { AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
 * import { Config, Layer } from "effect"
 *
 * const Database = AmqpSql.layerMigrate.pipe(
 *   Layer.provideMerge(PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 * )
 *
 * AmqpOutbox.layerRelay().pipe(Layer.provide([AmqpLive, Database]), Amqp.launch, NodeRuntime.runMain)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRelay = (
  options: RelayOptions = {}
): Layer.Layer<never, never, SqlClient | AmqpPublisher.AmqpPublisher | AmqpConnection.AmqpConnection> =>
  Layer.effectDiscard(Effect.suspend(() => runRelay(relaySettings(options))))

/**
 * What stands in the outbox.
 *
 * **When to use**
 *
 * Use as the result of `stats`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats extends OutboxStats {}

/**
 * Counts what waits in the outbox and what is set aside.
 *
 * **When to use**
 *
 * Use in tests, health checks and tools of your own. Relays count every 15 seconds already.
 *
 * **Details**
 *
 * It fails with `SqlError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const stats: Effect.Effect<Stats, SqlError, SqlClient> = Effect.gen(function* () {
  const statements = yield* statementsFor
  return yield* Effect.mapError(statsOf(yield* SqlClient, statements), explainMissingTable(statements.table))
})

/**
 * A message that is set aside.
 *
 * **When to use**
 *
 * Use to decide whether to publish it again or to discard it.
 *
 * @category models
 * @since 0.1.0
 */
export interface SetAside {
  /** Identifies the message for `restore` and `discard`. */
  readonly position: number
  readonly message: AmqpMessage.Message
  readonly messageId: string
  readonly mandatory: boolean
  readonly orderBy: string | undefined
  readonly attempts: number
  /** The reason's tag and message. */
  readonly failure: string
  /** When it was written and when it was set aside, by the clock of the database. */
  readonly createdAt: Date
  readonly setAsideAt: Date
}

interface SetAsideRow {
  readonly position: number | bigint | string
  readonly message_id: string
  readonly order_key: string | null
  readonly mandatory: boolean | number
  readonly exchange: string
  readonly routing_key: string
  readonly properties: Uint8Array
  readonly content: Uint8Array
  readonly attempts: number
  readonly failure: string
  readonly created_at: Date | number
  readonly set_aside_at: Date | number
}

/**
 * The messages that could not be published, oldest first.
 *
 * **When to use**
 *
 * Use to see why messages were set aside, before `restore` or `discard`.
 *
 * **Details**
 *
 * `limit`: 1 to 1000 messages. Default: 100. It fails with `SqlError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const listSetAside = (limit = 100): Effect.Effect<ReadonlyArray<SetAside>, SqlError, SqlClient> =>
  Effect.gen(function* () {
    const most = integer("AmqpOutbox.listSetAside: limit", limit, 1, 1000, 100)
    const sql = yield* SqlClient
    const statements = yield* statementsFor
    const rows = yield* sql
      .unsafe<SetAsideRow>(statements.listSetAside, [most])
      .withoutTransform.pipe(Effect.mapError(explainMissingTable(statements.table)))
    return yield* Effect.forEach(rows, (row) =>
      // The bytes were written by `publish`: others are a defect.
      AmqpMessage.fromEncoded({
        exchange: row.exchange,
        routingKey: row.routing_key,
        properties: row.properties,
        content: row.content
      }).pipe(
        Effect.orDie,
        Effect.map((message) => ({
          position: Number(row.position),
          message,
          messageId: row.message_id,
          mandatory: Boolean(row.mandatory),
          orderBy: row.order_key ?? undefined,
          attempts: Number(row.attempts),
          failure: row.failure,
          createdAt: new Date(row.created_at),
          setAsideAt: new Date(row.set_aside_at)
        }))
      )
    )
  })

/**
 * Returns messages that are set aside to the outbox, as new messages at its end. Returns their number.
 *
 * **When to use**
 *
 * Use after the reason is gone, such as a missing binding.
 *
 * **Details**
 *
 * It takes the positions of `listSetAside`. It fails with `SqlError`, and then nothing has changed.
 *
 * @category operations
 * @since 0.1.0
 */
export const restore = (positions: ReadonlyArray<number>): Effect.Effect<number, SqlError, SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient
    const statements = yield* statementsFor
    const chosen = [arrayParameter(statements, positions)]
    return yield* inTransaction(
      sql,
      Effect.gen(function* () {
        // Another call may restore the same messages, and other transactions publish with the same keys.
        if (statements.dialect === "pg") {
          const locked = yield* sql.unsafe<{ order_key: string | null }>(statements.lockSetAside, chosen)
            .withoutTransform
          yield* lockKeys(locked.map(({ order_key }) => order_key ?? undefined))
        }
        yield* sql.unsafe(statements.restoreSetAside, chosen)
        const removed = yield* sql.unsafe(statements.discardSetAside, chosen).withoutTransform
        yield* wakeAfterCommit(sql, statements.table)
        return removed.length
      })
    ).pipe(Effect.mapError(explainMissingTable(statements.table)))
  })

/**
 * Deletes messages that are set aside. Returns their number.
 *
 * **When to use**
 *
 * Use for messages that no longer matter. They are lost.
 *
 * **Details**
 *
 * It takes the positions of `listSetAside`. It fails with `SqlError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const discard = (positions: ReadonlyArray<number>): Effect.Effect<number, SqlError, SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient
    const statements = yield* statementsFor
    const removed = yield* sql
      .unsafe(statements.discardSetAside, [arrayParameter(statements, positions)])
      .withoutTransform.pipe(Effect.mapError(explainMissingTable(statements.table)))
    return removed.length
  })
