/** The write buffer of a channel, in the place of amqplib's own. */
import { assert, describe, it } from "@effect/vitest"
import { WriteBuffer } from "../src/internal/writeBuffer.ts"

const frame = (size: number) => Buffer.alloc(size, 1)

const nextTick = () => new Promise<void>((resolve) => process.nextTick(resolve))

/** A buffer, and how often it has said what. */
const listening = (size: number) => {
  const buffer = new WriteBuffer(size)
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
    assert.deepStrictEqual(readAll(buffer), [11, 11, 11, 11, 11, 11, 11, 11, 11, 1, 1000])
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
    const { buffer, heard } = listening(10)
    buffer.write(frame(9))
    readAll(buffer)
    await nextTick()
    assert.strictEqual(heard.drain, 0)
    assert.isFalse(buffer.write(frame(10)))
    assert.isFalse(buffer.write(frame(1)))
    buffer.read()
    await nextTick()
    assert.strictEqual(heard.drain, 0)
    readAll(buffer)
    assert.strictEqual(heard.drain, 0)
    // Somebody was quicker than the event.
    assert.isFalse(buffer.write(frame(10)))
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

  it("gives frames in their order, though it is never empty", () => {
    const { buffer } = listening(1000)

    let written = 0
    let next = 0
    buffer.write(frame(++written))
    for (let i = 0; i < 10_000; i++) {
      buffer.write(frame((++written % 50) + 1))
      const got = buffer.read()!
      next++
      assert.strictEqual(got.length, next === 1 ? 1 : (next % 50) + 1)
    }

    assert.strictEqual(readAll(buffer).length, 1)
  })
})
