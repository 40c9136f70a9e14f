/** Ways to corrupt what a broker sends, chosen by a seed: the same seed corrupts the same bytes in the same way. */
import { encodeFrame, encodeMessage, FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD } from "./frames.ts"
import { type FieldTable, typed } from "../../src/testing/internal/memory/codec/fieldTable.ts"
import { nestedTable, objectKeys } from "./hostileTables.ts"
import { type Method, specs } from "../../src/testing/internal/memory/codec/methods.ts"
import type { Corruption } from "./SocketOutput.ts"
import { type Random, randomOf } from "../../chaos/random.ts"

const bytesOf = (random: Random, count: number) => Buffer.from(Array.from({ length: count }, () => random.below(256)))

/** Returns the bytes that replace `rest`; undefined ends the socket there. */
type Change = (rest: Buffer) => Buffer | undefined

interface Kind {
  /** Where it applies: at any byte, at any frame (`rest` is that frame alone), or at the first such method. */
  readonly at: "byte" | "frame" | Method
  readonly change: (random: Random) => Change
}

const atBytes = (change: Kind["change"]): Kind => ({ at: "byte", change })
const atFrames = (change: Kind["change"]): Kind => ({ at: "frame", change })

/** Frames that are not allowed where they arrive: before or after an allowed one. */
const putIn = (stray: (random: Random, channel: number) => Buffer): Kind =>
  atFrames((random) => {
    const bytes = stray(random, random.one([0, 1, 1, 1, 2, 2, 3, 2047, 65_535]))
    const isFirst = random.below(2) === 0
    return (rest) => Buffer.concat(isFirst ? [bytes, rest] : [rest, bytes])
  })

const methods = Object.keys(specs) as Array<Method>

const longlong = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}

const methodFrame = (method: Method, channel: number, args: Uint8Array) => {
  const id = Buffer.alloc(4)
  id.writeUInt32BE(specs[method].id)
  return encodeFrame(FRAME_METHOD, channel, Buffer.concat([id, args]))
}

/** A content header that announces this many bytes, with these flags and properties. */
const header = (channel: number, size: bigint, properties: Uint8Array = Buffer.alloc(2)) =>
  encodeFrame(FRAME_HEADER, channel, Buffer.concat([Buffer.of(0, 60, 0, 0), longlong(size), properties]))

const start = (serverProperties: FieldTable) =>
  encodeMessage(0, "connection.start", { versionMinor: 9, serverProperties, mechanisms: "PLAIN", locales: "en_US" })

// Each of these is encoded once.
const hugeStarts = [100, 5000, 30_000].map((count) => {
  let frame: Buffer | undefined
  return () =>
    (frame ??= start(Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, typed("V", null)]))))
})

const delivery = (channel: number, consumerTag: string, deliveryTag: number) =>
  encodeMessage(channel, "basic.deliver", { consumerTag, deliveryTag, exchange: "", routingKey: "q" })

const text = (bytes: Uint8Array) => Buffer.concat([Buffer.of(bytes.length), bytes])

const longtext = (content: string) => Buffer.concat([Buffer.of(0, 0, 0, content.length), Buffer.from(content)])

const largest = [0x7fff_ffffn, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]

const table = (of: (name: string) => FieldTable[string]): FieldTable =>
  Object.assign(
    Object.create(null) as FieldTable,
    Object.fromEntries(objectKeys.map((name) => [name, of(name)] as const))
  )

