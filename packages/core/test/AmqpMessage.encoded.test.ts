/** Messages that are stored and published later: what is sent is what would have been sent at once, byte for byte. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, type AmqpError, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Arbitrary, BigDecimal, Effect, Schema } from "effect"
import { Reader } from "../src/internal/wire/fieldReader.ts"
import { toOutgoing } from "../src/internal/wire/properties.ts"
import { writePublish } from "../src/internal/driver/publishFrames.ts"
import { InvalidArgument } from "../src/model/errorReason.ts"
import { contents, properties } from "./support/arbitraryMessages.ts"
import { outputOf, takeAll } from "./support/channelOutput.ts"
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

const framesOf = (message: AmqpMessage.Message): Buffer => {
  const outgoing = toOutgoing(message)
  if (outgoing instanceof InvalidArgument) throw outgoing
  const output = outputOf()
  writePublish(output, 1, 131_072, outgoing)
  return Buffer.concat(takeAll(output))
}

/** Encodes, copies into memory of its own as a database does, and reads again. */
const stored = Effect.fnUntraced(function* (message: AmqpMessage.Message) {
  const { content, exchange, properties, routingKey } = yield* AmqpMessage.toEncoded(message)
  return yield* AmqpMessage.fromEncoded({
    exchange,
    routingKey,
    properties: Uint8Array.from(properties),
    content: Uint8Array.from(content)
  })
})

const float = Buffer.alloc(4)
float.writeFloatBE(0.1)
const notUtf8 = Buffer.of(0x61, 0xff)

/** Headers of types that the library does not choose. */
const foreign: ReadonlyArray<readonly [string | Uint8Array, Buffer]> = [
  ["B", rawValue("B", Buffer.of(255))],
  ["s", rawValue("s", Buffer.of(0, 5))],
  ["u", rawValue("u", Buffer.of(0, 5))],
  ["I", rawValue("I", long(5))],
  ["i", rawValue("i", long(5))],
  ["l", rawValue("l", longlong(5n))],
  ["f", rawValue("f", float)],
  ["T", rawValue("T", longlong(2n ** 64n - 1n))],
  ["D", rawValue("D", Buffer.of(2), long(1999))],
  ["S", longText(notUtf8)],
  [notUtf8, rawValue("A", long(5), rawValue("I", long(1)))],
  ["F", rawValue("F", rawTable([Buffer.of(0xff), rawValue("I", long(1))]))]
]

/** Headers as they are read from a delivery. */
const read = (entries: typeof foreign): AmqpMessage.FieldTable => {
  const bytes = rawTable(...entries)
  return new Reader(bytes, 0, bytes.length).tableOr({})
}

const name = Arbitrary.map(Arbitrary.schema(Schema.String), (text) => text.slice(0, 80).toWellFormed())

const everything: AmqpMessage.Message = {
  exchange: "orders",
  routingKey: "order.\u0000\udcff",
  content: Uint8Array.of(0, 255),
  contentType: "application/json",
  contentEncoding: "gzip",
  headers: {
    text: "grüße",
    zero: -0,
    big: 2n ** 62n,
    small: 5n,
    price: BigDecimal.make(1999n, 2),
    thousand: BigDecimal.make(1n, -3),
    at: new Date("2026-11-20T12:34:56.789Z"),
    bytes: Uint8Array.of(1, 2),
    nested: { "!": [null, true, { deep: -0 }], none: undefined },
    10: "ten",
    1: "one"
  },
  persistent: false,
  priority: 0,
  correlationId: "c",
  replyTo: "replies",
  expiration: "1 hour",
  messageId: "m",
  timestamp: new Date("2026-11-20T12:34:56.789Z"),
  type: "t",
  userId: "guest",
  appId: "a"
}

