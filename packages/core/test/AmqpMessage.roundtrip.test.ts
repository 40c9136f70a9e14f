/**
 * Messages through a real broker: what arrives is what was published, and what cannot be sent is refused before it is
 * sent.
 */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConfig, type AmqpError, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Arbitrary, Effect, Option, Queue } from "effect"
import { isDeepStrictEqual } from "node:util"
import { isSameMessage } from "../src/internal/wire/sameMessage.ts"
import { configOf, type Overrides, withPool } from "./support/amqp.ts"
import { contents, deliveredProperties, deliveredTable, properties, tables } from "./support/arbitraryMessages.ts"
import { take } from "./support/queues.ts"
import { leastFrameMax } from "./support/versions.ts"
import * as TlsProxy from "./support/TlsProxy.ts"

/** Works on a channel of the broker, with a queue that is deleted afterwards. */
const onQueue = <A, E, R>(work: (channel: AmqpChannel.AmqpChannel, queue: string) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { url } = yield* TestBroker.TestBroker
    return yield* AmqpChannel.use((channel) =>
      Effect.flatMap(channel.queueDeclare("", { exclusive: true }), ({ queue }) => work(channel, queue))
    ).pipe(Effect.scoped, withPool(url))
  })

/** Publishes a message, and takes it from the queue. */
const through = (channel: AmqpChannel.AmqpChannel, queue: string, message: Omit<AmqpMessage.Message, "routingKey">) =>
  Effect.andThen(channel.publish({ ...message, routingKey: queue }), take(channel, queue, { noAck: true }))

/** Fails with the smallest counterexample and a token. `{ replay: token }` in the options runs it again. */
const holds = <A, E, R>(
  self: Arbitrary.Arbitrary<A>,
  property: (value: A) => Effect.Effect<boolean, E, R>,
  options?: Arbitrary.CheckOptions
) =>
  Effect.map(Arbitrary.checkEffect(self, property, options), (result) =>
    assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
  )

/** The room for a table in a frame of 128 KiB, without the fixed parts of the frame and of a header. */
const mostOfTable = 131_072 - 8 - 14 - 1

const nested = (depth: number): AmqpMessage.FieldTable => {
  let table: AmqpMessage.FieldTable = {}
  for (let i = 1; i < depth; i++) table = { in: table }
  return table
}

