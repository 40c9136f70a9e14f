/** Where positions in streams are kept. */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/**
 * Keeps positions by name.
 *
 * Implement it where positions belong: best in the database that the handlers write to. What `save` has succeeded with,
 * `load` finds after a restart. Both are interrupted after the connection's `continuationTimeout`, logged when they fail,
 * and tried again: a consumer does not begin before its position is loaded, and goes on while it cannot be saved.
 *
 * @example
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
 */
export interface OffsetStore<out E = unknown> {
  /** The position that was saved last under this name; none: there is no such name. From 0, an integer. */
  readonly load: (name: string) => Effect.Effect<Option.Option<number | bigint>, E>
  /** Saves a position. It replaces the one before, which may have been higher. */
  readonly save: (name: string, offset: number) => Effect.Effect<unknown, E>
}
