/** Reports a relay whose work on the database fails or does not end for long to health, the dashboard and metrics. */
import { AmqpConnection } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { monotonicMillis } from "../monotonicMillis.ts"
import { failureText } from "../database/errors.ts"

/** The parts of a relay's work on the database, in the words of logs and conditions. */
export type Work =
  | "renew its leases"
  | "read messages"
  | "remove published messages"
  | "count messages"
  | "remove old records"

export interface DatabaseWatch {
  /** Runs one round of a part of the work, and notes how it ends. */
  readonly watch: <A, E, R>(work: Work, round: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** This relay does not do this part for now, so its last failure says nothing. */
  readonly forget: (work: Work) => Effect.Effect<void>
  /** Checks and reports, for as long as it runs. */
  readonly run: Effect.Effect<never>
}

/** How long a part has failed without a success when the condition appears. */
const longestPatience = 10_000
const checkInterval = 1000

/** A part that has begun and has not succeeded since. */
interface Open {
  /** By the monotonic clock, in milliseconds. */
  readonly begunAt: number
  readonly begunDate: Date
  reason: string | undefined
}

/** Watches the work of one relay. The condition is cleared when the scope closes. */
export const databaseWatch = (
  table: string,
  alarmMillis: number
): Effect.Effect<DatabaseWatch, never, AmqpConnection.AmqpConnection | Scope.Scope> =>
  Effect.gen(function* () {
    const condition = yield* AmqpConnection.conditionReporter
    const clock = yield* Clock.Clock
    const now = () => monotonicMillis(clock)
    const patience = Math.min(longestPatience, alarmMillis)
    const open = new Map<Work, Open>()
    const check = Effect.suspend(() => {
      const overdue = Array.from(open).filter(([, { begunAt }]) => now() - begunAt >= patience)
      if (overdue.length === 0) return condition.clear
      const since = new Date(Math.min(...overdue.map(([, { begunDate }]) => begunDate.getTime())))
      const reason =
        overdue.find((entry) => entry[1].reason !== undefined)?.[1].reason ?? "the database does not answer"
      return condition.report({
        kind: "OutboxDatabaseFailed",
        message: `${table}: the relay has not been able to ${overdue.map(([work]) => work).join(", ")} since ${since.toISOString()}: ${reason}. Check that the database answers, that the tables exist, and that its user has the permissions. The relay tries again automatically`,
        notReady: false
      })
    })
    const forget = (work: Work) =>
      Effect.suspend(() => {
        const was = open.get(work)
        open.delete(work)
        return was !== undefined && now() - was.begunAt >= patience ? check : Effect.void
      })
    return {
      watch: (work, round) =>
        Effect.suspend(() => {
          if (!open.has(work)) {
            const begunDate = new Date(clock.currentTimeMillisUnsafe())
            open.set(work, { begunAt: now(), begunDate, reason: undefined })
          }
          return Effect.onExit(round, (exit) => {
            if (Exit.isSuccess(exit)) return forget(work)
            const known = open.get(work)
            if (known !== undefined && !Cause.hasInterruptsOnly(exit.cause))
              known.reason = failureText(exit.cause, table)
            return Effect.void
          })
        }),
      forget,
      run: Effect.forever(Effect.andThen(Effect.sleep(checkInterval), check))
    }
  })
