/**
 * A transactional inbox: the handler of a message runs in a transaction that also records the message, so its changes are
 * committed once, however often the message is delivered.
 *
 * **When to use**
 *
 * Use for handlers that change a database. A broker delivers at least once: a message comes again if a process dies
 * after its commit and before its `ack`, if the connection is lost, and if a publisher sends it again because it has not
 * seen its confirm.
 *
 * **Details**
 *
 * *What is promised.* Of all deliveries of a message to one consumer, one commits: the statements that the handler runs
 * on the `SqlClient` of its context, and the messages that it writes with `AmqpOutbox.publish`. The promise lasts for
 * `retention`, and is that of the database: with `synchronous_commit = off`, or after a failover to a replica that lags
 * behind, a commit may be lost, and the message with it if it was acknowledged.
 *
 * *What is not promised.* Effects outside of the transaction, such as a request to another service, happen once per
 * attempt. Give them an idempotency key: the key of the message fits.
 *
 * *Isolation.* Read committed, the default of PostgreSQL, is enough to handle once: the primary key of the table decides,
 * which holds at every level. A higher level is needed only for what the handler itself reads and then decides on.
 *
 * **Example** (Charging once)
 *
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { AmqpInbox, AmqpOutbox } from "@effect-amqp/sql"
 * import { Effect, Schema } from "effect"
 * import { SqlClient } from "effect/sql"
 *
 * const Order = Schema.Struct({ id: Schema.Int, amount: Schema.Int })
 *
 * const charge = Effect.fn("charge")(function* (order: typeof Order.Type) {
 *   const sql = yield* SqlClient.SqlClient
 *   yield* sql`INSERT INTO payments ${sql.insert({ order_id: order.id, amount: order.amount })}`
 *   yield* AmqpOutbox.publish({ exchange: "payments", routingKey: "charged", content: String(order.id) })
 * })
 *
 * const payments = AmqpConsumer.layerConsume("payments", charge, {
 *   schema: Order,
 *   inbox: AmqpInbox.sql(),
 *   onFailure: (error) => (error._tag === "InboxKeyMissing" ? AmqpConsumer.deadLetter : AmqpConsumer.redeliver)
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { AmqpConsumer } from "@effect-amqp/core"
import type * as Duration from "effect/Duration"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type InboxSettings, type Isolation, makeInbox } from "./internal/inbox/inbox.ts"
import type { InboxKeyMissing } from "./internal/inbox/keyMissing.ts"
import { choice, millis, refuseUnknown } from "./internal/input/options.ts"

export { InboxKeyMissing } from "./internal/inbox/keyMissing.ts"
export { deliveries } from "./internal/inbox/metrics.ts"

/**
 * Options of an inbox.
 *
 * **When to use**
 *
 * Use with `sql`, when the defaults do not fit.
 *
 * @category options
 * @since 0.1.0
 */
export interface SqlOptions<Missing extends "fail" | "handle" = "fail" | "handle"> {
  /**
   * The key of a message: two messages with one key are the same message to a consumer, and the second is acknowledged
   * without its handler. `undefined` and the empty text stand for no key. Default: the property `messageId`, which
   * `AmqpOutbox` gives to every message, and `AmqpPublisher.publish` only to those that are published with one.
   *
   * Keys are compared exactly, and per consumer: see `sql`. One that is longer than 255 bytes of UTF-8, or has NUL or a
   * lone surrogate, is stored as `sha256:` and its SHA-256 in hexadecimal. Publishers choose the `messageId`: one that
   * may publish to the queue can make a later message of the same id pass for a repeat.
   *
   * A key from the content, such as the number of an order, also recognizes a message that was published twice with two
   * ids.
   */
  readonly key?: ((delivery: AmqpConsumer.Delivery) => string | undefined) | undefined
  /**
   * What happens to a message without a key.
   *
   * - `"fail"`: it fails with `InboxKeyMissing`, without its handler, and `onFailure` chooses what follows. Choose
   *   `AmqpConsumer.deadLetter` there to set it aside at once: the default of `onFailure` delivers it again and again.
   * - `"handle"`: the handler runs in a transaction without a record, as often as the message is delivered.
   *
   * The metric `deliveries` counts both as `without_key`. Default: `"fail"`.
   */
  readonly onMissingKey?: Missing | undefined
  /**
   * The isolation level of the transaction on PostgreSQL. Higher levels fail with serialization failures, which are tried
   * again: see `retryTimeout`. SQLite has one level, serializable. Default: that of the client and the database, usually
   * read committed, which is enough to handle once.
   */
  readonly isolation?: "read committed" | "repeatable read" | "serializable" | undefined
  /**
   * How long a delivery waits for another copy of its message that is being handled, here or in another process. Then it
   * fails with `SqlError`, reason `LockTimeoutError`. Choose more than a handler takes. 10 ms to 1 hour. Default: 30
   * seconds.
   */
  readonly copyTimeout?: Duration.Input | undefined
  /**
   * How long after its beginning a transaction may be tried again that fails with a serialization failure or a deadlock.
   * After that the failure is one of the handler. 0 to 1 hour; 0 for no further try. Default: 1 minute.
   */
  readonly retryTimeout?: Duration.Input | undefined
  /**
   * How long a record is kept. A message that comes again after that is handled again. 1 minute to 3650 days. Default: 30
   * days, which is longer than messages usually stay anywhere before they come again: in a queue, in a dead-letter queue
   * until an operator moves them back, or in an outbox whose broker is away.
   */
  readonly retention?: Duration.Input | undefined
}

