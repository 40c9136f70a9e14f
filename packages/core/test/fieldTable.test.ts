/** Field tables and content headers, byte by byte: what is read is what was written, and nothing is read beyond it. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, type AmqpMessage } from "@effect-amqp/core"
import { Arbitrary, BigDecimal, Effect, Fiber, Option, Schema } from "effect"
import { createRequire } from "node:module"
import { PassThrough } from "node:stream"
import { inspect, isDeepStrictEqual } from "node:util"
import { InvalidArgument } from "../src/AmqpErrorReason.ts"
import { readFrames } from "../src/internal/frameReader.ts"
import { Reader } from "../src/internal/fieldReader.ts"
import { toTable } from "../src/internal/fieldTable.ts"
import { fromAmqplib } from "../src/internal/properties.ts"
import { untilState, withPool } from "./support/amqp.ts"
import { type FieldValue, typed, writeTable } from "./support/fieldTable.ts"
import { encodeMessage, FRAME_END, FRAME_HEADER, FRAME_OVERHEAD } from "./support/frames.ts"
import { deliveredTable, tables } from "./support/messages.ts"
import { encodeProperties } from "./support/methodCodec.ts"
import type { Properties } from "./support/methods.ts"
import { start } from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { WireWriter } from "./support/wire.ts"

// The driver's own parts, which it does not export.
const fromAmqplibFolder = createRequire(createRequire(import.meta.url).resolve("amqplib"))
const { encodeTable } = fromAmqplibFolder("./lib/codec") as {
  readonly encodeTable: (buffer: Buffer, table: object, offset: number) => number
}
const { Connection } = fromAmqplibFolder("./lib/connection") as {
  readonly Connection: new (stream: PassThrough) => {
    rest: Buffer
    maxFrameSize: number
    readonly recvFrame: () => false | { readonly size?: number; readonly fields?: unknown; readonly content?: Buffer }
  }
}

const encoded = (table: unknown): Buffer => {
  const ready = toTable(table, "headers", "basic.publish")
  if (ready instanceof InvalidArgument) throw ready
  const scratch = Buffer.alloc(65_536)
  return Buffer.from(scratch.subarray(0, encodeTable(scratch, ready, 0)))
}

const read = (bytes: Uint8Array): AmqpMessage.FieldTable => new Reader(Buffer.from(bytes), 0, bytes.length).table()

const written = (table: { readonly [key: string]: FieldValue }): Buffer => {
  const writer = new WireWriter()
  writeTable(writer, table)
  return writer.finish()
}

const holds = <A>(self: Arbitrary.Arbitrary<A>, property: (value: A) => boolean, runs: number) =>
  Effect.map(Arbitrary.checkEffect(self, property, { runs, size: 20 }), (result) =>
    assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
  )

const frame = (payload: Uint8Array): Buffer => {
  const bytes = Buffer.alloc(payload.length + FRAME_OVERHEAD)
  bytes[0] = FRAME_HEADER
  bytes.writeUInt16BE(1, 1)
  bytes.writeUInt32BE(payload.length, 3)
  bytes.set(payload, 7)
  bytes[bytes.length - 1] = FRAME_END
  return bytes
}

const header = (properties: Buffer, size = 5n): Buffer => {
  const head = Buffer.alloc(12)
  head.writeUInt16BE(60, 0)
  head.writeBigUInt64BE(size, 4)
  return Buffer.concat([head, properties])
}

/** What a connection whose content headers are read here makes of bytes; `ours: false`: what amqplib does by itself. */
const receiving = (bytes: Uint8Array, ours = true) => {
  const connection = new Connection(new PassThrough())
  if (ours) readFrames(connection)
  connection.rest = Buffer.from(bytes)
  return connection
}

