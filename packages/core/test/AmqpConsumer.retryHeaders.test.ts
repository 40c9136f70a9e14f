/** Which headers of a retry are trusted, on a real broker: any publisher can write them. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Queue, Redacted } from "effect"
import { legacyDelayQueueName } from "../src/internal/topology/delayQueues.ts"
import {
  declareQueue,
  declareWithDeadLetters,
  next,
  nextText,
  onBroker,
  send,
  untilQueue
} from "./support/consumers.ts"

/** What a handler that always fails sees of each attempt. */
const failing = (queue: string, options: AmqpConsumer.ConsumeOptions) =>
  Effect.gen(function* () {
    const seen = yield* Queue.unbounded<AmqpConsumer.Delivery>()
    const fiber = yield* Effect.forkScoped(
      AmqpConsumer.consume(queue, (delivery) => Effect.andThen(Queue.offer(seen, delivery), Effect.fail("no")), options)
    )
    return { seen, fiber }
  })

const attemptsOf = (seen: Queue.Queue<AmqpConsumer.Delivery>) =>
  Effect.map(Queue.takeAll(seen), (deliveries) => deliveries.map(({ attempt }) => attempt))

const forged = (queue: string) => ({
  "x-retry-queue": queue,
  "x-retry-count": 1e15,
  "x-retry-deliveries": 7,
  "x-retry-exchange": "billing",
  "x-retry-routing-key": "tenant.b.orders"
})

/** Headers as if the broker had taken the message from a delay queue. */
const forgedDeath = (queue: string) => [
  { queue: legacyDelayQueueName(queue, 100), reason: "expired", count: 1, exchange: "", "routing-keys": ["x"] }
]

