import { assert, describe, it } from "@effect/vitest"
import { connect } from "amqplib"
import { Effect } from "effect"
import type { FieldTable } from "../src/testing/internal/memory/codec/fieldTable.ts"
import { readTable, typed, writeTable } from "../src/testing/internal/memory/codec/fieldTable.ts"
import type { ClientEvent } from "./support/frames.ts"
import { encodeFrame, encodeHeartbeat, encodeMessage, FrameReader, PROTOCOL_HEADER } from "./support/frames.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { WireError, WireReader, WireWriter } from "../src/testing/internal/memory/codec/wire.ts"

const roundTrip = (table: FieldTable) => {
  const writer = new WireWriter()
  writeTable(writer, table)
  return readTable(new WireReader(writer.finish()))
}

const read = (bytes: Buffer, size: number = bytes.length, reader = new FrameReader()) => {
  const events: Array<ClientEvent> = []
  for (let at = 0; at < bytes.length; at += size) {
    reader.push(bytes.subarray(at, at + size), (event) => events.push(event))
  }
  return events
}

const everyValue: FieldTable = {
  empty: "",
  text: "grüße, 世界",
  ключ: true,
  no: false,
  nothing: null,
  small: -1,
  int: 0x7fff_ffff,
  beyond: 0x8000_0000,
  safe: Number.MAX_SAFE_INTEGER,
  long: -(2n ** 63n),
  float: 1.5,
  double: Math.PI,
  zero: -0,
  infinite: Number.POSITIVE_INFINITY,
  when: new Date(1_700_000_000_000),
  price: { places: 2, digits: 1999 },
  bytes: Buffer.from([0, 1, 255]),
  list: [1, "two", [3, { four: 4 }]],
  nested: { a: { b: { c: "d" } } }
}

describe("the field-table codec", () => {
  it("decodes what it has encoded", () => {
    assert.deepEqual(roundTrip(everyValue), Object.assign(Object.create(null), everyValue))
  })

  it("encodes the type that is requested", () => {
    const table = {
      b: typed("b", -128),
      B: typed("B", 255),
      s: typed("s", -32_768),
      u: typed("u", 65_535),
      I: typed("I", -1),
      i: typed("i", 0xffff_ffff),
      l: typed("l", 1),
      f: typed("f", 0.5),
      d: typed("d", 3),
      T: typed("T", 1)
    }
    const values = {
      b: -128,
      B: 255,
      s: -32_768,
      u: 65_535,
      I: -1,
      i: 0xffff_ffff,
      l: 1,
      f: 0.5,
      d: 3,
      T: new Date(1000)
    }
    assert.deepEqual(roundTrip(table), Object.assign(Object.create(null), values))
  })

  it("treats __proto__ as a key like any other", () => {
    const table = roundTrip(JSON.parse('{"__proto__": {"polluted": "yes"}, "a": 1}'))
    assert.isNull(Object.getPrototypeOf(table))
    assert.deepEqual(Object.keys(table), ["__proto__", "a"])
  })

  it("refuses a table that is too short or has a type that does not exist", () => {
    const reading =
      (...bytes: Array<number>) =>
      () =>
        readTable(new WireReader(Buffer.from(bytes)))
    assert.throws(reading(0, 0, 0, 9, 1), WireError, "9")
    assert.throws(reading(0, 0, 0, 3, 1, 97, 90), WireError, '"Z"')
  })

  it.live("agrees with amqplib in both directions", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* Effect.promise(() => connect(broker.url))
      const channel = yield* Effect.promise(() => connection.createChannel())
      const headers = {
        text: "grüße",
        int: -7,
        long: 2 ** 40,
        double: 0.1,
        yes: true,
        nothing: null,
        list: [1, { a: "b" }],
        bytes: Buffer.from([1, 2]),
        when: { "!": "timestamp", value: 1_700_000_000 },
        price: { "!": "decimal", value: { places: 2, digits: 1999 } }
      }
      const properties = { headers, contentType: "text/plain", priority: 5, timestamp: 1_700_000_000, persistent: true }
      channel.publish("", "q", Buffer.from("1"), properties)
      const { content } = yield* broker.received("basic.publish")
      const expected = { ...headers, when: new Date(1_700_000_000_000), price: { places: 2, digits: 1999 } }
      assert.deepEqual(content?.properties.headers, Object.assign(Object.create(null), expected))
      assert.deepInclude(content?.properties, { contentType: "text/plain", priority: 5, deliveryMode: 2 })
      broker.enqueue("q", "2", content?.properties)
      const message = yield* Effect.promise(() => channel.get("q"))
      assert.isNotFalse(message)
      if (message) assert.deepEqual(message.properties.headers, headers)
      yield* Effect.promise(() => connection.close())
    })
  )
})

