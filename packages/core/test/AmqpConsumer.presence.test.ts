/** Consumers that do not run, though they should, are conditions of the application until they do; so are servers. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpConnection, AmqpConsumer, type AmqpError, AmqpMetrics, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
import { configOf } from "./support/amqp.ts"
import { declareQueue, deleteQueue, logged, send, untilQueue, withConsumers } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { until } from "./support/polling.ts"
import { gauge, withAmqp } from "./support/metrics.ts"
import { start } from "./support/publisher.ts"

const { conditions } = AmqpConnection

const kinds = Effect.map(conditions, (all) => all.map(({ kind }) => kind))

const untilKinds = (...wanted: ReadonlyArray<string>) =>
  until(kinds, (now) => now.join() === wanted.join(), "the kinds of conditions")

const nothing = () => Effect.void

const procedure = (queue: string) => AmqpRpc.make(queue, { payload: Schema.String, success: Schema.String })

type Consuming = Effect.Effect<unknown, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer>

/** Every way to consume. */
const ways: Record<string, (queue: string, options?: AmqpConsumer.SubscribeOptions) => Consuming> = {
  consume: (queue, options) => AmqpConsumer.consume(queue, nothing, options),
  consumeBatch: (queue, options) => AmqpConsumer.consumeBatch(queue, nothing, { ...options, size: 2, within: 1 }),
  stream: (queue, options) => Stream.runDrain(AmqpConsumer.stream(queue, options)),
  "AmqpRpc.serve": (queue, options) => AmqpRpc.serve(procedure(queue), () => Effect.succeed("!"), options)
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => withConsumers(url)(effect))

  for (const [way, consume] of Object.entries(ways)) {
    describe(way, () => {
      it.effect("that has ended by itself is ConsumerEnded, with the queue and the reason", () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          yield* start(consume(queue))
          yield* untilQueue(queue, { consumers: 1 })
          assert.deepStrictEqual(yield* kinds, [])
          yield* deleteQueue(queue)
          yield* untilKinds("ConsumerEnded")
          const [ended] = yield* conditions
          assert.isTrue(ended?.notReady)
          assert.include(ended?.message, `the consumer "${queue}" has ended: `)
          assert.isAtMost(ended?.since ?? Infinity, Date.now())
        }).pipe(run)
      )

      it.effect("that never started is ConsumerEnded, whether the broker or an option refuses it", () =>
        Effect.gen(function* () {
          yield* start(consume("never declared"))
          yield* untilKinds("ConsumerEnded")
          yield* start(consume("refused", { prefetch: -1 }))
          yield* untilKinds("ConsumerEnded", "ConsumerEnded")
        }).pipe(run)
      )

      it.effect("that was asked to end is none, and one of the same name that starts again mends what has ended", () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const consumer = yield* start(consume(queue))
          yield* untilQueue(queue, { consumers: 1 })
          yield* Fiber.interrupt(consumer)
          assert.deepStrictEqual(yield* kinds, [])
          yield* start(consume("gone"))
          yield* untilKinds("ConsumerEnded")
          // As an application does that starts it again and again.
          yield* Effect.ignore(consume("gone"))
          yield* Effect.ignore(consume("gone"))
          assert.deepStrictEqual(yield* kinds, ["ConsumerEnded"])
          yield* declareQueue(undefined, "gone")
          const again = yield* start(consume("gone"))
          yield* untilKinds()
          yield* Fiber.interrupt(again)
          assert.deepStrictEqual(yield* kinds, [])
          yield* deleteQueue("gone")
        }).pipe(run)
      )

      it.effect("that is not essential is none", () =>
        Effect.gen(function* () {
          yield* Effect.ignore(consume("never declared", { essential: false }))
          assert.deepStrictEqual(yield* kinds, [])
        }).pipe(run)
      )

      it.effect(
        "that is refused for an option has the name that it was given, and is none if it is not essential",
        () =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            yield* Effect.ignore(consume(queue, { prefetch: -1, essential: false }))
            assert.deepStrictEqual(yield* kinds, [])
            yield* Effect.ignore(consume(queue, { prefetch: -1, name: "mails" }))
            yield* Effect.ignore(consume(queue, { prefetch: -1, consumerTag: "bills" }))
            const texts = (yield* conditions).map(({ message }) => message.split(" has ended")[0])
            assert.deepStrictEqual(texts, [
              'the consumer "mails"',
              `the consumer ${JSON.stringify(`${queue} (bills)`)}`
            ])
            // Those that start take over what was reported.
            yield* start(consume(queue, { name: "mails" }))
            yield* start(consume(queue, { consumerTag: "bills" }))
            yield* untilKinds()
          }).pipe(run)
      )

      it.effect("has the name that it was given, and is told apart by it", () =>
        Effect.gen(function* () {
          yield* Effect.ignore(consume("never declared", { name: "mails" }))
          yield* Effect.ignore(consume("never declared", { name: "bills" }))
          yield* Effect.ignore(consume("never declared", { name: "bills" }))
          const texts = (yield* conditions).map(({ message }) => message.split(" has ended")[0])
          assert.deepStrictEqual(texts, ['the consumer "mails"', 'the consumer "bills"'])
        }).pipe(run)
      )
    })
  }

  it.effect("a server that is refused for what is its own is ConsumerEnded, too", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const answer = () => Effect.succeed("!")
      yield* Effect.ignore(AmqpRpc.serve(procedure(queue), answer, { concurrency: 0, name: "a" }))
      yield* Effect.ignore(AmqpRpc.serve(procedure(queue), answer, { replyTo: "all" as "any", name: "b" }))
      yield* Effect.ignore(AmqpRpc.serve(procedure(queue), undefined as never, { name: "c" }))
      const texts = (yield* conditions).map(({ message }) => message.split(" has ended")[0])
      assert.deepStrictEqual(texts, ['the consumer "a"', 'the consumer "b"', 'the consumer "c"'])
    }).pipe(run)
  )

  it.effect(
    "a consumer that waits for its queue is ConsumerNotStarted, and after it has started ConsumerInterrupted",
    () =>
      Effect.gen(function* () {
        const queue = "waited for"
        yield* start(AmqpConsumer.consume(queue, nothing, { resubscribe: "always" }))
        yield* untilKinds("ConsumerNotStarted")
        assert.isTrue((yield* conditions)[0]?.notReady)
        yield* declareQueue(undefined, queue)
        yield* untilKinds()
        yield* deleteQueue(queue)
        yield* untilKinds("ConsumerInterrupted")
        assert.isFalse((yield* conditions)[0]?.notReady)
        yield* declareQueue(undefined, queue)
        yield* untilKinds()
        yield* deleteQueue(queue)
      }).pipe(run)
  )

  it.effect("a consumer that has no connection for 5 seconds is ConsumerNotStarted", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const proxy = yield* FaultProxy.make(url)
      yield* Effect.gen(function* () {
        const queue = yield* declareQueue()
        proxy.refuse()
        yield* start(AmqpConsumer.consume(queue, nothing))
        assert.deepStrictEqual(yield* kinds, [])
        yield* untilKinds("ConsumerNotStarted")
        proxy.refuse(false)
        yield* untilKinds()
      }).pipe(
        // After 5 seconds the wait for the next attempt would be up to 10.
        withConsumers(proxy.through(url), {
          reconnect: { ...configOf(url).reconnect, maxDelay: Duration.millis(500) }
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a stream that is left, or runs into the inactivity timeout that it has asked for, is none", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      yield* send(queue, "m")
      yield* AmqpConsumer.stream(queue).pipe(
        Stream.tap(({ ack }) => ack),
        Stream.take(1),
        Stream.runDrain
      )
      yield* Effect.ignore(Stream.runDrain(AmqpConsumer.stream(queue, { inactivityTimeout: 50 })))
      assert.deepStrictEqual(yield* kinds, [])
    }).pipe(run)
  )

  it.effect("what has ended is forgotten with the scope of its AmqpConsumer", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const consumer = yield* Scope.provide(AmqpConsumer.make, scope)
      yield* Effect.ignore(
        Effect.provideService(AmqpConsumer.consume("never declared", nothing), AmqpConsumer.AmqpConsumer, consumer)
      )
      assert.deepStrictEqual(yield* kinds, ["ConsumerEnded"])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* kinds, [])
    }).pipe(run)
  )

  it.effect("a hundred that have ended are remembered, and no more, whatever their queues are called", () =>
    Effect.gen(function* () {
      for (let i = 0; i < 120; i++) yield* Effect.ignore(AmqpConsumer.consume(`q${i}`, nothing, { prefetch: -1 }))
      assert.lengthOf(yield* conditions, 100)
      assert.include((yield* conditions).at(-1)?.message, '"q119"')
    }).pipe(run)
  )

  it.effect("conditions are counted by their kind", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      yield* Effect.gen(function* () {
        const count = gauge(AmqpMetrics.conditions, { "amqp.condition.kind": "ConsumerEnded" })
        yield* Effect.ignore(AmqpConsumer.consume("a", nothing))
        yield* Effect.ignore(AmqpConsumer.consume("b", nothing))
        assert.strictEqual(yield* count, 2)
        yield* declareQueue(undefined, "a")
        yield* start(AmqpConsumer.consume("a", nothing))
        yield* until(count, (now) => now === 1)
        yield* deleteQueue("a")
      }).pipe(Effect.scoped, withAmqp(url), Effect.provide(Logger.layer([])))
    })
  )

  for (const [way, consume] of Object.entries(ways)) {
    for (const how of ["interrupted", "with its layer", "after its layer"] as const) {
      it.effect(`a normal end of ${way}, ${how}, logs no error`, () =>
        logged((lines) =>
          Effect.gen(function* () {
            const { url } = yield* TestBroker.TestBroker
            const queue = yield* Effect.provide(declareQueue(), Amqp.fromConfig(configOf(url)), { local: true })
            const scope = yield* Scope.make()
            const App = Layer.fresh(Amqp.fromConfig(configOf(url)))
            const context =
              how === "with its layer"
                ? yield* Layer.buildWithScope(
                    Layer.provideMerge(Layer.effectDiscard(Effect.forkScoped(consume(queue))), App),
                    scope
                  )
                : yield* Layer.buildWithScope(App, scope)
            const consumer =
              how === "with its layer" ? undefined : yield* start(Effect.provideContext(consume(queue), context))
            yield* untilQueue(queue, { consumers: 1 })
            if (how === "interrupted" && consumer !== undefined) yield* Fiber.interrupt(consumer)
            yield* Scope.close(scope, Exit.void)
            if (consumer !== undefined) yield* Fiber.await(consumer)
            assert.deepStrictEqual(
              lines.filter(({ level }) => level === "Error" || level === "Warn"),
              []
            )
          })
        ).pipe(Effect.scoped)
      )
    }
  }
})