const secret = Redacted.make("0123456789abcdef0123456789abcdef")
const another = Redacted.make("fedcba9876543210fedcba9876543210")

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("Exchange and routing key are the broker's, whatever the headers say.", () => {
    for (const [what, death] of [
      ["alone", undefined],
      ["with a forged x-death", forgedDeath]
    ] as const) {
      it.effect(`of a message with forged headers ${what}`, () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const { seen } = yield* failing(queue, { onFailure: AmqpConsumer.drop })
          yield* AmqpPublisher.publish({
            routingKey: queue,
            content: "a",
            headers: { ...forged(queue), ...(death === undefined ? {} : { "x-death": death(queue) }) }
          })
          const { attempt, exchange, origin, routingKey } = yield* Queue.take(seen)
          assert.deepStrictEqual({ exchange, routingKey }, { exchange: "", routingKey: queue })
          if (death !== undefined) return
          assert.strictEqual(attempt, 1)
          assert.isUndefined(origin)
        }).pipe(onBroker)
      )
    }
  })

  describe("A forged count ends the retries of its own message at most.", () => {
    it.effect("a message with forged headers alone is tried as often as any other", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const onFailure = AmqpConsumer.retry({ delay: 5, times: 2 })
        const { seen } = yield* failing(queue, { onFailure, maxDeliveries: 5 })
        yield* AmqpPublisher.publish({ routingKey: queue, content: "a", headers: forged(queue) })
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.deepStrictEqual(yield* attemptsOf(seen), [1, 2, 3])
      }).pipe(onBroker)
    )

    it.effect("a message with a forged x-death is handled once, and then given up", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const { seen } = yield* failing(queue, { onFailure: AmqpConsumer.retry({ delay: 5, times: 2 }) })
        const headers = { ...forged(queue), "x-death": forgedDeath(queue) }
        yield* AmqpPublisher.publish({ routingKey: queue, content: "a", headers })
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.lengthOf(yield* attemptsOf(seen), 1)
      }).pipe(onBroker)
    )

    it.effect("a message with forged headers is tried as often as any other where there is a secret", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const onFailure = AmqpConsumer.retry({ delay: 5, times: 2 })
        const { seen } = yield* failing(queue, { onFailure, maxDeliveries: 5, retrySecret: secret })
        const headers = { ...forged(queue), "x-death": forgedDeath(queue), "x-retry-signature": "A".repeat(43) }
        yield* AmqpPublisher.publish({ routingKey: queue, content: "a", headers })
        const deliveries = yield* Queue.takeN(seen, 3)
        assert.deepStrictEqual(
          deliveries.map(({ attempt }) => attempt),
          [1, 2, 3]
        )
        const origin = { exchange: "", routingKey: queue }
        assert.deepStrictEqual(
          deliveries.map(({ origin }) => origin),
          [undefined, origin, origin]
        )
        assert.strictEqual(yield* nextText(deadLetters), "a")
      }).pipe(onBroker)
    )
  })

  describe("With a secret only signed headers are trusted.", () => {
    const tampered = [
      ["with another count", { "x-retry-count": 9 }, "a"],
      ["with another number of deliveries", { "x-retry-deliveries": 9 }, "a"],
      ["with another origin", { "x-retry-routing-key": "tenant.b" }, "a"],
      ["of another message", {}, "b"]
    ] as const
    for (const [what, change, content] of tampered) {
      it.effect(`a signature ${what} is not trusted`, () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const { fiber, seen } = yield* failing(queue, {
            onFailure: AmqpConsumer.retry({ delay: 5, times: 1, onExhausted: AmqpConsumer.drop }),
            retrySecret: secret
          })
          yield* send(queue, "a")
          const [, signed] = yield* Queue.takeN(seen, 2)
          assert.strictEqual(signed!.attempt, 2)
          yield* untilQueue(queue, { messages: 0, unacked: 0 })
          const message = AmqpMessage.fromDelivery(signed!, {
            content,
            headers: { ...signed!.properties.headers, ...change }
          })
          yield* AmqpPublisher.publish(message)
          const { attempt, origin } = yield* Queue.take(seen)
          assert.deepStrictEqual({ attempt, origin }, { attempt: 1, origin: undefined })
          yield* Fiber.interrupt(fiber)
        }).pipe(onBroker)
      )
    }

    it.effect(
      "the signature of any of several secrets is trusted, so that a secret can be replaced while consumers run",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const onFailure = AmqpConsumer.retry({ delay: 50, times: 5 })
          // Each of these consumers accepts the signature of the one before it.
          yield* send(queue, "a")
          const attempts: Array<number> = []
          for (const retrySecret of [secret, [secret, another], [another, secret], another]) {
            const seen = yield* Queue.unbounded<number>()
            const isBack = yield* Latch.make()
            let isFirst = true
            const handler = ({ attempt }: AmqpConsumer.Delivery) => {
              if (!isFirst) return Effect.andThen(isBack.open, Effect.never)
              isFirst = false
              return Effect.andThen(Queue.offer(seen, attempt), Effect.fail("no"))
            }
            const fiber = yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, handler, { onFailure, retrySecret, shutdownTimeout: 0 })
            )
            attempts.push(yield* Queue.take(seen))
            // The retry comes back to this consumer, and then goes to the next: a delivery returned without an outcome
            // does not count.
            yield* isBack.await
            yield* Fiber.interrupt(fiber)
          }
          assert.deepStrictEqual(attempts, [1, 2, 3, 4])
        }).pipe(onBroker)
    )
  })

  describe("A message that is published again by another program starts from the beginning.", () => {
    for (const queueType of ["classic", "quorum"] as const) {
      for (const maxDeliveries of [undefined, 3]) {
        it.effect(`a dead letter that is moved back, with maxDeliveries ${maxDeliveries} (${queueType} queue)`, () =>
          Effect.gen(function* () {
            const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
            const { seen } = yield* failing(queue, {
              onFailure: AmqpConsumer.retry({ delay: 5, times: 2 }),
              maxDeliveries
            })
            yield* send(queue, "a")
            for (let round = 0; round < 3; round++) {
              const dead = yield* next(deadLetters)
              assert.deepStrictEqual(yield* attemptsOf(seen), [1, 2, 3])
              // The shovel plugin and most tools do it like this: properties and headers are kept.
              yield* AmqpPublisher.publish(AmqpMessage.fromDelivery(dead, { exchange: "", routingKey: queue }))
            }
          }).pipe(onBroker)
        )
      }
    }

    it.effect("a dead letter that was given up without a retry", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const { seen } = yield* failing(queue, { onFailure: AmqpConsumer.requeue, maxDeliveries: 2 })
        yield* send(queue, "a")
        for (let round = 0; round < 3; round++) {
          const dead = yield* next(deadLetters)
          assert.deepStrictEqual(yield* attemptsOf(seen), [1, 2])
          yield* AmqpPublisher.publish(AmqpMessage.fromDelivery(dead, { exchange: "", routingKey: queue }))
        }
      }).pipe(onBroker)
    )
  })

  describe("Different versions of this library continue each other's counts.", () => {
    it.effect("the count of an earlier version in its delay queue is trusted", () =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const waiting = legacyDelayQueueName(queue, 20)
        yield* pool.use((channel) =>
          channel.queueDeclare(waiting, { messageTtl: 20, deadLetterExchange: "", deadLetterRoutingKey: queue })
        )
        const { seen } = yield* failing(queue, { onFailure: AmqpConsumer.retry({ delay: 20, times: 3 }) })
        // Headers of version 0.1: the second retry of a message from the exchange `shop`.
        yield* AmqpPublisher.publish({
          routingKey: waiting,
          content: "a",
          headers: {
            "x-retry-queue": queue,
            "x-retry-count": 2,
            "x-retry-deliveries": 2,
            "x-retry-exchange": "shop",
            "x-retry-routing-key": "order.created",
            "x-retry-error": "Busy",
            "x-retry-reason": "later"
          }
        })
        const origin = { exchange: "shop", routingKey: "order.created" }
        const deliveries = yield* Queue.takeN(seen, 2)
        assert.deepStrictEqual(
          deliveries.map(({ attempt, origin }) => ({ attempt, origin })),
          [
            { attempt: 3, origin },
            { attempt: 4, origin }
          ]
        )
        // An earlier version reads these same headers in a retry of this version.
        assert.deepInclude({ ...(yield* next(deadLetters)).properties.headers } as Record<string, unknown>, {
          "x-retry-queue": queue,
          "x-retry-count": 3,
          "x-retry-deliveries": 3,
          "x-retry-exchange": "shop",
          "x-retry-routing-key": "order.created"
        })
      }).pipe(onBroker)
    )
  })
})
