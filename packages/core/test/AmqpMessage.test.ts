/** Messages as data: read from deliveries, made from them, and encoded as JSON by a schema. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpError, AmqpMessage } from "@effect-amqp/core"
import { BigDecimal, Context, DateTime, Effect, Equal, Schema, SchemaGetter } from "effect"
import { inspect } from "node:util"
import { InvalidArgument } from "../src/model/errorReason.ts"
import { toOutgoing } from "../src/internal/wire/properties.ts"
import { isSameMessage } from "../src/internal/wire/sameMessage.ts"
import { deliveredProperties, deliveredTable } from "./support/arbitraryMessages.ts"

const delivery = (content: string | Uint8Array, properties: AmqpMessage.Properties = {}): AmqpMessage.Delivery => ({
  content: Buffer.from(content as string),
  properties: deliveredProperties(properties),
  exchange: "orders",
  routingKey: "created",
  redelivered: false,
  deliveryTag: 1,
  messageCount: undefined
})

/** What publishing a message sends. */
const sent = (message: AmqpMessage.Message) => {
  const outgoing = toOutgoing(message)
  if (outgoing instanceof InvalidArgument) throw outgoing
  return outgoing
}

describe("text and bytes", () => {
  it("text is the content decoded as UTF-8, and keeps a byte order mark", () => {
    for (const text of ["", "grüße", "🐇", "\uFEFFmark", "\uFFFD"]) {
      assert.strictEqual(AmqpMessage.text(delivery(text)), text)
    }
    assert.strictEqual(AmqpMessage.text(delivery(Uint8Array.of(0x61, 0xff))), "a\uFFFD")
    assert.strictEqual(AmqpMessage.text({ content: Uint8Array.of(0, 0x61, 0).subarray(1, 2) }), "a")
  })

  it("bytes are those of the content, in a buffer that is no larger", () => {
    const content = Buffer.from("hello world").subarray(6)
    const bytes = AmqpMessage.bytes({ content })
    content[0] = 0
    assert.deepStrictEqual(bytes, Uint8Array.from(Buffer.from("world")))
    assert.strictEqual(bytes.buffer.byteLength, 5)
  })
})

describe("fromDelivery", () => {
  const properties: AmqpMessage.Properties = { contentType: "text/plain", expiration: 60_000, headers: { a: 1 } }

  it("keeps the exchange, the routing key and the properties of the delivery", () => {
    const outgoing = sent(AmqpMessage.fromDelivery(delivery("hello", properties)))
    assert.deepInclude(outgoing, { exchange: "orders", routingKey: "created" })
    assert.deepInclude(outgoing, { persistent: true, contentType: "text/plain", expiration: "60000" })
    assert.deepStrictEqual({ ...(outgoing.headers as object) }, { a: 1 })
    assert.strictEqual(outgoing.content.toString(), "hello")
  })

  it("takes overrides, and leaves out what is overridden with undefined", () => {
    const overrides = { exchange: "", routingKey: "later", content: "bye", expiration: undefined, headers: { b: 2 } }
    const outgoing = sent(AmqpMessage.fromDelivery(delivery("hello", properties), overrides))
    assert.deepInclude(outgoing, { exchange: "", routingKey: "later" })
    assert.deepInclude(outgoing, {
      persistent: true,
      contentType: "text/plain",
      headers: { b: 2 },
      expiration: undefined
    })
    assert.strictEqual(outgoing.content.toString(), "bye")
  })
})

