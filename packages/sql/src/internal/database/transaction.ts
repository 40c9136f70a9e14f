/** Transactions that fail with what has failed in them. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

/**
 * Runs an effect in a transaction. It fails as the effect has failed, also if the rollback fails, which
 * `withTransaction` turns into a defect: then the connection is lost, and the database rolls back.
 */
export const inTransaction = <A, E, R>(
  sql: Pick<SqlClient, "withTransaction">,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.suspend(() => {
    let failure: Cause.Cause<E> | undefined
    const observed = Effect.onError(effect, (cause) =>
      Effect.sync(() => {
        failure = cause
      })
    )
    return Effect.catchCause(sql.withTransaction(observed), (cause) => Effect.failCause(failure ?? cause))
  })
