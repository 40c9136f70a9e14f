/** Ways to spoil what a broker sends, told by a seed: the same seed spoils the same bytes in the same way. */
import { encodeFrame, encodeMessage } from "./frames.ts"
import { type Method, specs } from "./methods.ts"
import { type Random, randomOf } from "../../chaos/random.ts"

const bytesOf = (random: Random, count: number) => Buffer.from(Array.from({ length: count }, () => random.below(256)))

/** What stands where `rest` begins; undefined to end the socket there. */
type Change = (rest: Buffer) => Buffer | undefined

/** Changes of the stream at a byte. */
const ofBytes: Readonly<Record<string, (random: Random) => Change>> = {
  "flipped bit": (random) => {
    const mask = 1 << random.below(8)
    return (rest) => Buffer.concat([Buffer.of(rest[0]! ^ mask), rest.subarray(1)])
  },
  "other byte": (random) => {
    const byte = random.below(256)
    return (rest) => Buffer.concat([Buffer.of(byte), rest.subarray(1)])
  },
  "end of the stream": () => () => undefined,
  "bytes put in": (random) => {
    const bytes = bytesOf(random, 1 + random.below(16))
    return (rest) => Buffer.concat([bytes, rest])
  },
  "bytes left out": (random) => {
    const count = 1 + random.below(16)
    return (rest) => rest.subarray(count)
  },
  "absurd long": (random) => {
    const value = Buffer.alloc(4)
    value.writeUInt32BE(random.one([0, 1, 200_000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]))
    return (rest) => Buffer.concat([value, rest.subarray(4)])
  },
  "absurd short": (random) => {
    const value = Buffer.alloc(2)
    value.writeUInt16BE(random.one([0, 1, 2048, 0x7fff, 0xffff]))
    return (rest) => Buffer.concat([value, rest.subarray(2)])
  }
}

const methods = Object.keys(specs) as Array<Method>

/** A frame that has no business where it comes. */
const strayFrame = (random: Random): Buffer => {
  const channel = random.one([0, 1, 1, 2, 3, 2047, 65_535])
  switch (random.below(7)) {
    case 0:
    case 1:
    case 2:
      return encodeMessage(channel, random.one(methods), { replyCode: 320, replyText: "stray" } as never)
    case 3: {
      const payload = Buffer.concat([
        Buffer.of(0, 10 * random.below(12), 0, random.below(130)),
        bytesOf(random, random.below(40))
      ])
      return encodeFrame(1, channel, payload)
    }
    case 4:
      return encodeFrame(2, channel, Buffer.concat([Buffer.of(0, 60, 0, 0), bytesOf(random, random.below(30))]))
    case 5:
      return encodeFrame(random.one([3, 8, 0, 4, 255]), channel, bytesOf(random, random.below(40)))
    default:
      // Larger than was agreed on.
      return encodeFrame(3, channel, Buffer.alloc(200_000, 1))
  }
}

/** Changes of the stream at a frame. */
const ofFrames: Readonly<Record<string, (random: Random) => Change>> = {
  "frame put in": (random) => {
    const frame = strayFrame(random)
    return (rest) => Buffer.concat([frame, rest])
  },
  "frame put in behind": (random) => {
    const frame = strayFrame(random)
    return (rest) => Buffer.concat([rest, frame])
  },
  "frame left out": () => () => Buffer.alloc(0),
  "frame twice": () => (rest) => Buffer.concat([rest, rest]),
  "frame of another channel": (random) => {
    const channel = random.one([0, 1, 2, 3, 65_535])
    return (rest) => {
      const frame = Buffer.from(rest)
      frame.writeUInt16BE(channel, 1)
      return frame
    }
  },
  "frame of other content": (random) => {
    const at = random.below(1000)
    const byte = random.below(256)
    return (rest) => {
      const frame = Buffer.from(rest)
      const { length } = frame
      if (length > 8) frame[7 + (at % (length - 8))] = byte
      return frame
    }
  },
  "frame in other pieces": (random) => {
    const at = random.below(1000)
    return (rest) => {
      const payload = rest.subarray(7, -1)
      const cut = at % (payload.length + 1)
      const [type, channel] = [rest[0]!, rest.readUInt16BE(1)]
      return Buffer.concat(
        [payload.subarray(0, cut), payload.subarray(cut)].map((part) => encodeFrame(type, channel, part))
      )
    }
  }
}

/** A broker's stream on its way to the client, spoiled once. */
export class Spoiler {
  readonly kind: string
  /** Whether the socket is to be ended behind what was sent. */
  ends = false
  readonly #change: Change
  readonly #framewise: boolean
  /** So many bytes, or frames, pass before. */
  #left: number
  #done = false
  #buffered = Buffer.alloc(0)

  constructor(seed: number) {
    const random = randomOf(seed)
    this.#framewise = random.below(2) === 0
    const kinds = this.#framewise ? ofFrames : ofBytes
    this.kind = random.one(Object.keys(kinds))
    this.#change = kinds[this.kind]!(random)
    // A session of the client under test, below, gets about 30 frames and 1,000 bytes, half of them before it is open.
    this.#left = this.#framewise ? random.below(30) : random.below(2) === 0 ? random.below(500) : random.below(1000)
  }

  /** Takes what the broker has sent; what the client is to get of it. */
  pass(bytes: Buffer): Buffer {
    if (this.#done) return bytes
    return this.#framewise ? this.#passFrames(bytes) : this.#passBytes(bytes)
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
      if (this.#left-- > 0) passed.push(frame)
      else return Buffer.concat([this.#changed(Buffer.concat(passed), frame), rest])
    }
    this.#buffered = rest
    return Buffer.concat(passed)
  }

  #changed(before: Buffer, rest: Buffer): Buffer {
    this.#done = true
    const changed = this.#change(rest)
    if (changed === undefined) this.ends = true
    return changed === undefined ? before : Buffer.concat([before, changed])
  }
}
