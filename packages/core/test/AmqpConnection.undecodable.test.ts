/**
 * Headers that other publishers have written: everything that a broker forwards is read, and a header that cannot be
 * read affects only its own message.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  AmqpMessage,
  AmqpMetrics,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Metric, Option, Queue, Schema, Stream, SubscriptionRef } from "effect"
import { configOf, reasonOf } from "./support/amqp.ts"
import { declareQueue, logged, onBroker } from "./support/consumers.ts"
import { encodeFrame, encodeMessage, FRAME_BODY, FRAME_HEADER } from "./support/frames.ts"
import {
  longlong,
  longText,
  long,
  rawProperties,
  rawPublish,
  rawTable,
  rawValue,
  shortBytes
} from "./support/rawMessages.ts"
import { count } from "./support/metrics.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const headersAndPersistent = 0x3000

/** A table with a type tag that does not exist. */
const strange = rawTable(["a", rawValue("Z", Buffer.of(1))])

/** A content header whose headers cannot be read, with a correlation id. */
const unreadable = (size: number, correlationId = "c") => {
  const head = Buffer.alloc(12)
  head.writeUInt16BE(60)
  head.writeBigUInt64BE(BigInt(size), 4)
  return Buffer.concat([head, rawProperties(0x2400, strange, shortBytes(Buffer.from(correlationId)))])
}

const withAll =
  (broker: ScriptedBroker.ScriptedBroker) =>
  <A, E, R>(program: Effect.Effect<A, E, R>) =>
    program.pipe(
      Effect.scoped,
      Effect.provide(Amqp.fromConfig(configOf(broker.url)), { local: true }),
      Effect.timeout("20 seconds")
    )

const generation = Effect.flatMap(AmqpConnection.AmqpConnection, ({ state }) =>
  Effect.map(SubscriptionRef.get(state), (now) => (now._tag === "Open" ? now.generation : 0))
)

/** Answers each `basic.consume` with this, then with these bytes, and with a message that can be read. */
const delivering = (broker: ScriptedBroker.ScriptedBroker, bodies: ReadonlyArray<string>) => {
  // The scripted broker does not know these deliveries.
  for (const method of ["basic.ack", "basic.reject"] as const) broker.on(method, () => {})
  broker.on("basic.consume", (consume) => {
    const { consumerTag } = consume.args
    const deliver = (deliveryTag: number) =>
      encodeMessage(consume.channel, "basic.deliver", { consumerTag, deliveryTag, routingKey: "q" })
    consume.reply("basic.consume-ok", { consumerTag })
    consume.write(
      Buffer.concat([
        ...bodies.flatMap((body, i) => [
          deliver(i + 1),
          encodeFrame(FRAME_HEADER, consume.channel, unreadable(body.length)),
          ...(body === "" ? [] : [encodeFrame(FRAME_BODY, consume.channel, Buffer.from(body))])
        ]),
        encodeMessage(
          consume.channel,
          "basic.deliver",
          { consumerTag, deliveryTag: bodies.length + 1, routingKey: "q" },
          { properties: { headers: { "x-stream-offset": bodies.length } }, body: Buffer.from("good") }
        )
      ])
    )
  })
}

