/**
 * The services on a fresh virtual host, under a `TestClock`: the library waits by the real clock, the application by the
 * test's.
 */
import { assert, layer } from "@effect/vitest"
import {
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc,
  AmqpTopology
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Clock, Deferred, Effect, Fiber, Layer, Queue, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"

// The time of a TestClock that has not been adjusted.
const begin = 0

/** A consumer in the background, and the texts that it has handled. */
const consuming = Effect.fnUntraced(function* (
  queue: string,
  handle: (text: string) => Effect.Effect<unknown, unknown> = () => Effect.void
) {
  const handled = yield* Queue.unbounded<string>()
  yield* Effect.forkScoped(
    AmqpConsumer.consume(queue, (delivery) => {
      const text = AmqpMessage.text(delivery)
      return Effect.andThen(handle(text), Queue.offer(handled, text))
    })
  )
  return Queue.take(handled)
})

const publish = (queue: string, content: string) =>
  AmqpPublisher.publish({ routingKey: queue, content }, { mandatory: true })

const declareQueue = (queue: string) => AmqpChannel.use((channel) => channel.queueDeclare(queue))

const lose = Effect.gen(function* () {
  const { killConnections } = yield* TestBroker.TestBroker
  const connection = yield* AmqpConnection.AmqpConnection
  const before = connection.state.value
  assert.isAbove(yield* killConnections, 0)
  // The client knows of the loss.
  assert.notStrictEqual(connection.state.value, before)
})

layer(TestBroker.layerAmqp({ reconnect: { minDelay: "200 millis", maxDelay: "400 millis" } }), {
  timeout: "2 minutes"
})("TestBroker.layerAmqp, with a TestClock", (it) => {
  it.effect("recovers a lost connection, and completes a publish that was waiting", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      yield* declareQueue("recovered")
      yield* broker.killConnections
      yield* publish("recovered", "after")
      const queues = yield* broker.queues
      assert.strictEqual(queues.find(({ name }) => name === "recovered")?.ready, 1)
      assert.strictEqual(yield* Clock.currentTimeMillis, begin)
    })
  )

  it.effect("recovers a consumer after a loss", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      yield* declareQueue("consumed")
      const next = yield* consuming("consumed")
      yield* publish("consumed", "before")
      assert.strictEqual(yield* next, "before")
      // The broker would deliver the message again if its acknowledgement were lost with the connection.
      yield* broker.awaitCensus({ unacked: 0 })
      yield* lose
      yield* publish("consumed", "after")
      assert.strictEqual(yield* next, "after")
    })
  )

  it.effect("delivers again after the pause of the policy, in real time", () =>
    Effect.gen(function* () {
      yield* declareQueue("again")
      let attempts = 0
      const next = yield* consuming("again", () =>
        Effect.suspend(() => (++attempts < 2 ? Effect.fail("not yet") : Effect.void))
      )
      yield* publish("again", "message")
      assert.strictEqual(yield* next, "message")
      assert.strictEqual(attempts, 2)
    })
  )

  it.effect("lets a handler's sleep follow the TestClock", () =>
    Effect.gen(function* () {
      yield* declareQueue("slow")
      const started = yield* Deferred.make<void>()
      const next = yield* consuming("slow", () =>
        Effect.andThen(Deferred.succeed(started, undefined), Effect.sleep("1 day"))
      )
      const handled = yield* Effect.forkChild(next)
      yield* publish("slow", "message")
      yield* Deferred.await(started)
      yield* TestClock.adjust("23 hours")
      assert.isUndefined(handled.pollUnsafe())
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Fiber.join(handled), "message")
    })
  )

  it.effect("lets handlers of batches, servers and streams follow the TestClock", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_000_000)
      const times = yield* Queue.unbounded<number>()
      const time = Effect.flatMap(Clock.currentTimeMillis, (now) => Queue.offer(times, now))
      yield* declareQueue("batches")
      yield* declareQueue("streamed")
      yield* Effect.forkScoped(AmqpConsumer.consumeBatch("batches", () => time, { size: 10, within: "10 millis" }))
      yield* publish("batches", "message")
      assert.strictEqual(yield* Queue.take(times), 1_000_000)

      yield* publish("streamed", "message")
      yield* AmqpConsumer.stream("streamed").pipe(
        Stream.tap((delivery) => Effect.andThen(time, delivery.ack)),
        Stream.take(1),
        Stream.runDrain
      )
      assert.strictEqual(yield* Queue.take(times), 1_000_000)

      const Now = AmqpRpc.make("now", { success: Schema.Number })
      yield* AmqpChannel.use((channel) => channel.queueDeclare(Now.queue))
      yield* Effect.forkScoped(AmqpRpc.serve(Now, () => Clock.currentTimeMillis))
      assert.strictEqual(yield* AmqpRpc.client(Now)(), 1_000_000)
    })
  )

  it.effect("ends a stream that receives nothing after its inactivityTimeout, in real time", () =>
    Effect.gen(function* () {
      yield* declareQueue("empty")
      const error = yield* Effect.flip(
        Stream.runDrain(AmqpConsumer.stream("empty", { inactivityTimeout: "50 millis" }))
      )
      assert.strictEqual(error.reason._tag, "InactivityTimeout")
    })
  )

  it.effect("counts the messages of a quorum queue as they are now", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const row = Effect.map(broker.queues, (queues) => queues.find(({ name }) => name === "counted"))
      yield* AmqpChannel.use((channel) => channel.queueDeclare("counted", { queueType: "quorum" }))
      yield* publish("counted", "one")
      yield* publish("counted", "two")
      assert.deepInclude(yield* row, { messages: 2, ready: 2, unacked: 0 })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* AmqpChannel.use((channel) => channel.get("counted"))
          assert.deepInclude(yield* row, { messages: 2, ready: 1, unacked: 1 })
        })
      )
    })
  )

  it.effect("lets effects with a borrowed channel follow the TestClock", () =>
    Effect.gen(function* () {
      const borrowed = yield* Deferred.make<void>()
      const sleeping = yield* Effect.forkChild(
        AmqpChannel.use(() => Effect.andThen(Deferred.succeed(borrowed, undefined), Effect.sleep("1 day")))
      )
      yield* Deferred.await(borrowed)
      yield* TestClock.adjust("1 day")
      yield* Fiber.join(sleeping)
    })
  )
})

const Topology = AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue("declared")))

layer(Layer.provideMerge(Topology, TestBroker.layerAmqp({ pool: { max: 1, acquireTimeout: "50 millis" } })), {
  timeout: "2 minutes"
})("TestBroker.layerAmqp, with options and a topology", (it) => {
  it.effect("declares the topology, and again after a loss", () =>
    Effect.gen(function* () {
      yield* publish("declared", "before")
      yield* AmqpChannel.use((channel) => channel.queueDelete("declared"))
      yield* lose
      yield* publish("declared", "after")
      const next = yield* consuming("declared")
      assert.strictEqual(yield* next, "after")
    })
  )

  it.effect("fails a borrower after the acquireTimeout, in real time", () =>
    Effect.gen(function* () {
      const pool = yield* AmqpPool.AmqpPool
      const error = yield* AmqpChannel.use(() => Effect.flip(pool.use(() => Effect.void)))
      assert.strictEqual(error.reason._tag, "AcquireTimeout")
    })
  )
})
