/** Retries after a delay, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpError, AmqpMessage, AmqpPool, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Latch, Queue, Redacted, Schema } from "effect"
import {
  declareQueue,
  declareWithDeadLetters,
  deleteQueue,
  logged,
  next,
  nextText,
  onBroker,
  send,
  untilQueue
} from "./support/consumers.ts"
import * as Users from "./support/users.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", { message: Schema.String }) {}

/** A handler that fails a number of times per message and records every delivery. */
const failing = (times: number, message = "try later") =>
  Effect.map(Queue.unbounded<AmqpConsumer.Delivery>(), (deliveries) => ({
    deliveries,
    handler: (delivery: AmqpConsumer.Delivery) =>
      Effect.andThen(
        Queue.offer(deliveries, delivery),
        delivery.attempt <= times ? Effect.fail(new Busy({ message })) : Effect.void
      )
  }))

const headersOf = ({ properties }: { readonly properties: AmqpMessage.Properties }) =>
  ({ ...properties.headers }) as Record<string, unknown>

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A retry comes back after its delay, with everything that it had.", () => {
    it.effect("content, properties and headers are those of the first delivery, and its origin is known", () =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        const queue = yield* declareQueue()
        const copies = yield* declareQueue()
        yield* pool.use((channel) =>
          Effect.andThen(
            channel.exchangeDeclare("shop", "topic", { autoDelete: true }),
            channel.queueBind(queue, "shop", "order.#")
          )
        )
        const { deliveries, handler } = yield* failing(2)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delays: [20, 40] }) })
        )
        const headers = { text: "ü", whole: 7, half: 0.5, yes: true, nothing: null, list: [1, "a"], nested: { a: 1 } }
        yield* AmqpPublisher.publish({
          exchange: "shop",
          routingKey: "order.created",
          content: new Uint8Array([0, 255, 1]),
          headers: { ...headers, CC: [copies] },
          contentType: "application/octet-stream",
          contentEncoding: "identity",
          persistent: false,
          priority: 3,
          correlationId: "c",
          replyTo: "r",
          messageId: "m",
          timestamp: new Date("2026-11-20T12:34:56Z"),
          type: "t",
          userId: "guest",
          appId: "a",
          expiration: 60_000
        })
        const [first, second, third] = yield* Queue.takeN(deliveries, 3)
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        for (const [i, delivery] of [first!, second!, third!].entries()) {
          assert.strictEqual(delivery.attempt, i + 1)
          // The broker got the retry from the default exchange.
          assert.strictEqual(delivery.exchange, i === 0 ? "shop" : "")
          assert.strictEqual(delivery.routingKey, i === 0 ? "order.created" : queue)
          assert.deepStrictEqual(
            delivery.origin,
            i === 0 ? undefined : { exchange: "shop", routingKey: "order.created" }
          )
          assert.deepStrictEqual([...delivery.content], [0, 255, 1])
          assert.deepInclude(headersOf(delivery), { ...headers, nested: headersOf(delivery)["nested"] } as never)
          assert.deepStrictEqual({ ...(headersOf(delivery)["nested"] as object) }, { a: 1 })
          assert.deepStrictEqual(
            { ...delivery.properties, headers: undefined, expiration: undefined },
            { ...first!.properties, headers: undefined, expiration: undefined }
          )
        }
        assert.deepInclude(headersOf(third!), {
          "x-retry-queue": queue,
          "x-retry-count": 2,
          "x-retry-deliveries": 2,
          "x-retry-exchange": "shop",
          "x-retry-routing-key": "order.created",
          "x-retry-error": "Busy",
          "x-retry-reason": "try later"
        })
        // The CC header led nowhere in the exchange of the first publish. In the default exchange it would lead to this
        // queue.
        yield* untilQueue(copies, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("each delay has its own queue, declared when the consumer starts", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.void, {
            onFailure: AmqpConsumer.retry({ delays: ["1 second", "1 minute"], times: 7 }),
            onDefect: AmqpConsumer.retry({ delay: "1 hour", times: 1 })
          })
        )
        yield* untilQueue(queue, { consumers: 1 })
        const names = (yield* broker.queues).map(({ name }) => name)
        for (const delay of [1000, 60_000, 3_600_000]) {
          assert.include(names, AmqpTopology.retryQueueName(queue, delay))
        }
      }).pipe(onBroker)
    )

    it.effect("existing delay queues stay as they are, whatever their type", () =>
      Effect.gen(function* () {
        const work = AmqpTopology.workQueue("quorum-work", { queueType: "quorum", retryDelays: [10] })
        yield* AmqpTopology.declare(work)
        const { deliveries, handler } = yield* failing(1)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(work.queue, handler, { onFailure: AmqpConsumer.retry({ delay: 10, times: 2 }) })
        )
        yield* send(work.queue, "a")
        const [, second] = yield* Queue.takeN(deliveries, 2)
        assert.strictEqual(second!.attempt, 2)
        yield* untilQueue(work.queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("a message's time to live does not shorten the delay", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { deliveries, handler } = yield* failing(1)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 500, times: 1 }) })
        )
        yield* untilQueue(queue, { consumers: 1 })
        yield* AmqpPublisher.publish({ routingKey: queue, content: "a", expiration: 100 })
        yield* Queue.take(deliveries)
        const [time] = yield* Effect.timed(Queue.take(deliveries))
        assert.isAtLeast(Duration.toMillis(time), 400)
      }).pipe(onBroker)
    )

    it.effect("a short delay does not wait behind a long one", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { deliveries, handler } = yield* failing(1)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, {
            onFailure: (_error, delivery) =>
              AmqpConsumer.retry({ delay: AmqpMessage.text(delivery) === "slow" ? "1 hour" : 10, times: 1 })
          })
        )
        yield* send(queue, "slow", "fast")
        const texts = (yield* Queue.takeN(deliveries, 3)).map(AmqpMessage.text)
        assert.deepStrictEqual(texts, ["slow", "fast", "fast"])
      }).pipe(onBroker)
    )
  })

  describe("A message is given up after its number of retries.", () => {
    it.effect("it is dead-lettered by default, with the last error in its headers", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const { deliveries, handler } = yield* failing(Infinity, "\ud83d\ude00".repeat(1000))
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 5, times: 3 }) })
        )
        yield* send(queue, "a")
        const dead = yield* next(deadLetters)
        assert.strictEqual(yield* Queue.size(deliveries), 4)
        assert.strictEqual(headersOf(dead)["x-retry-count"], 3)
        const reason = headersOf(dead)["x-retry-reason"] as string
        assert.isAtMost(reason.length, 1024)
        assert.isTrue(reason.isWellFormed())
      }).pipe(onBroker)
    )

    it.effect("the log says of each attempt what happened to it: retried, and dead-lettered on the last one", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declareWithDeadLetters()
          const { handler } = yield* failing(Infinity)
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 5, times: 2 }) })
          )
          yield* send(queue, "a")
          yield* next(deadLetters)
          const policies = lines
            .filter(({ text }) => text.startsWith("AMQP delivery"))
            .map(({ text }) => /"policy":"([^"]*)"/.exec(text)?.[1])
          assert.deepStrictEqual(policies, ["retried", "retried", "dead-lettered", "dead-lettered"])
        })
      ).pipe(onBroker)
    )

    it.effect("its count starts from the beginning in another queue", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const onFailure = AmqpConsumer.retry({ delay: 5, times: 1 })
        const first = yield* failing(Infinity)
        const second = yield* failing(1)
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, first.handler, { onFailure }))
        yield* Effect.forkScoped(AmqpConsumer.consume(deadLetters, second.handler, { onFailure, maxDeliveries: 2 }))
        yield* send(queue, "a")
        for (const [{ deliveries }, routingKey] of [
          [first, queue],
          [second, deadLetters]
        ] as const) {
          const seen = yield* Queue.takeN(deliveries, 2)
          assert.deepStrictEqual(
            seen.map((delivery) => [delivery.attempt, delivery.routingKey]),
            [
              [1, routingKey],
              [2, routingKey]
            ]
          )
        }
        yield* untilQueue(deadLetters, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("a delivery that its handler has settled is not retried", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { deliveries, handler } = yield* failing(Infinity)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, (delivery) => Effect.andThen(delivery.ack, handler(delivery)), {
            onFailure: AmqpConsumer.retry({ delay: 5, times: 3 })
          })
        )
        yield* send(queue, "a", "b", "c")
        yield* Queue.takeN(deliveries, 3)
        yield* send(queue, "last")
        yield* Queue.take(deliveries)
        yield* untilQueue(AmqpTopology.retryQueueName(queue, 5), { messages: 0 })
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        assert.strictEqual(yield* Queue.size(deliveries), 0)
      }).pipe(onBroker)
    )

    it.effect("it is dropped if configured so", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const { deliveries, handler } = yield* failing(Infinity)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, {
            onFailure: AmqpConsumer.retry({ delay: 5, times: 1, onExhausted: AmqpConsumer.drop })
          })
        )
        yield* send(queue, "a")
        yield* Queue.takeN(deliveries, 2)
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("deliveries before a retry count for maxDeliveries", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum" })
        const { deliveries, handler } = yield* failing(Infinity)
        // It is delivered twice, retried, and delivered twice again: a fifth delivery is too many.
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, {
            maxDeliveries: 4,
            onFailure: (_error, delivery) =>
              delivery.attempt % 2 === 1 ? AmqpConsumer.requeue : AmqpConsumer.retry({ delay: 5, times: 10 })
          })
        )
        yield* send(queue, "a")
        assert.strictEqual(yield* nextText(deadLetters), "a")
        const attempts = (yield* Queue.takeAll(deliveries)).map(({ attempt }) => attempt)
        assert.deepStrictEqual(attempts, [1, 2, 3, 4])
      }).pipe(onBroker)
    )
  })

  describe("A retry is never lost: a retry that is not confirmed is requeued.", () => {
    it.effect("a delay queue that was deleted is declared again", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { deliveries, handler } = yield* failing(1)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 5, times: 1 }) })
        )
        yield* untilQueue(queue, { consumers: 1 })
        yield* deleteQueue(AmqpTopology.retryQueueName(queue, 5))
        yield* send(queue, "a")
        const [, second] = yield* Queue.takeN(deliveries, 2)
        assert.strictEqual(headersOf(second!)["x-retry-count"], 1)
      }).pipe(onBroker)
    )

    it.effect("a retry that is not confirmed leaves the message in its queue, and is paced", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const consumer = yield* AmqpConsumer.AmqpConsumer
        const published = yield* Queue.unbounded<number>()
        const unconfirmed = new AmqpError.AmqpError({
          reason: new AmqpError.PublishTimeout({ message: "not confirmed", sent: true })
        })
        const { deliveries, handler } = yield* failing(2)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 5, times: 5 }) }).pipe(
            Effect.provideService(AmqpConsumer.AmqpConsumer, {
              ...consumer,
              publisher: {
                ...consumer.publisher,
                publish: () => Effect.andThen(Queue.offer(published, Date.now()), Effect.fail(unconfirmed))
              }
            })
          )
        )
        yield* send(queue, "a")
        const [first, second] = yield* Queue.takeN(published, 2)
        assert.isAtLeast(second! - first!, 900)
        const [, again] = yield* Queue.takeN(deliveries, 2)
        assert.isTrue(again!.redelivered)
        assert.strictEqual(AmqpMessage.text(again!), "a")
      }).pipe(onBroker)
    )

    it.effect("a consumer that ends during the publish requeues the delivery", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const consumer = yield* AmqpConsumer.AmqpConsumer
        const publishing = yield* Latch.make()
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.fail("no"), {
            onFailure: AmqpConsumer.retry({ delay: 5, times: 5 }),
            shutdownTimeout: 0
          }).pipe(
            Effect.provideService(AmqpConsumer.AmqpConsumer, {
              ...consumer,
              publisher: { ...consumer.publisher, publish: () => Effect.andThen(publishing.open, Effect.never) }
            })
          )
        )
        yield* send(queue, "a")
        yield* publishing.await
        yield* Fiber.interrupt(fiber)
        yield* untilQueue(queue, { ready: 1, unacked: 0, consumers: 0 })
      }).pipe(onBroker)
    )

    it.effect("headers that leave no room for the error are sent without it", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { deliveries, handler } = yield* failing(1, "x".repeat(1024))
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 5, times: 1 }) })
        )
        // Headers have to fit into a frame.
        const headers = { large: "x".repeat(131_072 - 1000) }
        yield* AmqpPublisher.publish({ routingKey: queue, content: "a", headers })
        const [, second] = yield* Queue.takeN(deliveries, 2)
        assert.strictEqual(headersOf(second!)["large"], headers.large)
        assert.notProperty(headersOf(second!), "x-retry-reason")
      }).pipe(onBroker)
    )

    it.effect("a delay queue that cannot be declared fails the consumer when it starts", () =>
      Effect.gen(function* () {
        const password = "secret"
        const user = yield* Users.make(password)
        const queue = yield* declareQueue()
        yield* user.permit("^$", ".*", ".*")
        const error = yield* AmqpConsumer.consume(queue, () => Effect.void, {
          onFailure: AmqpConsumer.retry({ delay: 5, times: 1 })
        }).pipe(Effect.flip, (consuming) =>
          onBroker(consuming, {
            credentials: { _tag: "Plain", username: user.name, password: Redacted.make(password) }
          })
        )
        assert.strictEqual(error.reason._tag, "AccessRefused")
      }).pipe(Effect.scoped, onBroker)
    )
  })
})
