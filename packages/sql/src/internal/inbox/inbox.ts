/**
 * Runs handlers in transactions that also record their messages.
 *
 * The record is inserted before the handler runs. Its primary key lets one transaction per message commit: another one
 * waits for it, and finds the message recorded. A rollback takes the record along.
 */
import type { AmqpConsumer, AmqpError } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { BeginTransaction, SqlClient } from "effect/sql/SqlClient"
import { LockTimeoutError, SqlError } from "effect/sql/SqlError"
import { monotonicMillis } from "../monotonicMillis.ts"
import { explainMissingTable } from "../database/errors.ts"
import { inTransaction } from "../database/transaction.ts"
import { invalid } from "../input/options.ts"
import { watchConnections } from "./connectionUse.ts"
import { InboxKeyMissing } from "./keyMissing.ts"
import { storedText } from "./keys.ts"
import { countDelivery, type Outcome } from "./metrics.ts"
import { keepRemoving } from "./retention.ts"
import { type InboxStatements, statementsFor } from "./statements.ts"
import { isTransient, pauseBefore } from "../database/transientFailures.ts"

export type Isolation = "read committed" | "repeatable read" | "serializable"

/** The settings of an inbox; times are in milliseconds. */
export interface InboxSettings {
  readonly key: (delivery: AmqpConsumer.Delivery) => string | undefined
  readonly onMissingKey: "fail" | "handle"
  readonly isolation: Isolation | undefined
  readonly waitMillis: number
  readonly retryMillis: number
  readonly retentionMillis: number
}

const operation = "AmqpInbox.sql"

/** How long the start waits for the database. */
const checkMillis = 5000

const beginStatements: Record<Isolation, string> = {
  "read committed": "BEGIN ISOLATION LEVEL READ COMMITTED",
  "repeatable read": "BEGIN ISOLATION LEVEL REPEATABLE READ",
  serializable: "BEGIN ISOLATION LEVEL SERIALIZABLE"
}

/** The key of a message as it is stored. An empty one is none: publishers that set it set it in every message. */
const keyOf = ({ key }: InboxSettings, delivery: AmqpConsumer.Delivery): string | undefined => {
  const given: unknown = key(delivery)
  if (given === undefined || given === "") return undefined
  if (typeof given !== "string") throw new Error(`${operation}: key: expected a text or undefined, got ${typeof given}`)
  return storedText(given)
}

const waitedTooLong = (millis: number) =>
  new SqlError({
    reason: new LockTimeoutError({
      cause: undefined,
      operation,
      message: `${operation}: expected to record the message within ${millis} ms (copyTimeout), got no answer: another copy of it is still being handled, or the database does not answer. It can be delivered again later.`
    })
  })

/** Refuses a database without the table, before the consumer subscribes. Other failures show with each delivery. */
const checkTable = (sql: SqlClient, { check, table }: InboxStatements): Effect.Effect<void, AmqpError.AmqpError> => {
  const explain = explainMissingTable(table)
  return sql.unsafe(check).withoutTransform.pipe(
    Effect.timeoutOrElse({
      duration: checkMillis,
      orElse: () =>
        Effect.logWarning(`AMQP inbox starts although the database has not answered within ${checkMillis} ms`)
    }),
    Effect.catch((error) => {
      const explained = explain(error)
      return explained === error
        ? Effect.logWarning("AMQP inbox starts although its table could not be checked", Cause.fail(error))
        : Effect.fail(invalid(operation, "table", `the table ${table}`, `none. ${explained.message}`))
    }),
    Effect.asVoid
  )
}