describe("a delivery whose header cannot be read", () => {
  plain.live("is rejected without requeue, logged once and counted; later deliveries are handled", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      delivering(broker, ["", "two", "x".repeat(5000)])
      yield* logged((lines) =>
        Effect.gen(function* () {
          const handled = yield* Deferred.make<string>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume("q", (delivery) => Deferred.succeed(handled, AmqpMessage.text(delivery)))
          )
          assert.strictEqual(yield* Deferred.await(handled), "good")
          yield* broker.received("basic.ack")
          const rejects = broker.log.filter(({ method }) => method === "basic.reject")
          assert.deepStrictEqual(
            rejects.map(({ args }) => args),
            [1, 2, 3].map((deliveryTag) => ({ deliveryTag, requeue: false }))
          )
          const errors = lines.filter(({ level }) => level === "Error")
          assert.strictEqual(errors.length, 3)
          for (const [i, size] of [0, 3, 5000].entries()) {
            assert.include(errors[i]!.text, "AMQP message could not be read")
            for (const part of [`"queue":"q"`, `"deliveryTag":${i + 1}`, `"size":${size}`, `unexpected type tag`]) {
              assert.include(errors[i]!.text, part)
            }
          }
          assert.strictEqual(yield* count(AmqpMetrics.undecodableMessages), 3)
          assert.strictEqual(yield* generation, 1)
          assert.strictEqual(broker.count("channel.close"), 0)
        }).pipe(withAll(broker), Effect.provideService(Metric.MetricRegistry, new Map()))
      )
    }).pipe(Effect.scoped)
  )

  plain.live("is one of many that are logged in a few lines, and then with their number", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      delivering(
        broker,
        Array.from({ length: 40 }, () => "")
      )
      yield* logged((lines) =>
        Effect.gen(function* () {
          yield* Effect.gen(function* () {
            const handled = yield* Deferred.make<string>()
            yield* Effect.forkScoped(
              AmqpConsumer.consume("q", (delivery) => Deferred.succeed(handled, AmqpMessage.text(delivery)))
            )
            assert.strictEqual(yield* Deferred.await(handled), "good")
          }).pipe(withAll(broker))
          const errors = lines.filter(({ level }) => level === "Error")
          assert.lengthOf(errors, 6)
          const [last] = errors.slice(-1)
          assert.match(last?.text ?? "", /^AMQP message could not be read, and 35 more in the last .*"queue":"q"/)
        })
      )
    }).pipe(Effect.scoped)
  )

  plain.live("affects no other consumer, batch or stream, on its channel or on another", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      delivering(broker, ["one", "two"])
      yield* Effect.gen(function* () {
        const texts = yield* Queue.unbounded<string>()
        const take = (delivery: AmqpConsumer.Delivery) => Queue.offer(texts, AmqpMessage.text(delivery))
        yield* Effect.forkScoped(AmqpConsumer.consume("q", take))
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch("q", (batch) => Effect.forEach(batch, take), { size: 1, within: 10 })
        )
        yield* Effect.forkScoped(
          Stream.runForEach(AmqpConsumer.stream("q"), (delivery) => Effect.andThen(take(delivery), delivery.ack))
        )
        yield* Effect.forkScoped(
          Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.flatMap(channel.consume("q", { noAck: true }), ({ deliveries }) =>
                Effect.andThen(
                  Effect.flatMap(Queue.take(deliveries), (delivery) => Queue.offer(texts, AmqpMessage.text(delivery))),
                  Effect.never
                )
              )
            )
          )
        )
        assert.deepStrictEqual(yield* Queue.takeN(texts, 4), ["good", "good", "good", "good"])
        // A delivery that needs no acknowledgement is not rejected.
        yield* broker.until((now) => now.count("basic.ack") === 3)
        assert.strictEqual(broker.count("basic.reject"), 6)
      }).pipe(withAll(broker))
    }).pipe(Effect.scoped)
  )

  plain.live("of a stream is acknowledged", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      delivering(broker, ["one"])
      yield* Effect.gen(function* () {
        yield* Effect.forkScoped(
          AmqpConsumer.consume("q", () => Effect.void, { arguments: { "x-stream-offset": "first" } })
        )
        // Consecutive acks can be one frame.
        yield* broker.until(({ log }) =>
          log.some(({ args, method }) => method === "basic.ack" && (args as { deliveryTag: number }).deliveryTag === 2)
        )
        assert.strictEqual(broker.count("basic.reject"), 0)
      }).pipe(withAll(broker))
    }).pipe(Effect.scoped)
  )
})

describe("basic.get of a message whose header cannot be read", () => {
  for (const noAck of [false, true]) {
    plain.live(`${noAck ? "with" : "without"} noAck: its caller gets DecodeFailed, and the channel stays open`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        broker.enqueue("q", "good")
        broker.once("basic.get", (get) => {
          get.reply("basic.get-ok", { deliveryTag: 1, routingKey: "q" })
          get.write(encodeFrame(FRAME_HEADER, get.channel, unreadable(0)))
        })
        yield* Effect.gen(function* () {
          const [reason, good] = yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.all([reasonOf(channel.get("q", { noAck })), channel.get("q", { noAck })], {
                concurrency: "unbounded"
              })
            )
          )
          assert.strictEqual(reason._tag, "DecodeFailed")
          assert.include(reason.message, "basic.get: the properties of a message cannot be read")
          assert.strictEqual(Option.getOrThrow(Option.map(good, AmqpMessage.text)), "good")
          if (!noAck) yield* broker.received("basic.reject")
          assert.strictEqual(broker.count("basic.reject"), noAck ? 0 : 1)
          assert.strictEqual(broker.count("channel.close"), 0)
        }).pipe(withAll(broker))
      }).pipe(Effect.scoped)
    )
  }
})

describe("a returned message whose header cannot be read", () => {
  const returning = (broker: ScriptedBroker.ScriptedBroker, size: number) =>
    broker.on("basic.publish", (publish) => {
      publish.write(
        Buffer.concat([
          encodeMessage(publish.channel, "basic.return", {
            replyCode: 312,
            replyText: "NO_ROUTE",
            exchange: publish.args.exchange,
            routingKey: publish.args.routingKey
          }),
          encodeFrame(FRAME_HEADER, publish.channel, unreadable(size)),
          encodeFrame(FRAME_BODY, publish.channel, Buffer.alloc(size))
        ])
      )
      publish.write(encodeMessage(publish.channel, "basic.ack", { deliveryTag: 1 }))
    })

  plain.live("is PublishReturned to its publisher", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      returning(broker, 5)
      yield* Effect.gen(function* () {
        const reason = yield* reasonOf(
          AmqpPublisher.publish({ routingKey: "nowhere", content: "12345" }, { mandatory: true })
        )
        assert.strictEqual(reason._tag, "PublishReturned")
        assert.strictEqual(broker.count("channel.close"), 0)
      }).pipe(withAll(broker))
    }).pipe(Effect.scoped)
  )
})