const reasonOf = <A>(effect: Effect.Effect<A, AmqpError.AmqpError>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

describe("a message that is stored", () => {
  it.effect("is published with the same frames as one that is not, whatever it has", () =>
    Effect.gen(function* () {
      const received = read(foreign)
      let forwarded = 0
      const result = yield* Arbitrary.checkEffect(
        Arbitrary.all([properties, contents, name, name, name]),
        ([properties, content, exchange, routingKey, userId]) =>
          Effect.gen(function* () {
            // Every third message forwards headers of other types.
            const headers = routingKey.length % 3 === 0 ? received : properties.headers
            if (headers === received) forwarded++
            const message = { ...properties, headers, content, exchange, routingKey, userId }
            const once = yield* stored(message)
            const frames = framesOf(message)
            return framesOf(once).equals(frames) && framesOf(yield* stored(once)).equals(frames)
          }),
        { runs: 2000, size: 20 }
      )
      assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
      assert.isAbove(forwarded, 300)
    })
  )

  it.effect("keeps every property and every type of header", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(framesOf(yield* stored(everything)), framesOf(everything))
      const { exchange, persistent, priority, routingKey, userId } = yield* stored(everything)
      assert.deepStrictEqual(
        { exchange, persistent, priority, routingKey, userId },
        { exchange: "orders", persistent: false, priority: 0, routingKey: "order.\u0000\udcff", userId: "guest" }
      )
    })
  )

  it.effect("has no headers if it had none, and empty ones if it had empty ones", () =>
    Effect.gen(function* () {
      for (const headers of [undefined, {}]) {
        const message = { routingKey: "q", content: "", headers }
        const once = yield* stored(message)
        assert.deepStrictEqual(framesOf(once), framesOf(message))
        assert.strictEqual(once.headers === undefined, headers === undefined)
      }
    })
  )

  it.effect("is a property list of AMQP 0-9-1 and the content", () =>
    Effect.gen(function* () {
      const encoded = yield* AmqpMessage.toEncoded({ routingKey: "q", content: "grüße", headers: { a: 1 }, type: "t" })
      assert.deepStrictEqual(
        { ...encoded, properties: Buffer.from(encoded.properties), content: Buffer.from(encoded.content) },
        {
          exchange: "",
          routingKey: "q",
          properties: rawProperties(
            0x2000 | 0x1000 | 0x0020,
            rawTable(["a", rawValue("b", Buffer.of(1))]),
            Buffer.of(2),
            shortBytes(Buffer.from("t"))
          ),
          content: Buffer.from("grüße")
        }
      )
      assert.strictEqual(encoded.properties.buffer.byteLength, encoded.properties.byteLength, "memory of its own")
    })
  )

  it.effect("is refused as publish refuses it", () =>
    Effect.gen(function* () {
      const refused = {
        routingKey: { content: "" },
        content: { routingKey: "q" },
        "headers.a": { routingKey: "q", content: "", headers: { a: Number.NaN } },
        headers: { routingKey: "q", content: "", headers: { a: "x".repeat(131_072) } },
        priority: { routingKey: "q", content: "", priority: 256 },
        replyTo: { routingKey: "q", content: "", replyTo: "amq.rabbitmq.reply-to" },
        colour: { routingKey: "q", content: "", colour: "red" }
      }
      for (const [argument, message] of Object.entries(refused)) {
        const reason = yield* reasonOf(AmqpMessage.toEncoded(message as unknown as AmqpMessage.Message))
        assert.strictEqual(reason._tag === "InvalidArgument" ? reason.argument : reason._tag, argument)
      }
      const large = { routingKey: "q", content: "12345" }
      assert.strictEqual((yield* reasonOf(AmqpMessage.toEncoded(large, { maxMessageSize: 4 })))._tag, "MessageTooLarge")
      yield* AmqpMessage.toEncoded(large, { maxMessageSize: 5 })
      yield* AmqpMessage.toEncoded(refused.headers, { frameMax: 200_000 })
      const typo = yield* reasonOf(AmqpMessage.toEncoded(large, { maxMesageSize: 4 } as AmqpMessage.EncodeOptions))
      assert.include(typo.message, "maxMessageSize")
    })
  )

  it.effect("is not read from other bytes", () =>
    Effect.gen(function* () {
      const { properties } = yield* AmqpMessage.toEncoded(everything)
      const others: Record<string, unknown> = {
        nothing: new Uint8Array(0),
        "too much": Buffer.concat([properties, Buffer.of(0)]),
        "a cluster id": rawProperties(0x0004, shortBytes(Buffer.from("c"))),
        "more flags": rawProperties(0x0001, Buffer.of(0, 0)),
        "an expiration that is no number": rawProperties(0x0100, shortBytes(Buffer.from("soon"))),
        "a timestamp beyond a Date": rawProperties(0x0040, longlong(2n ** 63n)),
        "a header of an unknown type": rawProperties(0x2000, rawTable(["a", rawValue("?")])),
        text: "no bytes"
      }
      for (let size = 1; size < properties.length; size++) others[`${size} bytes`] = properties.subarray(0, size)
      for (const [what, bytes] of Object.entries(others)) {
        const encoded = { exchange: "", routingKey: "q", properties: bytes as Uint8Array, content: new Uint8Array(0) }
        const reason = yield* reasonOf(AmqpMessage.fromEncoded(encoded))
        assert.strictEqual(reason._tag === "InvalidArgument" ? reason.argument : reason._tag, "properties", what)
      }
    })
  )

  it.effect("that was changed is read or refused, never a defect", () =>
    Effect.gen(function* () {
      const encoded = yield* AmqpMessage.toEncoded(everything)
      let refused = 0
      for (let at = 0; at < encoded.properties.length; at++) {
        for (const byte of [0, 1, 0x7f, 0x80, 0xff]) {
          const properties = Uint8Array.from(encoded.properties)
          properties[at] = byte
          yield* AmqpMessage.fromEncoded({ ...encoded, properties }).pipe(
            Effect.catch(({ reason }) => Effect.sync(() => void (reason._tag === "InvalidArgument" && refused++)))
          )
        }
      }
      assert.isAbove(refused, 100)
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })("on a broker", (it) => {
  it.effect("a message that is stored arrives as one that is not, also if it forwards another client's headers", () =>
    onBroker(
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const [queue, copies] = [yield* declareQueue(), yield* declareQueue()]
        yield* rawPublish(url, {
          routingKey: queue,
          properties: rawProperties(0x2000 | 0x1000 | 0x0400, rawTable(...foreign), Buffer.of(2), shortBytes(notUtf8))
        })
        const messages = [
          AmqpMessage.fromDelivery(yield* next(queue), { exchange: "", routingKey: copies }),
          { ...everything, exchange: "", routingKey: copies, userId: undefined }
        ]
        for (const message of messages) {
          yield* AmqpPublisher.publish(message)
          yield* AmqpPublisher.publish(yield* stored(message))
          yield* Effect.scoped(
            Effect.flatMap(stored(message), (again) => AmqpChannel.use((channel) => channel.publish(again)))
          )
          const expected = yield* rawPropertiesIn(url, copies)
          for (const _ of [1, 2]) assert.deepStrictEqual(yield* rawPropertiesIn(url, copies), expected)
        }
      })
    )
  )
})