describe("tables", () => {
  it.effect("what amqplib writes of a table is read as it was", () =>
    holds(tables, (table) => isDeepStrictEqual(read(encoded(table)), deliveredTable(table)), 2000)
  )

  it.effect("a table is refused exactly if it takes more room than there is", () =>
    holds(
      tables,
      (table) => {
        const { length } = encoded(table)
        const fits = (room: number) => !(toTable(table, "headers", "basic.publish", room) instanceof InvalidArgument)
        return fits(length) && !fits(length - 1)
      },
      500
    )
  )

  it("a flat table of texts, booleans and integers is sent as it is, without a copy", () => {
    const table = { text: "a", yes: true, attempt: 3, large: 2 ** 40, half: 0.5, nothing: null, absent: undefined }
    assert.strictEqual(toTable(table, "headers", "basic.publish"), table)
  })

  it("what a header's object inherits is no header", () => {
    const inherited = Object.assign(Object.create({ inherited: () => 1 }), { own: 1 })
    assert.instanceOf(toTable(inherited, "headers", "basic.publish"), InvalidArgument)
    const prototype: object = Object.prototype
    const lengthOf = (table: unknown) =>
      table instanceof InvalidArgument ? table : encodeTable(Buffer.alloc(100), Object.create(table as object), 0)
    for (const table of [{ own: 1 }, { own: 1, nested: { own: 2 } }]) {
      const expected = encoded(table).length
      Object.assign(prototype, { polluted: "text" })
      let length: unknown
      try {
        length = lengthOf(toTable(table, "headers", "basic.publish"))
      } finally {
        Reflect.deleteProperty(prototype, "polluted")
      }
      assert.strictEqual(length, expected)
    }
  })

  it("what other publishers choose is read: every type tag, with its limits", () => {
    const maximum = 2n ** 64n - 1n
    const cases: ReadonlyArray<readonly [FieldValue, AmqpMessage.FieldValue]> = [
      [typed("t", false), false],
      [typed("b", -128), -128],
      [typed("B", 255), 255],
      [typed("s", -32_768), -32_768],
      [typed("u", 65_535), 65_535],
      [typed("I", -(2 ** 31)), -(2 ** 31)],
      [typed("i", 2 ** 32 - 1), 2 ** 32 - 1],
      [typed("l", -(2n ** 63n)), -(2n ** 63n)],
      [typed("l", 2n ** 53n - 1n), 2 ** 53 - 1],
      [typed("l", -(2n ** 53n)), -(2n ** 53n)],
      [typed("f", 0.5), 0.5],
      [typed("d", Number.NaN), Number.NaN],
      [typed("D", { places: 255, digits: 2 ** 32 - 1 }), BigDecimal.make(2n ** 32n - 1n, 255)],
      [typed("S", "日本"), "日本"],
      [typed("S", "\uFFFD"), "\uFFFD"],
      [typed("S", Uint8Array.of(0x61, 0xff)), Uint8Array.of(0x61, 0xff)],
      [typed("S", Uint8Array.of(0xef, 0xbf, 0xbd, 0xc0)), Uint8Array.of(0xef, 0xbf, 0xbd, 0xc0)],
      [typed("x", Uint8Array.of(0, 255)), Uint8Array.of(0, 255)],
      [typed("T", 8_640_000_000_000), new Date(8.64e15)],
      [typed("T", 8_640_000_000_001), 8_640_000_000_001n],
      [typed("V", null), null],
      [typed("A", [typed("u", 1), [typed("x", new Uint8Array(0))]]), [1, [new Uint8Array(0)]]],
      [typed("F", {}), Object.create(null)]
    ]
    for (const [sent, expected] of cases) {
      const { value } = read(written({ value: sent }))
      assert.isTrue(isDeepStrictEqual(value, expected), inspect([value, expected]))
    }
    const beyond = written({ value: typed("l", 0) })
    beyond[10] = 0x54
    beyond.writeBigUInt64BE(maximum, 11)
    assert.strictEqual(read(beyond)["value"], maximum)
  })

  it("bytes that were read are their own", () => {
    const bytes = written({ value: Uint8Array.of(1, 2) })
    const buffer = Buffer.from(bytes)
    const { value } = new Reader(buffer, 0, buffer.length).table()
    buffer.fill(0)
    assert.deepStrictEqual(value, Uint8Array.of(1, 2))
  })

  it("any number of tables may stand beside each other", () => {
    const table = { many: Array.from({ length: 2000 }, (_, n) => ({ n })) }
    assert.isTrue(isDeepStrictEqual(read(encoded(table)), deliveredTable(table)))
  })

  it("what is nested too deep is left as bytes, however deep", () => {
    // A key without characters, a table's tag, its size.
    const levels = 20_000
    const bytes = Buffer.alloc(4 + levels * 6)
    for (let i = 0; i <= levels; i++) {
      bytes.writeUInt32BE((levels - i) * 6, i * 6)
      if (i < levels) bytes[i * 6 + 5] = 0x46
    }
    let value: unknown = read(bytes)
    let depth = 0
    while (!(value instanceof Uint8Array)) {
      value = (value as AmqpMessage.FieldTable)[""]
      depth++
    }
    assert.strictEqual(depth, 513)
    assert.strictEqual(value.length, (levels - 513) * 6)
  })
})

describe("large tables", () => {
  it("100,000 keys are read in time, whatever they look like", () => {
    const count = 100_000
    const entry = (name: string) => Buffer.concat([Buffer.of(name.length), Buffer.from(name), Buffer.from("V")])
    for (const name of [(i: number) => `key ${i}`, (i: number) => String(i * 7919)]) {
      const entries = Buffer.concat(Array.from({ length: count }, (_, i) => entry(name(i))))
      const size = Buffer.alloc(4)
      size.writeUInt32BE(entries.length)
      const bytes = Buffer.concat([size, entries])
      const start = performance.now()
      assert.strictEqual(Object.keys(read(bytes)).length, count)
      // Some 50 ms. Were it quadratic, it would be minutes.
      assert.isBelow(performance.now() - start, 5000)
    }
  })
})

