/**
 * Stores in which consumers of streams save their positions, so that they continue there after a restart.
 *
 * **When to use**
 *
 * Use with the option `offsets` of `AmqpConsumer.consume`, to handle every message of a stream across restarts.
 *
 * **Details**
 *
 * A position is the lowest offset that is not handled yet: everything below it is. It is saved under a name that the
 * application chooses and that stays the same at each start, one name per consumer and stream.
 *
 * Positions are saved after the work. So after a crash the messages that were handled since the last save are handled
 * again: at least once, as everywhere. The option `offsets` sets how often positions are saved.
 *
 * A store runs in Effect 3, with the fiber references of the fiber that called `consume`.
 *
 * **Gotchas**
 *
 * Two consumers that run at the same time must not share a name: the later save wins, and messages that the other
 * consumer has not handled may be passed over.
 *
 * @see {@link OffsetStore} for the interface of a store
 * @see {@link fromKeyValueStore} for a store on files or SQL
 * @see {@link memory} for a store in memory
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { inKeyValues } from "./internal/offsets.ts"
import type { OffsetStore } from "./model/offsetStore.ts"

export * from "./model/offsetStore.ts"

/**
 * The error of a position that could not be loaded or saved.
 *
 * **When to use**
 *
 * Use as the error of a store of your own, or to handle the failures of `fromKeyValueStore`.
 *
 * @see {@link fromKeyValueStore}
 *
 * @category errors
 * @since 0.1.0
 */
export class OffsetStoreError extends Data.TaggedError("OffsetStoreError")<{
  readonly message: string
  readonly operation: "load" | "save"
  /** The name of the position. */
  readonly name: string
  readonly cause?: unknown
}> {}

/**
 * The part of a `KeyValueStore` of `@effect/platform` that `fromKeyValueStore` uses.
 *
 * **When to use**
 *
 * Use for a store of keys and values that is not a `KeyValueStore`.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyValues<out E = unknown> {
  /** The value of a key; none if the key does not exist. */
  readonly get: (key: string) => Effect.Effect<Option.Option<string>, E>
  /** Sets the value of a key. */
  readonly set: (key: string, value: string) => Effect.Effect<unknown, E>
}

/**
 * Stores positions in memory.
 *
 * **When to use**
 *
 * Use for tests, and to continue where an earlier consumer of the same process has ended.
 *
 * **Example** (Continuing within a process)
 *
 * ```ts
 * import { AmqpConsumer, AmqpOffsetStore } from "@effect-amqp/platform"
 * import { Effect } from "effect"
 *
 * declare const handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void>
 *
 * const store = AmqpOffsetStore.memory()
 * const consume = AmqpConsumer.consume("events", handle, { offset: "first", offsets: { store, name: "events" } })
 * ```
 *
 * @see {@link fromKeyValueStore} for positions that survive a restart
 *
 * @category constructors
 * @since 0.1.0
 */
export const memory = (): OffsetStore<never> => {
  const positions = new Map<string, number>()
  return {
    load: (name) => Effect.sync(() => Option.fromNullable(positions.get(name))),
    save: (name, offset) => Effect.sync(() => void positions.set(name, offset))
  }
}

/**
 * Stores positions in a `KeyValueStore` of `@effect/platform`: files, SQL, or another implementation.
 *
 * **When to use**
 *
 * Use for positions that survive a restart. Where handlers write to a database, an `OffsetStore` on that database is
 * better.
 *
 * **Details**
 *
 * Each name has two keys under `prefix`, which are written in turn. A store that writes in place, such as the one on
 * files, may be interrupted in the middle of a write; the other key then still has the previous position. The core's
 * `fromKeyValueStore` reads and writes the same.
 *
 * Loading and saving fail with `OffsetStoreError` if the store fails, or if what it has under the keys is not a
 * position.
 *
 * **Gotchas**
 *
 * The `KeyValueStore` decides how durable a position is: the one on files does not wait until the data is on disk.
 *
 * **Example** (Storing positions in files)
 *
 * ```ts
 * import { KeyValueStore } from "@effect/platform"
 * import { NodeContext } from "@effect/platform-node"
 * import { AmqpConsumer, AmqpOffsetStore } from "@effect-amqp/platform"
 * import { Effect, Layer } from "effect"
 *
 * declare const handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void>
 *
 * const program = Effect.gen(function* () {
 *   const store = AmqpOffsetStore.fromKeyValueStore(yield* KeyValueStore.KeyValueStore)
 *   return yield* AmqpConsumer.consume("events", handle, { offset: "first", offsets: { store, name: "billing" } })
 * })
 *
 * const files = KeyValueStore.layerFileSystem("positions").pipe(Layer.provide(NodeContext.layer))
 * const main = Effect.provide(program, files)
 * ```
 *
 * @see {@link memory} for tests
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromKeyValueStore = (
  store: KeyValues,
  options?: {
    /** Prefix of each key. Default: `"amqp-offset/"`. */
    readonly prefix?: string | undefined
  }
): OffsetStore<OffsetStoreError> => {
  const { load, save } = inKeyValues(store, options)
  const failed = ({
    cause,
    message,
    name,
    operation
  }: Pick<OffsetStoreError, "message" | "name" | "operation" | "cause">) =>
    new OffsetStoreError({ message, name, operation, ...(cause === undefined ? undefined : { cause }) })
  return {
    load: (name) => Effect.mapError(load(name), failed),
    save: (name, offset) => Effect.mapError(save(name, offset), failed)
  }
}
