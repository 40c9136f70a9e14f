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
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
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
export class OffsetStoreError extends Schema.TaggedError<OffsetStoreError>("@effect-amqp/core/OffsetStoreError")(
  "OffsetStoreError",
  {
    message: Schema.String,
    operation: Schema.Literals(["load", "save"]),
    /** The name of the position. */
    name: Schema.String,
    cause: Schema.optional(Schema.Defect())
  }
) {}

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
 * import { AmqpConsumer, AmqpOffsetStore } from "@effect-amqp/core"
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
    load: (name) => Effect.sync(() => Option.fromUndefinedOr(positions.get(name))),
    save: (name, offset) =>
      Effect.sync(() => {
        positions.set(name, offset)
      })
  }
}

/**
 * Stores positions in a `KeyValueStore` of `effect/persistence`: files, SQL, or another implementation.
 *
 * **When to use**
 *
 * Use for positions that survive a restart. Where handlers write to a database, an `OffsetStore` on that database is
 * better.
 *
 * **Details**
 *
 * Each name has two keys under `prefix`, which are written in turn. A store that writes in place, such as the one on
 * files, may be interrupted in the middle of a write; the other key then still has the previous position.
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
 * import { NodeFileSystem, NodePath } from "@effect/platform-node"
 * import { AmqpConsumer, AmqpOffsetStore } from "@effect-amqp/core"
 * import { Effect, Layer } from "effect"
 * import { KeyValueStore } from "effect/persistence"
 *
 * declare const handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void>
 *
 * const program = Effect.gen(function* () {
 *   const store = AmqpOffsetStore.fromKeyValueStore(yield* KeyValueStore.KeyValueStore)
 *   return yield* AmqpConsumer.consume("events", handle, { offset: "first", offsets: { store, name: "billing" } })
 * })
 *
 * const files = KeyValueStore.layerFileSystem("positions").pipe(
 *   Layer.provide(Layer.mergeAll(NodeFileSystem.layer, NodePath.layer))
 * )
 * const main = Effect.provide(program, files)
 * ```
 *
 * @see {@link memory} for tests
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromKeyValueStore = (
  store: KeyValueStore.KeyValueStore,
  options?: {
    /** Prefix of each key. Default: `"amqp-offset/"`. */
    readonly prefix?: string | undefined
  }
): OffsetStore<OffsetStoreError> => {
  const prefix = options?.prefix ?? "amqp-offset/"
  const failed = (operation: "load" | "save", name: string) => (cause: KeyValueStore.KeyValueStoreError) =>
    new OffsetStoreError({
      message: `${operation} of ${JSON.stringify(name)}: ${cause.message}`,
      operation,
      name,
      cause
    })
  const keysOf = (name: string) => [`${prefix}a/${name}`, `${prefix}b/${name}`] as const
  /** What was written last under each name, by this process or by an earlier one. */
  const latest = new Map<string, Written>()

  const look = (operation: "load" | "save", name: string): Effect.Effect<Written | undefined, OffsetStoreError> => {
    const keys = keysOf(name)
    return Effect.flatMap(
      Effect.mapError(Effect.all([store.get(keys[0]), store.get(keys[1])]), failed(operation, name)),
      ([a, b]) => {
        const found = [read(a, 0), read(b, 1)].filter((written) => written !== undefined)
        const [first, second] = found
        if (first !== undefined)
          return Effect.succeed(second !== undefined && second.count > first.count ? second : first)
        // The first save was interrupted in the middle of its write.
        if ((a === undefined || isCutOff(a)) && b === undefined) return Effect.undefined
        const message = `${operation} of ${JSON.stringify(name)}: expected a position, got ${JSON.stringify((a ?? b ?? "").slice(0, 60))}. To start without a saved position, remove the keys ${keys.map((key) => JSON.stringify(key)).join(" and ")}.`
        return Effect.fail(new OffsetStoreError({ message, operation, name }))
      }
    )
  }

  return {
    load: (name) =>
      Effect.map(look("load", name), (written) => {
        if (written === undefined) {
          latest.delete(name)
          return Option.none()
        }
        latest.set(name, written)
        return Option.some(written.offset)
      }),
    save: (name, offset) =>
      Effect.gen(function* () {
        const before = latest.get(name) ?? (yield* look("save", name))
        const written: Written = {
          keyIndex: before?.keyIndex === 0 ? 1 : 0,
          count: (before?.count ?? 0) + 1,
          offset
        }
        const { count, keyIndex } = written
        yield* Effect.mapError(store.set(keysOf(name)[keyIndex], `${count}/${offset}/${count}`), failed("save", name))
        latest.set(name, written)
      })
  }
}

/** A position as it was written: under which of the two keys, and as which save of its name, counted from 1. */
interface Written {
  readonly keyIndex: 0 | 1
  readonly count: number
  readonly offset: number
}

// The count is written before and after the offset: a write that was cut off lacks the second one.
const read = (text: string | undefined, keyIndex: 0 | 1): Written | undefined => {
  const [, count, offset] = /^(\d{1,16})\/(\d{1,16})\/\1$/.exec(text ?? "") ?? []
  const written = { keyIndex, count: Number(count), offset: Number(offset) }
  return Number.isSafeInteger(written.count) && Number.isSafeInteger(written.offset) ? written : undefined
}

const isCutOff = (text: string): boolean => /^(\d{1,16}(\/(\d{1,16}(\/\d{0,16})?)?)?)?$/.test(text)
