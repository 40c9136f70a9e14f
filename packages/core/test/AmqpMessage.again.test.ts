/** What was read can be published again, byte for byte: a retry does not change another publisher's types. */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpMessage, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Option, Schema } from "effect"
import { declareQueue, next, onBroker } from "./support/consumers.ts"
import {
  long,
  longlong,
  longText,
  rawProperties,
  rawPropertiesIn,
  rawPublish,
  rawTable,
  rawValue,
  shortBytes
} from "./support/rawMessages.ts"

/** Nests a table in a table, `depth` times. */
const nested = (depth: number): Buffer => {
  let table = rawTable()
  for (let i = 0; i < depth; i++) table = rawTable(["a", rawValue("F", table)])
  return table
}

const notUtf8 = Buffer.alloc(255, 0xff)
const double = Buffer.alloc(8)
double.writeDoubleBE(5)
const float = Buffer.alloc(4)
float.writeFloatBE(0.1)

/** Entries that RabbitMQ 4 writes unchanged. */
const entries: Record<string, ReadonlyArray<readonly [string | Uint8Array, Buffer]>> = {
  "integers of every size": [
    ["b", rawValue("b", Buffer.of(5))],
    ["B", rawValue("B", Buffer.of(255))],
    ["s", rawValue("s", Buffer.of(0, 5))],
    ["u", rawValue("u", Buffer.of(0, 5))],
    ["I", rawValue("I", long(5))],
    ["i", rawValue("i", long(5))],
    ["l", rawValue("l", longlong(5n))]
  ],
  "other numbers": [
    ["d", rawValue("d", double)],
    ["f", rawValue("f", float)],
    ["D", rawValue("D", Buffer.of(2), long(1999))]
  ],
  "a timestamp beyond the years of a Date": [
    ["T", rawValue("T", longlong(2n ** 64n - 1n))],
    ["nanoseconds", rawValue("T", longlong(1_767_225_600_000_000_000n))]
  ],
  "a text that is not UTF-8": [["S", longText(Buffer.of(0x61, 0xff))]],
  "keys that are not UTF-8": [
    [notUtf8, rawValue("t", Buffer.of(1))],
    [Buffer.of(0xfe), rawValue("F", rawTable([Buffer.of(0xff), rawValue("I", long(1))]))]
  ],
  "arrays and tables of such": [
    ["A", rawValue("A", long(10), rawValue("I", long(1)), rawValue("I", long(2)))],
    ["F", rawValue("F", rawTable(["I", rawValue("I", long(1))]))]
  ],
  "the deepest tables that are read as tables": [["a", rawValue("F", nested(511))]],
  "tables that are nested deeper": [["a", rawValue("F", nested(600))]],
  "70,000 bytes": [["large", longText("x".repeat(70_000))]],
  "130,000 bytes": [["large", longText("x".repeat(130_000))]]
}