describe("the encoded message", () => {
  it("uses the given bytes without a copy", () => {
    const content = Uint8Array.of(1, 2, 3).subarray(1)
    const outgoing = sent({ routingKey: "q", content })
    assert.strictEqual(outgoing.content.buffer, content.buffer)
    assert.deepStrictEqual([...outgoing.content], [2, 3])
  })

  it("has dates in seconds, whatever they are given as, and durations in milliseconds", () => {
    for (const timestamp of [
      new Date(1999),
      DateTime.makeUnsafe(1999),
      DateTime.makeZonedUnsafe(1999, { timeZone: "Europe/Berlin" })
    ]) {
      assert.strictEqual(sent({ routingKey: "q", content: "", timestamp }).timestamp, 1)
    }
    for (const expiration of [60_000, "1 minute", 60_000_000_000n, { minutes: 1 }] as const) {
      assert.strictEqual(sent({ routingKey: "q", content: "", expiration }).expiration, "60000")
    }
  })

  it("has the exact number for a decimal with a negative scale", () => {
    const headers = sent({ routingKey: "q", content: "", headers: { a: BigDecimal.make(5n, -3) } }).headers
    assert.deepInclude(headers, { a: { "!": "decimal", value: { places: 0, digits: 5000 } } })
    for (const wrong of [
      BigDecimal.make(5n, -9),
      BigDecimal.make(1n, -1_000_000_000),
      BigDecimal.make(-1n, 0),
      BigDecimal.make(1n, 256)
    ]) {
      assert.instanceOf(toOutgoing({ routingKey: "q", content: "", headers: { wrong } }), InvalidArgument)
    }
  })

  it("refuses a message that is not an object, and says so", () => {
    for (const message of [undefined, null, "text", 1]) {
      assert.deepInclude(toOutgoing(message as never), { _tag: "InvalidArgument", argument: "message" })
    }
  })

  it("is refused with an error that does not contain the content", () => {
    const secret = "correct horse battery staple"
    for (const wrong of [
      { priority: secret },
      { messageId: secret.repeat(20) },
      { content: { secret } },
      { headers: { a: [secret, () => secret] } },
      { headers: { a: `${secret}\uD800` } }
    ]) {
      const refused = toOutgoing({ routingKey: "q", content: "", ...wrong } as never)
      assert.instanceOf(refused, InvalidArgument)
      assert.notInclude(JSON.stringify(refused), secret)
    }
  })
})

describe("sameMessage", () => {
  const message: AmqpMessage.Message = {
    exchange: "orders",
    routingKey: "created",
    content: "hello",
    messageId: "1",
    persistent: false,
    expiration: "1 minute",
    timestamp: DateTime.makeUnsafe(1999),
    headers: {
      BCC: ["copy"],
      long: 5n,
      none: undefined,
      deep: [{ a: new Date(1999), b: Buffer.from("x"), c: BigDecimal.make(1n, 1) }]
    }
  }
  const { BCC: _, ...headers } = message.headers!
  const returned = { ...delivery("hello", { ...message, headers }), exchange: "orders", routingKey: "created" }

  it("a message matches itself after what the broker removes and may add", () => {
    assert.isTrue(isSameMessage(message, returned))
    const more = { ...returned.properties.headers, "x-routed-by": "rabbit@here", timestamp_in_ms: 1 }
    assert.isTrue(isSameMessage(message, { ...returned, properties: { ...returned.properties, headers: more } }))
    const { timestamp: _, ...undated } = message
    assert.isTrue(isSameMessage(undated, returned))
  })

  it("a request matches itself with the reply address that RabbitMQ or LavinMQ has written, and with no other queue", () => {
    for (const pseudoQueue of ["amq.rabbitmq.reply-to", "amq.direct.reply-to"]) {
      const request = { ...message, replyTo: pseudoQueue }
      const comesBackTo = (replyTo: string) =>
        isSameMessage(request, { ...returned, properties: { ...returned.properties, replyTo } })
      assert.isTrue(comesBackTo("amq.rabbitmq.reply-to.g1h2.key"))
      assert.isTrue(comesBackTo("amq.direct.reply-to.ctag-0b1c"))
      assert.isFalse(comesBackTo("payments"))
    }
  })

  it("a message that differs anywhere does not match", () => {
    const others: ReadonlyArray<Partial<AmqpMessage.Message>> = [
      { exchange: "" },
      { routingKey: "paid" },
      { content: "hallo" },
      { content: "hello " },
      { content: Buffer.from("hallo") },
      { messageId: undefined },
      { correlationId: "1" },
      { contentType: "" },
      { contentEncoding: "utf-8" },
      { persistent: true },
      { persistent: undefined },
      { priority: 0 },
      { replyTo: "r" },
      { expiration: 60_001 },
      { expiration: undefined },
      { timestamp: new Date(2000) },
      { type: "t" },
      { userId: "u" },
      { appId: "a" },
      { headers: undefined },
      { headers: { ...message.headers, more: 1 } },
      { headers: { ...message.headers, long: 6n } },
      { headers: { ...message.headers, long: "5" } },
      { headers: { ...message.headers, long: undefined } },
      ...[
        {},
        [],
        null,
        0,
        "",
        2n ** 60n,
        new Date(1999),
        [{}],
        [{ a: 1 }],
        [{ a: new Date(1999), b: Buffer.from("y"), c: BigDecimal.make(1n, 1) }]
      ].map((deep) => ({ headers: { ...message.headers, deep } }))
    ]
    for (const other of others) assert.isFalse(isSameMessage({ ...message, ...other }, returned), inspect(other))
  })

  it("values of different types do not match", () => {
    const kinds = [
      {},
      [],
      new Date(0),
      new Uint8Array(0),
      null,
      0,
      "",
      false,
      -0,
      2n ** 60n,
      0.5,
      BigDecimal.make(0n, 0)
    ]
    for (const [i, one] of kinds.entries()) {
      for (const [j, two] of kinds.entries()) {
        const arrived = { ...returned, properties: { ...returned.properties, headers: deliveredTable({ a: [two] }) } }
        assert.strictEqual(isSameMessage({ ...message, headers: { a: [one] } }, arrived), i === j, `${i} ${j}`)
      }
    }
  })
})

