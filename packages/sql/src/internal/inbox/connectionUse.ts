/** Compares the concurrency of consumers with the connections of their database. */
import type { AmqpConsumer } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { SqlClient } from "effect/sql/SqlClient"
import type { Dialect } from "../database/tables.ts"

/** The pool of `@effect/sql-pg`, unless `maxConnections` is given. */
const defaultConnections = 10

// By the key of the client's transactions, which copies of the client share: the concurrency of all its consumers.
const inUse = new WeakMap<object, number>()

const connectionsOf = (sql: SqlClient): number | undefined => {
  if (!Predicate.hasProperty(sql, "~@effect/sql-pg/PgClient") || !Predicate.hasProperty(sql, "config")) return undefined
  const { config } = sql
  const given = Predicate.hasProperty(config, "maxConnections") ? config.maxConnections : undefined
  return typeof given === "number" ? given : defaultConnections
}

/** Warns when the consumers of a client, until the scope closes, may take more connections than its pool has. */
export const watchConnections = (
  sql: SqlClient,
  dialect: Dialect,
  { concurrency }: AmqpConsumer.InboxConsumer
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.suspend(() => {
    if (dialect === "sqlite") {
      return concurrency === 1
        ? Effect.void
        : Effect.logDebug(
            `AMQP inbox: SQLite has one writer, so handlers run one after another: a concurrency of ${concurrency} gains nothing over 1`
          )
    }
    const connections = connectionsOf(sql)
    if (connections === undefined) return Effect.void
    const client = sql.transactionService
    const add = (by: number) => {
      const sum = (inUse.get(client) ?? 0) + by
      inUse.set(client, sum)
      return sum
    }
    return Effect.acquireRelease(
      Effect.sync(() => add(concurrency)),
      () => Effect.sync(() => add(-concurrency))
    ).pipe(
      Effect.flatMap((sum) =>
        // Once: when this consumer is the one that exceeds the pool.
        sum > connections && sum - concurrency <= connections
          ? Effect.logWarning(
              `AMQP inbox: consumers handle up to ${sum} deliveries at a time (this one ${concurrency}), each in a transaction with a connection of its own, but the database's pool has ${connections}. Further deliveries wait for a connection, and so do other queries of the application. Raise maxConnections of the PgClient above the sum, or lower concurrency. A handler that needs a second connection, beside that of its transaction, can wait forever`
            )
          : Effect.void
      )
    )
  })
