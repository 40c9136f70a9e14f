/**
 * How consumers end while work is under way: interrupted at any step, with their layer, or without the broker's answer.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Latch, Queue, Stream } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { declareQueue, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import { rangeTexts } from "./support/ranges.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("a consumer that is interrupted at any step leaves nothing on the broker, and no message is lost", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const queue = yield* declareQueue()
      yield* send(queue, ...rangeTexts(50))
      yield* AmqpConsumer.stream(queue).pipe(Stream.take(1), Stream.runDrain)
      const { channels, connections } = yield* broker.awaitCensus({ consumers: 0, unacked: 0 })
      const failing = () => Effect.andThen(Effect.sleep(1), Effect.fail("not now"))
      let step = 0
      for (let round = 0; round < 10; round++) {
        const options = { shutdownTimeout: round % 3, onFailure: AmqpConsumer.requeue }
        for (const consumer of [
          AmqpConsumer.consume(queue, failing, { ...options, concurrency: 5 }),
          AmqpConsumer.consumeBatch(queue, failing, { ...options, size: 10, within: 1, concurrency: 2 }),
          AmqpConsumer.consume(queue, failing, {
            ...options,
            onFailure: AmqpConsumer.retry({ delay: 1, times: 1000 })
          }),
          Stream.runForEach(AmqpConsumer.stream(queue), () => Effect.sleep(1))
        ]) {
          step++
          const fiber = yield* Effect.forkScoped(consumer)
          for (let i = (step * 7) % 30; i > 0; i--) yield* Effect.yieldNow
          if (step % 2 === 0) yield* Effect.sleep((step * 3) % 11)
          yield* Fiber.interrupt(fiber)
        }
      }
      yield* broker.awaitCensus({ channels, connections, consumers: 0, unacked: 0 })
      // A retry that was interrupted can arrive twice.
      const left = new Set<string>()
      yield* AmqpConsumer.stream(queue, { inactivityTimeout: "5 seconds" }).pipe(
        Stream.tap((delivery) => {
          left.add(AmqpMessage.text(delivery))
          return delivery.ack
        }),
        Stream.takeUntil(() => left.size === 50),
        Stream.runDrain
      )
    }).pipe(onBroker)
  )

  it.effect("connections that are cut while retries are published lose no message", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const queue = yield* declareQueue()
      const count = 300
      const done = new Set<string>()
      const all = yield* Latch.make()
      yield* send(queue, ...rangeTexts(count))
      yield* Effect.forkScoped(
        AmqpConsumer.consume(
          queue,
          (delivery) => {
            if (Number(delivery.properties.headers["x-retry-count"] ?? 0) < 2) return Effect.fail("later")
            done.add(AmqpMessage.text(delivery))
            return done.size === count ? all.open : Effect.void
          },
          { concurrency: 20, onFailure: AmqpConsumer.retry({ delay: 5, times: 100 }) }
        )
      )
      for (let round = 0; round < 4; round++) {
        yield* Effect.sleep(50)
        yield* broker.killConnections
      }
      yield* all.await
      yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
    }).pipe(onBroker)
  )
})

describe("A consumer's end is bounded, explicit and counted, whatever is under way.", () => {
  const unpublishable = Effect.fnUntraced(function* () {
    const consumer = yield* AmqpConsumer.AmqpConsumer
    const publishing = yield* Latch.make()
    const publish = () => Effect.andThen(publishing.open, Effect.never)
    return { publishing, service: { ...consumer, publisher: { ...consumer.publisher, publish } } }
  })

  plain.live("a batch whose retries are under way is requeued at once as a whole", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of rangeTexts(4)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        const { publishing, service } = yield* unpublishable()
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch("q", () => Effect.fail("no"), {
            size: 4,
            within: "1 hour",
            shutdownTimeout: 0,
            onFailure: AmqpConsumer.retry({ delay: 5, times: 1 }),
            onEnd: (end) => Queue.offer(ends, end)
          }).pipe(Effect.provideService(AmqpConsumer.AmqpConsumer, service))
        )
        yield* publishing.await
        const [time] = yield* Effect.timed(Fiber.interrupt(fiber))
        // The end does not wait for closeTimeout.
        assert.isBelow(Duration.toMillis(time), 5000)
        assert.deepInclude(yield* Queue.take(ends), { requeued: 0, unsettled: 0 })
        yield* broker.until((now) => now.ready("q") === 4)
        assert.deepInclude((yield* broker.received("basic.nack")).args, {
          deliveryTag: 4,
          multiple: true,
          requeue: true
        })
      }).pipe(withConsumers(broker.url, { closeTimeout: Duration.seconds(10) }))
    })
  )

  plain.live("deliveries of a broker that does not answer the cancel are returned and counted", () =>
    onScriptedBroker(
      { broker: { on: { "basic.cancel": () => {} } }, closeTimeout: Duration.millis(100) },
      function* (broker) {
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        const gate = yield* Latch.make()
        const started = yield* Latch.make()
        broker.enqueue("q", "a")
        broker.enqueue("q", "ahead")
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consume("q", () => Effect.andThen(started.open, gate.await), {
            onEnd: (end) => Queue.offer(ends, end)
          })
        )
        yield* started.await
        const stopping = yield* Effect.forkScoped(Fiber.interrupt(fiber))
        yield* broker.received("basic.cancel")
        broker.enqueue("q", "later")
        // A later delivery for another consumer arrives on the same connection.
        broker.enqueue("other", "a")
        yield* AmqpConsumer.stream("other").pipe(Stream.take(1), Stream.runDrain)
        yield* gate.open
        yield* Fiber.join(stopping)
        assert.deepInclude(yield* Queue.take(ends), { requeued: 2, unsettled: 0 })
        yield* broker.until((now) => now.ready("q") === 2)
      }
    )
  )

  plain.live("a connection that dies before the cancel is answered does not delay the end", () =>
    onScriptedBroker(
      { broker: { on: { "basic.cancel": (cancel) => cancel.destroy() } }, closeTimeout: Duration.seconds(10) },
      function* (broker) {
        const started = yield* Latch.make()
        broker.enqueue("q", "a")
        const fiber = yield* Effect.forkScoped(AmqpConsumer.consume("q", () => started.open))
        yield* started.await
        const [time] = yield* Effect.timed(Fiber.interrupt(fiber))
        // The end does not wait for closeTimeout.
        assert.isBelow(Duration.toMillis(time), 5000)
      }
    )
  )

  plain.live("a consumer whose layer ends while it connects fails, and is not only interrupted", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const running = yield* Effect.gen(function* () {
        broker.on("connection.open", () => {})
        const nth = broker.count("connection.open") + 1
        const running = yield* Effect.forkDetach(Effect.flip(AmqpConsumer.consume("q", () => Effect.void)))
        yield* broker.received("connection.open", nth)
        return running
      }).pipe(withConsumers(broker.url))
      assert.strictEqual((yield* Fiber.join(running)).reason._tag, "ConnectionClosed")
    })
  )

  plain.live("a consumer that is interrupted while it connects does not end the others", () =>
    onScriptedBroker({}, function* (broker) {
      broker.on("connection.open", (open) => open.hold())
      const nth = broker.count("connection.open") + 1
      const first = yield* Effect.forkScoped(AmqpConsumer.consume("first", () => Effect.void))
      yield* broker.received("connection.open", nth)
      yield* Effect.forkScoped(
        AmqpConsumer.consume("second", () => Effect.void),
        { startImmediately: true }
      )
      yield* Fiber.interrupt(first)
      broker.off("connection.open")
      broker.release("connection.open")
      assert.strictEqual((yield* broker.received("basic.consume")).args.queue, "second")
      assert.strictEqual(broker.count("accept"), 2)
    })
  )
})