describe("content headers", () => {
  const properties: Properties = {
    contentType: "application/json",
    contentEncoding: "utf-8",
    headers: { a: 1, b: ["x", { c: true }], d: new Date(0) },
    deliveryMode: 2,
    priority: 9,
    correlationId: "c",
    replyTo: "r",
    expiration: "60000",
    messageId: "m",
    timestamp: 1_700_000_000,
    type: "t",
    userId: "u",
    appId: "a",
    clusterId: "cluster"
  }
  const whole = header(encodeProperties(properties))

  it("properties are read as amqplib reads them, whoever reads", () => {
    const names = Object.keys(properties) as Array<keyof Properties>
    for (const name of [undefined, ...names]) {
      const some = Object.fromEntries(Object.entries(properties).filter(([key]) => key !== name))
      for (const given of [some, name === undefined ? {} : { [name]: properties[name] }]) {
        const bytes = frame(header(encodeProperties(given)))
        const ours = receiving(bytes).recvFrame()
        const theirs = receiving(bytes, false).recvFrame()
        if (ours === false || theirs === false) throw new Error("it is complete")
        assert.isTrue(isDeepStrictEqual(ours.fields, fromAmqplib(theirs.fields as never)), name)
        assert.deepStrictEqual({ ...ours, fields: 0 }, { ...theirs, fields: 0 })
      }
    }
  })

  it("what amqplib has read is brought into the same shape", () => {
    const headers = { when: new Date(0), price: { places: 2, digits: 1999 }, bytes: Uint8Array.of(1), list: [1] }
    const bytes = frame(header(encodeProperties({ headers: { ...headers, ["__proto__"]: { polluted: true } } })))
    const theirs = receiving(bytes, false).recvFrame()
    if (theirs === false) throw new Error("it is complete")
    const expected = { ...headers, price: BigDecimal.make(1999n, 2), ["__proto__"]: { polluted: true } }
    assert.isTrue(isDeepStrictEqual(fromAmqplib(theirs.fields as never).headers, deliveredTable(expected)))
  })

  it("an expiration that is no number of milliseconds, and a timestamp beyond all dates, are not there", () => {
    for (const expiration of ["", "soon", "-1", "1.5", "9".repeat(30)]) {
      const received = receiving(frame(header(encodeProperties({ expiration })))).recvFrame()
      assert.isTrue(received !== false && (received.fields as AmqpMessage.Properties).expiration === undefined)
    }
    const received = receiving(frame(header(encodeProperties({ timestamp: 8_640_000_000_001 })))).recvFrame()
    assert.isTrue(received !== false && (received.fields as AmqpMessage.Properties).timestamp === undefined)
  })

  it("a header comes in whatever pieces it comes", () => {
    const bytes = frame(whole)
    const body = encodeMessage(1, "basic.get-ok", {}, { properties, body: Buffer.from("hello") })
    const stream = new PassThrough()
    const connection = new Connection(stream)
    readFrames(connection)
    for (let i = 0; i < bytes.length - 1; i++) {
      stream.write(bytes.subarray(i, i + 1))
      assert.isFalse(connection.recvFrame(), `${i}`)
    }
    stream.write(bytes.subarray(bytes.length - 1))
    stream.write(body)
    const frames = [connection.recvFrame(), connection.recvFrame(), connection.recvFrame(), connection.recvFrame()]
    assert.isTrue(isDeepStrictEqual(frames[0], frames[2]))
    assert.strictEqual((frames[3] as { readonly content: Buffer }).content.toString(), "hello")
    assert.isFalse(connection.recvFrame())
  })

  it("frames that are wrong as frames are amqplib's to refuse", () => {
    const unended = frame(whole)
    unended[unended.length - 1] = 0
    assert.throws(() => receiving(unended).recvFrame(), /^Invalid frame$/)
    const large = receiving(frame(whole))
    large.maxFrameSize = whole.length - 1
    assert.throws(() => large.recvFrame(), /exceeds maxFrameSize/)
    large.maxFrameSize = 0
    const received = large.recvFrame()
    assert.isTrue(received !== false && isDeepStrictEqual(received.fields, fromAmqplib(received.fields as never)))
    assert.throws(() => receiving(Uint8Array.of(7, 0, 0, 0, 0, 0, 0, FRAME_END)).recvFrame(), /Unknown frame type/)
  })

  it("a header that is cut short, or goes on, is refused at every byte", () => {
    for (let length = 0; length < whole.length; length++) {
      // What is missing is not looked for in the next frame.
      const connection = receiving(Buffer.concat([frame(whole.subarray(0, length)), frame(whole)]))
      assert.throws(() => connection.recvFrame(), /^Invalid frame: malformed content header: /, `${length} bytes`)
      // It is not met again.
      assert.isNotFalse(connection.recvFrame())
      assert.isFalse(connection.recvFrame())
    }
    assert.throws(() => receiving(frame(Buffer.concat([whole, Buffer.alloc(1)]))).recvFrame(), /left over/)
  })

  it("a header of another class, with unknown properties or types, is refused", () => {
    const changed = (change: (payload: Buffer) => void) => {
      const payload = Buffer.from(whole)
      change(payload)
      return () => receiving(frame(payload)).recvFrame()
    }
    assert.throws(
      changed((payload) => payload.writeUInt16BE(61, 0)),
      /class 61/
    )
    assert.throws(
      changed((payload) => payload.writeUInt8(payload[13]! | 1, 13)),
      /does not have/
    )
    const table = written({ a: typed("t", true) })
    table[6] = 0x5a
    const flags = Buffer.of(0x20, 0)
    const short = written({ a: "text" })
    short.writeUInt32BE(short.readUInt32BE(0) - 1, 0)
    assert.throws(() => receiving(frame(header(Buffer.concat([flags, short])))).recvFrame(), /4 bytes wanted where 3/)
    assert.throws(() => receiving(frame(header(Buffer.concat([flags, table])))).recvFrame(), /unexpected type tag "Z"/)
  })

  it.effect("whatever bytes come, they are read within their frame, or refused", () => {
    const bytes = Arbitrary.array(Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), {
      maxLength: 200
    })
    const index = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 })))
    const isRefusal = (cause: unknown) => cause instanceof Error && cause.message.startsWith("Invalid frame: malformed")
    const next = frame(whole)
    const expected = receiving(next).recvFrame()
    const survives = (payload: Uint8Array) => {
      const connection = receiving(Buffer.concat([frame(payload), next]))
      try {
        connection.recvFrame()
      } catch (cause) {
        if (!isRefusal(cause)) throw cause
      }
      // The frame after it is met as if nothing had been.
      return isDeepStrictEqual(connection.recvFrame(), expected) && connection.recvFrame() === false
    }
    return Effect.gen(function* () {
      yield* holds(bytes, (bytes) => survives(Uint8Array.from(bytes)), 2000)
      // Behind valid flags, and a header that is right but for some bytes.
      yield* holds(bytes, (bytes) => survives(header(Buffer.from([0xff, 0xfc, ...bytes]))), 2000)
      yield* holds(bytes, (bytes) => survives(header(Buffer.from([0x20, 0x00, 0, 0, 0, bytes.length, ...bytes]))), 2000)
      yield* holds(
        Arbitrary.array(Arbitrary.all([index, index])),
        (changes) => {
          const payload = Buffer.from(whole)
          for (const [at, value] of changes) payload[at % payload.length] = value
          return survives(payload)
        },
        5000
      )
    })
  })
})

