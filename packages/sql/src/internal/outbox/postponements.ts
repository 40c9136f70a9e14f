/**
 * Gathers rows that are to be postponed, and writes them together: when a queue is gone, thousands of messages are refused
 * at the same time, and a commit for each would take the database from others.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type OutboxStatements, type Postponement, postponeParameters } from "./statements.ts"

/** How long rows gather, in milliseconds. */
const gatherMillis = 10
const maxBatch = 1000

interface Batch {
  readonly rows: Array<Postponement>
  readonly written: Deferred.Deferred<void, SqlError>
}

export interface PostponementsOptions {
  readonly sql: SqlClient
  readonly statements: OutboxStatements
  /** Runs a batch. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

export class Postponements {
  readonly #options: PostponementsOptions
  #gathering: Batch | undefined

  constructor(options: PostponementsOptions) {
    this.#options = options
  }

  /** Completes when the row is written. */
  write(row: Postponement): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      const batch = this.#gathering ?? this.#begin()
      batch.rows.push(row)
      if (batch.rows.length === maxBatch) this.#gathering = undefined
      return Deferred.await(batch.written)
    })
  }

  #begin(): Batch {
    const { fork, sql, statements } = this.#options
    const batch: Batch = { rows: [], written: Deferred.makeUnsafe() }
    this.#gathering = batch
    fork(
      Effect.sleep(gatherMillis).pipe(
        Effect.andThen(
          Effect.suspend(() => {
            if (this.#gathering === batch) this.#gathering = undefined
            return sql.unsafe(statements.postpone, postponeParameters(statements, batch.rows))
          })
        ),
        Effect.asVoid,
        // The batch has ended, also if it was interrupted.
        Effect.onExit((exit) => Deferred.done(batch.written, exit)),
        Effect.ignoreCause
      )
    )
    return batch
  }
}
