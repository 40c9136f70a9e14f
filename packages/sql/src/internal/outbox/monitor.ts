/** Counts what waits and what is set aside, reports it, and removes the records of published messages that are old. */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { gaugesOf } from "./metrics.ts"
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

/** Removes the records of messages that were published long ago, in batches. */
export const forgetPublished = (
  sql: SqlClient,
  statements: OutboxStatements,
  keepMillis: number
): Effect.Effect<void, SqlError> =>
  sql
    .unsafe(statements.forgetPublished, [keepMillis, cleanupBatch])
    .withoutTransform.pipe(Effect.repeat({ while: (removed) => removed.length >= cleanupBatch }), Effect.asVoid)

export interface MonitorOptions {
  readonly sql: SqlClient
  readonly statements: OutboxStatements
  readonly keepMillis: number | undefined
  /** Time between two counts, if it is shorter than 15 seconds. */
  readonly intervalMillis: number
  readonly report: (stats: OutboxStats) => Effect.Effect<void>
  /** Whether this relay cleans up: one of all relays does. */
  readonly cleansUp: () => boolean
}

/** Watches the tables for as long as the relay runs. A failure of the database is reported by the relay's other parts. */
export const monitor = ({
  cleansUp,
  intervalMillis,
  keepMillis,
  report,
  sql,
  statements
}: MonitorOptions): Effect.Effect<never> => {
  const gauges = gaugesOf(statements.table)
  return Effect.gen(function* () {
    const stats = yield* statsOf(sql, statements)
    yield* Metric.update(gauges.waiting, stats.waiting)
    yield* Metric.update(gauges.oldestAge, stats.oldestAge / 1000)
    yield* Metric.update(gauges.setAside, stats.setAside)
    yield* report(stats)
    if (keepMillis !== undefined && cleansUp()) yield* forgetPublished(sql, statements, keepMillis)
  }).pipe(Effect.ignore, Effect.andThen(Effect.sleep(Math.min(longestInterval, intervalMillis))), Effect.forever)
}
