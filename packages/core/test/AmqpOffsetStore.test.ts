/** One suite for every offset store. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpOffsetStore } from "@effect-amqp/core"
import { NodeFileSystem, NodePath } from "@effect/platform-node"
import { Effect, Exit, Layer, Option } from "effect"
import { KeyValueStore } from "effect/persistence"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "offsets-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

const ofFiles = (folder: string) =>
  KeyValueStore.layerFileSystem(folder).pipe(Layer.provide(Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)))

const ofKeyValueStore = (layer: Layer.Layer<KeyValueStore.KeyValueStore, unknown>) =>
  Effect.map(Layer.build(layer), (context) =>
    AmqpOffsetStore.fromKeyValueStore(Effect.runSync(Effect.provideContext(KeyValueStore.KeyValueStore, context)))
  )

const stores = {
  "in memory": Effect.sync(() => AmqpOffsetStore.memory()),
  "in a KeyValueStore": Effect.suspend(() => ofKeyValueStore(KeyValueStore.layerMemory)),
  "in files": Effect.flatMap(folder, (folder) => ofKeyValueStore(ofFiles(folder)))
}

for (const [name, make] of Object.entries(stores)) {
  describe(`a position ${name}`, () => {
    it.effect("that was never saved is none", () =>
      Effect.gen(function* () {
        const store = yield* make
        assert.deepStrictEqual(yield* store.load("orders"), Option.none())
      })
    )

    it.effect("is what was saved last under its name, also if it is lower, and zero is a position", () =>
      Effect.gen(function* () {
        const store = yield* make
        for (const offset of [7, 0, Number.MAX_SAFE_INTEGER, 3]) {
          yield* store.save("orders", offset)
          assert.deepStrictEqual(yield* store.load("orders"), Option.some(offset))
        }
      })
    )

    it.effect("is independent of those with other names, whatever characters the names contain", () =>
      Effect.gen(function* () {
        const store = yield* make
        const names = ["orders", "orders/eu", "../orders", "Ören", "a b", "__proto__", "x".repeat(200)]
        for (const [offset, name] of names.entries()) yield* store.save(name, offset)
        for (const [offset, name] of names.entries()) {
          assert.deepStrictEqual(yield* store.load(name), Option.some(offset), name)
        }
      })
    )
  })
}

describe("a position in a KeyValueStore", () => {
  it.effect("outlives the store that saved it", () =>
    Effect.gen(function* () {
      const at = yield* folder
      const first = yield* ofKeyValueStore(ofFiles(at))
      yield* first.save("orders", 41)
      const second = yield* ofKeyValueStore(Layer.fresh(ofFiles(at)))
      assert.deepStrictEqual(yield* second.load("orders"), Option.some(41))
    })
  )

  it.effect("is the previous one if a save was cut off in the middle, after whichever write", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(KeyValueStore.layerMemory)
      const values = Effect.runSync(Effect.provideContext(KeyValueStore.KeyValueStore, context))
      // The process dies after `left` characters of a text were written.
      let left = Infinity
      const dying: KeyValueStore.KeyValueStore = {
        ...values,
        set: (key, text) => values.set(key, (text as string).slice(0, left))
      }
      for (let whole = 0; whole < 4; whole++) {
        const complete = `${whole + 1}/123/${whole + 1}`.length
        for (left = 0; left < complete; left++) {
          const name = `${whole} ${left}`
          const cut = left
          left = Infinity
          const before = AmqpOffsetStore.fromKeyValueStore(dying, { prefix: "app/" })
          for (let n = 0; n < whole; n++) yield* before.save(name, 100 + n)
          left = cut
          yield* before.save(name, 123)
          left = Infinity
          const after = AmqpOffsetStore.fromKeyValueStore(dying, { prefix: "app/" })
          const expected = whole === 0 ? Option.none() : Option.some(99 + whole)
          assert.deepStrictEqual(yield* after.load(name), expected, name)
          // It continues from there.
          for (const offset of [7, 8]) {
            yield* after.save(name, offset)
            const next = AmqpOffsetStore.fromKeyValueStore(dying, { prefix: "app/" })
            assert.deepStrictEqual(yield* next.load(name), Option.some(offset), name)
          }
          left = cut
        }
      }
    })
  )

  it.effect("continues from its last value, also in a store that saves before it loads", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(KeyValueStore.layerMemory)
      const values = Effect.runSync(Effect.provideContext(KeyValueStore.KeyValueStore, context))
      for (const offset of [5, 3, 9, 1]) {
        yield* AmqpOffsetStore.fromKeyValueStore(values).save("orders", offset)
        assert.deepStrictEqual(yield* AmqpOffsetStore.fromKeyValueStore(values).load("orders"), Option.some(offset))
      }
    })
  )

  it.effect("that is malformed is an error that says where it is", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(KeyValueStore.layerMemory)
      const values = Effect.runSync(Effect.provideContext(KeyValueStore.KeyValueStore, context))
      const store = AmqpOffsetStore.fromKeyValueStore(values, { prefix: "app/" })
      for (const wrong of ["abc", "-1/1/-1", "1/1.5/1", "1/1e3/1", "1/2/3x"]) {
        yield* values.set("app/a/orders", wrong)
        const error = yield* Effect.flip(store.load("orders"))
        assert.deepInclude(error, { _tag: "OffsetStoreError", operation: "load", name: "orders" })
        assert.include(error.message, "app/a/orders")
      }
    })
  )

  it.effect("that cannot be read or saved is an OffsetStoreError with its cause", () =>
    Effect.gen(function* () {
      const cause = new KeyValueStore.KeyValueStoreError({ message: "disk full", method: "set" })
      const failing = KeyValueStore.make({
        get: () => Effect.fail(cause),
        set: () => Effect.fail(cause)
      } as unknown as KeyValueStore.MakeOptions)
      const store = AmqpOffsetStore.fromKeyValueStore(failing)
      for (const [operation, attempt] of [
        ["load", store.load("orders")],
        ["save", store.save("orders", 1)]
      ] as const) {
        const error = yield* Effect.flip(attempt as Effect.Effect<unknown, AmqpOffsetStore.OffsetStoreError>)
        assert.deepInclude(error, { operation, name: "orders", cause })
        assert.include(error.message, "disk full")
      }
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.load("orders"))))
    })
  )
})