const kinds: Readonly<Record<string, Kind>> = {
  // --- Bytes
  "flipped bit": atBytes((random) => {
    const mask = 1 << random.below(8)
    return (rest) => Buffer.concat([Buffer.of(rest[0]! ^ mask), rest.subarray(1)])
  }),
  "other byte": atBytes((random) => {
    const byte = random.below(256)
    return (rest) => Buffer.concat([Buffer.of(byte), rest.subarray(1)])
  }),
  "end of the stream": atBytes(() => () => undefined),
  "bytes inserted": atBytes((random) => {
    const bytes = bytesOf(random, 1 + random.below(16))
    return (rest) => Buffer.concat([bytes, rest])
  }),
  "bytes removed": atBytes((random) => {
    const count = 1 + random.below(16)
    return (rest) => rest.subarray(count)
  }),
  "absurd long": atBytes((random) => {
    const value = Buffer.alloc(4)
    value.writeUInt32BE(random.one([0, 1, 200_000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]))
    return (rest) => Buffer.concat([value, rest.subarray(4)])
  }),
  "absurd short": atBytes((random) => {
    const value = Buffer.alloc(2)
    value.writeUInt16BE(random.one([0, 1, 2048, 0x7fff, 0xffff]))
    return (rest) => Buffer.concat([value, rest.subarray(2)])
  }),

  // --- Frames
  "frame removed": atFrames(() => () => Buffer.alloc(0)),
  "frame twice": atFrames(() => (rest) => Buffer.concat([rest, rest])),
  "frame of another channel": atFrames((random) => {
    const channel = random.one([0, 1, 2, 3, 65_535])
    return (rest) => {
      const frame = Buffer.from(rest)
      frame.writeUInt16BE(channel, 1)
      return frame
    }
  }),
  "frame of other content": atFrames((random) => {
    const at = random.below(1000)
    const byte = random.below(256)
    return (rest) => {
      const frame = Buffer.from(rest)
      const { length } = frame
      if (length > 8) frame[7 + (at % (length - 8))] = byte
      return frame
    }
  }),
  "frame in other pieces": atFrames((random) => {
    const at = random.below(1000)
    return (rest) => {
      const payload = rest.subarray(7, -1)
      const cut = at % (payload.length + 1)
      const [type, channel] = [rest[0]!, rest.readUInt16BE(1)]
      return Buffer.concat(
        [payload.subarray(0, cut), payload.subarray(cut)].map((part) => encodeFrame(type, channel, part))
      )
    }
  }),
  "frame cut short": atFrames((random) => {
    const at = random.below(1000)
    return (rest) => {
      const payload = rest.subarray(7, -1)
      return encodeFrame(rest[0]!, rest.readUInt16BE(1), payload.subarray(0, at % (payload.length + 1)))
    }
  }),
  "frame of another length": atFrames((random) => {
    const by = random.one([-8, -1, 1, 2, 8, 300])
    return (rest) => {
      const payload = rest.subarray(7, -1)
      return encodeFrame(rest[0]!, rest.readUInt16BE(1), payload, Math.max(0, payload.length + by))
    }
  }),
  "frame larger than announced": atFrames((random) => {
    const more = bytesOf(random, 1 + random.below(500))
    return (rest) => {
      const payload = rest.subarray(7, -1)
      return encodeFrame(rest[0]!, rest.readUInt16BE(1), Buffer.concat([payload, more]), payload.length)
    }
  }),
  "frame larger than negotiated": putIn((random, channel) =>
    encodeFrame(
      random.one([FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT]),
      channel,
      Buffer.alloc(random.one([131_073, 200_000]), 1)
    )
  ),
  "frame of no type": putIn((random, channel) =>
    encodeFrame(random.one([0, 4, 5, 6, 7, 9, 255]), channel, bytesOf(random, random.below(40)))
  ),
  "heartbeat with a channel or content": putIn((random, channel) =>
    encodeFrame(FRAME_HEARTBEAT, channel, bytesOf(random, random.below(40)))
  ),

  // --- Methods
  "unknown method": putIn((random, channel) => {
    const classId = random.one([0, 10, 20, 40, 50, 60, 85, 90, random.below(65_536)])
    const id = Buffer.alloc(4)
    id.writeUInt16BE(classId, 0)
    id.writeUInt16BE(random.one([0, 12, 99, 130, random.below(65_536)]), 2)
    return encodeFrame(FRAME_METHOD, channel, Buffer.concat([id, bytesOf(random, random.below(40))]))
  }),
  "method out of place": putIn((random, channel) =>
    encodeMessage(channel, random.one(methods), { replyCode: 320, replyText: "stray" } as never)
  ),
  "malformed method": putIn((random, channel) =>
    methodFrame(random.one(methods), channel, bytesOf(random, random.below(60)))
  ),
  "absurd tune": {
    at: "connection.tune",
    change: (random) => {
      const tune = {
        channelMax: random.one([0, 1, 2, 65_535]),
        frameMax: random.one([0, 1, 7, 8, 4095, 4096, 0x7fff_ffff, 0xffff_ffff]),
        heartbeat: random.one([0, 1, 65_535])
      }
      return () => encodeMessage(0, "connection.tune", tune)
    }
  },
  "tune again": putIn((random) =>
    encodeMessage(0, "connection.tune", { channelMax: 1, frameMax: random.one([0, 1, 4096]), heartbeat: 1 })
  ),
  "start again": putIn(() => start({ product: "another" })),
  "start with huge properties": {
    at: "connection.start",
    change: (random) => {
      const frame = random.one(hugeStarts)
      return () => frame()
    }
  },
  "start with strange properties": {
    at: "connection.start",
    change: (random) => {
      const strange = table(() => random.one<FieldTable[string]>(["text", 1, null, [], { a: 1 }]))
      const value = random.one<FieldTable[string]>([strange, [strange], new Uint8Array(8), -1, null])
      return () =>
        start(
          Object.assign(
            table(() => strange),
            { product: value, version: value, capabilities: value }
          )
        )
    }
  },
  "start with properties nested deep": {
    at: "connection.start",
    change: (random) => {
      const levels = random.one([1000, 10_000, 20_000])
      return () =>
        methodFrame(
          "connection.start",
          0,
          Buffer.concat([Buffer.of(0, 9), nestedTable(levels), longtext("PLAIN"), longtext("en_US")])
        )
    }
  },
  "method with a table nested deep": putIn((random, channel) =>
    methodFrame(
      "queue.declare",
      channel,
      Buffer.concat([Buffer.of(0, 0, 0, 0), nestedTable(random.one([1000, 10_000, 20_000]))])
    )
  ),
  "open-ok again": putIn(() => encodeMessage(0, "connection.open-ok")),
  "close with a malformed text": putIn((random, channel) => {
    const code = random.one([0, 200, 311, 320, 403, 404, 406, 504, 541, 65_535])
    const args = [Buffer.of(code >> 8, code & 255), text(bytesOf(random, random.one([0, 1, 40, 255]))), Buffer.alloc(4)]
    return methodFrame(channel === 0 ? "connection.close" : "channel.close", channel, Buffer.concat(args))
  }),
  "close of a closed channel": putIn((random, channel) => {
    const close = encodeMessage(channel, random.one(["channel.close", "channel.close-ok"]), { replyCode: 404 })
    return Buffer.concat([close, close, encodeMessage(channel, "channel.close-ok")])
  }),
  "confirms of unknown publishes": putIn((random, channel) => {
    const tag = longlong(random.one([0n, 2n, 1000n, ...largest]))
    const method = random.one(["basic.ack", "basic.nack"] as const)
    return methodFrame(method, channel, Buffer.concat([tag, Buffer.of(random.below(4))]))
  }),
  "flow, blocked, unblocked": putIn((random, channel) =>
    random.one([
      encodeMessage(channel, "channel.flow", { active: random.below(2) === 0 }),
      encodeMessage(0, "connection.blocked", { reason: "no reason" }),
      encodeMessage(channel, "connection.unblocked")
    ])
  ),

  // --- Messages
  "content without a method": putIn((random, channel) =>
    Buffer.concat([
      header(channel, random.one([0n, 5n])),
      encodeFrame(FRAME_BODY, channel, bytesOf(random, random.below(10)))
    ])
  ),
  "body without a header": putIn((random, channel) =>
    encodeFrame(FRAME_BODY, channel, bytesOf(random, random.below(40)))
  ),
  "malformed header": putIn((random, channel) =>
    Buffer.concat([
      delivery(channel, "c", 1),
      header(channel, BigInt(random.below(3)), bytesOf(random, random.below(30)))
    ])
  ),
  "header nested deep": putIn((random, channel) =>
    Buffer.concat([
      encodeMessage(channel, "basic.get-ok", { deliveryTag: 1, routingKey: "q" }),
      header(channel, 0n, Buffer.concat([Buffer.of(0x20, 0), nestedTable(random.one([1000, 10_000, 20_000]))]))
    ])
  ),
  "messages mixed": putIn((random, channel) => {
    const parts = [
      delivery(channel, "c", 1),
      encodeMessage(channel, "basic.get-ok", { deliveryTag: 2, routingKey: "q" }),
      encodeMessage(channel, "basic.return", { replyCode: 312, routingKey: "q" }),
      header(channel, 4n),
      encodeFrame(FRAME_BODY, channel, Buffer.alloc(2)),
      encodeFrame(FRAME_BODY, channel, Buffer.alloc(4))
    ]
    return Buffer.concat(Array.from({ length: 2 + random.below(4) }, () => random.one(parts)))
  }),
  "delivery without a consumer": putIn((random, channel) =>
    Buffer.concat([
      delivery(channel, random.one(["", "unknown", ...objectKeys]), random.below(3)),
      header(channel, 2n),
      encodeFrame(FRAME_BODY, channel, Buffer.alloc(2))
    ])
  ),
  "more body than announced": putIn((random, channel) =>
    Buffer.concat([
      encodeMessage(channel, random.one(["basic.get-ok", "basic.return"]), { routingKey: "q" }),
      header(channel, 3n),
      encodeFrame(FRAME_BODY, channel, Buffer.alloc(random.one([2, 4, 100]))),
      encodeFrame(FRAME_BODY, channel, Buffer.alloc(2))
    ])
  ),
  "endless body": putIn((random, channel) =>
    Buffer.concat([
      encodeMessage(channel, random.one(["basic.get-ok", "basic.return"]), { routingKey: "q" }),
      header(channel, random.one(largest)),
      encodeFrame(FRAME_BODY, channel, Buffer.alloc(1000))
    ])
  )
}

