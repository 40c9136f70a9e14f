/** Consuming as in Pika's manual. Rows and examples of `docs/pika.md` are from these tests. */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpMessage, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber, Latch, Option, Queue, Schema, Stream } from "effect"
import { Worker } from "node:worker_threads"
import { untilQueue } from "../support/consumers.ts"
import { connected, contents, fill, newQueue, ownQueue, reasonOf } from "./broker.ts"

/** Handles ten messages. Returns the number of prefetched messages that went back. */
const firstTen = (queue: string) =>
  Effect.gen(function* () {
    const ended = yield* Deferred.make<AmqpConsumer.End>()
    yield* AmqpConsumer.stream(queue, { onEnd: (end) => Deferred.succeed(ended, end) }).pipe(
      Stream.tap((delivery) => Effect.andThen(Effect.log(AmqpMessage.text(delivery)), delivery.ack)),
      Stream.take(10),
      Stream.runDrain
    )
    const { requeued } = yield* Deferred.await(ended)
    return requeued
  })

/** In Pika, each of these steps takes a callback. */
const firstOrder = AmqpChannel.use((channel) =>
  Effect.gen(function* () {
    yield* channel.exchangeDeclare("orders", "topic", { durable: false })
    const { queue } = yield* channel.queueDeclare("", { exclusive: true })
    yield* channel.queueBind(queue, "orders", "order.*")
    yield* channel.qos(10)
    const { deliveries } = yield* channel.consume(queue)
    yield* channel.publish({ exchange: "orders", routingKey: "order.created", content: "one" })
    const delivery = yield* Queue.take(deliveries)
    yield* channel.ack(delivery)
    return AmqpMessage.text(delivery)
  })
)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("the consumer as a generator: ten messages are acknowledged, the loop ends, the rest is requeued", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      yield* fill(queue, ...Array.from({ length: 15 }, (_, i) => String(i)))
      const requeued = yield* firstTen(queue)
      const left = yield* contents(queue)
      assert.deepStrictEqual(left, ["10", "11", "12", "13", "14"])
      // Messages that had not arrived when the consumer was cancelled were never prefetched.
      assert.isAtMost(requeued, left.length)
    }).pipe(connected())
  )

  it.effect("the number of requeued deliveries is that of the prefetched ones", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      yield* fill(queue, "a", "b", "c", "d", "e")
      const ended = yield* Deferred.make<AmqpConsumer.End>()
      yield* AmqpConsumer.stream(queue, { prefetch: 3, onEnd: (end) => Deferred.succeed(ended, end) }).pipe(
        Stream.tap(() => untilQueue(queue, { ready: 2, unacked: 3 })),
        Stream.tap((delivery) => delivery.ack),
        Stream.take(1),
        Stream.runDrain
      )
      const { requeued, unsettled } = yield* Deferred.await(ended)
      assert.isAtLeast(requeued, 2)
      assert.strictEqual(unsettled, 0)
      assert.deepStrictEqual(yield* contents(queue), ["b", "c", "d", "e"])
    }).pipe(connected())
  )

  it.effect("inactivity_timeout: without deliveries the stream fails, or ends without an error", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const failing = AmqpConsumer.stream(queue, { inactivityTimeout: "20 millis" })
      assert.strictEqual((yield* reasonOf(Stream.runDrain(failing)))._tag, "InactivityTimeout")
      yield* AmqpConsumer.stream(queue).pipe(Stream.timeout("20 millis"), Stream.runDrain)
    }).pipe(connected())
  )

  it.effect("get_waiting_message_count: on a borrowed channel, waiting deliveries can be counted", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      yield* fill(queue, "a", "b")
      const { deliveries } = yield* AmqpChannel.use((channel) => channel.consume(queue))
      yield* Effect.repeat(Queue.size(deliveries), { until: (waiting) => waiting === 2 })
    }).pipe(connected())
  )

  it.effect("a handler runs per delivery, and its success acknowledges, until the consumer is interrupted", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const handled = yield* Queue.unbounded<string>()
      const handler = (delivery: AmqpConsumer.Delivery) => Queue.offer(handled, AmqpMessage.text(delivery))
      const consuming = yield* Effect.forkChild(AmqpConsumer.consume(queue, handler))
      yield* fill(queue, "a", "b")
      assert.deepStrictEqual(yield* Queue.takeN(handled, 2), ["a", "b"])
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
      yield* Fiber.interrupt(consuming)
      yield* fill(queue, "c")
      assert.deepStrictEqual(yield* contents(queue), ["c"])
    }).pipe(connected())
  )

  it.effect("a failing handler does not end the consumer: a policy settles its delivery", () =>
    Effect.gen(function* () {
      const dead = yield* newQueue()
      const queue = yield* newQueue({ deadLetterExchange: "", deadLetterRoutingKey: dead })
      const handler = (delivery: AmqpConsumer.Delivery) =>
        AmqpMessage.text(delivery) === "bad" ? Effect.fail("no") : Effect.void
      yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.deadLetter }))
      yield* fill(queue, "bad", "good")
      yield* untilQueue(dead, { ready: 1, unacked: 0 })
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
      assert.deepStrictEqual(yield* contents(dead), ["bad"])
    }).pipe(connected())
  )

  it.effect("prefetch bounds the unsettled deliveries, concurrency the running handlers", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const gate = yield* Latch.make()
      yield* fill(queue, "a", "b", "c", "d", "e")
      yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => gate.await, { prefetch: 3, concurrency: 2 }))
      yield* untilQueue(queue, { ready: 2, unacked: 3 })
      yield* gate.open
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
    }).pipe(connected())
  )

  it.effect("a delivery is acknowledged from any fiber, and knows whether it can still be settled", () =>
    Effect.gen(function* () {
      const { awaitCensus, killConnections } = yield* TestBroker.TestBroker
      const queue = yield* newQueue()
      const deliveries = yield* Queue.unbounded<AmqpConsumer.Delivery>()
      const consuming = yield* AmqpConsumer.stream(queue).pipe(
        Stream.runForEach((delivery) => Queue.offer(deliveries, delivery)),
        Effect.forkChild
      )
      yield* fill(queue, "a", "b")
      // This fiber is not the one that consumes.
      yield* Effect.flatMap(Queue.take(deliveries), (delivery) => delivery.ack).pipe(
        Effect.forkChild,
        Effect.flatMap(Fiber.join)
      )
      yield* awaitCensus({ unacked: 1 })
      const second = yield* Queue.take(deliveries)
      assert.isFalse(second.isSettled)
      yield* killConnections
      yield* Fiber.await(consuming)
      assert.isTrue(second.isSettled)
      assert.strictEqual((yield* reasonOf(second.ack))._tag, "DeliverySettled")
    }).pipe(connected())
  )

  it.effect(
    "a handler may take longer than heartbeats allow: the connection lives, and the delivery is acknowledged",
    () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* newQueue()
        const done = yield* Deferred.make<boolean>()
        // The broker closes the connection of a silent client after two intervals.
        const handler = (delivery: AmqpConsumer.Delivery) =>
          Effect.andThen(Effect.sleep("4 seconds"), Deferred.succeed(done, delivery.redelivered))
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
        yield* fill(queue, "a")
        assert.isFalse(yield* Deferred.await(done))
        yield* untilQueue(queue, { ready: 0, unacked: 0 })
        yield* awaitCensus({ connections: 2, unacked: 0 })
      }).pipe(connected({ heartbeat: "1 second" }))
  )

  it.effect("a CPU-bound handler computes in a worker thread, and acknowledges in its fiber", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const source = `const { parentPort, workerData } = require("node:worker_threads"); parentPort.postMessage(workerData * 2)`
      const compute = (n: number) =>
        Effect.callback<number, Error>((resume) => {
          const worker = new Worker(source, { eval: true, workerData: n })
          worker.once("message", (result: number) => resume(Effect.succeed(result)))
          worker.once("error", (error) => resume(Effect.fail(error)))
          return Effect.promise(() => worker.terminate())
        })
      const results = yield* Queue.unbounded<number>()
      const handler = (delivery: AmqpConsumer.Delivery) =>
        Effect.flatMap(compute(Number(AmqpMessage.text(delivery))), (result) => Queue.offer(results, result))
      yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
      yield* fill(queue, "21")
      assert.strictEqual(yield* Queue.take(results), 42)
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
    }).pipe(connected())
  )

  it.effect("chained callbacks become one program that reads from top to bottom", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* firstOrder, "one")
    }).pipe(connected())
  )

  it.effect("a queue that is deleted ends its consumer with ConsumerCancelled", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const consuming = yield* Effect.forkChild(Effect.flip(AmqpConsumer.consume(queue, () => Effect.void)))
      const { awaitCensus } = yield* TestBroker.TestBroker
      yield* awaitCensus({ consumers: 1 })
      yield* AmqpChannel.use((channel) => channel.queueDelete(queue))
      assert.strictEqual((yield* Fiber.join(consuming)).reason._tag, "ConsumerCancelled")

      const name = yield* AmqpChannel.use((channel) => channel.queueDeclare("comes-and-goes"))
      yield* Effect.forkChild(AmqpConsumer.consume(name.queue, () => Effect.void, { resubscribe: "always" }))
      yield* awaitCensus({ consumers: 1 })
      yield* AmqpChannel.use((channel) => channel.queueDelete("comes-and-goes"))
      yield* awaitCensus({ consumers: 0 })
      yield* AmqpChannel.use((channel) => channel.queueDeclare("comes-and-goes"))
      yield* awaitCensus({ consumers: 1 })
    }).pipe(connected())
  )

  it.effect("a consumer whose connection is lost subscribes again", () =>
    Effect.gen(function* () {
      const { awaitCensus, killConnections } = yield* TestBroker.TestBroker
      const queue = yield* newQueue()
      const handled = yield* Queue.unbounded<string>()
      yield* Effect.forkScoped(
        AmqpConsumer.consume(queue, (delivery) => Queue.offer(handled, AmqpMessage.text(delivery)))
      )
      yield* awaitCensus({ consumers: 1 })
      yield* killConnections
      yield* AmqpPublisher.publish({ routingKey: queue, content: "after" }).pipe(
        Effect.retry({ while: (error) => error.isRetryable })
      )
      assert.strictEqual(yield* Queue.take(handled), "after")
    }).pipe(connected())
  )

  it.effect("request and reply by direct reply-to", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const text = yield* AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          const replies = yield* channel.consume("amq.rabbitmq.reply-to", { noAck: true })
          yield* channel.publish({ routingKey: queue, content: "ping", replyTo: "amq.rabbitmq.reply-to" })
          const request = Option.getOrThrow(yield* channel.get(queue, { noAck: true }))
          yield* channel.publish({ routingKey: request.properties.replyTo ?? "", content: "pong" })
          return AmqpMessage.text(yield* Queue.take(replies.deliveries))
        })
      )
      assert.strictEqual(text, "pong")
    }).pipe(connected())
  )

  it.effect("request and reply as a typed function", () =>
    Effect.gen(function* () {
      const Add = AmqpRpc.make("add", { payload: { a: Schema.Int, b: Schema.Int }, success: Schema.Int })
      yield* AmqpChannel.use((channel) => channel.queueDeclare(Add.queue))
      yield* Effect.forkChild(AmqpRpc.serve(Add, ({ a, b }) => Effect.succeed(a + b)))
      const add = AmqpRpc.client(Add)
      assert.strictEqual(yield* add({ a: 1, b: 2 }), 3)
    }).pipe(connected())
  )
})
