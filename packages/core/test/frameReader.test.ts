/** Frames as they are read here: those that amqplib reads, whatever pieces they come in. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { createRequire } from "node:module"
import { PassThrough } from "node:stream"
import { isDeepStrictEqual } from "node:util"
import { readFrames } from "../src/internal/frameReader.ts"
import { SocketInput } from "../src/internal/socketInput.ts"
import { encodeFrame, encodeHeartbeat, encodeMessage, FRAME_METHOD } from "./support/frames.ts"

const fromAmqplibFolder = createRequire(createRequire(import.meta.url).resolve("amqplib"))
const { Connection } = fromAmqplibFolder("./lib/connection") as {
  readonly Connection: new (stream: PassThrough) => { readonly recvFrame: () => false | object }
}

/** Puts frames one behind the other: a body is one, in however many parts it was read. */
class Frames {
  readonly all: Array<unknown> = []

  /** All there are now. */
  takeFrom(connection: { readonly recvFrame: () => false | object }): void {
    for (let frame = connection.recvFrame(); frame !== false; frame = connection.recvFrame()) {
      const last = this.all.at(-1)
      if (!isBody(frame)) this.all.push(frame)
      else if (isBody(last) && last.channel === frame.channel)
        last.content = Buffer.concat([last.content, frame.content])
      else this.all.push({ channel: frame.channel, content: Buffer.from(frame.content) })
    }
  }
}

interface Body {
  readonly channel: number
  content: Buffer
}

const isBody = (frame: unknown): frame is Body => typeof frame === "object" && frame !== null && "content" in frame

/** All frames of these pieces, or what their reading ends with. */
const reading = (pieces: ReadonlyArray<Uint8Array>, ours: boolean): ReadonlyArray<unknown> => {
  const stream = new PassThrough()
  const connection = new Connection(stream)
  if (ours) readFrames(connection)
  const frames = new Frames()
  try {
    for (const piece of pieces) {
      stream.write(piece)
      frames.takeFrom(connection)
    }
  } catch (cause) {
    frames.all.push(String(cause))
  }
  return frames.all
}

/** The same where all pieces are read into the same memory, the first `before` of them by the stream. */
const takingIn = (pieces: ReadonlyArray<Uint8Array>, before: number): ReadonlyArray<unknown> => {
  const memory = Buffer.alloc(Math.max(...pieces.map(({ length }) => length)))
  const stream = new PassThrough()
  const connection = new Connection(stream)
  const input = new SocketInput()
  const frames = new Frames()
  const { callback } = input.onread
  const readable = () => {
    try {
      frames.takeFrom(connection)
    } catch (cause) {
      frames.all.push(String(cause))
    }
  }
  for (const [i, piece] of pieces.entries()) {
    if (i === before) {
      readFrames(connection, input)
      frames.takeFrom(connection)
      stream.on("readable", readable)
    }
    memory.set(piece)
    callback.call(stream as never, piece.length, memory)
    memory.fill(0xff)
  }
  return frames.all
}

const int = (minimum: number, maximum: number) =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

const tags = [0, 1, 255, 256, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 7, Number.MAX_SAFE_INTEGER]
const names = ["", "q", "orders.created", "grüße", "🐇", "x".repeat(255)]
const deliver = { consumerTag: "tag", deliveryTag: 1, redelivered: false, exchange: "", routingKey: "q" }

const all: ReadonlyArray<Buffer> = [
  ...tags.flatMap((deliveryTag) => [
    encodeMessage(1, "basic.ack", { deliveryTag, multiple: deliveryTag % 2 === 0 }),
    encodeMessage(0xffff, "basic.nack", { deliveryTag, multiple: true, requeue: deliveryTag % 2 === 0 }),
    encodeMessage(2, "basic.deliver", { ...deliver, deliveryTag, redelivered: deliveryTag % 2 === 0 })
  ]),
  ...names.flatMap((name) => [
    encodeMessage(1, "basic.deliver", { ...deliver, consumerTag: name }),
    encodeMessage(1, "basic.deliver", { ...deliver, exchange: name }),
    encodeMessage(1, "basic.deliver", { ...deliver, routingKey: name }, { body: Buffer.from(name) })
  ]),
  encodeMessage(1, "basic.deliver", deliver, { body: Buffer.alloc(100_000, "x") }, 4096),
  ...names.flatMap((name) => [
    encodeMessage(1, "basic.return", { replyCode: 312, replyText: name, exchange: "e", routingKey: name }),
    encodeMessage(1, "basic.get-ok", { deliveryTag: 7, redelivered: true, exchange: name, messageCount: 5 })
  ]),
  encodeMessage(1, "channel.flow", { active: true }),
  encodeMessage(1, "basic.cancel-ok", { consumerTag: "tag" }),
  encodeMessage(0, "connection.blocked", { reason: "low on memory" }),
  encodeHeartbeat()
]