const optionNames: ReadonlyArray<string> = [
  "key",
  "onMissingKey",
  "isolation",
  "copyTimeout",
  "retryTimeout",
  "retention"
] satisfies ReadonlyArray<keyof SqlOptions>

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

const messageIdOf = ({ properties }: AmqpConsumer.Delivery): string | undefined => properties.messageId

const isolations: ReadonlyArray<Isolation> = ["read committed", "repeatable read", "serializable"]

const settingsOf = (options: SqlOptions): InboxSettings => {
  const where = "AmqpInbox.sql"
  refuseUnknown(where, options, optionNames)
  const { isolation, key = messageIdOf } = options
  if (typeof key !== "function") {
    throw new Error(`${where}: key: expected a function from a delivery to its key, got ${typeof key}`)
  }
  return {
    key,
    onMissingKey: choice(`${where}: onMissingKey`, options.onMissingKey, ["fail", "handle"], "fail"),
    isolation: isolation === undefined ? undefined : choice(`${where}: isolation`, isolation, isolations, isolation),
    waitMillis: millis(`${where}: copyTimeout`, options.copyTimeout, 10, hour, 30 * second),
    retryMillis: millis(`${where}: retryTimeout`, options.retryTimeout, 0, hour, minute),
    retentionMillis: millis(`${where}: retention`, options.retention, minute, 3650 * day, 30 * day)
  }
}

