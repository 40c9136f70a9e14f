/** Removes records that are old. */
import { AmqpConnection } from "@effect-amqp/core"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { explainMissingTable, failureText } from "../database/errors.ts"
import type { InboxStatements } from "./statements.ts"

const batchSize = 1000
/** Pause between two batches, so that removing never takes the database from the handlers. In milliseconds. */
const batchPause = 100
const interval = 5 * 60_000
/** The latest first round, so that an application that is restarted often removes too. */
const latestStart = 60_000
/** Number of failures in succession from which health reports them. */
const failuresToReport = 2

export interface RetentionOptions {
  readonly sql: SqlClient
  readonly statements: InboxStatements
  /** The consumer, as it is stored. */
  readonly consumer: string
  readonly retentionMillis: number
}

/** Removes the records of a consumer that are older than the retention, in batches. */
export const removeOld = ({
  consumer,
  retentionMillis,
  sql,
  statements
}: RetentionOptions): Effect.Effect<void, SqlError> =>
  sql.unsafe(statements.removeOld, [consumer, retentionMillis, batchSize]).withoutTransform.pipe(
    Effect.map(({ length }) => length >= batchSize),
    Effect.tap((isFull) => (isFull ? Effect.sleep(batchPause) : Effect.void)),
    Effect.repeat({ while: (isFull) => isFull }),
    Effect.mapError(explainMissingTable(statements.table)),
    Effect.asVoid
  )

/**
 * Removes old records every 2.5 to 7.5 minutes. Each consumer does: of two at the same time one waits for the other's
 * batch, finds nothing left of it, and is done. Two failures in succession are a condition.
 */
export const keepRemoving = (options: RetentionOptions): Effect.Effect<never, never, Scope.Scope> =>
  Effect.gen(function* () {
    const condition = yield* reporter
    let failures = 0
    const failed = (cause: Cause.Cause<SqlError>) =>
      Effect.andThen(
        Effect.logWarning("AMQP inbox could not remove old records, and tries again in some minutes", cause),
        Effect.suspend(() => (++failures < failuresToReport ? Effect.void : condition.report(textOf(options, cause))))
      )
    const succeeded = Effect.suspend(() => {
      failures = 0
      return condition.clear
    })
    yield* Effect.sleep(Math.random() * latestStart)
    return yield* Effect.forever(
      Effect.matchCauseEffect(removeOld(options), { onFailure: failed, onSuccess: () => succeeded }).pipe(
        Effect.andThen(Effect.suspend(() => Effect.sleep(interval * (0.5 + Math.random()))))
      )
    )
  })

/** A consumer may be made without the services around it: then nothing is reported. */
const reporter: Effect.Effect<AmqpConnection.ConditionReporter, never, Scope.Scope> = Effect.flatMap(
  Effect.serviceOption(AmqpConnection.AmqpConnection),
  Option.match({
    onNone: () => Effect.succeed({ report: () => Effect.void, clear: Effect.void }),
    onSome: (connection) =>
      Effect.provideService(AmqpConnection.conditionReporter, AmqpConnection.AmqpConnection, connection)
  })
)

const textOf = ({ consumer, statements }: RetentionOptions, cause: Cause.Cause<SqlError>) => ({
  kind: "InboxCleanupFailed",
  message: `${statements.table}: the old records of consumer ${JSON.stringify(consumer)} could not be removed, several times in succession, and the table grows: ${failureText(cause, statements.table)}. Check that the database answers, that the table exists, and that its user may delete from it. It is tried again every few minutes`,
  notReady: false
})
