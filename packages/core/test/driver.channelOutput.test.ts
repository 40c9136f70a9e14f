/** The output of a channel: what the channel has written and its connection has not yet taken. */
import { assert, describe, it } from "@effect/vitest"
import { PassThrough } from "node:stream"
import type { ChannelOutput } from "../src/internal/driver/channelOutput.ts"
import { maxSlabSize } from "../src/internal/driver/slabPool.ts"
import { ManualOutput, outputOf, takeAll } from "./support/channelOutput.ts"

const frame = (size: number) => Buffer.alloc(size, 1)

/** Too large to be combined with other frames. */
const large = 5000

const sum = (sizes: ReadonlyArray<number>) => sizes.reduce((sum, size) => sum + size, 0)

const nextTick = () => new Promise<void>((resolve) => process.nextTick(resolve))

/** The output of a channel, and how often it has called each listener. */
const listening = (size: number) => {
  const connection = new ManualOutput()
  const heard = { drained: 0, taken: 0 }
  const output = outputOf(connection, size, {
    outputDrained: () => void heard.drained++,
    outputTaken: () => void heard.taken++
  })
  return { connection, heard, output }
}

const sizesOf = (output: ChannelOutput) => takeAll(output).map(({ length }) => length)

describe("the output of a channel", () => {
  it("is full at its size in bytes, whatever the number of frames, and accepts the frame that fills it", () => {
    const { output } = listening(100)
    for (let i = 0; i < 9; i++) output.write(frame(11))
    assert.isFalse(output.isFull)
    output.write(frame(1))
    assert.isTrue(output.isFull)
    output.write(frame(1000))
    assert.strictEqual(sum(sizesOf(output)), 9 * 11 + 1 + 1000)
  })

  it("returns small frames together, also those of two channels in turn, and a large one unchanged", () => {
    const connection = new ManualOutput()
    const [one, other] = [outputOf(connection), outputOf(connection)]
    for (let i = 0; i < 10; i++) one.write(frame(11))
    one.write(frame(large))
    one.write(frame(11))
    other.write(frame(7))
    one.write(frame(11))
    one.write(frame(11))
    assert.deepStrictEqual(sizesOf(one), [110, large, 11, 22])
    assert.deepStrictEqual(sizesOf(other), [7])
  })

  it("announces itself once, until everything in it has been taken", () => {
    const { connection, output } = listening(100)
    output.write(frame(1))
    output.write(frame(1))
    assert.strictEqual(connection.announced, 1)
    output.take()
    output.write(frame(1))
    assert.strictEqual(connection.announced, 1)
    takeAll(output)
    output.write(frame(1))
    assert.strictEqual(connection.announced, 2)
  })

  it("drains once, when all that filled it has been taken; not if it was never full, or is full again", async () => {
    const { heard, output } = listening(large)
    output.write(frame(9))
    takeAll(output)
    await nextTick()
    assert.strictEqual(heard.drained, 0)
    output.write(frame(large))
    output.write(frame(1))
    assert.isTrue(output.isFull)
    output.take()
    await nextTick()
    assert.strictEqual(heard.drained, 0)
    takeAll(output)
    assert.strictEqual(heard.drained, 0)
    // The next write comes before the event.
    output.write(frame(large))
    assert.isTrue(output.isFull)
    await nextTick()
    assert.strictEqual(heard.drained, 0)
    takeAll(output)
    await nextTick()
    assert.strictEqual(heard.drained, 1)
    output.write(frame(1))
    assert.isFalse(output.isFull)
  })

  it("drops at its end what was not taken; then it accepts nothing and calls no listener", async () => {
    const { connection, heard, output } = listening(10)
    output.write(frame(20))
    const taken = output.take()
    output.write(frame(20))
    output.write(frame(large))
    output.write(frame(1))
    assert.isFalse(output.isTaken)
    output.end()
    output.end()
    assert.strictEqual(taken?.length, 20)
    assert.isFalse(output.isFull)
    const at = output.reserve(100)
    output.buffer.fill(1, at, at + 100)
    output.commit(100)
    output.write(frame(1))
    output.write(frame(large))
    assert.deepStrictEqual(takeAll(output), [])
    assert.isTrue(output.isTaken)
    await nextTick()
    assert.deepStrictEqual(heard, { drained: 0, taken: 0 })
    assert.strictEqual(connection.announced, 1)
  })

  it("reuses the memory of what was dropped at an end", () => {
    const connection = new ManualOutput()
    const rooms = new Set<ArrayBufferLike>()
    for (let i = 0; i < 200; i++) {
      const output = outputOf(connection)
      for (let j = 0; j < 20; j++) {
        output.write(frame(4000))
        rooms.add(output.buffer.buffer)
      }
      output.end()
    }
    assert.isBelow(rooms.size, 5)
  })

  it("returns everything in order, once, though it is never empty", () => {
    const { output } = listening(1000)
    const sent: Array<Buffer> = []
    const got: Array<Buffer> = []
    const write = (i: number) => {
      const frame = Buffer.alloc(i % 5 === 0 ? large : (i % 50) + 1, i % 251)
      sent.push(frame)
      output.write(frame)
    }
    write(0)
    for (let i = 1; i < 10_000; i += 3) {
      for (let j = i; j < i + 3; j++) write(j)
      got.push(Buffer.from(output.take()!))
    }
    got.push(...takeAll(output))
    assert.isTrue(Buffer.concat(got).equals(Buffer.concat(sent)))
  })

  it("does not change what it has returned", () => {
    const { output } = listening(1000)
    output.write(frame(100))
    const first = output.take()!
    for (let i = 0; i < 1000; i++) output.write(Buffer.alloc(100, 2))
    assert.isTrue(first.equals(frame(100)))
  })

  it("reuses memory when the socket has taken what was in it, and not before", () => {
    const inSocket: Array<{ readonly piece: Buffer; readonly copy: Buffer }> = []
    const socket = Object.defineProperty(new PassThrough(), "writableLength", {
      get: () => sum(inSocket.map(({ piece }) => piece.length))
    })
    const connection = new ManualOutput(socket)
    const outputs = [0, 1, 2].map(() => outputOf(connection))
    const rooms = new Set<ArrayBufferLike>()
    let seed = 1
    const random = (most: number) => (seed = (seed * 48_271) % 0x7fff_ffff) % most
    let taken = 0
    for (let i = 0; i < 20_000; i++) {
      const which = random(3)
      const output = outputs[which]!
      const what = random(1000)
      if (what < 300) {
        const size = random(i % 7 === 0 ? maxSlabSize : 4000)
        const at = output.reserve(size)
        output.buffer.fill(i % 251, at, at + size)
        output.commit(size)
        rooms.add(output.buffer.buffer)
      } else if (what < 400) output.write(Buffer.alloc(large + random(100), i % 251))
      else if (what < 405) {
        output.end()
        outputs[which] = outputOf(connection)
      } else if (what < 800) {
        const piece = output.take()
        if (piece !== undefined) inSocket.push({ piece, copy: Buffer.from(piece) })
      } else {
        for (const { copy, piece } of inSocket.splice(0, Math.max(0, inSocket.length - random(100)))) {
          assert.isTrue(piece.equals(copy))
          taken += piece.length
        }
      }
    }
    assert.isAbove(taken, 10 * 2 ** 20)
    assert.isBelow(rooms.size, 100)
  })
})