/**
 * An inbox in the database of the `SqlClient` in the context, for the option `inbox` of `AmqpConsumer.consume`,
 * `AmqpConsumer.layerConsume` and `AmqpEvent.consume`.
 *
 * **When to use**
 *
 * Use for consumers whose handlers change that database. It works on PostgreSQL and on SQLite.
 *
 * **Details**
 *
 * The handler runs in `sql.withTransaction`, which first inserts the consumer's name and the key into the table
 * `amqp_inbox` (see `AmqpSql.migrate`):
 *
 * | the message                            | what happens                                                    |
 * | -------------------------------------- | --------------------------------------------------------------- |
 * | is new, and its handler succeeds       | the transaction commits, then the delivery is acknowledged      |
 * | is new, and its handler fails          | record and changes roll back; `onFailure` or `onDefect` decides |
 * | is new, and its handler is interrupted | the same, and the delivery returns to the queue                 |
 * | was handled                            | it is acknowledged without its handler                          |
 * | is being handled elsewhere             | it waits for the end of that transaction, at most `copyTimeout` |
 * | has no key                             | `onMissingKey`                                                  |
 *
 * *The name.* Records are kept per consumer: by the option `name` of `consume`, by default the queue. All processes that
 * share the work of a queue have the same name, and two consumers that handle the same messages for two purposes have
 * different ones. A consumer with a new name handles again what comes again.
 *
 * *The scope.* The scope of the handler closes before the commit: what its finalizers write is part of the transaction.
 *
 * *Transactions that collide.* A serialization failure or a deadlock (40001, 40P01), also at the commit, rolls back, and
 * the handler runs again after a random pause that grows from 10 ms to 1 second. That counts as no failure, and
 * `Delivery.attempt` stays. After `retryTimeout` it is a failure. It is recognized in the error of the handler, in its
 * defect, and in the chain of its `cause`: an error of your own for a failed statement needs the `SqlError` as its
 * `cause`. On SQLite a database that stays locked is tried again in the same way. Callbacks of `sql.afterCommit` run for
 * the try that commits only.
 *
 * *A lost connection.* If it is lost during the commit, nothing here says whether it has succeeded. The delivery fails
 * with `SqlError`, and when it comes again the record decides whether the handler runs.
 *
 * *The start.* The consumer ends with `InvalidArgument` before it subscribes if the table does not exist, or if it starts
 * inside of a transaction. If the check fails otherwise, or takes longer than 5 seconds, it starts with a warning.
 *
 * *The pool.* Each delivery that is handled takes one connection. A warning is logged when the `concurrency` of the
 * consumers on one `PgClient` exceeds its `maxConnections` (default 10). SQLite has one writer: there, a `concurrency`
 * above 1 gains nothing.
 *
 * *Retention.* Consumers remove their own records that are older than `retention`, every few minutes, 1000 at a time. If
 * that fails twice in succession, health reports the condition `InboxCleanupFailed`, and the application stays ready.
 * Records of a name that no consumer has any more stay: `DELETE FROM amqp_inbox WHERE consumer = '...'`.
 *
 * *Observation.* The metric `amqp.inbox.deliveries` counts by outcome. The span of a repeat has the attribute
 * `amqp.inbox.repeat`, and a repeat is logged at level Debug.
 *
 * It fails, in `onFailure`, with what the handler fails with, and with
 *
 * - `SqlError`: the database has failed, or another copy was still being handled after `copyTimeout`. The message is not
 *   the reason: choose a policy that delivers it again, such as `AmqpConsumer.redeliver`, the default;
 * - `InboxKeyMissing`, unless `onMissingKey` is `"handle"`.
 *
 * An option that is out of its bounds is a mistake in the program, and is thrown at once.
 *
 * **Gotchas**
 *
 * - The handler takes part only with the `SqlClient` that the consumer gets. Statements on another client, or in a fiber
 *   that outlives the handler, are not in the transaction.
 * - A handler that settles its delivery itself does so before the commit: if that fails, the message is lost.
 * - A transaction stays open while the handler runs. Call slow services before, in a consumer of their own, or after,
 *   by way of `AmqpOutbox`.
 * - On PostgreSQL a failed statement aborts the transaction. A handler that catches its error and succeeds fails at the
 *   commit. Run a statement that may fail in a `sql.withTransaction` of its own: that is a savepoint.
 *
 * **Example** (A key from the headers)
 *
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { AmqpInbox } from "@effect-amqp/sql"
 * import { Effect } from "effect"
 *
 * const inbox = AmqpInbox.sql({
 *   key: ({ properties }) => {
 *     const key = properties.headers["idempotency-key"]
 *     return typeof key === "string" ? key : properties.messageId
 *   },
 *   onMissingKey: "handle",
 *   isolation: "serializable",
 *   retention: "90 days"
 * })
 *
 * const payments = AmqpConsumer.consume("payments", () => Effect.log("charged"), { inbox, concurrency: 5 })
 * ```
 *
 * @see {@link SqlOptions} for defaults and bounds
 *
 * @category constructors
 * @since 0.1.0
 */
export const sql = <const Missing extends "fail" | "handle" = "fail">(
  options: SqlOptions<Missing> = {}
): AmqpConsumer.Inbox<SqlError | (Missing extends "fail" ? InboxKeyMissing : never), SqlClient> => {
  const settings = settingsOf(options)
  const inbox: AmqpConsumer.Inbox<SqlError | InboxKeyMissing, SqlClient> = {
    make: (consumer) => makeInbox(settings, consumer)
  }
  // With "handle" no message fails for its key.
  return inbox as AmqpConsumer.Inbox<SqlError | (Missing extends "fail" ? InboxKeyMissing : never), SqlClient>
}
