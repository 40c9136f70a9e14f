/** Frames, in whatever pieces they arrive: the frames that were sent, and nothing else. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { isDeepStrictEqual } from "node:util"
import { ProtocolViolation } from "../src/internal/driver/errors.ts"
import { Framing } from "../src/internal/driver/framing.ts"
import { holds, int, pieces } from "./support/arbitrary.ts"
import {
  encodeFrame,
  encodeHeartbeat,
  encodeMessage,
  FRAME_BODY,
  FRAME_END,
  FRAME_HEADER,
  FRAME_HEARTBEAT,
  FRAME_METHOD
} from "./support/frames.ts"
import { bytesHeld } from "./support/heap.ts"

/** The frame-max of these connections, and the largest header that they read. */
const frameMax = 4096
const largestHeader = 2 ** 20 + 65_536

/** The fixed part of a header: its class, its weight, and the size of the body. */
const fixedPart = 12

/** What was handed on. A body is one event, in however many parts it arrived. */
type Event =
  | { readonly type: number; readonly channel: number; readonly payload: Buffer }
  | { readonly skipped: number; readonly channel: number; readonly payload: Buffer }

const isBody = (event: Event | undefined): event is Event & { readonly type: number } =>
  event !== undefined && "type" in event && event.type === FRAME_BODY

/** What is handed on for these pieces, and what was thrown. The pieces are received in memory that is reused. */
const receiving = (received: ReadonlyArray<Uint8Array>) => {
  const events: Array<Event> = []
  const parts: Array<number> = []
  const framing = new Framing(
    {
      frame: (type, channel, bytes, start, end) =>
        void events.push({ type, channel, payload: Buffer.from(bytes.subarray(start, end)) }),
      body: (channel, bytes, start, end) => {
        parts.push(end - start)
        const payload = bytes.subarray(start, end)
        const last = events.at(-1)
        if (isBody(last) && last.channel === channel) {
          events[events.length - 1] = { ...last, payload: Buffer.concat([last.payload, payload]) }
        } else events.push({ type: FRAME_BODY, channel, payload: Buffer.from(payload) })
      },
      oversizedHeader: (channel, bytes, start, size, most) => {
        assert.strictEqual(most, largestHeader)
        events.push({ skipped: size, channel, payload: Buffer.from(bytes.subarray(start, start + fixedPart)) })
      }
    },
    frameMax
  )
  const memory = Buffer.alloc(Math.max(1, ...received.map(({ length }) => length)))
  let thrown: unknown
  let taken = 0
  try {
    for (const piece of received) {
      memory.set(piece)
      framing.receive(memory.subarray(0, piece.length))
      taken += piece.length
      memory.fill(0xee)
    }
  } catch (cause) {
    thrown = cause
  }
  return { events, parts, taken, thrown }
}

/** The same events, computed in the simple way: one frame after the other. */
const expectedOf = (bytes: Buffer): ReadonlyArray<Event> => {
  const events: Array<Event> = []
  for (let at = 0; at < bytes.length;) {
    const type = bytes[at]!
    const channel = bytes.readUInt16BE(at + 1)
    const size = bytes.readUInt32BE(at + 3)
    const payload = bytes.subarray(at + 7, at + 7 + size)
    at += size + 8
    const last = events.at(-1)
    if (type === FRAME_BODY && size === 0) continue
    if (type === FRAME_HEADER && size > largestHeader) {
      events.push({ skipped: size, channel, payload: payload.subarray(0, fixedPart) })
    } else if (type === FRAME_BODY && isBody(last) && last.channel === channel) {
      events[events.length - 1] = { ...last, payload: Buffer.concat([last.payload, payload]) }
    } else events.push({ type, channel, payload })
  }
  return events
}

/** A payload of `size` bytes, some of which equal the frame end. */
const payload = (size: number) => Buffer.from(Array.from({ length: size }, (_, i) => (i * 7 + FRAME_END) % 256))

const frameOf = (type: number, size: number, channel = 1) => encodeFrame(type, channel, payload(size))

