/**
 * Where consumers of streams keep their positions, so that a restart goes on where they were.
 *
 * A position is the lowest offset that is not handled yet: everything below it is. It is kept under a name that the
 * application chooses and that stays the same at each start, one per consumer and stream. Two consumers that run at the same
 * time must not share a name: the later save wins, and what the other one has not handled may be passed over.
 *
 * Positions are saved behind the work, so after a crash what was handled since the last save is handled again: at least
 * once, as everywhere. How often they are saved is an option of the consumer (`offsets` of `AmqpConsumer.consume`).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"

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

/** A position could not be loaded or saved. */
export class OffsetStoreError extends Schema.TaggedError<OffsetStoreError>("@effect-amqp/core/OffsetStoreError")(
  "OffsetStoreError",
  {
    message: Schema.String,
    operation: Schema.Literals(["load", "save"]),
    name: Schema.String,
    cause: Schema.optional(Schema.Defect())
  }
) {}

/**
 * Keeps positions in memory: for tests, and to go on from an earlier consumer of the same process.
 *
 * @example
 * ```ts
 * import { AmqpConsumer, AmqpOffsetStore } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * declare const handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void>
 *
 * const store = AmqpOffsetStore.memory()
 * const consume = AmqpConsumer.consume("events", handle, { offset: "first", offsets: { store, name: "events" } })
 * ```
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
 * Keeps positions in a `KeyValueStore` of `effect/persistence`: files, SQL, or what else implements it.
 *
 * A position is the text of a number under `prefix` and the name. Fails with `OffsetStoreError`, also for a value that is no
 * offset. The store decides how durable it is: the one on files does not wait until the disk has it.
 *
 * @example
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
 */
export const fromKeyValueStore = (
  store: KeyValueStore.KeyValueStore,
  options?: {
    /** Put before each name. Default: `"amqp-offset/"`. */
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
  return {
    load: (name) =>
      Effect.flatMap(Effect.mapError(store.get(prefix + name), failed("load", name)), (text) => {
        if (text === undefined) return Effect.succeedNone
        const offset = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
        if (Number.isSafeInteger(offset)) return Effect.succeedSome(offset)
        const message = `load of ${JSON.stringify(name)}: expected an offset from 0, got ${JSON.stringify(text.slice(0, 60))}: correct or remove the key ${JSON.stringify(prefix + name)}`
        return Effect.fail(new OffsetStoreError({ message, operation: "load", name }))
      }),
    save: (name, offset) => Effect.mapError(store.set(prefix + name, String(offset)), failed("save", name))
  }
}