/** Makes the inbox of one consumer. */
export const makeInbox = Effect.fnUntraced(function* (
  settings: InboxSettings,
  consumer: AmqpConsumer.InboxConsumer
): Effect.fn.Return<
  AmqpConsumer.InboxHandler<SqlError | InboxKeyMissing, SqlClient>,
  AmqpError.AmqpError,
  SqlClient | Scope.Scope
> {
  const sql = yield* SqlClient
  const statements = yield* statementsFor
  // Its transactions would be savepoints of that one: acknowledged, and not committed.
  if (Option.isSome(yield* Effect.serviceOption(sql.transactionService))) {
    return yield* invalid(
      operation,
      "SqlClient",
      "a consumer that starts outside of transactions",
      "one inside of a transaction"
    )
  }
  yield* checkTable(sql, statements)
  yield* watchConnections(sql, statements.dialect, consumer)
  const name = storedText(consumer.name)
  const { retentionMillis } = settings
  yield* Effect.forkScoped(keepRemoving({ sql, statements, consumer: name, retentionMillis }))

  const explain = explainMissingTable(statements.table)
  const record = (key: string): Effect.Effect<boolean, SqlError> =>
    sql.unsafe(statements.record, [name, key]).withoutTransform.pipe(
      Effect.mapError(explain),
      Effect.timeoutOrElse({
        duration: settings.waitMillis,
        orElse: () => Effect.fail(waitedTooLong(settings.waitMillis))
      }),
      Effect.map(({ length }) => length > 0)
    )

  const { isolation } = settings
  const begin = statements.dialect === "pg" && isolation !== undefined ? beginStatements[isolation] : undefined
  /** Begins transactions of this inbox with its isolation; others that the handler begins stay as they are. */
  const withTransaction = <R, E, A>(effect: Effect.Effect<A, E, R>) =>
    begin === undefined
      ? sql.withTransaction(effect)
      : Effect.flatMap(BeginTransaction, (outer) =>
          Effect.provideService(
            sql.withTransaction(Effect.provideService(effect, BeginTransaction, outer)),
            BeginTransaction,
            begin
          )
        )

  /** One try. */
  const once = <A, E, R>(key: string | undefined, handler: Effect.Effect<A, E, R>) => {
    const handled = (outcome: Outcome) => Effect.as(handler, outcome)
    const work: Effect.Effect<Outcome, E | SqlError, R> =
      key === undefined
        ? handled("without_key")
        : Effect.flatMap(record(key), (isNew) => (isNew ? handled("handled") : Effect.succeed("repeated" as const)))
    return inTransaction({ withTransaction }, work)
  }

  const annotations = { queue: consumer.queue, consumer: consumer.name }

  const untilEnded = Effect.fnUntraced(function* <A, E, R>(
    delivery: AmqpConsumer.Delivery,
    key: string | undefined,
    handler: Effect.Effect<A, E, R>
  ) {
    const clock = yield* Clock.Clock
    const now = () => monotonicMillis(clock)
    const startedAt = now()
    for (let tries = 0; ; tries++) {
      const exit = yield* Effect.exit(once(key, handler))
      if (exit._tag === "Success") return exit.value
      const pause = pauseBefore(tries)
      const { cause } = exit
      if (!isTransient(statements.dialect, cause) || now() + pause - startedAt > settings.retryMillis) {
        return yield* Effect.failCause(cause)
      }
      yield* countDelivery("retried")
      yield* Effect.logDebug(
        `AMQP inbox: another transaction was in the way, the handler runs again in ${Math.ceil(pause)} ms`,
        cause
      ).pipe(Effect.annotateLogs({ ...annotations, messageId: delivery.properties.messageId }))
      yield* Effect.sleep(pause)
    }
  })

  return Effect.fnUntraced(function* <A, E, R>(delivery: AmqpConsumer.Delivery, handler: Effect.Effect<A, E, R>) {
    const key = keyOf(settings, delivery)
    if (key === undefined && settings.onMissingKey === "fail") {
      yield* countDelivery("without_key")
      return yield* new InboxKeyMissing(annotations)
    }
    const outcome = yield* untilEnded(delivery, key, handler)
    yield* countDelivery(outcome)
    if (outcome === "repeated") {
      yield* Effect.annotateCurrentSpan("amqp.inbox.repeat", true)
      yield* Effect.logDebug("AMQP inbox: the message was handled before, and is acknowledged").pipe(
        Effect.annotateLogs({ ...annotations, messageId: delivery.properties.messageId })
      )
    }
  })
})
