/** Field tables and content headers, byte by byte: what is read is what was written, and nothing beyond it is read. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, type AmqpMessage } from "@effect-amqp/core"
import { Arbitrary, BigDecimal, Effect, Option } from "effect"
import { createRequire } from "node:module"
import { inspect, isDeepStrictEqual } from "node:util"
import { InvalidArgument } from "../src/model/errorReason.ts"
import type { HeaderFrame } from "../src/internal/wire/contentHeader.ts"
import { ProtocolViolation } from "../src/internal/driver/driver.ts"
import { Reader } from "../src/internal/wire/fieldReader.ts"
import { toTable } from "../src/internal/wire/fieldTable.ts"
import { readShortString, sizeOfShortString, writeShortString } from "../src/internal/wire/shortString.ts"
import { withPool } from "./support/amqp.ts"
import { holds as holdsFor, int } from "./support/arbitrary.ts"
import { type FieldValue, typed, writeTable } from "../src/testing/internal/memory/codec/fieldTable.ts"
import { encodeFrame, encodeMessage, FRAME_BODY, FRAME_END, FRAME_HEADER } from "./support/frames.ts"
import { deliveredTable, tables } from "./support/arbitraryMessages.ts"
import { encodeProperties } from "../src/testing/internal/memory/codec/methodCodec.ts"
import type { Properties } from "../src/testing/internal/memory/codec/methods.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { tapped } from "./support/driverTap.ts"
import { WireWriter } from "../src/testing/internal/memory/codec/wire.ts"

// The driver's own modules, which it does not export.
const fromAmqplibFolder = createRequire(createRequire(import.meta.url).resolve("amqplib"))
const { encodeTable } = fromAmqplibFolder("./lib/codec") as {
  readonly encodeTable: (buffer: Buffer, table: object, offset: number) => number
}
const defs = fromAmqplibFolder("./lib/defs") as {
  readonly BasicProperties: number
  readonly decode: (id: number, bytes: Buffer) => Readonly<Record<string, unknown>>
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
  holdsFor(self, property, { runs, size: 20 })

const frame = (payload: Uint8Array): Buffer => encodeFrame(FRAME_HEADER, 1, payload)

const header = (properties: Buffer, size = 5n): Buffer => {
  const head = Buffer.alloc(12)
  head.writeUInt16BE(60, 0)
  head.writeBigUInt64BE(size, 4)
  return Buffer.concat([head, properties])
}

/** What a channel of a connection gets from these bytes, and the error that the connection ends with. */
const receiving = (bytes: Uint8Array, { frameMax = 131_072, piece = bytes.length } = {}) => {
  const connection = tapped([1], {}, { frameMax })
  for (let at = 0; at < bytes.length; at += piece) connection.receive(bytes.subarray(at, at + piece))
  const headers = connection.heard.flatMap((heard) => (heard.of === "header" ? [heard.header] : []))
  return { headers, heard: connection.heard, end: connection.end }
}

/** The only header in these bytes. */
const received = (bytes: Uint8Array): HeaderFrame => {
  const { end, headers } = receiving(bytes)
  assert.deepStrictEqual([headers.length, end], [1, undefined])
  return headers[0]!
}

/** The error that the connection ends with. Nothing of these bytes is handed on. */
const refusalOf = (bytes: Uint8Array, frameMax?: number): string => {
  const { end, heard } = receiving(bytes, { frameMax })
  assert.deepStrictEqual(
    heard.map(({ of }) => of),
    ["failed"]
  )
  assert.instanceOf(end, ProtocolViolation)
  assert.strictEqual(end.code, 501)
  return end.message
}