const deliver = { consumerTag: "tag", deliveryTag: 1, redelivered: false, exchange: "", routingKey: "q" }

/** Frames of every kind, and of every size at which something changes: less than 30 KB. */
const usual: ReadonlyArray<Buffer> = [
  encodeMessage(0, "connection.blocked", { reason: "low on memory" }),
  encodeHeartbeat(),
  ...[0, 1, 4, 100, 4095, 4096].map((size) => frameOf(FRAME_METHOD, size, 0xffff)),
  ...[0, 1, fixedPart, 100, 4096, 4097].map((size) => frameOf(FRAME_HEADER, size)),
  ...[0, 1, 2, 100, 4095, 4096].map((size) => frameOf(FRAME_BODY, size, size)),
  frameOf(FRAME_BODY, 0),
  encodeMessage(1, "basic.deliver", deliver, { body: payload(1000) }, 300),
  encodeMessage(2, "basic.deliver", deliver, { body: Buffer.alloc(0) }),
  encodeHeartbeat(),
  encodeMessage(3, "basic.ack", { deliveryTag: 2 ** 40 + 7, multiple: true })
]

/** Headers up to the largest that is read, and larger ones. */
const headers: ReadonlyArray<Buffer> = [largestHeader, largestHeader + 1, 2 * largestHeader].map((size) =>
  frameOf(FRAME_HEADER, size, 5)
)

const isWhole = (received: ReadonlyArray<Uint8Array>, expected: ReadonlyArray<Event>): boolean => {
  const { events, thrown } = receiving(received)
  return thrown === undefined && isDeepStrictEqual(events, expected)
}

const bytewise = (bytes: Buffer) => Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))

describe("frames", () => {
  it("are handed on as they were sent: one at a time, all at once, and byte by byte", () => {
    for (const frame of usual) assert.isTrue(isWhole([frame], expectedOf(frame)), frame.subarray(0, 20).toString("hex"))
    const bytes = Buffer.concat(usual)
    const expected = expectedOf(bytes)
    assert.isAbove(expected.length, 20)
    assert.isTrue(isWhole([bytes], expected))
    assert.isTrue(isWhole(bytewise(bytes), expected))
  })

  it("are the same wherever the stream is cut", () => {
    const bytes = Buffer.concat(usual.filter(({ length }) => length < 3000))
    const expected = expectedOf(bytes)
    for (let cut = 0; cut <= bytes.length; cut++) {
      assert.isTrue(isWhole([bytes.subarray(0, cut), bytes.subarray(cut)], expected), `cut at ${cut}`)
    }
    // The largest frames, cut near their beginning and their end.
    for (const frame of [...usual.filter(({ length }) => length >= 3000), ...headers]) {
      const around = Buffer.concat([encodeHeartbeat(), frame, encodeHeartbeat()])
      const expected = expectedOf(around)
      for (let i = 0; i < 40; i++) {
        for (const cut of [i, around.length - i]) {
          assert.isTrue(isWhole([around.subarray(0, cut), around.subarray(cut)], expected), `cut at ${cut}`)
        }
      }
    }
  })

  it.effect("are the same in whatever pieces the stream arrives", () => {
    const bytes = Buffer.concat([...usual, ...usual])
    const expected = expectedOf(bytes)
    return holds(pieces(bytes), (pieces) => isWhole(pieces, expected), { runs: 500, size: 40 })
  })

  it.effect(
    "are the same in whatever pieces they arrive, with headers up to the largest that is read, and beyond",
    () => {
      const bytes = Buffer.concat([...usual, ...headers, ...usual])
      const expected = expectedOf(bytes)
      return holds(pieces(bytes), (pieces) => isWhole(pieces, expected), { runs: 50, size: 40 })
    }
  )

  it.effect("are the same in whatever order they arrive, and in whatever pieces", () => {
    const kinds = [FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT]
    const one = Arbitrary.map(Arbitrary.all([int(0, 3), int(0, 2), int(0, 60)]), ([kind, channel, size]) =>
      kinds[kind] === FRAME_HEARTBEAT ? encodeHeartbeat() : frameOf(kinds[kind]!, size, channel)
    )
    return holds(
      Arbitrary.flatMap(Arbitrary.array(one, { maxLength: 30 }), (frames) => pieces(Buffer.concat(frames))),
      (pieces) => isWhole(pieces, expectedOf(Buffer.concat(pieces))),
      { runs: 1000, size: 40 }
    )
  })

  it("of large bodies are passed on as they arrive, but complete only with their end", () => {
    const bytes = frameOf(FRAME_BODY, 4096)
    const end = bytes.length - 1
    for (let cut = 8; cut <= end; cut++) {
      const { events, thrown } = receiving([bytes.subarray(0, cut)])
      const most = Math.min(cut - 7, 4095)
      assert.deepStrictEqual([events[0]?.payload.length ?? 0, thrown], [most, undefined], `cut at ${cut}`)
    }
    assert.deepStrictEqual(receiving([bytes]).parts, [4096])
  })

  it("of which only a part has arrived keep no more than that part", () => {
    const header = frameOf(FRAME_HEADER, largestHeader)
    const sink = { frame: () => {}, body: () => {}, oversizedHeader: () => {} }
    const before = bytesHeld()
    const framings = Array.from({ length: 50 }, () => {
      const framing = new Framing(sink, frameMax)
      framing.receive(header.subarray(0, 500_000))
      framing.receive(header.subarray(500_000))
      framing.receive(header.subarray(0, 3))
      return framing
    })
    assert.isBelow(bytesHeld() - before, 50 * 20_000)
    assert.strictEqual(framings.length, 50)
  })
})