describe("on a connection", () => {
  const get = (queue: string) =>
    AmqpChannel.use((channel) => channel.get(queue, { noAck: true })).pipe(
      Effect.map((delivery) => Option.getOrThrow(delivery)),
      Effect.scoped
    )

  it.live("deliveries arrive whole from a broker that writes one byte at a time", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ chop: 1 })
      const headers = { large: typed("l", 2n ** 60n + 1n), text: typed("S", Uint8Array.of(0xff)), nested: { a: ["b"] } }
      broker.enqueue("q", "hello", { headers, contentType: "text/plain" })
      const { content, properties } = yield* get("q").pipe(withPool(broker.url))
      assert.strictEqual(Buffer.from(content).toString(), "hello")
      const expected = { large: 2n ** 60n + 1n, text: Uint8Array.of(0xff), nested: { a: ["b"] } }
      assert.isTrue(isDeepStrictEqual(properties.headers, deliveredTable(expected)))
    })
  )

  it.live("a malformed content header ends its connection with ProtocolError, and the next one works", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.enqueue("q", "hello", {})
      broker.once("basic.get", (get) => {
        get.reply("basic.get-ok", { deliveryTag: 1, redelivered: false, routingKey: "q" })
        get.write(frame(header(Buffer.of(0x20, 0, 0, 0, 0, 9))))
      })
      yield* Effect.gen(function* () {
        const lost = yield* start(untilState((now) => now._tag === "Reconnecting"))
        yield* Effect.forkScoped(get("q"))
        const { reason } = yield* Fiber.join(lost)
        assert.strictEqual(reason._tag, "ProtocolError")
        assert.include(reason.message, "malformed content header")
        assert.strictEqual(Buffer.from((yield* get("q")).content).toString(), "hello")
      }).pipe(Effect.scoped, withPool(broker.url))
    })
  )
})