/** Properties with these headers, and with short strings that are not UTF-8. */
const propertiesOf = (headers: Buffer): Buffer =>
  rawProperties(
    0x2000 | 0x1000 | 0x0400 | 0x0020,
    headers,
    Buffer.of(2),
    shortBytes(Buffer.of(0x63, 0xff)),
    shortBytes(headers.length > 100_000 ? Buffer.of(0xfe) : notUtf8)
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  for (const [name, list] of Object.entries(entries)) {
    it.effect(`${name}: a copy made with fromDelivery is published byte for byte as it was read`, () =>
      onBroker(
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const [queue, copies] = [yield* declareQueue(), yield* declareQueue()]
          const message = { routingKey: queue, properties: propertiesOf(rawTable(...list)) }
          yield* rawPublish(url, message, message)
          // RabbitMQ 4 has changed the order of the keys.
          const expected = yield* rawPropertiesIn(url, queue)
          const delivery = yield* next(queue)
          const again = AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: copies })
          yield* AmqpPublisher.publish(again)
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish(again)))
          for (const _ of [1, 2]) assert.isTrue((yield* rawPropertiesIn(url, copies)).equals(expected))
        })
      )
    )

    it.effect(`${name}: a retry keeps the bytes of every header that it does not set itself`, () =>
      onBroker(
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const [queue, copies] = [yield* declareQueue(), yield* declareQueue()]
          yield* rawPublish(url, { routingKey: queue, properties: propertiesOf(rawTable(...list)) })
          const attempts: Array<number> = []
          const done = yield* Deferred.make<void>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              queue,
              (delivery): Effect.Effect<unknown, unknown, AmqpPublisher.AmqpPublisher> => {
                attempts.push(delivery.attempt)
                if (delivery.attempt < 3) return Effect.fail("again")
                const again = AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: copies })
                return Effect.andThen(AmqpPublisher.publish(again), Deferred.succeed(done, undefined))
              },
              { onFailure: AmqpConsumer.retry({ delay: 1, times: 3 }) }
            )
          )
          yield* Deferred.await(done).pipe(Effect.timeout("20 seconds"))
          assert.deepStrictEqual(attempts, [1, 2, 3])
          const found = yield* rawPropertiesIn(url, copies)
          for (const [key, value] of list) {
            assert.isAbove(
              found.indexOf(Buffer.concat([shortBytes(Buffer.from(key as string)), value])),
              0,
              String(key)
            )
          }
        })
      )
    )
  }

  it.effect("changed headers are written with their new values, and the others as they were read", () =>
    onBroker(
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const [queue, copies] = [yield* declareQueue(), yield* declareQueue()]
        const list = rawTable(
          ["a", rawValue("I", long(1))],
          ["b", rawValue("I", long(2))],
          ["c", rawValue("I", long(3))]
        )
        yield* rawPublish(url, { routingKey: queue, properties: rawProperties(0x2000, list) })
        const delivery = yield* next(queue)
        const headers = delivery.properties.headers as Record<string, AmqpMessage.FieldValue>
        headers["a"] = "changed"
        delete headers["b"]
        yield* AmqpPublisher.publish(
          AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: copies, persistent: false })
        )
        const expected = rawProperties(
          0x3000,
          rawTable(["a", longText("changed")], ["c", rawValue("I", long(3))]),
          Buffer.of(1)
        )
        assert.isTrue((yield* rawPropertiesIn(url, copies)).equals(expected))
      })
    )
  )

  it.effect("a routing key that is not UTF-8 is kept in the copy, and in what comes back", () =>
    onBroker(
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const [queue, copies] = [yield* declareQueue(), yield* declareQueue()]
        const exchange = `${queue}-fanout`
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              yield* channel.exchangeDeclare(exchange, "fanout", { durable: false, autoDelete: true })
              yield* channel.queueBind(queue, exchange, "")
              yield* rawPublish(url, { exchange, routingKey: notUtf8, properties: rawProperties(0) })
              const delivery = Option.getOrThrow(yield* channel.get(queue, { noAck: true }))
              yield* channel.queueBind(copies, exchange, "")
              yield* AmqpPublisher.publish(AmqpMessage.fromDelivery(delivery))
              const again = Option.getOrThrow(yield* channel.get(copies, { noAck: true }))
              assert.strictEqual(again.routingKey, delivery.routingKey)
              const lost = yield* Effect.flip(
                AmqpPublisher.publish(AmqpMessage.fromDelivery(delivery, { exchange: "amq.direct" }), {
                  mandatory: true
                })
              )
              assert.strictEqual(lost.reason._tag, "PublishReturned")
            })
          )
        )
      })
    )
  )

  it.effect("a request whose correlation id is not UTF-8 is answered with the same bytes", () =>
    onBroker(
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const [queue, replies] = [yield* declareQueue(), yield* declareQueue()]
        const Ask = AmqpRpc.make("ask", { queue, success: Schema.Int })
        yield* Effect.forkScoped(AmqpRpc.serve(Ask, () => Effect.succeed(1), { replyTo: "any" }))
        yield* rawPublish(url, {
          routingKey: queue,
          properties: rawProperties(0x0600, shortBytes(notUtf8), shortBytes(Buffer.from(replies))),
          body: Buffer.alloc(0)
        })
        yield* next(replies).pipe(
          Effect.tap(({ properties }) => Effect.sync(() => assert.strictEqual(properties.correlationId!.length, 255)))
        )
      })
    )
  )
})
