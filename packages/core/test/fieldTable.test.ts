/** Field tables and content headers, byte by byte: what is read is what was written, and nothing is read beyond it. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, type AmqpMessage } from "@effect-amqp/core"
import { Arbitrary, BigDecimal, Effect, Option, Schema } from "effect"
import { createRequire } from "node:module"
import { PassThrough } from "node:stream"
import { inspect, isDeepStrictEqual } from "node:util"
import { InvalidArgument } from "../src/AmqpErrorReason.ts"
import { readFrames } from "../src/internal/frameReader.ts"
import { Reader } from "../src/internal/fieldReader.ts"
import { toTable } from "../src/internal/fieldTable.ts"
import { readShortText, sizeOfShortText, writeShortText } from "../src/internal/shortText.ts"
import { fromAmqplib } from "../src/internal/properties.ts"
import { withPool } from "./support/amqp.ts"
import { type FieldValue, typed, writeTable } from "./support/fieldTable.ts"
import { encodeMessage, FRAME_END, FRAME_HEADER, FRAME_OVERHEAD } from "./support/frames.ts"
import { deliveredTable, tables } from "./support/messages.ts"
import { encodeProperties } from "./support/methodCodec.ts"
import type { Properties } from "./support/methods.ts"
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
    readonly recvFrame: () => false | Received
  }
}

interface Received {
  readonly size?: number
  readonly fields?: object
  readonly content?: Buffer
  readonly undecodable?: Error
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
      [typed("L", 2n ** 31n), 2 ** 31],
      [typed("L", -(2n ** 63n)), -(2n ** 63n)],
      [typed("U", -32_768), -32_768],
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
        assert.deepStrictEqual({ ...ours, fields: 0 }, { ...theirs, fields: 0, undecodable: undefined })
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
    large.rest[0] = 3
    assert.throws(() => large.recvFrame(), /exceeds maxFrameSize/)
    assert.throws(() => receiving(Uint8Array.of(7, 0, 0, 0, 0, 0, 0, FRAME_END)).recvFrame(), /Unknown frame type/)
  })

  const undecodable = (payload: Uint8Array): string => {
    const connection = receiving(Buffer.concat([frame(payload), frame(whole)]))
    const received = connection.recvFrame()
    if (received === false) throw new Error("it is complete")
    // What is missing is not looked for in the next frame, which is met as if nothing had been.
    assert.isNotFalse(connection.recvFrame())
    assert.isFalse(connection.recvFrame())
    return received.undecodable?.message ?? "it was read"
  }

  it("a header larger than a frame is read, up to a bound; beyond it is skipped, and costs its own message", () => {
    const most = 2 ** 20 + 65_536
    for (const size of [4097, most, most + 1, 3 * most]) {
      const bytes = Buffer.alloc(size - 25, "x")
      const large = Buffer.concat([Buffer.of(0x20, 0), written({ a: "" })])
      const table = Buffer.concat([large, bytes])
      table.writeUInt32BE(bytes.length + 7, 2)
      table.writeUInt32BE(bytes.length, 9)
      const payload = header(table)
      assert.strictEqual(payload.length, size)
      for (const piece of [65_536, 1000, 2 * size]) {
        const stream = new PassThrough({ highWaterMark: 10 * size })
        const connection = new Connection(stream)
        connection.maxFrameSize = 4096
        readFrames(connection)
        const sent = Buffer.concat([frame(payload), frame(whole)])
        const frames: Array<Received> = []
        for (let at = 0; at < sent.length; at += piece) {
          stream.write(sent.subarray(at, at + piece))
          for (let one = connection.recvFrame(); one !== false; one = connection.recvFrame()) frames.push(one)
        }
        assert.strictEqual(frames.length, 2)
        assert.strictEqual(frames[0]!.size, 5)
        assert.isUndefined(frames[1]!.undecodable)
        if (size > most)
          assert.include(frames[0]!.undecodable?.message, `it has ${size} bytes, at most ${most} are read`)
        else assert.isUndefined(frames[0]!.undecodable)
      }
    }
    const unended = frame(header(Buffer.alloc(3 * most)))
    unended[unended.length - 1] = 0
    const connection = receiving(unended)
    connection.maxFrameSize = 4096
    assert.throws(() => connection.recvFrame(), /^Invalid frame$/)
    const endless = receiving(Buffer.concat([Buffer.of(2, 0, 1, 0xff, 0xff, 0xff, 0xff), Buffer.alloc(100)]))
    endless.maxFrameSize = 4096
    assert.throws(() => endless.recvFrame(), /exceeds maxFrameSize/)
  })

  it("a header that is cut short, or goes on, costs its own message at every byte", () => {
    const fixed = 12
    for (let length = 0; length < whole.length; length++) {
      if (length >= fixed) {
        assert.match(undecodable(whole.subarray(0, length)), /^Invalid frame: malformed content header: /)
        continue
      }
      // Not what a publisher can write: the broker's own part.
      const connection = receiving(Buffer.concat([frame(whole.subarray(0, length)), frame(whole)]))
      assert.throws(() => connection.recvFrame(), /^Invalid frame: malformed content header: /, `${length} bytes`)
      // It is not met again.
      assert.isNotFalse(connection.recvFrame())
      assert.isFalse(connection.recvFrame())
    }
    assert.match(undecodable(Buffer.concat([whole, Buffer.alloc(1)])), /left over/)
  })

  it("a header of another class is refused, one with unknown types costs its own message", () => {
    const other = Buffer.from(whole)
    other.writeUInt16BE(61, 0)
    assert.throws(() => receiving(frame(other)).recvFrame(), /class 61/)
    const table = written({ a: typed("t", true) })
    table[6] = 0x5a
    const flags = Buffer.of(0x20, 0)
    const short = written({ a: "text" })
    short.writeUInt32BE(short.readUInt32BE(0) - 1, 0)
    assert.match(undecodable(header(Buffer.concat([flags, short]))), /4 bytes wanted where 3/)
    assert.match(undecodable(header(Buffer.concat([flags, table]))), /unexpected type tag "Z"/)
  })

  it("what stands behind a table that cannot be read is read", () => {
    const table = written({ a: { b: [typed("t", true)] } })
    table[table.length - 2] = 0x5a
    const rest = Buffer.concat([Buffer.of(2), Buffer.from("\x09forty-two", "latin1")])
    const received = receiving(frame(header(Buffer.concat([Buffer.of(0x34, 0), table, rest])))).recvFrame()
    assert.isTrue(received !== false && received.undecodable !== undefined)
    const fields = (received as { readonly fields: AmqpMessage.DeliveredProperties }).fields
    assert.deepInclude(fields, { persistent: true, correlationId: "forty-two" })
    assert.deepStrictEqual(Object.keys(fields.headers), [])
  })

  describe("flags that announce more flags", () => {
    const of = (flags: ReadonlyArray<number>, ...rest: ReadonlyArray<Buffer>) => {
      const words = Buffer.alloc(flags.length * 2)
      for (const [i, word] of flags.entries()) words.writeUInt16BE(word, i * 2)
      const received = receiving(frame(header(Buffer.concat([words, ...rest])))).recvFrame()
      if (received === false) throw new Error("it is complete")
      return received
    }
    const contentType = Buffer.from("\x0atext/plain", "latin1")

    it("which follow, as AMQP has it", () => {
      for (const flags of [
        [0x8001, 0],
        [0x8001, 1, 0]
      ]) {
        const received = of(flags, contentType)
        assert.isUndefined(received.undecodable)
        assert.include(received.fields, { contentType: "text/plain" })
      }
    })

    it("which do not follow, as RabbitMQ 3 ignores and passes on both flags", () => {
      for (const flags of [0x8001, 0x8002, 0x8003]) {
        const received = of([flags], contentType)
        assert.isUndefined(received.undecodable)
        assert.include(received.fields, { contentType: "text/plain" })
      }
      assert.isUndefined(of([1]).undecodable)
      assert.deepStrictEqual(
        (of([0x2001], written({ a: 1 })).fields as AmqpMessage.DeliveredProperties).headers["a"],
        1
      )
    })

    it("of properties that class basic does not have: the message cannot be read", () => {
      assert.isDefined(of([0x8001, 0x8000], contentType, contentType).undecodable)
    })
  })

  it("a short string that is not UTF-8 is read as what can be written again, and no two as the same", () => {
    const strings = [
      Buffer.of(0xff),
      Buffer.of(0xfe),
      Buffer.of(0xef, 0xbf, 0xbd),
      Buffer.alloc(255, 0xff),
      Buffer.of(0x61, 0xc3, 0xa9, 0xc3, 0xf0, 0x9f, 0x90, 0x87, 0x80, 0xed, 0xa0, 0x80),
      Buffer.from("grüße 🐇")
    ]
    const texts = strings.map((bytes) => readShortText(bytes, 0, bytes.length))
    assert.strictEqual(new Set(texts).size, strings.length)
    for (const [i, text] of texts.entries()) {
      const size = sizeOfShortText(text)
      assert.strictEqual(size, strings[i]!.length)
      const room = Buffer.alloc(size!)
      assert.strictEqual(writeShortText(room, 0, text), size)
      assert.isTrue(room.equals(strings[i]!))
    }
    assert.strictEqual(texts[5], "grüße 🐇")
    assert.isUndefined(sizeOfShortText("\uD800"))
    assert.isUndefined(sizeOfShortText("\uDC7F"))
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
})
