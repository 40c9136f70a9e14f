// Positions of stream consumers, in stores of Effect 3.
import { KeyValueStore } from "@effect/platform"
import { AmqpChannel, AmqpConsumer, AmqpMessage, AmqpOffsetStore, AmqpPublisher } from "@effect-amqp/platform"
import { AmqpOffsetStore as CoreStore } from "@effect-amqp/core"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Option4 from "@effect-amqp/effect4/Option"
import { assert, describe, it, layer } from "@effect/vitest"
import { Data, Effect, Fiber, FiberRef, Option, Queue, Stream } from "effect"
import * as Application from "./support/application.ts"

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => String(from + i))

const declareStream = (name: string, contents: ReadonlyArray<string>) =>
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(name, { queueType: "stream" }))).pipe(
    Effect.zipRight(
      Stream.runDrain(AmqpPublisher.publishAll(contents.map((content) => ({ routingKey: name, content }))))
    )
  )

const into = (got: Queue.Queue<string>) => (delivery: AmqpConsumer.Delivery) => got.offer(AmqpMessage.text(delivery))

class Away extends Data.TaggedError("Away")<{}> {}

describe("the position of a stream's consumer", () => {
  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("is saved when the consumer ends, and the next one continues there", () =>
      Effect.gen(function* () {
        yield* declareStream("positions", numbers(6))
        const store = AmqpOffsetStore.memory()
        const got = yield* Queue.unbounded<string>()
        const consume = AmqpConsumer.consume(
          "positions",
          (delivery) => (AmqpMessage.text(delivery) === "4" ? Effect.fail("broken") : into(got)(delivery)),
          { offset: "first", offsets: { store, name: "reader" } }
        )
        const error = yield* Effect.flip(consume)
        assert(error.reason._tag === "StreamStopped")
        assert.strictEqual(error.reason.offset, 4)
        assert.deepStrictEqual([...(yield* Queue.takeAll(got))], numbers(4))
        assert.deepStrictEqual(yield* store.load("reader"), Option.some(4))
        yield* Effect.forkScoped(
          AmqpConsumer.consume("positions", into(got), { offset: "first", offsets: { store, name: "reader" } })
        )
        assert.deepStrictEqual([...(yield* Queue.takeN(got, 2))], numbers(2, 4))
      })
    )

    it.scoped("is loaded and saved by effects with the fiber references of the caller, which are tried again", () =>
      Effect.gen(function* () {
        yield* declareStream("tried", numbers(3))
        const tenant = yield* FiberRef.make("none")
        const calls: Array<string> = []
        const failOnce = (call: string) =>
          Effect.flatMap(FiberRef.get(tenant), (tenant) => {
            calls.push(`${call} ${tenant}`)
            return calls.filter((each) => each.startsWith(call)).length === 1 ? new Away() : Effect.void
          })
        const store: AmqpOffsetStore.OffsetStore<Away> = {
          load: () => Effect.as(failOnce("load"), Option.some(1n)),
          save: (_, offset) => failOnce(`save ${offset}`)
        }
        const got = yield* Queue.unbounded<string>()
        const fiber = yield* AmqpConsumer.consume("tried", into(got), {
          offset: "first",
          offsets: { store, name: "reader", saveWithin: "10 millis", saveEvery: 2 }
        }).pipe(Effect.locally(tenant, "acme"), Effect.fork)
        assert.deepStrictEqual([...(yield* Queue.takeN(got, 2))], numbers(2, 1))
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(calls, ["load acme", "load acme", "save 3 acme", "save 3 acme"])
      })
    )

    it.scoped("is saved for AmqpConsumer.stream, too", () =>
      Effect.gen(function* () {
        yield* declareStream("of-stream", numbers(4))
        const store = AmqpOffsetStore.memory()
        const read = AmqpConsumer.stream("of-stream", { offset: "first", offsets: { store, name: "reader" } }).pipe(
          Stream.tap((delivery) => delivery.ack),
          Stream.map(AmqpMessage.text),
          Stream.take(2),
          Stream.runCollect
        )
        assert.deepStrictEqual([...(yield* read)], numbers(2))
        assert.deepStrictEqual([...(yield* read)], numbers(2, 2))
      })
    )

    it.scoped("needs a store", () =>
      Effect.gen(function* () {
        for (const store of [undefined, {}, { load: () => Effect.succeed(Option.none()) }]) {
          const error = yield* Effect.flip(
            AmqpConsumer.consume("positions", () => Effect.void, { offsets: { store: store as never, name: "a" } })
          )
          assert.strictEqual(error.reason._tag, "InvalidArgument")
          assert.include(error.message, "store")
        }
      })
    )
  })
})

describe("fromKeyValueStore", () => {
  it.effect("continues with what it has saved, and with what the core has saved", () =>
    Effect.gen(function* () {
      const keys = yield* KeyValueStore.KeyValueStore
      const store = AmqpOffsetStore.fromKeyValueStore(keys)
      assert.deepStrictEqual(yield* store.load("a"), Option.none())
      yield* store.save("a", 7)
      yield* store.save("a", 9)
      assert.deepStrictEqual(yield* AmqpOffsetStore.fromKeyValueStore(keys).load("a"), Option.some(9))
      const ofCore = CoreStore.fromKeyValueStore({
        get: (key: string) =>
          Effect4.promise(() => Effect.runPromise(Effect.map(keys.get(key), Option.getOrUndefined))),
        set: (key: string, value: string) => Effect4.promise(() => Effect.runPromise(keys.set(key, value)))
      } as never)
      const loaded = yield* Effect.promise(() => Effect4.runPromise(ofCore.load("a")))
      assert.deepStrictEqual(Option4.getOrUndefined(loaded), 9)
    }).pipe(Effect.provide(KeyValueStore.layerMemory))
  )

  it.effect("fails with OffsetStoreError if the store fails, or has something else", () =>
    Effect.gen(function* () {
      const away = AmqpOffsetStore.fromKeyValueStore({ get: () => new Away(), set: () => new Away() })
      const error = yield* Effect.flip(away.load("a"))
      assert(error instanceof AmqpOffsetStore.OffsetStoreError)
      assert.instanceOf(error.cause, Away)
      assert.strictEqual(error.operation, "load")
      const other = AmqpOffsetStore.fromKeyValueStore(
        { get: () => Effect.succeed(Option.some("else")), set: () => Effect.void },
        { prefix: "p/" }
      )
      const caught = yield* other
        .save("a", 1)
        .pipe(Effect.catchTag("OffsetStoreError", ({ message }) => Effect.succeed(message)))
      assert.include(caught, 'remove the keys "p/a/a" and "p/b/a"')
    })
  )
})