export const kindNames: ReadonlyArray<string> = Object.keys(kinds)

/** A broker's stream on its way to the client, corrupted once. */
export class CorruptedStream implements Corruption {
  readonly kind: string
  /** Whether the socket is to be ended after the sent bytes. */
  ends = false
  /** Whether the corruption has been applied: a session can end before. */
  done = false
  readonly #change: Change
  readonly #at: Kind["at"]
  /** The number of bytes, or frames, that pass before it. */
  #left: number
  #buffered = Buffer.alloc(0)

  constructor(seed: number) {
    const random = randomOf(seed)
    this.kind = random.one(kindNames)
    const { at, change } = kinds[this.kind]!
    this.#at = at
    this.#change = change(random)
    // A session of the client under test gets about 20 frames and 700 bytes, half of them before it is open.
    this.#left = at === "byte" ? random.below(600) : random.below(18)
  }

  /** Takes the bytes that the broker has sent, and returns those for the client. */
  pass(bytes: Uint8Array): Uint8Array {
    if (this.done) return bytes
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return this.#at === "byte" ? this.#passBytes(buffer) : this.#passFrames(buffer)
  }

  #passBytes(bytes: Buffer): Buffer {
    if (bytes.length <= this.#left) {
      this.#left -= bytes.length
      return bytes
    }
    return this.#changed(bytes.subarray(0, this.#left), bytes.subarray(this.#left))
  }

  #passFrames(bytes: Buffer): Buffer {
    let rest = Buffer.concat([this.#buffered, bytes])
    const passed: Array<Buffer> = []
    while (rest.length >= 8) {
      const length = 8 + rest.readUInt32BE(3)
      if (rest.length < length) break
      const frame = rest.subarray(0, length)
      rest = rest.subarray(length)
      if (!this.#strikes(frame)) passed.push(frame)
      else return Buffer.concat([this.#changed(Buffer.concat(passed), frame), rest])
    }
    this.#buffered = rest
    return Buffer.concat(passed)
  }

  #strikes(frame: Buffer): boolean {
    if (this.#at === "frame") return this.#left-- <= 0
    const spec = specs[this.#at as Method]
    return frame[0] === FRAME_METHOD && frame.length >= 12 && frame.readUInt32BE(7) === spec.id
  }

  #changed(before: Buffer, rest: Buffer): Buffer {
    this.done = true
    const changed = this.#change(rest)
    if (changed === undefined) this.ends = true
    return changed === undefined ? before : Buffer.concat([before, changed])
  }
}
