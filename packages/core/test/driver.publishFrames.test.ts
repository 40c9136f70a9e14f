/** The frames of a publish equal amqplib's, byte by byte. */
import { assert, describe, it } from "@effect/vitest"
import type { AmqpMessage } from "@effect-amqp/core"
import { Arbitrary, Effect, Schema } from "effect"
import { createRequire } from "node:module"
import { InvalidArgument } from "../src/model/errorReason.ts"
import { type Outgoing, toOutgoing } from "../src/internal/wire/properties.ts"
import { writePublish } from "../src/internal/driver/publishFrames.ts"
import { slabSize } from "../src/internal/driver/slabPool.ts"
import { contents, properties } from "./support/arbitraryMessages.ts"
import { ManualOutput, outputOf, takeAll } from "./support/channelOutput.ts"

const fromAmqplibFolder = createRequire(createRequire(import.meta.url).resolve("amqplib"))
const defs = fromAmqplibFolder("./lib/defs") as {
  readonly BasicPublish: number
  readonly BasicProperties: number
  readonly encodeMethod: (method: number, channel: number, fields: object) => Buffer
  readonly encodeProperties: (properties: number, channel: number, size: number, fields: object) => Buffer
}
const Args = fromAmqplibFolder("./lib/api_args") as {
  readonly publish: (exchange: string, routingKey: string, options: object) => object
}
const { makeBodyFrame } = fromAmqplibFolder("./lib/frame") as {
  readonly makeBodyFrame: (channel: number, payload: Buffer) => Buffer
}

const channel = 0x1234
const overhead = 8

const byAmqplib = (outgoing: Outgoing, frameMax: number): Buffer => {
  const { content, exchange, routingKey } = outgoing
  const fields = Args.publish(exchange, routingKey, outgoing)
  const bodies: Array<Buffer> = []
  for (let at = 0; at < content.length; at += frameMax - overhead) {
    bodies.push(makeBodyFrame(channel, content.subarray(at, at + frameMax - overhead)))
  }
  return Buffer.concat([
    defs.encodeMethod(defs.BasicPublish, channel, fields),
    defs.encodeProperties(defs.BasicProperties, channel, content.length, fields),
    ...bodies
  ])
}

const name = Arbitrary.map(Arbitrary.schema(Schema.String), (text) => text.slice(0, 80).toWellFormed())

const outgoingOf = (message: AmqpMessage.Message): Outgoing => {
  // amqplib writes an empty table if there is none.
  const outgoing = toOutgoing({ ...message, headers: message.headers ?? {} })
  if (outgoing instanceof InvalidArgument) throw outgoing
  return outgoing
}

const written = (outgoing: Outgoing, frameMax: number, connection = new ManualOutput()): Buffer => {
  const output = outputOf(connection)
  writePublish(output, channel, frameMax, outgoing)
  return Buffer.concat(takeAll(output))
}

describe("the frames of a publish", () => {
  it.effect("are those of amqplib, for every message", () =>
    Effect.gen(function* () {
      const connection = new ManualOutput()
      let plain = 0
      let all = 0
      const result = yield* Arbitrary.checkEffect(
        Arbitrary.all([properties, contents, name, name]),
        ([properties, content, exchange, routingKey]) => {
          const outgoing = outgoingOf({ ...properties, content, exchange, routingKey })
          if (outgoing.table === undefined) plain++
          outgoing.mandatory = ++all % 2 === 0
          return written(outgoing, 4096, connection).equals(byAmqplib(outgoing, 4096))
        },
        { runs: 3000, size: 20 }
      )
      assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
      assert.isAbove(plain, 300)
      assert.isAbove(all - plain, 300)
    })
  )

  it("are those of amqplib, for every kind of plain header", () => {
    const numbers = [0, 1, -1, 127, 128, -128, -129, 32_767, 32_768, -32_768, -32_769, 2 ** 31 - 1, 2 ** 31, -(2 ** 31)]
    const large = [
      -(2 ** 31) - 1,
      2 ** 32,
      -(2 ** 32) - 5,
      Number.MAX_SAFE_INTEGER,
      Number.MIN_SAFE_INTEGER,
      0.5,
      -1e-300
    ]
    const values = [...numbers, ...large, true, false, null, "", "text", "grüße", "🐇", "x".repeat(100)]
    for (const value of values) {
      const outgoing = outgoingOf({ routingKey: "q", content: "", headers: { key: value, ключ: value } })
      assert.isUndefined(outgoing.table, String(value))
      assert.deepStrictEqual(written(outgoing, 4096), byAmqplib(outgoing, 4096), String(value))
    }
  })

  it("are those of amqplib, for every size of a body, and every size of a frame", () => {
    for (const frameMax of [4096, 4100, 131_072]) {
      for (const near of [0, 1, 100, 4088, 4092, 4096, 8176, 65_536, 131_064, 262_128]) {
        for (const size of [near - 1, near, near + 1]) {
          if (size < 0) continue
          const outgoing = outgoingOf({ routingKey: "q", content: Buffer.alloc(size, "x") })
          assert.isTrue(written(outgoing, frameMax).equals(byAmqplib(outgoing, frameMax)), `${size} of ${frameMax}`)
        }
      }
    }
  })

  it("do not change when others write to the same slab, also where it ends", () => {
    const connection = new ManualOutput()
    const [one, other] = [outputOf(connection), outputOf(connection)]
    const expected: [Array<Buffer>, Array<Buffer>] = [[], []]
    const outgoing = (i: number) => outgoingOf({ routingKey: `key ${i}`, content: String(i).repeat(i % 300) })
    for (let i = 0; i < (3 * slabSize) / 100; i++) {
      const which = i % 3 === 0 ? 0 : 1
      writePublish(which === 0 ? one : other, channel, 4096, outgoing(i))
      expected[which].push(byAmqplib(outgoing(i), 4096))
    }
    assert.isTrue(Buffer.concat(takeAll(one)).equals(Buffer.concat(expected[0])))
    assert.isTrue(Buffer.concat(takeAll(other)).equals(Buffer.concat(expected[1])))
  })

  it("are not split: what is read in one piece are whole frames, since another channel's may follow", () => {
    const output = outputOf()
    for (const size of [10, 60_000, 4096, 4097, 65_536, 200_000, 131_064, 131_065, 1_000_000]) {
      writePublish(output, channel, 131_072, outgoingOf({ routingKey: "q", content: Buffer.alloc(size, "x") }))
    }
    for (const piece of takeAll(output)) {
      let at = 0
      while (at < piece.length) at += overhead + piece.readUInt32BE(at + 3)
      assert.strictEqual(at, piece.length)
    }
  })
})
