/** Removes records that are old. */
import * as Effect from "effect/Effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { explainMissingTable } from "../database/errors.ts"
import type { InboxStatements } from "./statements.ts"

const batchSize = 1000
/** Pause between two batches, so that removing never takes the database from the handlers. In milliseconds. */
const batchPause = 100
const interval = 5 * 60_000
/** The latest first round, so that an application that is restarted often removes too. */
const latestStart = 60_000

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
 * batch, finds nothing left of it, and is done.
 */
export const keepRemoving = (options: RetentionOptions): Effect.Effect<never> =>
  Effect.suspend(() => Effect.sleep(Math.random() * latestStart)).pipe(
    Effect.andThen(
      Effect.forever(
        removeOld(options).pipe(
          Effect.catchCause((cause) =>
            Effect.logWarning("AMQP inbox could not remove old records, and tries again in some minutes", cause)
          ),
          Effect.andThen(Effect.suspend(() => Effect.sleep(interval * (0.5 + Math.random()))))
        )
      )
    )
  )
