/** The interface of stores for positions in streams. */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/**
 * Stores positions in streams by name.
 *
 * **When to use**
 *
 * Implement it where positions belong, best in the database that the handlers write to. `AmqpOffsetStore.memory` and
 * `AmqpOffsetStore.fromKeyValueStore` are ready implementations.
 *
 * **Details**
 *
 * What `save` has succeeded with, `load` must find after a restart.
 *
 * Consumers interrupt both operations after the connection's `continuationTimeout`, log their failures, and try them
 * again. A consumer does not begin before its position is loaded, and continues while its position cannot be saved.
 *
 * **Example** (Storing positions in a SQL database)
 *
 * ```ts
 * import type { AmqpOffsetStore } from "@effect-amqp/core"
 * import { Effect, Option } from "effect"
 * import { SqlClient } from "effect/sql"
 *
 * const make = Effect.gen(function* () {
 *   const sql = yield* SqlClient.SqlClient
 *   const store: AmqpOffsetStore.OffsetStore = {
 *     load: (name) =>
 *       Effect.map(sql<{ position: number }>`SELECT position FROM positions WHERE name = ${name}`, ([row]) =>
 *         row === undefined ? Option.none() : Option.some(Number(row.position))
 *       ),
 *     save: (name, offset) =>
 *       sql`INSERT INTO positions ${sql.insert({ name, position: offset })}
 *         ON CONFLICT (name) DO UPDATE SET position = excluded.position`
 *   }
 *   return store
 * })
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface OffsetStore<out E = unknown> {
  /** Loads the position that was saved last under this name, an integer from 0; none if there is no such name. */
  readonly load: (name: string) => Effect.Effect<Option.Option<number | bigint>, E>
  /** Saves a position. It replaces the previous position, which may have been higher. */
  readonly save: (name: string, offset: number) => Effect.Effect<unknown, E>
}
