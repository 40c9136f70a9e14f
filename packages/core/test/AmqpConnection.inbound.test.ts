/** Inbound messages are bounded: a message above the limit is not read into memory, and costs its channel at most. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Option, Queue, References, Schema, Stream, SubscriptionRef } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { configOf, type Overrides, reasonOf, withPool } from "./support/amqp.ts"
import { encodeFrame, encodeMessage, FRAME_BODY, FRAME_HEADER } from "./support/frames.ts"
import { bytesHeld } from "./support/heap.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const limit = 1000
const within = "x".repeat(limit)
const beyond = "x".repeat(limit + 1)

const withAll = (url: string, overrides?: Overrides) => {
  const layer = Amqp.fromConfig(configOf(url, { maxInboundMessageBodySize: limit, ...overrides }))
  return <A, E, R>(program: Effect.Effect<A, E, R>) =>
    program.pipe(
      Effect.scoped,
      Effect.provide(layer, { local: true }),
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.timeout("30 seconds")
    )
}

const onBroker = <A, E, R>(program: Effect.Effect<A, E, R>, overrides?: Overrides) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => withAll(url, overrides)(program))

const borrowed = <A, E, R>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use(f))

let queues = 0

/** A queue with these messages. */
const queueOf = Effect.fnUntraced(function* (...contents: ReadonlyArray<string>) {
  const queue = `inbound-${++queues}`
  yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
  for (const content of contents) yield* AmqpPublisher.publish({ routingKey: queue, content })
  return queue
})

/** Takes all messages out of a queue, with a connection that has a higher limit. */
const sizesIn = (queue: string) =>
  onBroker(
    Effect.scoped(
      AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          const sizes: Array<number> = []
          while (true) {
            const delivery = yield* channel.get(queue, { noAck: true })
            if (Option.isNone(delivery)) return sizes
            sizes.push(delivery.value.content.length)
          }
        })
      )
    ),
    { maxInboundMessageBodySize: 2 ** 27 }
  )

const isTooLarge = (reason: AmqpError.AmqpErrorReason, size = limit + 1) => {
  assert.strictEqual(reason._tag, "MessageTooLarge", reason.message)
  for (const word of [
    `at most ${limit} bytes (maxInboundMessageBodySize), got ${size}`,
    "Raise maxInboundMessageBodySize"
  ]) {
    assert.include(reason.message, word)
  }
  assert.isFalse(reason.isRetryable)
  assert.strictEqual(reason.severity, "channel")
}

