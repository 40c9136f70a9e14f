/** What channels write to a socket: in order, in few pieces, in turns, and no more than the socket accepts. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary } from "effect"
import { Duplex, PassThrough } from "node:stream"
import type { ChannelOutput } from "../src/internal/driver/channelOutput.ts"
import { ConnectionOutput } from "../src/internal/driver/connectionOutput.ts"
import { holds, int } from "./support/arbitrary.ts"
import { outputOf } from "./support/channelOutput.ts"

/** A piece of the first or the second memory, adjacent to the previous one from there, or after a gap. */
const piece = Arbitrary.all([int(0, 1), int(0, 3), int(1, 200)])

/** A channel that has written these pieces. */
const having = (pieces: ReadonlyArray<Buffer>): ChannelOutput => {
  const left = [...pieces]
  return { take: () => left.shift() } as Partial<ChannelOutput> as ChannelOutput
}

const memories = [0, 1].map(() => Buffer.from(Array.from({ length: 65_536 }, (_, i) => i % 251)))

/** Cuts pieces out of two memories. */
const cutter = () => {
  const used = [0, 0]
  return ([which, gap, size]: readonly [number, number, number]) => {
    const from = used[which]! + (gap === 0 ? 7 : 0)
    used[which] = from + size
    return memories[which]!.subarray(from, from + size)
  }
}

/** A socket that takes data only when the test says so. */
class Slow extends Duplex {
  readonly got: Array<Buffer> = []
  #done: (() => void) | undefined = undefined

  override _read(): void {}

  override _writev(chunks: ReadonlyArray<{ readonly chunk: Buffer }>, done: () => void): void {
    for (const { chunk } of chunks) this.got.push(Buffer.from(chunk))
    this.#done = done
  }

  override _write(chunk: Buffer, _encoding: unknown, done: () => void): void {
    this.got.push(Buffer.from(chunk))
    this.#done = done
  }