describe("a reply whose header cannot be read", () => {
  plain.live("fails its call with DecodeFailed, and no other on the same channel", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const Ask = AmqpRpc.make("ask", { payload: Schema.Int, success: Schema.Int })
      let consumerTag = ""
      broker.on("basic.consume", (consume) => {
        consumerTag = consume.args.consumerTag
        consume.reply("basic.consume-ok", { consumerTag })
      })
      let deliveryTag = 0
      broker.on("basic.publish", (publish) => {
        const { body, properties } = publish.content!
        const deliver = { consumerTag, deliveryTag: ++deliveryTag, routingKey: "r" }
        publish.write(encodeMessage(publish.channel, "basic.ack", { deliveryTag }))
        if (String(body) === "1") {
          publish.write(
            Buffer.concat([
              encodeMessage(publish.channel, "basic.deliver", deliver),
              encodeFrame(FRAME_HEADER, publish.channel, unreadable(1, properties.correlationId)),
              encodeFrame(FRAME_BODY, publish.channel, Buffer.from("1"))
            ])
          )
          return
        }
        publish.write(
          encodeMessage(publish.channel, "basic.deliver", deliver, {
            properties: { correlationId: properties.correlationId!, type: "success" },
            body: Buffer.from(body)
          })
        )
      })
      yield* Effect.gen(function* () {
        const { call } = yield* AmqpRpc.AmqpRpc
        const [one, two] = yield* Effect.all([Effect.flip(call(Ask, 1)), call(Ask, 2)], {
          concurrency: "unbounded"
        })
        assert.strictEqual(one.reason._tag, "DecodeFailed")
        assert.include(one.message, "the request was handled, but its reply cannot be decoded")
        assert.strictEqual(two, 2)
        assert.strictEqual(broker.count("channel.close"), 0)
      }).pipe(withAll(broker))
    }).pipe(Effect.scoped)
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })("on RabbitMQ", (it) => {
  const consumed = (queue: string) =>
    Effect.gen(function* () {
      const seen = yield* Deferred.make<AmqpConsumer.Delivery>()
      yield* Effect.forkScoped(AmqpConsumer.consume(queue, (delivery) => Deferred.succeed(seen, delivery)))
      return yield* Deferred.await(seen).pipe(Effect.timeout("10 seconds"))
    }).pipe(Effect.scoped)

  it.effect(
    "integers as Celery's py-amqp writes them (tag L), and every other tag that the broker accepts, are read",
    () =>
      onBroker(
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const queue = yield* declareQueue()
          const headers = rawTable(
            ["published_at_ms", rawValue("L", longlong(1_767_225_600_000n))],
            ["huge", rawValue("L", longlong(-(2n ** 63n)))],
            ["list", rawValue("A", long(9), rawValue("L", longlong(2n ** 40n)))],
            ["B", rawValue("B", Buffer.of(255))],
            ["u", rawValue("u", Buffer.of(255, 255))],
            ["i", rawValue("i", long(2 ** 32 - 1))],
            ["T", rawValue("T", longlong(2n ** 64n - 1n))],
            ["t", rawValue("t", Buffer.of(7))],
            ["S", longText(Buffer.of(0xff))]
          )
          yield* rawPublish(url, {
            routingKey: queue,
            properties: rawProperties(headersAndPersistent, headers, Buffer.of(2))
          })
          const { properties } = yield* consumed(queue)
          assert.deepStrictEqual(
            { ...properties.headers },
            {
              published_at_ms: 1_767_225_600_000,
              huge: -(2n ** 63n),
              list: [2 ** 40],
              B: 255,
              u: 65_535,
              i: 2 ** 32 - 1,
              T: 2n ** 64n - 1n,
              t: true,
              S: Uint8Array.of(0xff)
            }
          )
        })
      )
  )

  it.effect("flags that announce more flags that do not follow are read as the broker reads them", () =>
    onBroker(
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        for (const flags of [0x8001, 0x8002, 0x8003]) {
          yield* rawPublish(url, {
            routingKey: queue,
            properties: rawProperties(flags, shortBytes(Buffer.from("text/plain")))
          })
          assert.strictEqual((yield* consumed(queue)).properties.contentType, "text/plain")
        }
      })
    )
  )

  it.effect("headers that grow beyond a frame by dead-lettering are read, with small frames too", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      for (const frameMax of [131_072, 8192]) {
        yield* onBroker(
          Effect.gen(function* () {
            const deadLetters = yield* declareQueue()
            const queue = yield* declareQueue({
              messageTtl: 1,
              deadLetterExchange: "",
              deadLetterRoutingKey: deadLetters
            })
            const trace = "x".repeat(131_000)
            yield* rawPublish(url, {
              routingKey: queue,
              properties: rawProperties(0x2000, rawTable(["trace", longText(trace)]))
            })
            const { properties } = yield* consumed(deadLetters)
            assert.strictEqual(properties.headers["trace"], trace)
            assert.isArray(properties.headers["x-death"])
            assert.strictEqual(yield* generation, 1)
          }),
          { frameMax }
        )
      }
    })
  )
})