const generation = Effect.flatMap(AmqpConnection.AmqpConnection, ({ state }) =>
  Effect.map(SubscriptionRef.get(state), (now) => (now._tag === "Open" ? now.generation : 0))
)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })("a limit of 1,000 bytes", (it) => {
  it.effect("get accepts 1,000 bytes; with one more it fails, and only its channel is closed", () =>
    Effect.gen(function* () {
      const queue = yield* queueOf(within, beyond)
      yield* AmqpChannel.use((sibling) =>
        Effect.gen(function* () {
          const held = Option.getOrThrow(yield* sibling.get(queue))
          assert.strictEqual(held.content.length, limit)
          const [reason, later] = yield* Effect.scoped(
            borrowed((channel) => Effect.all([reasonOf(channel.get(queue)), reasonOf(channel.get(queue))]))
          )
          isTooLarge(reason)
          assert.strictEqual(later._tag, "ChannelClosed")
          yield* sibling.ack(held)
          assert.isTrue(Option.isNone(yield* sibling.get(yield* queueOf())))
        })
      )
      assert.strictEqual(yield* generation, 1)
      assert.deepStrictEqual(yield* sizesIn(queue), [limit + 1])
    }).pipe(onBroker)
  )

  it.effect("megabytes that are on their way are dropped, and the connection continues behind them", () =>
    Effect.gen(function* () {
      const size = 10 * 2 ** 20
      const queue = yield* queueOf("x".repeat(size))
      isTooLarge(yield* reasonOf(borrowed((channel) => channel.get(queue))), size)
      assert.isTrue(Option.isNone(yield* borrowed((channel) => channel.get("inbound-1"))))
      assert.strictEqual(yield* generation, 1)
      assert.deepStrictEqual(yield* sizesIn(queue), [size])
    }).pipe((program) => onBroker(program))
  )

  const never = () => Effect.die("it was taken in")
  const consumers: Record<string, (queue: string) => Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp>> = {
    consume: (queue) => AmqpConsumer.consume(queue, never),
    "consume, resubscribing always": (queue) => AmqpConsumer.consume(queue, never, { resubscribe: "always" }),
    consumeBatch: (queue) => AmqpConsumer.consumeBatch(queue, never, { size: 10, within: 10 }),
    stream: (queue) => Stream.runDrain(AmqpConsumer.stream(queue)),
    "stream, resubscribing always": (queue) => Stream.runDrain(AmqpConsumer.stream(queue, { resubscribe: "always" })),
    "a borrowed channel's consumer": (queue) =>
      Effect.scoped(
        AmqpChannel.use((channel) => Effect.flatMap(channel.consume(queue), ({ deliveries }) => Queue.take(deliveries)))
      ).pipe(Effect.catchTag("Done", () => Effect.die("it ended without a reason")))
  }
  for (const [name, consumer] of Object.entries(consumers)) {
    it.effect(`${name} ends with the reason, and the message is in its queue`, () =>
      Effect.gen(function* () {
        const queue = yield* queueOf(beyond)
        isTooLarge(yield* reasonOf(consumer(queue)))
        assert.strictEqual(yield* generation, 1)
        assert.deepStrictEqual(yield* sizesIn(queue), [limit + 1])
      }).pipe(onBroker)
    )
  }

  it.effect("messages before it are handled, and messages after it are in the queue", () =>
    Effect.gen(function* () {
      const queue = yield* queueOf("a", within, beyond, "b")
      const handled: Array<string> = []
      const reason = yield* reasonOf(
        AmqpConsumer.consume(
          queue,
          (delivery) => Effect.sync(() => void handled.push(AmqpMessage.text(delivery).slice(0, 1))),
          { prefetch: 1 }
        )
      )
      isTooLarge(reason)
      assert.deepStrictEqual(handled, ["a", "x"])
      assert.deepStrictEqual(yield* sizesIn(queue), [limit + 1, 1])
    }).pipe(onBroker)
  )

  const Echo = AmqpRpc.make("inbound.echo", { payload: Schema.Int, success: Schema.String })
  const echo = AmqpRpc.client(Echo, { timeout: "20 seconds" })

  it.effect("a reply that is too large fails its call, and no other call on the same channel", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(Echo.queue)))
      const both = yield* Deferred.make<void>()
      // The first request is answered last: it is in flight when the other request's reply arrives.
      yield* Effect.forkScoped(
        AmqpRpc.serve(Echo, (size) =>
          Effect.as(size === limit - 1 ? Deferred.succeed(both, undefined) : Deferred.await(both), "x".repeat(size))
        )
      )
      const sibling = yield* Effect.forkChild(echo(limit - 2), { startImmediately: true })
      const reason = yield* reasonOf(echo(limit - 1) as Effect.Effect<string, AmqpError.AmqpError, AmqpRpc.AmqpRpc>)
      assert.strictEqual(reason._tag, "DecodeFailed")
      assert.include(reason.message, "the request was handled")
      isTooLarge(reason.cause as AmqpError.AmqpErrorReason)
      // As JSON the text is two bytes longer, because of its quotes.
      assert.strictEqual((yield* Fiber.join(sibling)).length, limit - 2)
      assert.strictEqual((yield* echo(1)).length, 1)
    }).pipe(onBroker)
  )

  it.effect(
    "a server ends with a request that is too large, which stays in its queue; the client's call times out",
    () =>
      Effect.gen(function* () {
        const Large = AmqpRpc.make("inbound.large", { payload: Schema.String, success: Schema.Int })
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(Large.queue)))
        const call = AmqpRpc.client(Large, { timeout: "1 second", expires: false })
        const client = yield* Effect.forkChild(reasonOf(call(beyond)), { startImmediately: true })
        isTooLarge(yield* reasonOf(AmqpRpc.serve(Large, (text) => Effect.succeed(text.length))), limit + 3)
        assert.strictEqual((yield* Fiber.join(client))._tag, "RequestTimeout")
        assert.deepStrictEqual(yield* sizesIn(Large.queue), [limit + 3])
      }).pipe(onBroker)
  )

  it.effect("a returned message that is too large is PublishReturned, and its channel stays open", () =>
    Effect.gen(function* () {
      const queue = yield* queueOf()
      const outcome = (routingKey: string, content: string) =>
        Effect.match(AmqpPublisher.publish({ routingKey, content }, { mandatory: true }), {
          onSuccess: () => "Confirmed",
          onFailure: ({ reason }) => reason._tag as string
        })
      const all = [beyond, `${beyond}y`, "small", `${beyond}yy`].flatMap((content) => [
        outcome("inbound-nowhere", content),
        outcome(queue, content)
      ])
      const outcomes = yield* Effect.all(all, { concurrency: "unbounded" })
      assert.deepStrictEqual(
        outcomes,
        all.map((_, i) => (i % 2 === 0 ? "PublishReturned" : "Confirmed"))
      )
      const borrowed = AmqpChannel.useConfirm((channel) =>
        Effect.zip(
          reasonOf(channel.publish({ routingKey: "inbound-nowhere", content: beyond }, { mandatory: true })),
          channel.publish({ routingKey: queue, content: "after" })
        )
      )
      assert.strictEqual((yield* Effect.scoped(borrowed))[0]._tag, "PublishReturned")
      assert.deepStrictEqual(
        (yield* sizesIn(queue)).sort((a, b) => a - b),
        [5, 5, limit + 1, limit + 2, limit + 3]
      )
      assert.strictEqual(yield* generation, 1)
    }).pipe((program) => onBroker(program))
  )

  it.effect("returned messages that are indistinguishable unread never get a wrong outcome", () =>
    Effect.gen(function* () {
      const queue = yield* queueOf()
      const send = (content: string) =>
        Effect.match(AmqpPublisher.publish({ routingKey: "inbound-gone", content }, { mandatory: true }), {
          onSuccess: () => "Confirmed",
          onFailure: ({ reason }) => reason._tag as string
        })
      const outcomes = yield* Effect.all([send(beyond), send(`y${within}`), send(`z${within}`)], {
        concurrency: "unbounded"
      })
      for (const outcome of outcomes) assert.include(["PublishReturned", "PublishUnknown"], outcome)
      assert.include(outcomes, "PublishUnknown")
      // The publisher continues on another channel.
      yield* AmqpPublisher.publish({ routingKey: queue, content: "after" })
      assert.strictEqual(yield* generation, 1)
    }).pipe((program) => onBroker(program))
  )

  it.effect("a reader of returns fails with the reason", () =>
    Effect.gen(function* () {
      const reason = yield* AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          yield* channel.publish({ routingKey: "inbound-nowhere", content: beyond }, { mandatory: true })
          return yield* reasonOf(Queue.take(channel.returns))
        })
      ).pipe(Effect.scoped)
      isTooLarge(reason)
      assert.strictEqual(yield* generation, 1)
    }).pipe((program) => onBroker(program))
  )

  it.effect("a request that is returned and too large fails as unroutable", () =>
    Effect.gen(function* () {
      const Unserved = AmqpRpc.make("inbound.unserved", { payload: Schema.String })
      assert.strictEqual((yield* reasonOf(AmqpRpc.client(Unserved)(beyond)))._tag, "PublishReturned")
    }).pipe((program) => onBroker(program))
  )
})