  /** Takes the last chunk that it was given. */
  swallow(): void {
    const done = this.#done
    this.#done = undefined
    done?.()
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

describe("pieces", () => {
  it.effect("go out in order, whether or not they are adjacent in memory", () =>
    holds(
      Arbitrary.array(Arbitrary.array(piece, { maxLength: 12 }), { maxLength: 20 }),
      (turns) => {
        const cut = cutter()
        const stream = new PassThrough({ highWaterMark: 2 ** 20 })
        const output = new ConnectionOutput(stream)
        const expected: Array<Buffer> = []
        for (const turn of turns) {
          const pieces = turn.map(cut)
          expected.push(...pieces.map((one) => Buffer.from(one)))
          output.announce(having(pieces))
          output.flush()
        }
        return Buffer.concat(expected).equals((stream.read() as Buffer | null) ?? Buffer.alloc(0))
      },
      { runs: 300, size: 30 }
    )
  )

  it("that are adjacent are one", () => {
    const memory = Buffer.alloc(1000)
    const stream = new PassThrough()
    const got: Array<number> = []
    stream.on("data", ({ length }: Buffer) => got.push(length))
    const output = new ConnectionOutput(stream)
    const places = [
      [0, 10],
      [10, 300],
      [300, 301],
      [400, 500],
      [500, 600],
      [0, 1]
    ]
    output.announce(having(places.map(([from, to]) => memory.subarray(from, to))))
    output.flush()
    assert.deepStrictEqual(got, [301, 200, 1])
  })

  it.effect("are taken until the socket is full, and again when it drains", () =>
    holds(
      Arbitrary.array(piece, { maxLength: 60 }),
      (pieces) => {
        const cut = cutter()
        const stream = new PassThrough({ highWaterMark: 1000 })
        // A corked stream reports what it holds itself, whatever the consumer behind it does.
        stream.cork()
        const output = new ConnectionOutput(stream)
        let given = 0
        for (const one of pieces.map(cut)) {
          output.announce(having([one]))
          output.flush()
          // The rest is not taken.
          if (given < 1000) given += one.length
          if (stream.writableLength !== given || stream.writableNeedDrain !== given >= 1000) return false
        }
        return true
      },
      { runs: 300, size: 60 }
    )
  )
})

describe("channels", () => {
  it("that write in one turn of the event loop are written once, after it", async () => {
    const socket = new Slow()
    const output = new ConnectionOutput(socket)
    const [one, other] = [outputOf(output), outputOf(output)]
    one.write(Buffer.from("a"))
    other.write(Buffer.from("b"))
    one.write(Buffer.from("c"))
    assert.strictEqual(socket.writableLength, 0)
    await turn()
    // Each channel's writes are in order, and all are one piece, since they are adjacent in memory.
    assert.deepStrictEqual(socket.got.map(String), ["abc"])
  })

  it("take turns when the socket is full: a large message holds up no other channel", async () => {
    const socket = new Slow({ highWaterMark: 10_000 })
    const output = new ConnectionOutput(socket)
    const [large, small] = [outputOf(output), outputOf(output)]
    for (let i = 0; i < 10; i++) large.write(Buffer.alloc(10_000, "l"))
    await turn()
    small.write(Buffer.from("s"))
    const got = () => socket.got.map((piece) => String(piece).at(0)).join("")
    assert.strictEqual(got(), "l")
    socket.swallow()
    await turn()
    assert.strictEqual(got(), "ll")
    // It has waited for one piece of the other channel.
    socket.swallow()
    await turn()
    assert.isTrue(got().startsWith("lls"), got())
    while (socket.writableLength > 0) {
      socket.swallow()
      await turn()
    }
    assert.strictEqual(got().replaceAll("s", ""), "l".repeat(10))
  })

  it("keep a fence within adjacent memory: what is behind it goes out when it moves", async () => {
    const socket = new Slow()
    const output = new ConnectionOutput(socket)
    const taken: Array<string> = []
    const text = () => Buffer.concat(socket.got).toString()
    const events = { outputDrained: () => {}, outputTaken: () => taken.push(text()) }
    const [one, other] = [outputOf(output, 2 ** 20, events), outputOf(output)]
    one.write(Buffer.from("a"))
    const mark = one.mark()
    one.write(Buffer.from("b"))
    other.write(Buffer.from("c"))
    one.fenceAt(mark)
    assert.isTrue(one.isTaken)
    assert.deepStrictEqual([text(), taken], ["ac", []])
    socket.swallow()
    await turn()
    assert.strictEqual(text(), "ac")
    one.fenceAt(Infinity)
    await turn()
    assert.strictEqual(text(), "acb")
  })

  it("notify a caller that waits at a fence when the full socket has taken what is before it", async () => {
    const socket = new Slow({ highWaterMark: 100 })
    const output = new ConnectionOutput(socket)
    let taken = 0
    const one = outputOf(output, 2 ** 20, { outputDrained: () => {}, outputTaken: () => void taken++ })
    one.write(Buffer.alloc(5000, "a"))
    one.write(Buffer.alloc(5000, "b"))
    const mark = one.mark()
    one.write(Buffer.alloc(5000, "c"))
    one.fenceAt(mark)
    assert.isFalse(one.isTaken)
    await turn()
    assert.strictEqual(taken, 0)
    for (let i = 0; i < 5; i++) {
      socket.swallow()
      await turn()
    }
    assert.strictEqual(taken, 1)
    assert.strictEqual(Buffer.concat(socket.got).length, 10_000)
  })

  it("that have ended are skipped", async () => {
    const socket = new Slow()
    const output = new ConnectionOutput(socket)
    const [one, other] = [outputOf(output), outputOf(output)]
    one.write(Buffer.from("a"))
    other.write(Buffer.from("b"))
    one.end()
    await turn()
    assert.deepStrictEqual(socket.got.map(String), ["b"])
  })

  it("that write after the stop write nothing", async () => {
    const socket = new Slow()
    const output = new ConnectionOutput(socket)
    const one = outputOf(output)
    one.write(Buffer.from("a"))
    output.stop()
    one.write(Buffer.alloc(5000))
    output.flush()
    await turn()
    socket.emit("drain")
    await turn()
    assert.deepStrictEqual(socket.got, [])
  })
})

describe("whenEmpty", () => {
  it("calls back when the socket has been given all that was announced, and not before", async () => {
    const socket = new Slow({ highWaterMark: 100 })
    const output = new ConnectionOutput(socket)
    const one = outputOf(output)
    for (let i = 0; i < 3; i++) one.write(Buffer.alloc(5000))
    let given = -1
    output.whenEmpty(() => (given = socket.got.length))
    for (let i = 0; i < 10; i++) await turn()
    assert.strictEqual(given, -1)
    for (let i = 0; socket.writableLength > 0; i++) {
      assert.isBelow(i, 10)
      socket.swallow()
      for (let i = 0; i < 5; i++) await turn()
    }
    assert.strictEqual(given, 3)
  })

  it("does not wait for what is behind a fence", async () => {
    const socket = new Slow()
    const output = new ConnectionOutput(socket)
    const one = outputOf(output)
    one.fenceAt(one.mark())
    one.write(Buffer.from("a"))
    await new Promise<void>((resolve) => output.whenEmpty(resolve))
    assert.deepStrictEqual(socket.got, [])
  })

  it("is not called back if the output is stopped first", async () => {
    const output = new ConnectionOutput(new Slow())
    let called = 0
    output.whenEmpty(() => void called++)
    output.stop()
    for (let i = 0; i < 5; i++) await turn()
    assert.strictEqual(called, 0)
  })
})

describe("whenAmqplibHasWritten", () => {
  it("calls back after what is written in later turns, as amqplib does, and when a full socket is empty", async () => {
    const socket = new Slow({ highWaterMark: 10 })
    // amqplib registers its listener first, and writes in the next turn and when the socket has drained.
    socket.once("drain", () => socket.write(Buffer.alloc(1)))
    const output = new ConnectionOutput(socket)
    let given = -1
    output.whenAmqplibHasWritten(() => (given = socket.got.length))
    setImmediate(() => socket.write(Buffer.alloc(20)))
    for (let i = 0; i < 10; i++) await turn()
    assert.strictEqual(given, -1)
    socket.swallow()
    for (let i = 0; i < 10; i++) await turn()
    assert.strictEqual(given, 2)
  })

  it("calls back although channels fill the socket again whenever it is empty", async () => {
    const socket = new Slow({ highWaterMark: 10 })
    const output = new ConnectionOutput(socket)
    const one = outputOf(output)
    for (let i = 0; i < 100; i++) one.write(Buffer.alloc(5000))
    output.flush()
    let isCalled = false
    output.whenAmqplibHasWritten(() => (isCalled = true))
    for (let i = 0; i < 10; i++) await turn()
    assert.isFalse(isCalled)
    socket.swallow()
    await turn()
    assert.isTrue(isCalled)
    assert.isTrue(socket.writableNeedDrain)
  })

  it("calls back after a stop, too: what amqplib has to send is written in any case", async () => {
    const socket = new Slow({ highWaterMark: 10 })
    const output = new ConnectionOutput(socket)
    socket.write(Buffer.alloc(20))
    output.stop()
    let isCalled = false
    output.whenAmqplibHasWritten(() => (isCalled = true))
    for (let i = 0; i < 10; i++) await turn()
    assert.isFalse(isCalled)
    socket.swallow()
    await turn()
    assert.isTrue(isCalled)
  })
})
