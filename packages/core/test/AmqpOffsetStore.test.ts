/** One suite for every store of positions. */
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

    it.effect("is what was saved last under its name, also if it is lower, and zero is one", () =>
      Effect.gen(function* () {
        const store = yield* make
        for (const offset of [7, 0, Number.MAX_SAFE_INTEGER, 3]) {
          yield* store.save("orders", offset)
          assert.deepStrictEqual(yield* store.load("orders"), Option.some(offset))
        }
      })
    )

    it.effect("is apart from those of other names, whatever they have in them", () =>
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
  it.effect("survives the store that it was saved by", () =>
    Effect.gen(function* () {
      const at = yield* folder
      const first = yield* ofKeyValueStore(ofFiles(at))
      yield* first.save("orders", 41)
      const second = yield* ofKeyValueStore(Layer.fresh(ofFiles(at)))
      assert.deepStrictEqual(yield* second.load("orders"), Option.some(41))
    })
  )

  it.effect("is the text of a number under a prefix, and anything else there is an error that says where", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(KeyValueStore.layerMemory)
      const values = Effect.runSync(Effect.provideContext(KeyValueStore.KeyValueStore, context))
      const store = AmqpOffsetStore.fromKeyValueStore(values, { prefix: "app/" })
      yield* store.save("orders", 12)
      assert.strictEqual(yield* values.get("app/orders"), "12")
      for (const wrong of ["", "-1", "1.5", "1e3", "abc", "9007199254740993"]) {
        yield* values.set("app/orders", wrong)
        const error = yield* Effect.flip(store.load("orders"))
        assert.deepInclude(error, { _tag: "OffsetStoreError", operation: "load", name: "orders" })
        assert.include(error.message, "app/orders")
      }
    })
  )

  it.effect("that fails is an OffsetStoreError with its cause", () =>
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
