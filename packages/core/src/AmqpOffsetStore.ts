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
import type { OffsetStore } from "./model/offsetStore.ts"

export * from "./model/offsetStore.ts"

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
 * A name has two places under `prefix`, which are written in turn: a store that writes in place, such as the one on files, may
 * be cut off in the middle of it, and the other place has the position before. Fails with `OffsetStoreError`, also where what
 * is found is no position. The store decides how durable a position is: the one on files does not wait until the disk has it.
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
  const placesOf = (name: string) => [`${prefix}a/${name}`, `${prefix}b/${name}`] as const
  /** What was written last under each name, by this process or before. */
  const latest = new Map<string, Written>()

  const look = (operation: "load" | "save", name: string): Effect.Effect<Written | undefined, OffsetStoreError> => {
    const places = placesOf(name)
    return Effect.flatMap(
      Effect.mapError(Effect.all([store.get(places[0]), store.get(places[1])]), failed(operation, name)),
      ([a, b]) => {
        const found = [read(a, 0), read(b, 1)].filter((written) => written !== undefined)
        const [first, second] = found
        if (first !== undefined)
          return Effect.succeed(second !== undefined && second.count > first.count ? second : first)
        // A first save that was cut off.
        if ((a === undefined || isCutOff(a)) && b === undefined) return Effect.undefined
        const message = `${operation} of ${JSON.stringify(name)}: expected a position, got ${JSON.stringify((a ?? b ?? "").slice(0, 60))}: remove the keys ${places.map((place) => JSON.stringify(place)).join(" and ")} to begin anew`
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
          place: before?.place === 0 ? 1 : 0,
          count: (before?.count ?? 0) + 1,
          offset
        }
        const { count, place } = written
        yield* Effect.mapError(store.set(placesOf(name)[place], `${count}/${offset}/${count}`), failed("save", name))
        latest.set(name, written)
      })
  }
}

/** A position as it was written: which save of its name it was, from 1, and in which place. */
interface Written {
  readonly place: 0 | 1
  readonly count: number
  readonly offset: number
}

// The count stands at both ends: one that is cut off lacks the second.
const read = (text: string | undefined, place: 0 | 1): Written | undefined => {
  const [, count, offset] = /^(\d{1,16})\/(\d{1,16})\/\1$/.exec(text ?? "") ?? []
  const written = { place, count: Number(count), offset: Number(offset) }
  return Number.isSafeInteger(written.count) && Number.isSafeInteger(written.offset) ? written : undefined
}

const isCutOff = (text: string): boolean => /^(\d{1,16}(\/(\d{1,16}(\/\d{0,16})?)?)?)?$/.test(text)
