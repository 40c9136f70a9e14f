/** The operations of a borrowed channel, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Option } from "effect"
import { onTestBroker } from "./support/client.ts"
import { withPool } from "./support/amqp.ts"
import { take } from "./support/queues.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("publish and get", () => {
    it.effect("transfer a message with all its properties as they were published", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            const properties = {
              contentType: "application/json",
              contentEncoding: "utf-8",
              headers: {
                text: "ü",
                whole: 7,
                half: 0.5,
                yes: true,
                nothing: null,
                list: [1, "a"],
                nested: { a: { b: 1 } }
              },
              persistent: false,
              priority: 5,
              correlationId: "c-1",
              replyTo: "reply",
              expiration: 60_000,
              messageId: "m-1",
              timestamp: new Date("2026-11-20T12:34:56Z"),
              type: "order.created",
              userId: "guest",
              appId: "shop"
            }
            yield* channel.publish({ routingKey: queue, content: '{"ü":1}', ...properties })
            const delivery = yield* take(channel, queue)
            assert.strictEqual(AmqpMessage.text(delivery), '{"ü":1}')
            assert.deepStrictEqual({ ...delivery.properties.headers }, properties.headers as never)
            assert.deepStrictEqual(
              { ...delivery.properties, headers: undefined },
              { ...properties, headers: undefined }
            )
            assert.deepInclude(delivery, { exchange: "", routingKey: queue, redelivered: false, messageCount: 0 })
            yield* channel.ack(delivery)
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )

    it.effect("transfer messages as persistent by default", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            yield* channel.publish({ routingKey: queue, content: "" })
            assert.isTrue((yield* take(channel, queue)).properties.persistent)
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )

    it.effect("transfer bytes of every size unchanged, also beyond a frame", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            for (const size of [0, 1, 1500, 131_064, 131_072, 1_000_000]) {
              // A view into a larger buffer: only its own bytes are the message.
              const content = new Uint8Array(size + 20).map((_, i) => i % 251).subarray(10, size + 10)
              yield* channel.publish({ routingKey: queue, content })
              const delivery = yield* take(channel, queue)
              assert.isTrue(Buffer.from(delivery.content).equals(Buffer.from(content)), `${size} bytes`)
              yield* channel.ack(delivery)
            }
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )

    it.effect("transfer a header called __proto__ as a header, without changing a prototype", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            const headers = JSON.parse('{"__proto__": {"polluted": true}, "plain": 1}')
            yield* channel.publish({ routingKey: queue, content: "", headers })
            const received = (yield* take(channel, queue)).properties.headers!
            assert.isNull(Object.getPrototypeOf(received))
            assert.deepStrictEqual(Object.keys(received).sort(), ["__proto__", "plain"])
            assert.isUndefined((received as { polluted?: boolean }).polluted)
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )

    it.effect("return none from an empty queue", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            assert.isTrue(Option.isNone(yield* channel.get(queue)))
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )
  })

  describe("settling", () => {
    it.effect(
      "happens once per delivery: an acknowledged delivery is gone, and a second attempt fails with DeliverySettled",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          yield* AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const { queue } = yield* channel.queueDeclare("", { exclusive: true })
              yield* channel.publish({ routingKey: queue, content: "a" })
              const delivery = yield* take(channel, queue)
              yield* channel.ack(delivery)
              for (const again of [channel.ack(delivery), channel.nack(delivery)]) {
                assert.strictEqual((yield* Effect.flip(again)).reason._tag, "DeliverySettled")
              }
              yield* awaitCensus({ unacked: 0 })
              // A 406 would have closed the channel.
              assert.isTrue(Option.isNone(yield* channel.get(queue)))
            })
          ).pipe(Effect.scoped, withPool(url))
        })
    )

    it.effect("with a delivery of another channel is refused, though its tag is known on this channel too", () =>
      onTestBroker({}, function* () {
        const one = yield* AmqpPool.get
        const two = yield* AmqpPool.get
        const { queue } = yield* one.queueDeclare("", { exclusive: true })
        yield* one.publish({ routingKey: queue, content: "a" })
        yield* one.publish({ routingKey: queue, content: "b" })
        const ofOne = yield* take(one, queue)
        const ofTwo = yield* take(two, queue)
        assert.strictEqual(ofOne.deliveryTag, ofTwo.deliveryTag)
        assert.strictEqual((yield* Effect.flip(two.ack(ofOne))).reason._tag, "DeliverySettled")
        yield* two.ack(ofTwo)
        yield* one.ack(ofOne)
      })
    )

    it.effect("with nack returns the message to its queue, or drops it with requeue: false", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            yield* channel.publish({ routingKey: queue, content: "a" })
            yield* channel.nack(yield* take(channel, queue))
            const again = yield* take(channel, queue)
            assert.isTrue(again.redelivered)
            yield* channel.nack(again, { requeue: false })
            assert.isTrue(Option.isNone(yield* channel.get(queue)))
          })
        ).pipe(Effect.scoped, withPool(url))
      })
    )
  })

  describe("topology", () => {
    it.effect(
      "that is declared and bound routes messages; purge and delete return the number of removed messages",
      () =>
        Effect.gen(function* () {
          const { url, queues } = yield* TestBroker.TestBroker
          yield* AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              yield* channel.exchangeDeclare("events", "topic", { autoDelete: true })
              const declared = yield* channel.queueDeclare("events.orders", { arguments: { "x-max-length": 100 } })
              assert.deepStrictEqual(declared, { queue: "events.orders", messageCount: 0, consumerCount: 0 })
              yield* channel.queueBind("events.orders", "events", "order.#")
              for (const routingKey of ["order.created", "order.paid", "customer.created"]) {
                yield* channel.publish({ exchange: "events", routingKey, content: routingKey })
              }
              assert.strictEqual((yield* take(channel, "events.orders")).routingKey, "order.created")
              assert.strictEqual(yield* channel.queuePurge("events.orders"), 1)
              yield* channel.publish({ exchange: "events", routingKey: "order.paid", content: "" })
              assert.strictEqual(yield* channel.queueDelete("events.orders"), 1)
            })
          ).pipe(Effect.scoped, withPool(url))
          assert.deepStrictEqual(yield* queues, [])
        })
    )
  })
})