// What is read better than by amqplib, `fieldTable.test.ts` is about: bytes that are not UTF-8, content headers.
const alike = (fields: object) =>
  Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      typeof value === "string" ? value.toWellFormed().replace(/\uFFFD+/g, "\uFFFD") : value
    ])
  )

const methodsOf = (frames: ReadonlyArray<unknown>) =>
  frames.map((frame) =>
    typeof frame !== "object" || frame === null || !("fields" in frame)
      ? frame
      : "size" in frame
        ? { ...frame, fields: {}, undecodable: undefined }
        : { ...frame, fields: alike(frame.fields as object) }
  )

const same = (pieces: ReadonlyArray<Uint8Array>) =>
  isDeepStrictEqual(methodsOf(reading(pieces, true)), methodsOf(reading(pieces, false)))

const holds = <A>(self: Arbitrary.Arbitrary<A>, property: (value: A) => boolean, runs: number) =>
  Effect.map(Arbitrary.checkEffect(self, property, { runs, size: 30 }), (result) =>
    assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
  )

describe("frames", () => {
  it("are read as amqplib reads them, one at a time, all at once, and byte by byte", () => {
    for (const frame of all) assert.isTrue(same([frame]), frame.subarray(0, 40).toString("hex"))
    const bytes = Buffer.concat(all)
    assert.isTrue(same([bytes]))
    const small = Buffer.concat(all.filter((frame) => frame.length < 1000))
    assert.isTrue(same(Array.from(small, (_, i) => small.subarray(i, i + 1))))
    assert.isAbove(reading([bytes], true).length, all.length)
  })

  it.effect("are read as amqplib reads them, in whatever pieces they come", () => {
    const bytes = Buffer.concat([...all, ...all])
    return holds(
      Arbitrary.array(int(0, bytes.length), { maxLength: 40 }),
      (cuts) => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length]
        return same(at.slice(1).map((end, i) => bytes.subarray(at[i], end)))
      },
      200
    )
  })

  it.effect("are the same where each piece overwrites the one before, and where the stream has had the first", () => {
    const bytes = Buffer.concat([...all, ...all])
    const expected = methodsOf(reading([bytes], false))
    return holds(
      Arbitrary.all([Arbitrary.array(int(0, bytes.length), { maxLength: 40 }), int(0, 5)]),
      ([cuts, before]) => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length]
        const pieces = at.slice(1).map((end, i) => bytes.subarray(at[i], end))
        return isDeepStrictEqual(methodsOf(takingIn(pieces, Math.min(before, pieces.length - 1))), expected)
      },
      200
    )
  })

  it.effect("that are malformed are refused, or read, as amqplib does it", () => {
    const bytes = Arbitrary.array(int(0, 255), { maxLength: 60 })
    const ids = [0x003c003c, 0x003c0050, 0x003c0078, 0x003c0032, 0x003c0047]
    const payload = (id: number, rest: ReadonlyArray<number>) => {
      const head = Buffer.alloc(4)
      head.writeUInt32BE(id)
      return encodeFrame(FRAME_METHOD, 1, Buffer.concat([head, Buffer.from(rest)]))
    }
    return Effect.forEach(ids, (id) => holds(bytes, (rest) => same([payload(id, rest), all[0]!]), 2000))
  })

  it("of large bodies are given out as they come, but whole with their end only", () => {
    const body = Buffer.alloc(100_000, "x")
    const bytes = encodeMessage(1, "basic.deliver", deliver, { body })
    const end = bytes.length - 1
    const spoilt = Buffer.from(bytes)
    spoilt[end] = 0
    for (const cut of [end - 50_000, end - 1, end]) {
      const sizeOf = (frames: ReadonlyArray<unknown>) =>
        frames.filter(isBody).reduce((n, { content }) => n + content.length, 0)
      const incomplete = sizeOf(reading([bytes.subarray(0, cut)], true))
      assert.isAbove(incomplete, 40_000)
      assert.isBelow(incomplete, body.length)
      assert.isTrue(same([bytes.subarray(0, cut), bytes.subarray(cut), all[0]!]))
      const refused = reading([spoilt.subarray(0, cut), spoilt.subarray(cut)], true)
      assert.strictEqual(refused.at(-1), "Error: Invalid frame")
      assert.isBelow(sizeOf(refused), body.length)
    }
  })

  it("of which only a part has come keep no more than that part", () => {
    const stream = new PassThrough()
    const connection = new Connection(stream) as { readonly recvFrame: () => unknown; readonly rest: Buffer }
    readFrames(connection)
    stream.write(Buffer.concat([...all, all[0]!.subarray(0, 3)]))
    while (connection.recvFrame() !== false);
    stream.write(all[0]!.subarray(3))
    assert.isNotFalse(connection.recvFrame())
    assert.isFalse(connection.recvFrame())
    assert.strictEqual(connection.rest.length, 0)
  })
})