describe("tables", () => {
  it.effect("a table that amqplib has written is read to the same value", () =>
    holds(tables, (table) => isDeepStrictEqual(read(encoded(table)), deliveredTable(table)), 2000)
  )

  it.effect("a table is refused exactly if it needs more room than there is", () =>
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

  it("a flat table of texts, booleans and integers is sent without a copy", () => {
    const table = { text: "a", yes: true, attempt: 3, large: 2 ** 40, half: 0.5, nothing: null, absent: undefined }
    assert.strictEqual(toTable(table, "headers", "basic.publish"), table)
  })

  it("inherited members of a header object are not headers", () => {
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

  it("values that other publishers choose are read: every type tag, with its limits", () => {
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

  it("bytes that were read have their own memory", () => {
    const bytes = written({ value: Uint8Array.of(1, 2) })
    const buffer = Buffer.from(bytes)
    const { value } = new Reader(buffer, 0, buffer.length).table()
    buffer.fill(0)
    assert.deepStrictEqual(value, Uint8Array.of(1, 2))
  })

  it("any number of nested tables may follow each other", () => {
    const table = { many: Array.from({ length: 2000 }, (_, n) => ({ n })) }
    assert.isTrue(isDeepStrictEqual(read(encoded(table)), deliveredTable(table)))
  })

  it("values that are nested too deep stay bytes, however deep", () => {
    // An empty key, the tag of a table, and the table's size.
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
  it("100,000 keys are read in time, whatever the keys are", () => {
    const count = 100_000
    const entry = (name: string) => Buffer.concat([Buffer.of(name.length), Buffer.from(name), Buffer.from("V")])
    for (const name of [(i: number) => `key ${i}`, (i: number) => String(i * 7919)]) {
      const entries = Buffer.concat(Array.from({ length: count }, (_, i) => entry(name(i))))
      const size = Buffer.alloc(4)
      size.writeUInt32BE(entries.length)
      const bytes = Buffer.concat([size, entries])
      const start = performance.now()
      assert.strictEqual(Object.keys(read(bytes)).length, count)
      // This takes some 50 ms. If it were quadratic, it would take minutes.
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

  /** Properties that are not set are present as undefined: objects of one shape are read faster. */
  const absent = Object.fromEntries(
    Object.keys(properties)
      .filter((name) => name !== "deliveryMode" && name !== "clusterId")
      .map((name) => [name, undefined])
  )

  it("properties are read as amqplib reads them, in the shape in which they are handed out", () => {
    const names = Object.keys(properties) as Array<keyof Properties>
    for (const name of [undefined, ...names]) {
      const some = Object.fromEntries(Object.entries(properties).filter(([key]) => key !== name))
      for (const given of [some, name === undefined ? {} : { [name]: properties[name] }]) {
        const encoded = encodeProperties(given)
        const theirs = defs.decode(defs.BasicProperties, encoded)
        const { clusterId: _, deliveryMode, expiration, timestamp, ...alike } = theirs
        const expected = {
          ...absent,
          ...alike,
          // The library's own shape for values that JSON does not have.
          headers:
            "headers" in given ? deliveredTable(properties.headers as AmqpMessage.FieldTable) : Object.create(null),
          persistent: deliveryMode === 2,
          expiration: expiration === undefined ? undefined : Number(expiration),
          timestamp: timestamp === undefined ? undefined : new Date(Number(timestamp) * 1000)
        }
        const { fields, ...frameOf } = received(frame(header(encoded)))
        assert.isTrue(isDeepStrictEqual(fields, expected), inspect([name, fields, expected]))
        assert.deepStrictEqual(frameOf, { id: 60, channel: 1, size: 5, decodeError: undefined })
      }
    }
  })

  it("an expiration that is not a number of milliseconds, or a timestamp beyond all dates, is left out", () => {
    for (const expiration of ["", "soon", "-1", "1.5", "9".repeat(30)]) {
      assert.isUndefined(received(frame(header(encodeProperties({ expiration })))).fields.expiration)
    }
    const timestamp = 8_640_000_000_001
    assert.isUndefined(received(frame(header(encodeProperties({ timestamp })))).fields.timestamp)
  })

  it("a header may arrive in any pieces", () => {
    const bytes = frame(whole)
    const body = encodeMessage(1, "basic.get-ok", {}, { properties, body: Buffer.from("hello") })
    for (let i = 0; i < bytes.length; i++) {
      assert.deepStrictEqual(receiving(bytes.subarray(0, i), { piece: 1 }).heard, [], `${i}`)
    }
    const { end, headers, heard } = receiving(Buffer.concat([bytes, body]), { piece: 1 })
    assert.isUndefined(end)
    assert.strictEqual(headers.length, 2)
    assert.isTrue(isDeepStrictEqual(headers[0], headers[1]))
    assert.deepStrictEqual(heard.at(-1), { of: "body", channel: 1, content: Buffer.from("hello") })
  })

  it("frames that are malformed end the connection", () => {
    const unended = frame(whole)
    unended[unended.length - 1] = 0
    assert.match(refusalOf(unended), /^Invalid frame: expected the frame-end octet/)
    const large = encodeFrame(FRAME_BODY, 1, Buffer.alloc(4097))
    assert.match(refusalOf(large, 4096), /^Invalid frame: expected a payload of at most 4096 bytes, got 4097$/)
    assert.match(
      refusalOf(Uint8Array.of(7, 0, 0, 0, 0, 0, 0, FRAME_END)),
      /^Invalid frame: expected frame type 1, 2, 3 or 8, got 7$/
    )
  })

  const undecodable = (payload: Uint8Array): string => {
    const { end, headers } = receiving(Buffer.concat([frame(payload), frame(whole)]))
    // Missing bytes are not taken from the next frame, which is read as usual.
    assert.deepStrictEqual([headers.length, headers[1]?.decodeError, end], [2, undefined, undefined])
    return headers[0]!.decodeError?.message ?? "it was read"
  }

  it("a header larger than a frame is read up to a bound; beyond it is skipped, and costs only its own message", () => {
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
        const { end, headers } = receiving(Buffer.concat([frame(payload), frame(whole)]), { frameMax: 4096, piece })
        assert.deepStrictEqual([headers.length, end], [2, undefined])
        assert.strictEqual(headers[0]!.size, 5)
        assert.isUndefined(headers[1]!.decodeError)
        if (size > most)
          assert.include(headers[0]!.decodeError?.message, `it has ${size} bytes, at most ${most} are read`)
        else assert.isUndefined(headers[0]!.decodeError)
      }
    }
    const unended = frame(header(Buffer.alloc(3 * most)))
    unended[unended.length - 1] = 0
    assert.match(receiving(unended, { frameMax: 4096 }).end!.message, /^Invalid frame: expected the frame-end octet/)
    const endless = Buffer.concat([Buffer.of(2, 0, 1, 0xff, 0xff, 0xff, 0xff), Buffer.alloc(100)])
    assert.match(refusalOf(endless, 4096), /^Invalid frame: expected a payload of at most \d+ bytes, got 4294967295$/)
  })

  it("a header that is cut short, or is followed by more bytes, costs only its own message, at every byte", () => {
    const fixed = 12
    for (let length = 0; length < whole.length; length++) {
      if (length >= fixed) {
        assert.match(undecodable(whole.subarray(0, length)), /^Invalid frame: malformed content header: /)
        continue
      }
      // This is the broker's part, which no publisher can write. Nothing after it is read.
      const bytes = Buffer.concat([frame(whole.subarray(0, length)), frame(whole)])
      assert.match(refusalOf(bytes), /^Invalid frame: malformed content header: /, `${length} bytes`)
    }
    assert.match(undecodable(Buffer.concat([whole, Buffer.alloc(1)])), /left over/)
  })

  it("a header of another class is refused, one with unknown types costs only its own message", () => {
    const other = Buffer.from(whole)
    other.writeUInt16BE(61, 0)
    assert.match(refusalOf(frame(other)), /class 61/)
    const table = written({ a: typed("t", true) })
    table[6] = 0x5a
    const flags = Buffer.of(0x20, 0)
    const short = written({ a: "text" })
    short.writeUInt32BE(short.readUInt32BE(0) - 1, 0)
    assert.match(undecodable(header(Buffer.concat([flags, short]))), /expected 4 more bytes, got 3/)
    assert.match(undecodable(header(Buffer.concat([flags, table]))), /unexpected type tag "Z"/)
  })

  it("what follows a table that cannot be read is read", () => {
    const table = written({ a: { b: [typed("t", true)] } })
    table[table.length - 2] = 0x5a
    const rest = Buffer.concat([Buffer.of(2), Buffer.from("\x09forty-two", "latin1")])
    const { fields, decodeError: undecodable } = received(
      frame(header(Buffer.concat([Buffer.of(0x34, 0), table, rest])))
    )
    assert.isDefined(undecodable)
    assert.deepInclude(fields, { persistent: true, correlationId: "forty-two" })
    assert.deepStrictEqual(Object.keys(fields.headers), [])
  })

  describe("flags that announce more flags", () => {
    const of = (flags: ReadonlyArray<number>, ...rest: ReadonlyArray<Buffer>) => {
      const words = Buffer.alloc(flags.length * 2)
      for (const [i, word] of flags.entries()) words.writeUInt16BE(word, i * 2)
      return received(frame(header(Buffer.concat([words, ...rest]))))
    }
    const contentType = Buffer.from("\x0atext/plain", "latin1")

    it("which follow, as AMQP specifies", () => {
      for (const flags of [
        [0x8001, 0],
        [0x8001, 1, 0]
      ]) {
        const { fields, decodeError: undecodable } = of(flags, contentType)
        assert.isUndefined(undecodable)
        assert.include(fields, { contentType: "text/plain" })
      }
    })

    it("which do not follow, as RabbitMQ 3 ignores and passes on both flags", () => {
      for (const flags of [0x8001, 0x8002, 0x8003]) {
        const { fields, decodeError: undecodable } = of([flags], contentType)
        assert.isUndefined(undecodable)
        assert.include(fields, { contentType: "text/plain" })
      }
      assert.isUndefined(of([1]).decodeError)
      assert.strictEqual(of([0x2001], written({ a: 1 })).fields.headers["a"], 1)
    })

    it("of properties that class basic does not have: the message cannot be read", () => {
      assert.isDefined(of([0x8001, 0x8000], contentType, contentType).decodeError)
    })
  })

  it("a short string that is not UTF-8 is read as text that can be written again, and no two are equal", () => {
    const strings = [
      Buffer.of(0xff),
      Buffer.of(0xfe),
      Buffer.of(0xef, 0xbf, 0xbd),
      Buffer.alloc(255, 0xff),
      Buffer.of(0x61, 0xc3, 0xa9, 0xc3, 0xf0, 0x9f, 0x90, 0x87, 0x80, 0xed, 0xa0, 0x80),
      Buffer.from("grüße 🐇")
    ]
    const texts = strings.map((bytes) => readShortString(bytes, 0, bytes.length))
    assert.strictEqual(new Set(texts).size, strings.length)
    for (const [i, text] of texts.entries()) {
      const size = sizeOfShortString(text)
      assert.strictEqual(size, strings[i]!.length)
      const room = Buffer.alloc(size!)
      assert.strictEqual(writeShortString(room, 0, text), size)
      assert.isTrue(room.equals(strings[i]!))
    }
    assert.strictEqual(texts[5], "grüße 🐇")
    assert.isUndefined(sizeOfShortString("\uD800"))
    assert.isUndefined(sizeOfShortString("\uDC7F"))
  })

  it.effect("arbitrary bytes are read within their frame, or refused", () => {
    const bytes = Arbitrary.array(int(0, 255), { maxLength: 200 })
    const index = int(0, 10_000)
    const next = frame(whole)
    const expected = received(next)
    const survives = (payload: Uint8Array) => {
      const { end, headers } = receiving(Buffer.concat([frame(payload), next]))
      if (end === undefined) return headers.length === 2 && isDeepStrictEqual(headers[1], expected)
      // The broker's part: the class, and the size of the content.
      return (
        headers.length === 0 && end instanceof ProtocolViolation && end.message.startsWith("Invalid frame: malformed")
      )
    }
    return Effect.gen(function* () {
      yield* holds(bytes, (bytes) => survives(Uint8Array.from(bytes)), 2000)
      // The bytes follow valid flags, or replace some bytes of a valid header.
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
