/**
 * The interface of stores for positions in streams.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
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
 * @category models
 * @since 0.1.0
 */
export interface OffsetStore<out E = unknown> {
  /** Loads the position that was saved last under this name, an integer from 0; none if there is no such name. */
  readonly load: (name: string) => Effect.Effect<Option.Option<number | bigint>, E>
  /** Saves a position. It replaces the previous position, which may have been higher. */
  readonly save: (name: string, offset: number) => Effect.Effect<unknown, E>
}