// --- On the scripted broker --------------------------------------------------------------------------------------------

const getOk = encodeMessage(1, "basic.get-ok", { deliveryTag: 1, redelivered: false, routingKey: "q" })

/** A content header without properties that announces this many bytes. */
const headerOf = (size: bigint, channel = 1) => {
  const payload = Buffer.alloc(14)
  payload.writeUInt16BE(60, 0)
  payload.writeBigUInt64BE(size, 4)
  return encodeFrame(FRAME_HEADER, channel, payload)
}

const body = (bytes: number | Uint8Array, channel = 1) =>
  encodeFrame(FRAME_BODY, channel, typeof bytes === "number" ? Buffer.alloc(bytes, 1) : bytes)

const brokerThat = (get: (get: ScriptedBroker.Context<"basic.get">) => void, on: ScriptedBroker.Script = {}) =>
  ScriptedBroker.make({ on: { "basic.get": get, ...on }, protocolErrors: "record" })

const getIt = borrowed((channel) => channel.get("q"))

describe("a body", () => {
  const sizes = [BigInt(limit) + 1n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]
  for (const size of sizes) {
    plain.live(`of ${size} bytes, announced: the channel is closed, and what still arrives is dropped`, () =>
      Effect.gen(function* () {
        const broker = yield* brokerThat(
          (get) => get.write(Buffer.concat([getOk, headerOf(size), body(900), body(900)])),
          { "channel.close": (close) => close.hold() }
        )
        yield* Effect.gen(function* () {
          const reason = yield* reasonOf(getIt)
          assert.strictEqual(reason._tag, "MessageTooLarge")
          yield* broker.received("channel.close")
          broker.connection().write(body(900))
          broker.off("channel.close")
          broker.release("channel.close")
          broker.off("basic.get")
          assert.isTrue(Option.isNone(yield* getIt))
          assert.strictEqual(broker.connections, 1)
          assert.strictEqual(broker.count("connection.close"), 0)
        }).pipe(withPool(broker.url, { maxInboundMessageBodySize: limit }))
      })
    )
  }

  const broken: Record<string, [bytes: Buffer, words: string]> = {
    "longer than announced": [Buffer.concat([getOk, headerOf(10n), body(6), body(6)]), "the body is larger than"],
    "longer than announced, in one frame": [Buffer.concat([getOk, headerOf(10n), body(16)]), "the body is larger than"],
    "without a header": [Buffer.concat([getOk, body(6)]), "a content body that no content header has announced"],
    "without a method": [body(6), "a content body that no content header has announced"],
    "after its end": [
      Buffer.concat([getOk, headerOf(0n), body(6)]),
      "a content body that no content header has announced"
    ],
    "interrupted by another message": [
      Buffer.concat([getOk, headerOf(10n), body(6), encodeMessage(1, "basic.deliver", {}, { body: Buffer.of(1) })]),
      "expected the content of a message, got the method of another one"
    ],
    "interrupted by another header": [
      Buffer.concat([getOk, headerOf(10n), headerOf(10n)]),
      "a content header that no method has announced"
    ]
  }
  for (const [name, [bytes, words]] of Object.entries(broken)) {
    plain.live(`${name}: is a ProtocolError of its channel, at once, and other channels stay open`, () =>
      Effect.gen(function* () {
        // The broker does not answer the close either.
        const broker = yield* brokerThat((get) => get.write(bytes), { "channel.close": () => {} })
        yield* borrowed((first) =>
          Effect.gen(function* () {
            yield* Effect.exit(first.get("q"))
            const reason = yield* reasonOf(first.get("q"))
            assert.strictEqual(reason._tag, "ProtocolError")
            assert.include(reason.message, words)
            broker.off("basic.get")
            assert.isTrue(Option.isNone(yield* getIt))
            assert.strictEqual(broker.connections, 1)
            assert.strictEqual(yield* generation, 1)
          })
        ).pipe(withPool(broker.url, { closeTimeout: Duration.millis(100), pool: { max: 2 } }))
      })
    )
  }

  plain.live(
    "too large, from a broker that does not answer the close: fails at once, and its pool place is free in time",
    () =>
      Effect.gen(function* () {
        const broker = yield* brokerThat((get) => get.write(Buffer.concat([getOk, headerOf(2000n)])), {
          "channel.close": () => {}
        })
        yield* Effect.gen(function* () {
          const consumer = yield* Effect.forkScoped(reasonOf(Stream.runDrain(AmqpConsumer.stream("q"))))
          const { channel, connection } = yield* broker.received("basic.consume")
          const { args } = yield* broker.received("basic.consume")
          connection.write(
            Buffer.concat([encodeMessage(channel, "basic.deliver", args as never), headerOf(2000n, channel)])
          )
          assert.strictEqual((yield* Fiber.join(consumer))._tag, "MessageTooLarge")
          assert.strictEqual((yield* reasonOf(getIt))._tag, "MessageTooLarge")
          broker.off("basic.get")
          assert.isTrue(Option.isNone(yield* getIt))
        }).pipe(
          withAll(broker.url, {
            closeTimeout: Duration.millis(200),
            continuationTimeout: Duration.seconds(20),
            pool: { max: 1 }
          })
        )
      })
  )

  plain.live(
    "too large, on the only channel that the limit allows: the next borrower waits until that channel has closed",
    () =>
      onScriptedBroker(
        {
          broker: {
            tune: { channelMax: 1 },
            on: {
              "basic.get": (get) => get.write(Buffer.concat([getOk, headerOf(2000n)])),
              "channel.close": (close) => close.hold()
            }
          },
          maxInboundMessageBodySize: limit,
          pool: { max: 1 }
        },
        function* (broker) {
          assert.strictEqual((yield* reasonOf(getIt))._tag, "MessageTooLarge")
          yield* broker.received("channel.close")
          broker.off("basic.get")
          broker.off("channel.close")
          const next = yield* Effect.forkScoped(getIt, { startImmediately: true })
          // The borrower has had time to fail, if it were to try.
          for (let i = 0; i < 100; i++) yield* Effect.yieldNow
          broker.release("channel.close")
          assert.isTrue(Option.isNone(yield* Fiber.join(next)))
        }
      )
  )

  plain.live("too large is not kept in memory while it arrives", () =>
    Effect.gen(function* () {
      const size = 2 ** 26
      const broker = yield* brokerThat((get) => get.write(Buffer.concat([getOk, headerOf(BigInt(size))])), {
        "channel.close": (close) => close.hold()
      })
      yield* Effect.gen(function* () {
        const before = bytesHeld()
        assert.strictEqual((yield* reasonOf(getIt))._tag, "MessageTooLarge")
        const piece = body(100_000)
        for (let sent = 0; sent < 8 * 2 ** 20; sent += 100_000) broker.connection().write(piece)
        broker.off("channel.close")
        // This answer follows all those bytes, so they have been read.
        broker.off("basic.get")
        assert.isTrue(Option.isNone(yield* getIt))
        assert.isBelow(bytesHeld() - before, 2 * 2 ** 20)
        broker.release("channel.close")
      }).pipe(withPool(broker.url, { maxInboundMessageBodySize: limit }))
    })
  )

  plain.live("in frames of one byte takes as much memory as has arrived, and is complete at the end", () =>
    Effect.gen(function* () {
      const size = 100_000
      const whole = Buffer.from(Array.from({ length: size }, (_, i) => i % 251))
      const pieces = (from: number, to: number) =>
        Buffer.concat(Array.from({ length: to - from }, (_, i) => body(whole.subarray(from + i, from + i + 1))))
      const broker = yield* brokerThat((get) => get.write(Buffer.concat([getOk, headerOf(BigInt(size))])))
      yield* Effect.gen(function* () {
        const got = yield* Effect.forkScoped(getIt, { startImmediately: true })
        yield* broker.received("basic.get")
        const before = bytesHeld()
        broker.connection().write(pieces(0, size - 1))
        broker.connection().write(body(new Uint8Array(0)))
        // This answer follows all those bytes, so they have been read.
        broker.off("basic.get")
        yield* borrowed((channel) => channel.get("another"))
        assert.isBelow(bytesHeld() - before, 3 * 2 ** 20)
        broker.connection().write(pieces(size - 1, size))
        const { content } = Option.getOrThrow(yield* Fiber.join(got))
        assert.isTrue(whole.equals(content))
      }).pipe(Effect.scoped, withPool(broker.url))
    })
  )

  plain.live("announced on 500 channels and not sent takes as much memory as has arrived", () =>
    Effect.gen(function* () {
      const channels = 500
      const broker = yield* ScriptedBroker.make({
        on: {
          "basic.get": (get) => {
            const { channel } = get
            const announced = encodeMessage(channel, "basic.get-ok", { deliveryTag: 1, routingKey: "q" })
            get.write(Buffer.concat([announced, headerOf(2n ** 27n, channel), body(1000, channel)]))
          }
        }
      })
      yield* Effect.gen(function* () {
        const before = bytesHeld()
        const all = yield* Effect.forEach(Array.from({ length: channels }), () =>
          Effect.forkScoped(Effect.exit(getIt), { startImmediately: true })
        )
        yield* broker.received("basic.get", channels)
        broker.off("basic.get")
        yield* borrowed((channel) => channel.get("another"))
        const each = (bytesHeld() - before) / channels
        assert.isBelow(each, 60_000)
        console.log(`inbound: a channel with 1,000 of 2^27 announced bytes holds ${Math.round(each / 1000)} kB`)
        yield* Effect.forEach(all, Fiber.interrupt, { concurrency: "unbounded" })
      }).pipe(Effect.scoped, withPool(broker.url, { pool: { max: channels + 1 }, closeTimeout: Duration.seconds(10) }))
    })
  )
})
