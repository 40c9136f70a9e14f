/** Counts what waits and what is set aside, reports it, and removes the records of published messages that are old. */
import * as Effect from "effect/Effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { DatabaseWatch } from "./databaseWatch.ts"
import type { OutboxGauges } from "./metrics.ts"
import type { OutboxStatements } from "./statements.ts"

const longestInterval = 15_000
/** Counting more would cost the database more than it tells. */
const maxWaitingCount = 100_000
const maxSetAsideCount = 10_000
const cleanupBatch = 1000

/** What stands in the outbox's tables. */
export interface OutboxStats {
  /** Number of messages that wait, counted up to 100,000. */
  readonly waiting: number
  /** Age of the oldest waiting message, in milliseconds; 0 if there is none. */
  readonly oldestAge: number
  /** Number of messages that are set aside, counted up to 10,000. */
  readonly setAside: number
}

/** Counts what stands in the tables. */
export const statsOf = (sql: SqlClient, statements: OutboxStatements): Effect.Effect<OutboxStats, SqlError> =>
  Effect.gen(function* () {
    const [waiting] = yield* sql.unsafe<{ count: number }>(statements.countWaiting, [maxWaitingCount]).withoutTransform
    const [setAside] = yield* sql.unsafe<{ count: number }>(statements.countSetAside, [maxSetAsideCount])
      .withoutTransform
    const [oldest] = yield* sql.unsafe<{ age: number | null }>(statements.oldest).withoutTransform
    return {
      waiting: Number(waiting?.count ?? 0),
      oldestAge: Math.max(0, Math.round(Number(oldest?.age ?? 0))),
      setAside: Number(setAside?.count ?? 0)
    }
  })

/** Removes records of messages that were published long ago. Returns whether there may be more. */
const forgetBatch = (sql: SqlClient, statements: OutboxStatements, keepMillis: number) =>
  Effect.map(
    sql.unsafe(statements.forgetPublished, [keepMillis, cleanupBatch]).withoutTransform,
    (removed) => removed.length >= cleanupBatch
  )

export interface MonitorOptions {
  readonly sql: SqlClient
  readonly statements: OutboxStatements
  readonly watch: DatabaseWatch["watch"]
  readonly gauges: OutboxGauges
  /** Time between two counts, if it is shorter than 15 seconds. */
  readonly intervalMillis: number
  readonly report: (stats: OutboxStats) => Effect.Effect<void>
}

/** Counts what stands in the tables, for as long as the relay runs. */
export const monitor = ({
  gauges,
  intervalMillis,
  report,
  sql,
  statements,
  watch
}: MonitorOptions): Effect.Effect<never, SqlError> =>
  Effect.gen(function* () {
    const stats = yield* watch("count messages", statsOf(sql, statements))
    gauges.set(stats)
    yield* report(stats)
  }).pipe(
    Effect.andThen(Effect.sleep(Math.min(longestInterval, intervalMillis))),
    Effect.forever,
    // What was counted before is no longer known to be true.
    Effect.onError(() => Effect.sync(() => gauges.clear()))
  )

export interface CleanupOptions {
  readonly sql: SqlClient
  readonly statements: OutboxStatements
  readonly watch: DatabaseWatch["watch"]
  readonly forget: DatabaseWatch["forget"]
  readonly keepMillis: number
  /** Time between two rounds, if it is shorter than 15 seconds. */
  readonly intervalMillis: number
  /** Whether this relay cleans up: one of all relays does. */
  readonly cleansUp: () => boolean
}

/** Removes old records for as long as the relay runs. */
export const cleanup = ({
  cleansUp,
  forget,
  intervalMillis,
  keepMillis,
  sql,
  statements,
  watch
}: CleanupOptions): Effect.Effect<never, SqlError> => {
  // Each batch is a round: many take long, and are no failure.
  const batches = Effect.repeat(watch("remove old records", forgetBatch(sql, statements, keepMillis)), {
    while: (isFull) => isFull
  })
  return Effect.suspend((): Effect.Effect<unknown, SqlError> =>
    cleansUp() ? batches : forget("remove old records")
  ).pipe(Effect.andThen(Effect.sleep(Math.min(longestInterval, intervalMillis))), Effect.forever)
}
