/** The write buffer of a channel, in the place of amqplib's own. */
import { assert, describe, it } from "@effect/vitest"
import { largestSlab, Slabs } from "../src/internal/slab.ts"
import { WriteBuffer } from "../src/internal/writeBuffer.ts"

const frame = (size: number) => Buffer.alloc(size, 1)

/** Too large to be put together with others. */
const large = 5000

const sum = (sizes: ReadonlyArray<number>) => sizes.reduce((sum, size) => sum + size, 0)

const nextTick = () => new Promise<void>((resolve) => process.nextTick(resolve))

/** A buffer, and how often it has said what. */
const listening = (size: number) => {
  const buffer = new WriteBuffer(size, new Slabs())
  const heard = { readable: 0, drain: 0, end: 0 }
  for (const event of ["readable", "drain", "end"] as const) buffer.on(event, () => heard[event]++)
  return { buffer, heard }
}

const readAll = (buffer: WriteBuffer) => {
  const sizes: Array<number> = []
  for (let next = buffer.read(); next !== null; next = buffer.read()) sizes.push(next.length)
  return sizes
}

describe("the write buffer", () => {
  it("is full at its size in bytes, whatever the number of frames, and takes the frame that fills it", () => {
    const { buffer } = listening(100)
    for (let i = 0; i < 9; i++) assert.isTrue(buffer.write(frame(11)))
    assert.isFalse(buffer.write(frame(1)))
    assert.isFalse(buffer.write(frame(1000)))
    assert.strictEqual(sum(readAll(buffer)), 9 * 11 + 1 + 1000)
  })

  it("gives small frames together, also those of two buffers by turns, and a large one as it is", () => {
    const slab = new Slabs()
    const [one, other] = [new WriteBuffer(100_000, slab), new WriteBuffer(100_000, slab)]
    for (let i = 0; i < 10; i++) one.write(frame(11))
    one.write(frame(large))
    one.write(frame(11))
    other.write(frame(7))
    one.write(frame(11))
    one.write(frame(11))
    assert.deepStrictEqual(readAll(one), [110, large, 11, 22])
    assert.deepStrictEqual(readAll(other), [7])
  })

  it("says once that it is readable, until it has been read to its end", () => {
    const { buffer, heard } = listening(100)
    buffer.write(frame(1))
    buffer.write(frame(1))
    assert.strictEqual(heard.readable, 1)
    buffer.read()
    buffer.write(frame(1))
    assert.strictEqual(heard.readable, 1)
    readAll(buffer)
    buffer.write(frame(1))
    assert.strictEqual(heard.readable, 2)
  })

  it("drains once, when all that filled it has been read; not if it was never full, or is full again", async () => {
    const { buffer, heard } = listening(large)
    buffer.write(frame(9))
    readAll(buffer)
    await nextTick()
    assert.strictEqual(heard.drain, 0)
    assert.isFalse(buffer.write(frame(large)))
    assert.isFalse(buffer.write(frame(1)))
    buffer.read()
    await nextTick()
    assert.strictEqual(heard.drain, 0)
    readAll(buffer)
    assert.strictEqual(heard.drain, 0)
    // Somebody was quicker than the event.
    assert.isFalse(buffer.write(frame(large)))
    await nextTick()
    assert.strictEqual(heard.drain, 0)
    readAll(buffer)
    await nextTick()
    assert.strictEqual(heard.drain, 1)
    assert.isTrue(buffer.write(frame(1)))
  })

  it("what was written before its end is still read; then it ends, and takes nothing more", async () => {
    const { buffer, heard } = listening(10)
    buffer.write(frame(20))
    buffer.end()
    assert.strictEqual(heard.end, 0)
    buffer.write(frame(1))
    assert.deepStrictEqual(readAll(buffer), [20])
    await nextTick()
    assert.deepInclude(heard, { drain: 0, end: 1 })
  })

  it("an empty one ends at once", () => {
    const { buffer, heard } = listening(10)
    buffer.end()
    assert.strictEqual(heard.end, 1)
  })

  it("gives everything in order, once, though it is never empty", () => {
    const { buffer } = listening(1000)
    const sent: Array<Buffer> = []
    const got: Array<Buffer> = []
    const write = (i: number) => {
      const frame = Buffer.alloc(i % 5 === 0 ? large : (i % 50) + 1, i % 251)
      sent.push(frame)
      buffer.write(frame)
    }
    write(0)
    for (let i = 1; i < 10_000; i += 3) {
      for (let j = i; j < i + 3; j++) write(j)
      got.push(buffer.read()!)
    }
    for (let next = buffer.read(); next !== null; next = buffer.read()) got.push(next)
    assert.isTrue(Buffer.concat(got).equals(Buffer.concat(sent)))
  })

  it("what it has given out does not change any more", () => {
    const { buffer } = listening(1000)
    buffer.write(frame(100))
    const first = buffer.read()!
    for (let i = 0; i < 1000; i++) buffer.write(Buffer.alloc(100, 2))
    assert.isTrue(first.equals(frame(100)))
  })

  it("uses memory again when the socket has taken what was in it, and not before", () => {
    const inSocket: Array<{ readonly piece: Buffer; readonly copy: Buffer }> = []
    const socket = {
      get writableLength() {
        return sum(inSocket.map(({ piece }) => piece.length))
      }
    }
    const slabs = new Slabs(socket)
    const buffers = [0, 1, 2].map(() => new WriteBuffer(2 ** 20, slabs))
    const rooms = new Set<ArrayBufferLike>()
    let seed = 1
    const random = (most: number) => (seed = (seed * 48_271) % 0x7fff_ffff) % most
    let taken = 0
    for (let i = 0; i < 20_000; i++) {
      const buffer = buffers[random(3)]!
      const what = random(10)
      if (what < 3) {
        const size = random(i % 7 === 0 ? largestSlab : 4000)
        const at = buffer.reserve(size)
        buffer.room.fill(i % 251, at, at + size)
        buffer.commit(size)
        rooms.add(slabs.current.room.buffer)
      } else if (what === 3) buffer.write(Buffer.alloc(large + random(100), i % 251))
      else if (what < 8) {
        const piece = buffer.read()
        if (piece !== null) inSocket.push({ piece, copy: Buffer.from(piece) })
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
