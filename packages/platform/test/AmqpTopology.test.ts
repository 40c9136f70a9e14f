// Shapes of topologies, what they name, and their values of Effect 3.
import {
  AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpMessage,
  AmqpPublisher,
  AmqpTopology
} from "@effect-amqp/platform"
import { assert, describe, it, layer } from "@effect/vitest"
import { Deferred, Duration, Effect, Queue, Redacted } from "effect"
import * as Application from "./support/application.ts"

const lineOf = (delivery: AmqpConsumer.Delivery) => `${delivery.attempt} ${AmqpMessage.text(delivery)}`

describe("a topology", () => {
  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("of a work queue retries after its delays, and dead-letters then", () =>
      Effect.gen(function* () {
        const orders = AmqpTopology.workQueue("orders", { retryDelays: [Duration.millis(10), "20 millis"] })
        assert.deepStrictEqual(orders.retryQueues, ["orders.delay.10", "orders.delay.20"])
        assert.strictEqual(AmqpTopology.retryQueueName("orders", "10 millis"), orders.retryQueues[0])
        yield* AmqpTopology.declare(orders)
        yield* AmqpTopology.verify(AmqpTopology.externalQueue("orders.delay.20"))
        const seen = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            orders.queue,
            (delivery) => Effect.zipRight(seen.offer(lineOf(delivery)), Effect.fail("broken")),
            { onFailure: orders.onFailure }
          )
        )
        const dead = yield* Deferred.make<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(orders.deadLetterQueue, (delivery) => Deferred.succeed(dead, AmqpMessage.text(delivery)))
        )
        yield* AmqpPublisher.publish({ routingKey: "orders", content: "x" }, { mandatory: true })
        assert.deepStrictEqual([...(yield* Queue.takeN(seen, 3))], ["1 x", "2 x", "3 x"])
        assert.strictEqual(yield* Deferred.await(dead), "x")
      })
    )

    it.scoped("of an exchange with subscribers gives each its messages, which can be forwarded", () =>
      Effect.gen(function* () {
        const shop = AmqpTopology.publishSubscribe("shop", {
          billing: { routingKeys: ["order.*"], messageTtl: Duration.minutes(1) },
          audit: {}
        })
        yield* AmqpTopology.declare(AmqpTopology.make(shop, AmqpTopology.queue("forwarded")))
        assert.deepStrictEqual(shop.subscribers, ["billing", "audit"])
        const audited = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("audit", (delivery) => audited.offer(delivery.routingKey), { concurrency: 1 })
        )
        yield* Effect.forkScoped(
          AmqpConsumer.consume("billing", (delivery) =>
            AmqpPublisher.publish(
              AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: "forwarded", expiration: "1 minute" }),
              { mandatory: true }
            )
          )
        )
        const forwarded = yield* Deferred.make<AmqpConsumer.Delivery>()
        yield* Effect.forkScoped(AmqpConsumer.consume("forwarded", (delivery) => Deferred.succeed(forwarded, delivery)))
        for (const routingKey of ["user.created", "order.placed"]) {
          yield* AmqpPublisher.publish({ exchange: "shop", routingKey, content: "x", messageId: routingKey })
        }
        assert.deepStrictEqual([...(yield* Queue.takeN(audited, 2))], ["user.created", "order.placed"])
        const { properties } = yield* Deferred.await(forwarded)
        assert.strictEqual(properties.messageId, "order.placed")
        assert.strictEqual(properties.expiration, 60_000)
      })
    )

    it.scoped("reports the conditions of its application", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* AmqpConnection.conditions, [])
        yield* Effect.flip(AmqpConsumer.consume("missing", () => Effect.void))
        const [condition] = yield* AmqpConnection.conditions
        assert.deepInclude(condition, { kind: "ConsumerEnded", notReady: true })
        assert.include(condition?.message, "missing")
      })
    )
  })

  it.effect("that would lose messages is refused, and unknown delays are mistakes", () =>
    Effect.sync(() => {
      const orders = AmqpTopology.workQueue("orders", { deadLetterQueue: { maxLength: 10 } })
      assert.include(AmqpTopology.check(orders).join(), "orders.dlq")
      const delays = AmqpTopology.retryQueues("orders", ["1 second"], { queueType: "stream" as never })
      assert.include(AmqpTopology.check(delays).join(), "queueType")
    })
  )

  it.effect("is for a connection that may be configured as for Flask-Pika", () =>
    Effect.gen(function* () {
      yield* AmqpConfig.fromFlaskPika(
        { host: "localhost", username: "guest", password: Redacted.make("guest") },
        { pool_size: 8, pool_recycle: 600 }
      )
      const error = yield* Effect.flip(
        AmqpConfig.fromFlaskPika(
          { username: "guest", password: Redacted.make("s3cret"), heartbeat: -1 },
          { pool_size: 0, pool_recycle: -1 }
        )
      )
      assert(error.reason._tag === "InvalidConfig")
      assert.deepStrictEqual(
        error.reason.issues.map(({ setting }) => setting),
        ["heartbeat", "pool_size"]
      )
      assert.notInclude(error.message, "s3cret")
    })
  )
})