class Order extends Schema.Class<Order>("Order")({
  id: Schema.Int,
  placed: Schema.Date,
  total: Schema.BigDecimal,
  items: Schema.Array(Schema.Struct({ name: Schema.String, price: Schema.Finite }))
}) {}

const orders = AmqpMessage.json(Order)

const order = new Order({
  id: 7,
  placed: new Date("2026-11-20T12:34:56.789Z"),
  total: BigDecimal.make(1999n, 2),
  items: [{ name: "grüße", price: 19.99 }]
})

/** The message of a failed decoding. */
const failure = <A, R>(effect: Effect.Effect<A, AmqpError.AmqpError, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert.strictEqual(error.reason._tag, "DecodeFailed")
    assert.isFalse(error.isRetryable)
    return error.message
  })

describe("json", () => {
  it.effect("an encoded value is decoded to the same value", () =>
    Effect.gen(function* () {
      const message = yield* orders.encode(order, { exchange: "orders", routingKey: "created", messageId: "7" })
      assert.deepInclude(message, {
        exchange: "orders",
        routingKey: "created",
        messageId: "7",
        contentType: "application/json",
        contentEncoding: "utf-8"
      })
      const arrived = delivery(message.content, message)
      const decoded = yield* orders.decode(arrived)
      assert.instanceOf(decoded, Order)
      assert.isTrue(Equal.equals(decoded, order))
      const again = yield* orders.decode({ ...arrived, content: Uint8Array.from(arrived.content) })
      assert.isTrue(Equal.equals(again, order))
    })
  )

  it.effect("the envelope sets the content type, and may come last", () =>
    Effect.gen(function* () {
      const envelope = { routingKey: "q", contentType: "application/vnd.order+json" }
      const message = yield* Effect.succeed(order).pipe(Effect.flatMap(orders.encode(envelope)))
      assert.strictEqual(message.contentType, "application/vnd.order+json")
      assert.isTrue(Equal.equals(yield* orders.decode(delivery(message.content, message)), order))
    })
  )

  it.effect("JSON's content types and encodings are accepted, and so are messages without them", () =>
    Effect.gen(function* () {
      const number = AmqpMessage.json(Schema.Finite)
      for (const contentType of [
        undefined,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; profile=x",
        "application/problem+json",
        "image/svg+json"
      ]) {
        for (const contentEncoding of [undefined, "", "utf-8", "UTF8", "identity"]) {
          assert.strictEqual(yield* number.decode(delivery("7", { contentType, contentEncoding })), 7)
        }
      }
      assert.strictEqual(yield* number.decode(delivery("\uFEFF7")), 7)
    })
  )

  it.effect(
    "content that is not the schema's JSON fails with DecodeFailed, which says what is wrong and where, without the content",
    () =>
      Effect.gen(function* () {
        const secret = "hunter2"
        const cases: ReadonlyArray<readonly [AmqpMessage.Delivery, RegExp]> = [
          [delivery(secret, { contentType: "text/plain" }), /expected JSON, got the contentType "text\/plain"/],
          [delivery(secret, { contentType: "" }), /contentType ""/],
          [delivery(secret, { contentType: "application/jsonx" }), /contentType/],
          [delivery(secret, { contentType: "application/json; charset=latin1" }), /contentType/],
          [delivery(secret, { contentEncoding: "gzip" }), /expected the contentEncoding utf-8, got "gzip"/],
          [delivery(Buffer.concat([Buffer.from(secret), Uint8Array.of(0xff)])), /expected UTF-8/],
          [delivery(""), /got 0 bytes that are not JSON/],
          [delivery(`{"id": ${secret}}`), /got 15 bytes that are not JSON/],
          [delivery(`{"id": 1, "name": "${"x".repeat(100)}", ${secret}}`), /are not JSON at position 122/],
          [delivery("null"), /expected a value that matches its schema: .* at \$/],
          [delivery(`"${secret}"`), /expected a value that matches its schema: .* at \$/],
          [delivery(`{"id":"${secret}","placed":"","total":"1","items":[]}`), /at \$\.id$/],
          [
            delivery(`{"id":1,"placed":"2026-01-01","total":"1","items":[{"name":"a","price":"${secret}"}]}`),
            /at \$\.items\[0\]\.price$/
          ]
        ]
        for (const [wrong, expected] of cases) {
          const message = yield* failure(orders.decode(wrong))
          assert.match(message, expected)
          assert.notInclude(message, secret)
        }
      })
  )

  it.effect("the failure does not hold the content in its fields either", () =>
    Effect.gen(function* () {
      const secret = "hunter2"
      const error = yield* Effect.flip(orders.decode(delivery(`{"id":"${secret}"}`)))
      const seen = JSON.stringify(yield* Schema.encodeEffect(AmqpError.AmqpErrorReason)(error.reason))
      assert.notInclude(seen, secret)
      assert.isUndefined((error.reason as AmqpError.DecodeFailed).cause)
    })
  )

  it.effect("a value that the schema does not allow is refused before there is a message", () =>
    Effect.gen(function* () {
      const { reason } = yield* Effect.flip(
        AmqpMessage.json(Schema.Struct({ id: Schema.Int })).encode({ id: 0.5 }, { routingKey: "q" })
      )
      assert.strictEqual(reason._tag, "InvalidArgument")
      if (reason._tag === "InvalidArgument") assert.strictEqual(reason.argument, "content")
      assert.match(reason.message, /at \$\.id/)
    })
  )

  it.effect("a value that JSON cannot represent is refused, too", () =>
    Effect.gen(function* () {
      const anything = AmqpMessage.json(Schema.Any)
      const cycle: Record<string, unknown> = {}
      cycle["cycle"] = cycle
      for (const value of [cycle, 1n, undefined, () => 1]) {
        const { reason } = yield* Effect.flip(anything.encode(value, { routingKey: "q" }))
        assert.strictEqual(reason._tag, "InvalidArgument")
      }
    })
  )

  it.effect("services that the schema needs are required", () => {
    class Key extends Context.Service<Key, { readonly shift: number }>()("Key") {}
    const Shifted = Schema.Finite.pipe(
      Schema.decodeTo(Schema.Finite, {
        decode: SchemaGetter.transformEffect((n: number) => Effect.map(Key, ({ shift }) => n - shift)),
        encode: SchemaGetter.transformEffect((n: number) => Effect.map(Key, ({ shift }) => n + shift))
      })
    )
    const shifted = AmqpMessage.json(Shifted)
    const program: Effect.Effect<void, AmqpError.AmqpError, Key> = Effect.gen(function* () {
      const message = yield* shifted.encode(1, { routingKey: "q" })
      assert.strictEqual(message.content, "4")
      assert.strictEqual(yield* shifted.decode(delivery("4")), 1)
    })
    return Effect.provideService(program, Key, { shift: 3 })
  })
})
