/** The usual shapes, on a real broker, and what RabbitMQ does with dead letters in a cycle. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpMessage, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Queue } from "effect"
import { withPool } from "./support/amqp.ts"

const now = Effect.sync(() => performance.now())

/** The next message of a queue, however long it takes to arrive. */
const next = (channel: AmqpChannel.AmqpChannel, queue: string) =>
  Effect.gen(function* () {
    const { consumerTag, deliveries } = yield* channel.consume(queue)
    const delivery = yield* Queue.take(deliveries)
    yield* channel.cancel(consumerTag)
    return delivery
  })

describe("names", () => {
  it("of the queues around a work queue come from pure functions", () => {
    const orders = AmqpTopology.workQueue("orders", { retryDelays: ["1 second", 1500, { minutes: 1 }] })
    assert.deepInclude(orders, {
      queue: "orders",
      deadLetterExchange: "orders.dlx",
      deadLetterQueue: "orders.dlq",
      retryQueues: ["orders.delay.1000", "orders.delay.1500", "orders.delay.60000"]
    })
    assert.strictEqual(AmqpTopology.retryQueueName("orders", "1 second"), orders.retryQueues[0])
    assert.sameMembers(
      orders.queues.map(({ name }) => name),
      [orders.queue, orders.deadLetterQueue, ...orders.retryQueues]
    )
  })

  for (const queueType of ["classic", "quorum"] as const) {
    it(`delay queues dead-letter at least once, also those of a ${queueType} queue`, () => {
      const { queues, retryQueues } = AmqpTopology.workQueue("w", { queueType, retryDelays: [1, 2] })
      assert.lengthOf(retryQueues, 2)
      for (const name of retryQueues) {
        assert.deepInclude(queues.find((each) => each.name === name)?.options, {
          queueType: "quorum",
          deadLetterStrategy: "at-least-once",
          overflow: "reject-publish"
        })
      }
      for (const name of ["w", "w.dlq"]) {
        assert.deepInclude(queues.find((each) => each.name === name)?.options, { queueType })
      }
    })
  }

  it("a quorum work queue dead-letters at least once, too", () => {
    const { queues } = AmqpTopology.workQueue("w", { queueType: "quorum" })
    assert.deepInclude(queues.find(({ name }) => name === "w")?.options, {
      deadLetterStrategy: "at-least-once",
      overflow: "reject-publish"
    })
  })

  it("a work queue has the policy that uses what it declares", () => {
    const delays = ["1 second", 1500] as const
    assert.deepStrictEqual(AmqpTopology.workQueue("w", { retryDelays: delays }).onFailure, {
      _tag: "Retry",
      options: { delays, queueType: undefined }
    })
    assert.deepInclude(AmqpTopology.workQueue("w", { retryDelays: delays, retryQueueType: "classic" }).onFailure, {
      options: { delays, queueType: "classic" }
    })
    assert.strictEqual(AmqpTopology.workQueue("w").onFailure, AmqpConsumer.deadLetter)
  })

  it("of the exchange and the subscribers come from pure functions, too", () => {
    const shop = AmqpTopology.publishSubscribe("shop", { billing: { routingKeys: ["a", "b"] }, audit: {} })
    assert.deepInclude(shop, { exchange: "shop", subscribers: ["billing", "audit"] })
    assert.deepStrictEqual(
      shop.bindings.map(({ destination, routingKey }) => [destination, routingKey]),
      [
        ["billing", "a"],
        ["billing", "b"],
        ["audit", "#"]
      ]
    )
  })
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  for (const queueType of ["classic", "quorum"] as const) {
    describe(`a work queue, ${queueType}`, () => {
      const orders = AmqpTopology.workQueue(`orders.${queueType}`, { queueType, retryDelays: [300, 50, "1 hour"] })
      const [slow, fast, never] = orders.retryQueues as [string, string, string]

      it.effect("a rejected message is kept in the dead-letter queue, with its original routing key", () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          yield* AmqpTopology.declare(
            AmqpTopology.make(orders, AmqpTopology.queueBinding(orders.queue, "amq.topic", "order.#"))
          ).pipe(
            Effect.andThen(
              AmqpChannel.use((channel) =>
                Effect.gen(function* () {
                  yield* channel.publish({ exchange: "amq.topic", routingKey: "order.created", content: "bad" })
                  yield* channel.reject(yield* next(channel, orders.queue), { requeue: false })
                  const dead = yield* next(channel, orders.deadLetterQueue)
                  assert.strictEqual(AmqpMessage.text(dead), "bad")
                  assert.strictEqual(dead.routingKey, "order.created")
                  yield* channel.ack(dead)
                })
              )
            ),
            Effect.scoped,
            withPool(url)
          )
        })
      )

      it.effect("a message in a retry queue comes back after its delay; a longer one does not hold it up", () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          yield* AmqpTopology.declare(orders).pipe(
            Effect.andThen(
              AmqpChannel.use((channel) =>
                Effect.gen(function* () {
                  const published = yield* now
                  for (const routingKey of [never, slow, fast]) {
                    yield* channel.publish({ routingKey, content: routingKey })
                  }
                  for (const [name, delay] of [
                    [fast, 50],
                    [slow, 300]
                  ] as const) {
                    const back = yield* next(channel, orders.queue)
                    assert.strictEqual(AmqpMessage.text(back), name)
                    assert.isAtLeast((yield* now) - published, delay - 1)
                    yield* channel.ack(back)
                  }
                  assert.strictEqual((yield* channel.queueDeclarePassive(never)).messageCount, 1)
                })
              )
            ),
            Effect.scoped,
            withPool(url)
          )
        })
      )

      it.effect("a message may be sent to the same retry queue again and again", () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          yield* AmqpTopology.declare(orders).pipe(
            Effect.andThen(
              AmqpChannel.use((channel) =>
                Effect.gen(function* () {
                  yield* channel.publish({ routingKey: orders.queue, content: "try" })
                  for (let i = 0; i < 4; i++) {
                    const delivery = yield* next(channel, orders.queue)
                    // The copy has all headers, including the deaths.
                    yield* channel.publish({ ...delivery.properties, routingKey: fast, content: delivery.content })
                    yield* channel.ack(delivery)
                  }
                  yield* channel.ack(yield* next(channel, orders.queue))
                })
              )
            ),
            Effect.scoped,
            withPool(url)
          )
        })
      )
    })
  }

  describe("publish and subscribe", () => {
    it.effect("every subscriber gets a copy of what it subscribes to", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        // There are two services, and each has its own description of the exchange.
        const topology = AmqpTopology.make(
          AmqpTopology.publishSubscribe("shop", { billing: { routingKeys: ["order.*", "refund.#"] } }),
          AmqpTopology.publishSubscribe("shop", { audit: {} }),
          AmqpTopology.publishSubscribe("news", { reader: {} }, { type: "fanout" })
        )
        yield* AmqpTopology.declare(topology).pipe(
          Effect.andThen(
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                for (const routingKey of ["customer.created", "order.paid", "refund.a.b"]) {
                  yield* channel.publish({ exchange: "shop", routingKey, content: "" })
                }
                yield* channel.publish({ exchange: "news", routingKey: "any", content: "" })
                const got = (queue: string, count: number) =>
                  Effect.gen(function* () {
                    const { deliveries } = yield* channel.consume(queue, { noAck: true })
                    return (yield* Queue.takeN(deliveries, count)).map(({ routingKey }) => routingKey)
                  })
                assert.deepStrictEqual(yield* got("billing", 2), ["order.paid", "refund.a.b"])
                assert.deepStrictEqual(yield* got("audit", 3), ["customer.created", "order.paid", "refund.a.b"])
                assert.deepStrictEqual(yield* got("reader", 1), ["any"])
              })
            )
          ),
          Effect.scoped,
          withPool(url)
        )
      })
    )
  })

  describe("what RabbitMQ does with dead letters in a cycle", () => {
    /** Declares queues although `check` refuses them. */
    const anyway = (channel: AmqpChannel.AmqpChannel, parts: ReadonlyArray<AmqpTopology.Queue>) =>
      Effect.gen(function* () {
        assert.lengthOf(AmqpTopology.check(AmqpTopology.make(...parts)), 1)
        for (const { name, options } of parts) yield* channel.queueDeclare(name, options)
      })

    const ends = (names: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const { queues } = yield* TestBroker.TestBroker
        // Many looks have to find the queues empty, since a message between two queues is in neither.
        for (let empty = 0, i = 0; empty < 20; i++) {
          assert.isBelow(i, 2000, "the message never went")
          const rows = (yield* queues).filter(({ name }) => names.includes(name))
          empty = rows.every(({ messages }) => messages === 0) ? empty + 1 : 0
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
        }
      })

    it.effect("a message that comes back and has only expired is dropped, as check says", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            yield* anyway(channel, [
              AmqpTopology.queue("round.a", { messageTtl: 1, deadLetterExchange: "", deadLetterRoutingKey: "round.b" }),
              AmqpTopology.queue("round.b", { messageTtl: 1, deadLetterExchange: "", deadLetterRoutingKey: "round.a" })
            ])
            yield* channel.publish({ routingKey: "round.a", content: "" })
            yield* channel.queueDeclarePassive("round.a")
            yield* ends(["round.a", "round.b"])
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )

    it.effect("a message that was delivered too often is dropped when it comes back, as check says", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            yield* anyway(channel, [
              AmqpTopology.queue("limited", {
                queueType: "quorum",
                deliveryLimit: 1,
                deadLetterExchange: "",
                deadLetterRoutingKey: "limited.retry"
              }),
              AmqpTopology.queue("limited.retry", {
                messageTtl: 1,
                deadLetterExchange: "",
                deadLetterRoutingKey: "limited"
              })
            ])
            yield* channel.publish({ routingKey: "limited", content: "" })
            // RabbitMQ 4.3 counts a basic.reject, and not a basic.nack.
            for (let i = 0; i < 2; i++) yield* channel.reject(yield* next(channel, "limited"), { requeue: true })
            yield* ends(["limited", "limited.retry"])
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )

    it.effect("a message that was rejected comes back as often as it is rejected", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const topology = AmqpTopology.make(
          AmqpTopology.queue("circle", { deadLetterExchange: "", deadLetterRoutingKey: "circle.retry" }),
          AmqpTopology.queue("circle.retry", {
            messageTtl: 1,
            deadLetterExchange: "",
            deadLetterRoutingKey: "circle"
          })
        )
        yield* AmqpTopology.declare(topology).pipe(
          Effect.andThen(
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                yield* channel.publish({ routingKey: "circle", content: "" })
                for (let i = 0; i < 5; i++) {
                  yield* channel.reject(yield* next(channel, "circle"), { requeue: false })
                }
                yield* channel.ack(yield* next(channel, "circle"))
              })
            )
          ),
          Effect.scoped,
          withPool(url)
        )
      })
    )
  })
})
