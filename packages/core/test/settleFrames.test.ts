/** Acks that go out together: what a broker makes of them is what was settled, no more and no less, whatever the order. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import type { ChannelInternals, Internals } from "../src/internal/amqplib.ts"
import { ChannelWriter } from "../src/internal/channelWriter.ts"
import { Slabs } from "../src/internal/slab.ts"
import { WriteBuffer } from "../src/internal/writeBuffer.ts"

const frameSize = 21

/** A broker, as far as settling goes. */
class Broker {
  readonly unsettled = new Set<number>()
  readonly acked: Array<number> = []
  readonly nacked: Array<number> = []
  frames = 0

  receives(bytes: Buffer): void {
    assert.strictEqual(bytes.length % frameSize, 0)
    for (let at = 0; at < bytes.length; at += frameSize) {
      assert.deepStrictEqual([bytes[at], bytes.readUInt16BE(at + 1), bytes.readUInt32BE(at + 3)], [1, 7, 13])
      assert.strictEqual(bytes[at + frameSize - 1], 0xce)
      this.frames++
      const id = bytes.readUInt32BE(at + 7)
      const last = Number(bytes.readBigUInt64BE(at + 11))
      const multiple = (bytes[at + 19]! & 1) === 1
      const tags = [...this.unsettled].filter((tag) => (multiple ? tag <= last : tag === last))
      // As RabbitMQ: a tag that it does not have closes the channel.
      assert.isAbove(tags.length, 0, `tag ${last}`)
      for (const tag of tags) this.unsettled.delete(tag)
      if (id === 0x003c0050) this.acked.push(...tags)
      else this.nacked.push(...tags)
    }
  }
}

const setup = () => {
  const broker = new Broker()
  const slab = new Slabs()
  const buffer = new WriteBuffer(2 ** 20, slab)
  /** Of another channel, in the same slab. */
  const other = new WriteBuffer(2 ** 20, slab)
  const connection: Internals = { frameMax: 4096 }
  const writer = new ChannelWriter(connection, {} as ChannelInternals as never, 7, buffer)
  const unsettled = new Set<number>()
  const delivered = (tag: number) => {
    unsettled.add(tag)
    broker.unsettled.add(tag)
  }
  const ack = (tag: number) => {
    unsettled.delete(tag)
    writer.ackOneOf(unsettled, tag)
  }
  const flush = () => {
    for (let piece = buffer.read(); piece !== null; piece = buffer.read()) broker.receives(piece)
  }
  return { ack, broker, buffer, delivered, flush, other, unsettled, writer }
}

const int = (minimum: number, maximum: number) =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

const inOrder = (tags: Iterable<number>) => [...tags].toSorted((a, b) => a - b).join()

const settlesAll = (steps: ReadonlyArray<readonly [what: number, which: number]>): boolean => {
  const { ack, broker, buffer, delivered, flush, other, unsettled, writer } = setup()
  const [acked, nacked] = [new Set<number>(), new Set<number>()]
  let last = 0
  for (const [what, which] of steps) {
    const waiting = [...unsettled]
    const tag = waiting[which % Math.max(1, waiting.length)]
    if (what < 3 || tag === undefined) {
      // Several come at once.
      for (let i = 0; i <= which % 5; i++) delivered(++last)
    } else if (what < 8) {
      // Mostly in order.
      const next = what < 7 ? waiting[0]! : tag
      acked.add(next)
      ack(next)
    } else if (what === 8) {
      nacked.add(tag)
      unsettled.delete(tag)
      writer.nack(tag, false, true)
    } else if (what === 9) {
      other.write(Buffer.alloc(which))
    } else if (what === 10) {
      const piece = buffer.read()
      if (piece !== null) broker.receives(piece)
    } else flush()
  }
  flush()
  return (
    inOrder(broker.acked) === inOrder(acked) &&
    inOrder(broker.nacked) === inOrder(nacked) &&
    inOrder(broker.unsettled) === inOrder(unsettled)
  )
}

describe("acks", () => {
  it.effect("settle what was acknowledged, and nothing else, in whatever order and between whatever else", () =>
    Effect.map(
      Arbitrary.checkEffect(Arbitrary.array(Arbitrary.all([int(0, 11), int(0, 200)]), { maxLength: 200 }), settlesAll, {
        runs: 2000,
        size: 200
      }),
      (result) => assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
    )
  )

  it("of deliveries that are handled one after the other go out as one, once in each turn", () => {
    const { ack, broker, delivered, flush } = setup()
    for (let tag = 1; tag <= 300; tag++) delivered(tag)
    for (let tag = 1; tag <= 300; tag++) {
      ack(tag)
      if (tag % 100 === 0) flush()
    }
    assert.strictEqual(broker.frames, 3)
    assert.strictEqual(broker.acked.length, 300)
  })

  it("never take along one that is still being handled, nor take back one that was", () => {
    const { ack, broker, delivered, flush } = setup()
    for (const tag of [1, 2, 3, 4, 5]) delivered(tag)
    for (const tag of [5, 2, 1, 4]) ack(tag)
    flush()
    assert.deepStrictEqual([...broker.unsettled], [3])
    assert.sameMembers(broker.acked, [1, 2, 4, 5])
  })
})