describe("the frame reader", () => {
  const args = { exchange: "e", routingKey: "k", mandatory: true }
  const body = Buffer.alloc(10_000, "x")
  const properties = { messageId: "1", headers: { a: 1 } }
  const conversation = Buffer.concat([
    PROTOCOL_HEADER,
    encodeHeartbeat(),
    encodeMessage(3, "basic.publish", args, { properties, body }, 4096),
    encodeMessage(3, "basic.publish", args, { body: Buffer.alloc(0) }),
    encodeMessage(3, "queue.declare", { queue: "q", durable: true, autoDelete: true, arguments: { "x-max-length": 5 } })
  ])

  for (const size of [1, 3, 4096, 1_000_000]) {
    it(`makes the same messages from pieces of ${size} bytes`, () => {
      const [header, heartbeat, full, empty, declare, ...rest] = read(conversation, size)
      assert.strictEqual(header?.event, "protocol-header")
      assert.strictEqual(heartbeat?.event, "heartbeat")
      assert.lengthOf(rest, 0)
      if (full?.event !== "method" || empty?.event !== "method" || declare?.event !== "method") assert.fail("methods")
      assert.strictEqual(full.channel, 3)
      assert.strictEqual(full.method, "basic.publish")
      assert.deepInclude(full.args, { ...args, immediate: false })
      assert.isTrue(full.content?.body.equals(body))
      assert.strictEqual(full.content?.properties.messageId, "1")
      assert.strictEqual(empty.content?.body.length, 0)
      assert.deepInclude(declare.args, {
        queue: "q",
        passive: false,
        durable: true,
        exclusive: false,
        autoDelete: true
      })
    })
  }

  it("refuses frames that are malformed, too large or out of place", () => {
    const publish = encodeMessage(1, "basic.publish")
    const refused: ReadonlyArray<readonly [Buffer, string]> = [
      [encodeFrame(1, 1, Buffer.from([0, 20, 0, 40]), 3), "frame-end"],
      [encodeFrame(9, 0, Buffer.alloc(0)), "frame type 9"],
      [encodeFrame(8, 1, Buffer.alloc(0)), "heartbeat"],
      [encodeFrame(1, 1, Buffer.from([0, 99, 0, 1])), "99.1"],
      [encodeFrame(1, 1, Buffer.alloc(2)), "long needs 4"],
      [encodeFrame(3, 1, Buffer.alloc(1)), "unexpected content body"],
      [encodeFrame(2, 1, Buffer.alloc(14)), "unexpected content header"],
      [Buffer.concat([publish, encodeMessage(1, "channel.close")]), "amid the content"],
      [encodeFrame(1, 1, Buffer.alloc(4096)), "frame-max is 4096"]
    ]
    for (const [bytes, message] of refused) {
      const reader = new FrameReader()
      reader.frameMax = 4096
      read(PROTOCOL_HEADER, 8, reader)
      assert.throws(() => read(bytes, bytes.length, reader), WireError, message)
    }
  })
})