const cycle: Record<string, unknown> = {}
cycle["list"] = [{ cycle }]

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("round trip", () => {
    it.effect("header values of every type survive exactly, under any key, at any depth", () =>
      onQueue((channel, queue) =>
        holds(
          tables,
          (headers) =>
            Effect.map(through(channel, queue, { content: "", headers }), (delivery) =>
              isDeepStrictEqual(delivery.properties.headers, deliveredTable(headers))
            ),
          { runs: 400, size: 20 }
        )
      )
    )

    it.effect("every property survives exactly, and so does the content", () =>
      onQueue((channel, queue) =>
        holds(
          Arbitrary.all({ properties, content: contents }),
          ({ content, properties }) =>
            Effect.map(
              through(channel, queue, { ...properties, content }),
              (delivery) =>
                isDeepStrictEqual(delivery.properties, deliveredProperties(properties)) &&
                Buffer.from(content as string).equals(delivery.content)
            ),
          { runs: 200 }
        )
      )
    )

    it.effect("a delivery published again is delivered unchanged", () =>
      onQueue((channel, queue) =>
        holds(
          Arbitrary.all({ properties, content: contents }),
          ({ content, properties }) =>
            Effect.gen(function* () {
              const first = yield* through(channel, queue, { ...properties, content })
              yield* channel.publish(AmqpMessage.fromDelivery(first))
              const second = yield* take(channel, queue, { noAck: true })
              return (
                isDeepStrictEqual({ ...first, deliveryTag: 0 }, { ...second, deliveryTag: 0 }) &&
                AmqpMessage.text(first) === AmqpMessage.text(second)
              )
            }),
          { runs: 200 }
        )
      )
    )

    it.effect("a message is recognized in its delivery, and a different message is not", () =>
      onQueue((channel, queue) =>
        holds(
          Arbitrary.all({ properties, content: contents, other: properties, otherContent: contents }),
          ({ content, other, otherContent, properties }) =>
            Effect.gen(function* () {
              const message = { ...properties, content, routingKey: queue }
              yield* channel.publish(message)
              const delivery = yield* take(channel, queue, { noAck: true })
              const differs = { ...other, content: otherContent, routingKey: queue }
              return (
                isSameMessage(message, delivery) &&
                isSameMessage(differs, delivery) ===
                  (isDeepStrictEqual(deliveredProperties(other), delivery.properties) &&
                    Buffer.from(otherContent as string).equals(delivery.content))
              )
            }),
          { runs: 200 }
        )
      )
    )

    it.effect("a message that the broker returns is recognized without its BCC header", () =>
      onQueue((channel) =>
        holds(
          Arbitrary.all({ properties, content: contents }),
          ({ content, properties }) =>
            Effect.gen(function* () {
              const headers = { ...properties.headers, BCC: ["nowhere either"] }
              const message = { ...properties, headers, content, routingKey: "nowhere" }
              yield* channel.publish(message, { mandatory: true })
              const returned = yield* Queue.take(channel.returns)
              return !("BCC" in (returned.properties.headers ?? {})) && isSameMessage(message, returned)
            }),
          { runs: 50 }
        )
      )
    )

    it.effect("a key whose value is undefined is left out, at any depth", () =>
      onQueue((channel, queue) =>
        Effect.gen(function* () {
          const headers = { a: undefined, b: 1, c: { d: undefined, e: new Date(0) } }
          const delivery = yield* through(channel, queue, { content: "", headers })
          assert.deepStrictEqual(Object.keys(delivery.properties.headers), ["b", "c"])
          assert.isTrue(isDeepStrictEqual(delivery.properties.headers, deliveredTable(headers)))
        })
      )
    )

    it.effect("a message without headers has empty ones", () =>
      onQueue((channel, queue) =>
        Effect.gen(function* () {
          assert.isEmpty((yield* through(channel, queue, { content: "" })).properties.headers)
          assert.isEmpty((yield* through(channel, queue, { content: "", headers: {} })).properties.headers)
        })
      )
    )

    it.effect("the largest table and the deepest nesting arrive", () =>
      onQueue((channel, queue) =>
        Effect.gen(function* () {
          // 4 bytes for the table's size, 2 for the key, 5 for the text's tag and size.
          for (const headers of [{ a: "x".repeat(mostOfTable - 11) }, nested(513)]) {
            const delivery = yield* through(channel, queue, { content: "", headers })
            assert.isTrue(isDeepStrictEqual(delivery.properties.headers, deliveredTable(headers)))
          }
        })
      )
    )

    it.effect("the longest expiration is that of RabbitMQ, and an expiration of zero is allowed", () =>
      onQueue((channel, queue) =>
        Effect.gen(function* () {
          const delivery = yield* through(channel, queue, { content: "", expiration: "3650 days" })
          assert.strictEqual(delivery.properties.expiration, 315_360_000_000)
          yield* channel.publish({ routingKey: queue, content: "", expiration: 0 })
          assert.isTrue(Option.isNone(yield* channel.get(queue)))
        })
      )
    )
  })

  describe("a delivered message", () => {
    // These sizes fit into one read of the socket, need several reads, and need several frames.
    const sizes = [1, 100, 4095, 4097, 60_000, 65_536, 131_064, 131_065, 300_000]
    const wanted = Array.from({ length: 270 }, (_, i) => {
      const content = new Uint8Array(sizes[i % sizes.length]!).fill(i)
      return { content, headers: { bytes: new Uint8Array(8).fill(i), text: `${i}` }, messageId: `${i}` }
    })
    const delivered = (url: string, overrides?: Overrides) =>
      AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          for (const message of wanted) yield* channel.publish({ ...message, routingKey: queue })
          const { deliveries } = yield* channel.consume(queue, { noAck: true })
          const all = yield* Queue.takeN(deliveries, wanted.length)
          for (const [i, { content, properties }] of all.entries()) {
            const { headers, messageId } = wanted[i]!
            assert.isTrue(Buffer.from(wanted[i]!.content).equals(content), `content of message ${i}`)
            assert.deepStrictEqual(properties.headers, headers)
            assert.strictEqual(properties.messageId, messageId)
          }
        })
      ).pipe(Effect.scoped, withPool(url, overrides))

    it.effect("does not change, whatever is received after it", () =>
      Effect.flatMap(TestBroker.TestBroker, ({ url }) => delivered(url))
    )

    it.effect("does not change over TLS either", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const [host] = configOf(url).hosts
        const { port } = yield* TlsProxy.make(host)
        const through = new URL(url)
        through.port = `${port}`
        const { tls } = yield* AmqpConfig.fromUrl(url.replace("amqp:", "amqps:"), { tls: { verify: false } })
        yield* delivered(through.href, { tls })
      }).pipe(Effect.scoped)
    )
  })

  describe("refusals", () => {
    const refused: Record<string, readonly [message: object, argument: string]> = {
      "an unknown property": [{ contenttype: "text/plain" }, "contenttype"],
      "an unknown property, undefined": [{ ttl: undefined }, "ttl"],
      "a routing key of 256 bytes": [{ routingKey: "ü".repeat(128) }, "routingKey"],
      "a routing key that is missing": [{ routingKey: undefined }, "routingKey"],
      "a routing key that is a number": [{ routingKey: 7 }, "routingKey"],
      "an exchange of 256 bytes": [{ exchange: "x".repeat(256) }, "exchange"],
      "an exchange that is null": [{ exchange: null }, "exchange"],
      "content that is missing": [{ content: undefined }, "content"],
      "content that is an object": [{ content: { a: 1 } }, "content"],
      "content that is an ArrayBuffer": [{ content: new ArrayBuffer(1) }, "content"],
      "content with a lone surrogate": [{ content: "a\uD800b" }, "content"],
      contentType: [{ contentType: "x".repeat(256) }, "contentType"],
      contentEncoding: [{ contentEncoding: 1 }, "contentEncoding"],
      correlationId: [{ correlationId: Symbol("a") }, "correlationId"],
      replyTo: [{ replyTo: "\uDC00" }, "replyTo"],
      messageId: [{ messageId: {} }, "messageId"],
      type: [{ type: null }, "type"],
      userId: [{ userId: true }, "userId"],
      appId: [{ appId: "🐇".repeat(64) }, "appId"],
      persistent: [{ persistent: 1 }, "persistent"],
      "a negative priority": [{ priority: -1 }, "priority"],
      "a priority of 256": [{ priority: 256 }, "priority"],
      "a priority of NaN": [{ priority: Number.NaN }, "priority"],
      "a fractional priority": [{ priority: 0.5 }, "priority"],
      "a negative expiration": [{ expiration: -1 }, "expiration"],
      "an expiration of NaN": [{ expiration: Number.NaN }, "expiration"],
      "an endless expiration": [{ expiration: "Infinity" }, "expiration"],
      "an expiration longer than RabbitMQ's": [{ expiration: 315_360_000_001 }, "expiration"],
      "an expiration of a fraction of a millisecond": [{ expiration: "1500 micros" }, "expiration"],
      "an expiration that is a text": [{ expiration: "60000" }, "expiration"],
      "a timestamp that is a number": [{ timestamp: 1_700_000_000 }, "timestamp"],
      "an invalid timestamp": [{ timestamp: new Date(Number.NaN) }, "timestamp"],
      "a timestamp before 1970": [{ timestamp: new Date(-1) }, "timestamp"],
      "headers that are an array": [{ headers: [] }, "headers"],
      "headers that are null": [{ headers: null }, "headers"],
      "headers that are a Map": [{ headers: new Map() }, "headers"],
      "headers that are text": [{ headers: "a" }, "headers"],
      "headers that are bytes": [{ headers: Buffer.from("a") }, "headers"],
      NaN: [{ headers: { a: { b: [0, 1, 2, Number.NaN] } } }, "headers.a.b[3]"],
      "NaN, in a flat table": [{ headers: { a: Number.NaN } }, "headers.a"],
      infinity: [{ headers: { "x-rate": Infinity } }, "headers.x-rate"],
      "a bigint of 65 bits": [{ headers: { a: 2n ** 63n } }, "headers.a"],
      "a bigint below 64 bits": [{ headers: { a: -(2n ** 63n) - 1n } }, "headers.a"],
      "a text with a lone surrogate": [{ headers: { a: "\uD800" } }, "headers.a"],
      "a key with a lone surrogate": [{ headers: { "\uD800": 1 } }, 'headers["\\ud800"]'],
      "a key of 256 bytes": [{ headers: { ["ü".repeat(128)]: 1 } }, `headers["${"ü".repeat(60)}…"]`],
      "a key of 256 bytes, nested": [
        { headers: { "a b": { ["x".repeat(256)]: 1 } } },
        `headers["a b"]["${"x".repeat(60)}…"]`
      ],
      "an invalid date": [{ headers: { a: new Date("never") } }, "headers.a"],
      "a date before 1970": [{ headers: { a: new Date(-1) } }, "headers.a"],
      "undefined in an array": [{ headers: { a: [undefined] } }, "headers.a[0]"],
      "a hole in an array": [{ headers: { a: Array.from({ length: 2 }).fill(1, 1) } }, "headers.a[0]"],
      "a function": [{ headers: { a: () => 1 } }, "headers.a"],
      "a symbol": [{ headers: { a: Symbol("a") } }, "headers.a"],
      "a Map": [{ headers: { a: new Map() } }, "headers.a"],
      "an instance of a class": [{ headers: { a: new URL("amqp://localhost") } }, "headers.a"],
      "a boxed number": [{ headers: { a: Object(1) } }, "headers.a"],
      "other typed arrays": [{ headers: { a: new Float64Array(1) } }, "headers.a"],
      "a cycle": [{ headers: cycle }, "headers.list[0].cycle"],
      "tables nested deeper than 512": [{ headers: nested(514) }, `headers${".in".repeat(513)}`],
      "a table that does not fit into a frame": [{ headers: { a: "x".repeat(mostOfTable - 10) } }, "headers"],
      "many values that do not fit into a frame": [
        { headers: { a: Array.from({ length: 70_000 }).fill(true) } },
        "headers"
      ]
    }

    it.effect("what cannot be sent fails with its name before anything is sent, and the channel stays as it was", () =>
      onQueue((channel, queue) =>
        Effect.gen(function* () {
          for (const [title, [wrong, argument]] of Object.entries(refused)) {
            const message = { routingKey: queue, content: "wrong", ...wrong } as AmqpMessage.Message
            const { reason }: AmqpError.AmqpError = yield* Effect.flip(channel.publish(message))
            assert.strictEqual(reason._tag, "InvalidArgument", title)
            if (reason._tag !== "InvalidArgument") continue
            assert.strictEqual(reason.argument, argument, title)
            assert.strictEqual(reason.operation, "basic.publish", title)
            assert.isTrue(reason.message.startsWith(`basic.publish: ${argument}: expected `), reason.message)
            assert.isTrue(reason.message.endsWith("Nothing was sent."), reason.message)
          }
          const delivery = yield* through(channel, queue, { content: "right" })
          assert.strictEqual(AmqpMessage.text(delivery), "right")
          assert.strictEqual(delivery.messageCount, 0)
        })
      )
    )

    it.effect("arguments of declarations and bindings are refused in the same way", () =>
      onQueue((channel, queue) =>
        Effect.gen(function* () {
          const wrong = { "x-a": { b: Number.NaN } }
          for (const attempt of [
            channel.queueDeclare("other", { arguments: wrong }),
            channel.exchangeDeclare("other", "fanout", { arguments: wrong }),
            channel.queueBind(queue, "amq.fanout", "", { arguments: wrong })
          ]) {
            const { reason } = yield* Effect.flip(attempt)
            assert.strictEqual(reason._tag, "InvalidArgument")
            if (reason._tag === "InvalidArgument") assert.strictEqual(reason.argument, "arguments.x-a.b")
          }
          assert.isTrue(Option.isNone(yield* channel.get(queue)))
        })
      )
    )

    it.effect("headers that do not fit into a frame are refused, and the largest that fit arrive", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const frameMax = yield* leastFrameMax
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            const attempt = (length: number) =>
              through(channel, queue, { content: "", messageId: "abc", headers: { a: "x".repeat(length) } })
            // 8 bytes for the frame, 14 up to the flags, 11 for the table, its key and its tag, 1 for the delivery
            // mode, 4 for the message id.
            const most = frameMax - 8 - 14 - 11 - 1 - 4
            // The bound keeps room for a priority and a timestamp: 9 bytes.
            const delivery = yield* attempt(most - 9)
            assert.strictEqual(delivery.properties.messageId, "abc")
            const { reason } = yield* Effect.flip(attempt(most + 1))
            assert.strictEqual(reason._tag, "InvalidArgument")
            if (reason._tag === "InvalidArgument") assert.strictEqual(reason.argument, "headers")
            yield* attempt(0)
          })
        ).pipe(Effect.scoped, withPool(url, { frameMax }))
      })
    )
  })
})