describe("bytes that are not a frame", () => {
  const before = Buffer.concat([encodeHeartbeat(), encodeMessage(1, "basic.deliver", deliver)])
  const behind = Buffer.concat([encodeHeartbeat(), encodeMessage(1, "basic.deliver", deliver)])

  /**
   * Checks that the stream ends with a violation after the frames before it, and that nothing of what follows is handed
   * on.
   */
  const isRefused = (received: ReadonlyArray<Buffer>, message: RegExp, where: string) => {
    const { events, thrown } = receiving(received)
    assert.instanceOf(thrown, ProtocolViolation, where)
    assert.strictEqual(thrown.code, 501)
    assert.match(thrown.message, message)
    const expected = expectedOf(before)
    assert.isTrue(isDeepStrictEqual(events.slice(0, expected.length), expected), where)
    return events.slice(expected.length)
  }

  const unended: Record<string, Buffer> = {
    "a method": frameOf(FRAME_METHOD, 60),
    "a method without a payload": frameOf(FRAME_METHOD, 0),
    "a header": frameOf(FRAME_HEADER, 60),
    "a header larger than a frame": frameOf(FRAME_HEADER, 4200),
    "a body": frameOf(FRAME_BODY, 60),
    "a body of one byte": frameOf(FRAME_BODY, 1),
    "a body without bytes": frameOf(FRAME_BODY, 0),
    "a heartbeat": encodeHeartbeat()
  }
  for (const [what, frame] of Object.entries(unended)) {
    it(`${what} that does not end: nothing behind it is handed on, nor is it, wherever it is cut`, () => {
      const end = frame.length - 1
      const spoilt = Buffer.from(frame)
      spoilt[end] = 0
      const bytes = Buffer.concat([before, spoilt, behind])
      const received = [[bytes], bytewise(bytes)]
      for (let cut = 0; cut <= bytes.length; cut++) received.push([bytes.subarray(0, cut), bytes.subarray(cut)])
      for (const [i, pieces] of received.entries()) {
        const rest = isRefused(pieces, /^Invalid frame: expected the frame-end octet/, `${what}, ${i}`)
        // A part of a body may have been handed on, but never all of it.
        if (rest.length > 0) assert.isTrue(rest.length === 1 && isBody(rest[0]), what)
        assert.isBelow(rest[0]?.payload.length ?? -1, Math.max(0, frame.length - 8))
      }
    })
  }

  it("a header that is skipped and does not end: its message is refused, and nothing behind it is handed on", () => {
    const spoilt = frameOf(FRAME_HEADER, largestHeader + 1)
    spoilt[spoilt.length - 1] = 0
    const bytes = Buffer.concat([before, spoilt, behind])
    const end = before.length + spoilt.length
    for (const cut of [0, before.length + 7, before.length + 19, before.length + 20, end - 1, end]) {
      const rest = isRefused(
        [bytes.subarray(0, cut), bytes.subarray(cut)],
        /^Invalid frame: expected the frame-end octet/,
        `${cut}`
      )
      assert.deepStrictEqual(
        rest.map((event) => "skipped" in event && event.skipped),
        [largestHeader + 1]
      )
    }
  })

  it("a type that AMQP does not have", () => {
    for (let type = 0; type < 256; type++) {
      if ([FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT].includes(type)) continue
      // The type is refused also if the frame does not end.
      for (const size of [0, 19, 20, 5000, 2 ** 32 - 1]) {
        const bytes = Buffer.concat([before, encodeFrame(type, 1, payload(20), size), behind])
        for (const pieces of [[bytes], bytewise(bytes)]) {
          const rest = isRefused(
            pieces,
            new RegExp(`^Invalid frame: expected frame type 1, 2, 3 or 8, got ${type}$`),
            `${type}, ${size} bytes`
          )
          assert.deepStrictEqual(rest, [])
        }
      }
    }
  })

  it("a frame that is too large is refused as soon as its size has arrived", () => {
    const sizes: ReadonlyArray<readonly [type: number, size: number]> = [
      [FRAME_METHOD, frameMax + 1],
      [FRAME_BODY, frameMax + 1],
      [FRAME_HEARTBEAT, frameMax + 1],
      [FRAME_HEADER, 2 ** 26 + 1],
      ...[FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT].map((type) => [type, 2 ** 32 - 1] as const)
    ]
    for (const [type, size] of sizes) {
      const bytes = Buffer.concat([before, encodeFrame(type, 1, payload(8), size), behind])
      for (const pieces of [[bytes], bytewise(bytes)]) {
        const rest = isRefused(
          pieces,
          new RegExp(`^Invalid frame: expected a payload of at most \\d+ bytes, got ${size}$`),
          `${type}, ${size} bytes`
        )
        assert.deepStrictEqual(rest, [])
      }
      assert.strictEqual(receiving(bytewise(bytes)).taken, before.length + 6)
    }
  })

  it.effect("arbitrary bytes are frames, or are refused: nothing else is thrown", () =>
    Effect.gen(function* () {
      const some = Arbitrary.array(int(0, 255), { maxLength: 60 })
      const small = Arbitrary.array(int(0, 9), { maxLength: 60 })
      const isSafe = (bytes: ReadonlyArray<number>) => {
        const whole = Buffer.from(bytes)
        const [once, byByte] = [receiving([whole]), receiving(bytewise(whole))]
        const isRefused = once.thrown instanceof ProtocolViolation
        return (
          (isRefused || once.thrown === undefined) &&
          String(once.thrown) === String(byByte.thrown) &&
          (isRefused || isDeepStrictEqual(once.events, byByte.events))
        )
      }
      yield* holds(some, isSafe, { runs: 3000, size: 60 })
      yield* holds(small, isSafe, { runs: 3000, size: 60 })
      // A stream of frames in which some bytes are changed.
      const stream = Buffer.concat(usual.filter(({ length }) => length < 200))
      yield* holds(
        Arbitrary.array(Arbitrary.all([int(0, stream.length - 1), int(0, 255)]), { maxLength: 4 }),
        (changes) => {
          const bytes = Buffer.from(stream)
          for (const [at, value] of changes) bytes[at] = value
          return isSafe([...bytes])
        },
        { runs: 2000, size: 20 }
      )
    })
  )
})