describe("a fence", () => {
  it("holds what is behind it until it moves, and lets through what is before it", () => {
    const { output } = listening(1000)
    output.write(Buffer.from("before"))
    const mark = output.mark()
    output.write(Buffer.from("behind"))
    output.fenceAt(mark)
    output.write(frame(large))
    assert.deepStrictEqual(takeAll(output).map(String), ["before"])
    output.write(Buffer.from("later"))
    assert.deepStrictEqual(takeAll(output), [])
    output.fenceAt(Infinity)
    assert.strictEqual(String(Buffer.concat(takeAll(output))), `behind${frame(large)}later`)
  })

  it("moves from mark to mark, also where nothing was written between two", () => {
    const { output } = listening(1000)
    const marks: Array<number> = [output.mark()]
    for (const text of ["a", "b", "", "c"]) {
      if (text !== "") output.write(Buffer.from(text))
      marks.push(output.mark())
    }
    const taken = marks.map((mark) => {
      output.fenceAt(mark)
      return takeAll(output).join("")
    })
    assert.deepStrictEqual(taken, ["", "a", "b", "", "c"])
  })

  it("announces what can be taken when it moves, and nothing when there is nothing", () => {
    const { connection, output } = listening(1000)
    output.fenceAt(output.mark())
    output.fenceAt(Infinity)
    assert.strictEqual(connection.announced, 0)
    output.fenceAt(output.mark())
    output.write(frame(1))
    takeAll(output)
    output.write(frame(1))
    takeAll(output)
    const announced = connection.announced
    output.fenceAt(Infinity)
    assert.strictEqual(connection.announced, announced + 1)
    assert.strictEqual(sum(sizesOf(output)), 2)
  })

  it("notifies the caller that requested it once, when all before it is taken", () => {
    const { heard, output } = listening(1000)
    output.write(frame(large))
    output.write(frame(1))
    const mark = output.mark()
    output.write(frame(1))
    output.fenceAt(mark)
    assert.isFalse(output.isTaken)
    assert.isFalse(output.isTaken)
    output.take()
    assert.strictEqual(heard.taken, 0)
    takeAll(output)
    assert.strictEqual(heard.taken, 1)
    assert.isTrue(output.isTaken)
    takeAll(output)
    output.fenceAt(Infinity)
    takeAll(output)
    assert.strictEqual(heard.taken, 1)
  })

  it("notifies no caller that has not requested it", () => {
    const { heard, output } = listening(1000)
    output.write(frame(1))
    output.fenceAt(output.mark())
    takeAll(output)
    assert.isTrue(output.isTaken)
    takeAll(output)
    assert.strictEqual(heard.taken, 0)
  })

  it("can be moved by the caller that it notifies: what is behind it is taken in the same turn", () => {
    const connection = new ManualOutput()
    const output: ChannelOutput = outputOf(connection, 1000, {
      outputDrained: () => {},
      outputTaken: () => output.fenceAt(Infinity)
    })
    output.write(Buffer.from("before"))
    const mark = output.mark()
    output.write(Buffer.from("behind"))
    output.fenceAt(mark)
    assert.isFalse(output.isTaken)
    assert.deepStrictEqual(takeAll(output).map(String), ["before"])
    assert.strictEqual(connection.announced, 2)
    assert.deepStrictEqual(takeAll(output).map(String), ["behind"])
  })

  it("is not crossed by what is taken back, nor by what is changed", () => {
    const { output } = listening(1000)
    output.write(frame(10))
    const position = output.position
    assert.isTrue(output.isLast(position))
    output.mark()
    assert.isFalse(output.isLast(position))
    assert.isFalse(output.tryRetract(position, 10))
    output.write(frame(3))
    assert.isFalse(output.tryRetract(position, 10))
    assert.isFalse(output.tryRetract(output.position, 4))
    assert.isTrue(output.isLast(output.position))
    assert.isTrue(output.tryRetract(output.position, 3))
    assert.strictEqual(output.position, position)
    assert.deepStrictEqual(sizesOf(output), [10])
  })

  it("takes back nothing that was taken, and nothing that another channel has written behind it", () => {
    const connection = new ManualOutput()
    const [one, other] = [outputOf(connection), outputOf(connection)]
    one.write(frame(10))
    takeAll(one)
    assert.isFalse(one.tryRetract(one.position, 10))
    one.write(frame(10))
    other.write(frame(1))
    assert.isFalse(one.tryRetract(one.position, 10))
    assert.deepStrictEqual(sizesOf(one), [10])
  })

  it("keeps what is behind a part that is taken back out of the middle", () => {
    const { output } = listening(1000)
    output.write(Buffer.from("ab"))
    const position = output.position
    output.write(Buffer.from("cdef"))
    assert.isTrue(output.tryRetract(position, 1))
    assert.deepStrictEqual(takeAll(output).map(String), ["acdef"])
  })
})
