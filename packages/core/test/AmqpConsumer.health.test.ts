/** Consumers and servers that should run and do not are conditions of the application until they run. */
import { assert, describe, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMessage,
  AmqpMetrics,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
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
      it.effect("that has ended unexpectedly is ConsumerEnded, with the queue and the reason", () =>
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

      it.effect(
        "that was asked to end has no condition, and a restart under the same name clears the condition of one that has ended",
        () =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            const consumer = yield* start(consume(queue))
            yield* untilQueue(queue, { consumers: 1 })
            yield* Fiber.interrupt(consumer)
            assert.deepStrictEqual(yield* kinds, [])
            yield* start(consume("gone"))
            yield* untilKinds("ConsumerEnded")
            // An application may restart it again and again.
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

      it.effect("that is not required for readiness has no condition", () =>
        Effect.gen(function* () {
          yield* Effect.ignore(consume("never declared", { requiredForReadiness: false }))
          assert.deepStrictEqual(yield* kinds, [])
        }).pipe(run)
      )

      it.effect(
        "that is refused for an option is reported under its given name, and not at all if it is not required for readiness",
        () =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            yield* Effect.ignore(consume(queue, { prefetch: -1, requiredForReadiness: false }))
            assert.deepStrictEqual(yield* kinds, [])
            yield* Effect.ignore(consume(queue, { prefetch: -1, name: "mails" }))
            yield* Effect.ignore(consume(queue, { prefetch: -1, consumerTag: "bills" }))
            const texts = (yield* conditions).map(({ message }) => message.split(" has ended")[0])
            assert.deepStrictEqual(texts, [
              'the consumer "mails"',
              `the consumer ${JSON.stringify(`${queue} (bills)`)}`
            ])
            // Consumers that start clear the conditions of that name.
            yield* start(consume(queue, { name: "mails" }))
            yield* start(consume(queue, { consumerTag: "bills" }))
            yield* untilKinds()
          }).pipe(run)
      )

      it.effect("has the name that it was given, which distinguishes it from others", () =>
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

  it.effect("a server that is refused for its own arguments is ConsumerEnded, too", () =>
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
        // Without this limit the delay before the next attempt could be up to 10 seconds after 5 seconds.
        withConsumers(proxy.through(url), {
          reconnect: { ...configOf(url).reconnect, maxDelay: Duration.millis(500) }
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a stream that its reader leaves, or that ends by its inactivityTimeout, has no condition", () =>
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

  it.effect("the condition of an ended consumer is removed with the scope of its AmqpConsumer", () =>
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

  it.effect("at most a hundred ended consumers are remembered, whatever their queues are called", () =>
    Effect.gen(function* () {
      for (let i = 0; i < 120; i++) yield* Effect.ignore(AmqpConsumer.consume(`q${i}`, nothing, { prefetch: -1 }))
      assert.lengthOf(yield* conditions, 100)
      assert.include((yield* conditions).at(-1)?.message, '"q119"')
    }).pipe(run)
  )

  it.effect(
    "the status of a consumer follows it from its start to its end, and its successor continues the counts",
    () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const only = Effect.map(AmqpConsumer.statuses, (all) => {
          assert.lengthOf(all, 1)
          return all[0]!
        })
        const untilStatus = (isWanted: (status: AmqpConsumer.Status) => boolean) =>
          Effect.andThen(until(only, isWanted, "the status"), only)
        assert.deepStrictEqual(yield* AmqpConsumer.statuses, [])
        const waiting = yield* Deferred.make<void>()
        const consume = AmqpConsumer.consume(
          queue,
          (delivery) =>
            AmqpMessage.text(delivery) === "bad"
              ? Effect.fail({ _tag: "OutOfStock", secret: "operator-word" })
              : Deferred.await(waiting),
          { onFailure: AmqpConsumer.deadLetter, concurrency: 2 }
        )
        yield* start(consume)
        yield* untilStatus(({ state }) => state === "Running")
        yield* send(queue, "bad", "good")
        const busy = yield* untilStatus(({ inFlight, lastError }) => inFlight === 1 && lastError !== undefined)
        assert.deepInclude(busy, { name: queue, queue, delivered: 2, buffered: 0, failures: { OutOfStock: 1 } })
        assert.strictEqual(busy.lastError?.tag, "OutOfStock")
        assert.strictEqual(busy.deadLetters["OutOfStock"]?.count, 1)
        assert.isUndefined(busy.lastEnd)
        assert.notInclude(JSON.stringify(busy), "operator-word")

        yield* deleteQueue(queue)
        yield* Deferred.succeed(waiting, undefined)
        const ended = yield* untilStatus(({ state }) => state === "Ended")
        assert.deepInclude(ended.lastEnd, { how: "failed", tag: "ConsumerCancelled" })
        assert.deepInclude(ended, { delivered: 2, inFlight: 0 })

        yield* declareQueue(undefined, queue)
        const again = yield* start(consume)
        const running = yield* untilStatus(({ state }) => state === "Running")
        assert.deepStrictEqual(running.deadLetters, busy.deadLetters)
        assert.deepInclude(running, { delivered: 2, failures: { OutOfStock: 1 }, lastEnd: ended.lastEnd })
        yield* Fiber.interrupt(again)
        assert.deepInclude((yield* only).lastEnd, { how: "stopped", tag: undefined })
      }).pipe(run)
  )

  it.effect("a consumer that is not required for readiness has a status while it runs, and none afterwards", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const consumer = yield* start(AmqpConsumer.consume(queue, nothing, { requiredForReadiness: false }))
      yield* untilQueue(queue, { consumers: 1 })
      assert.deepInclude((yield* AmqpConsumer.statuses)[0], { queue, requiredForReadiness: false })
      yield* Fiber.interrupt(consumer)
      assert.deepStrictEqual(yield* AmqpConsumer.statuses, [])
    }).pipe(run)
  )

  it.effect("conditions are counted per kind", () =>
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
