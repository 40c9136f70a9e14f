/** What channels write to a socket: in order, in few pieces, and no more than it says that it will take. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { PassThrough } from "node:stream"
import { SocketOutput } from "../src/internal/socketOutput.ts"

const int = (minimum: number, maximum: number) =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

/** A piece of the first or the second memory, right behind the last one of that, or with a gap. */
const piece = Arbitrary.all([int(0, 1), int(0, 3), int(1, 200)])

describe("pieces", () => {
  it.effect("go out in order, whether or not they are next to each other in memory", () =>
    Effect.map(
      Arbitrary.checkEffect(
        Arbitrary.array(Arbitrary.array(piece, { maxLength: 12 }), { maxLength: 20 }),
        (turns) => {
          const memories = [0, 1].map(() => Buffer.from(Array.from({ length: 65_536 }, (_, i) => i % 251)))
          const used = [0, 0]
          const stream = new PassThrough({ highWaterMark: 2 ** 20 })
          const output = new SocketOutput(stream)
          const expected: Array<Buffer> = []
          for (const turn of turns) {
            output.during(() => {
              for (const [which, gap, size] of turn) {
                const from = used[which]! + (gap === 0 ? 7 : 0)
                used[which] = from + size
                const one = memories[which]!.subarray(from, from + size)
                expected.push(Buffer.from(one))
                output.write(one)
              }
            })
          }
          return Buffer.concat(expected).equals((stream.read() as Buffer | null) ?? Buffer.alloc(0))
        },
        { runs: 300, size: 30 }
      ),
      (result) => assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
    )
  )

  it("that follow one another are one", () => {
    const memory = Buffer.alloc(1000)
    const stream = new PassThrough()
    const got: Array<number> = []
    stream.on("data", ({ length }: Buffer) => got.push(length))
    const output = new SocketOutput(stream)
    output.during(() => {
      for (const [from, to] of [
        [0, 10],
        [10, 300],
        [300, 301],
        [400, 500],
        [500, 600],
        [0, 1]
      ]) {
        output.write(memory.subarray(from, to))
      }
    })
    assert.deepStrictEqual(got, [301, 200, 1])
  })

  it.effect("are taken until the socket is full, which then says when it is not", () =>
    Effect.map(
      Arbitrary.checkEffect(
        Arbitrary.array(piece, { maxLength: 60 }),
        (pieces) => {
          const memories = [Buffer.alloc(65_536), Buffer.alloc(65_536)]
          const used = [0, 0]
          const stream = new PassThrough({ highWaterMark: 1000 })
          // What it says is about what it holds, not about what is behind it.
          stream.cork()
          const output = new SocketOutput(stream)
          let hasRoom = true
          for (const [which, gap, size] of pieces) {
            output.during(() => {
              const from = used[which]! + (gap === 0 ? 7 : 0)
              used[which] = from + size
              hasRoom = output.write(memories[which]!.subarray(from, from + size))
            })
            if (hasRoom !== stream.writableLength < 1000 || hasRoom === stream.writableNeedDrain) return false
          }
          return true
        },
        { runs: 300, size: 60 }
      ),
      (result) => assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
    )
  )
})
