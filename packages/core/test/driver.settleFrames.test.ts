/** Acks that are sent together: the broker settles exactly what was settled, whatever the order. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary } from "effect"
import { SettleFrames } from "../src/internal/driver/settleFrames.ts"
import { holds, int } from "./support/arbitrary.ts"
import { ManualOutput, outputOf, takeAll } from "./support/channelOutput.ts"

const frameSize = 21
const publish = 0x003c0028

/** Another frame of the channel, of the size of an ack, which makes it easy to read. */
const replyTo = (tag: number): Buffer => {
  const frame = Buffer.alloc(frameSize)
  frame[0] = 1
  frame.writeUInt16BE(7, 1)
  frame.writeUInt32BE(13, 3)
  frame.writeUInt32BE(publish, 7)
  frame.writeBigUInt64BE(BigInt(tag), 11)
  frame[frameSize - 1] = 0xce
  return frame
}

/** A broker, reduced to settling. */
class Broker {
  readonly unsettled = new Set<number>()
  readonly acked: Array<number> = []
  readonly nacked: Array<number> = []
  /** Deliveries that need a reply before they are acknowledged. */
  readonly unanswered = new Set<number>()
  frames = 0

  receives(bytes: Buffer): void {
    assert.strictEqual(bytes.length % frameSize, 0)
    for (let at = 0; at < bytes.length; at += frameSize) {
      assert.deepStrictEqual([bytes[at], bytes.readUInt16BE(at + 1), bytes.readUInt32BE(at + 3)], [1, 7, 13])
      assert.strictEqual(bytes[at + frameSize - 1], 0xce)
      this.frames++
      const id = bytes.readUInt32BE(at + 7)
      const last = Number(bytes.readBigUInt64BE(at + 11))
      if (id === publish) {
        assert.isTrue(this.unanswered.delete(last), `reply ${last}`)
        continue
      }
      const multiple = (bytes[at + 19]! & 1) === 1
      const tags = [...this.unsettled].filter((tag) => (multiple ? tag <= last : tag === last))
      // RabbitMQ does the same: an unknown tag closes the channel.
      assert.isAbove(tags.length, 0, `tag ${last}`)
      for (const tag of tags) {
        this.unsettled.delete(tag)
        assert.isFalse(this.unanswered.has(tag), `the ack of ${tag} has come before its reply`)
      }
      if (id === 0x003c0050) this.acked.push(...tags)
      else this.nacked.push(...tags)
    }
  }
}

const setup = () => {
  const broker = new Broker()
  const connection = new ManualOutput()
  const output = outputOf(connection)
  /** The output of another channel, in the same slab. */
  const other = outputOf(connection)
  const frames = new SettleFrames(output, 7)
  const unsettled = new Set<number>()
  const delivered = (tag: number) => {
    unsettled.add(tag)
    broker.unsettled.add(tag)
  }
  const ack = (tag: number) => {
    unsettled.delete(tag)
    frames.ackAmong(unsettled, tag)
  }
  const reply = (tag: number) => {
    broker.unanswered.add(tag)
    output.write(replyTo(tag))
    ack(tag)
  }
  const flush = () => {
    for (const piece of takeAll(output)) broker.receives(piece)
  }
  return { ack, broker, delivered, flush, frames, other, output, reply, unsettled }
}

const inOrder = (tags: Iterable<number>) => [...tags].toSorted((a, b) => a - b).join()

const settlesAll = (steps: ReadonlyArray<readonly [what: number, which: number]>): boolean => {
  const { ack, broker, delivered, flush, frames, other, output, reply, unsettled } = setup()
  const [acked, nacked] = [new Set<number>(), new Set<number>()]
  let last = 0
  for (const [what, which] of steps) {
    const waiting = [...unsettled]
    const tag = waiting[which % Math.max(1, waiting.length)]
    if (what < 3 || tag === undefined) {
      // Several deliveries arrive at once.
      for (let i = 0; i <= which % 5; i++) delivered(++last)
    } else if (what < 8) {
      // Most are settled in order.
      const next = what < 7 ? waiting[0]! : tag
      acked.add(next)
      if (which % 3 === 0) reply(next)
      else ack(next)
    } else if (what === 8) {
      nacked.add(tag)
      unsettled.delete(tag)
      frames.nack(tag, false, true)
    } else if (what === 9) {
      other.write(Buffer.alloc(which))
    } else if (what === 10) {
      const piece = output.take()
      if (piece !== undefined) broker.receives(piece)
    } else if (what === 11) {
      // A method of amqplib's is written after what was written before, and before what follows.
      output.fenceAt(output.mark())
    } else {
      output.fenceAt(Infinity)
      flush()
    }
  }
  output.fenceAt(Infinity)
  flush()
  return (
    broker.unanswered.size === 0 &&
    inOrder(broker.acked) === inOrder(acked) &&
    inOrder(broker.nacked) === inOrder(nacked) &&
    inOrder(broker.unsettled) === inOrder(unsettled)
  )
}

describe("acks", () => {
  it.effect("settle what was acknowledged, and nothing else, in every order and with everything in between", () =>
    holds(Arbitrary.array(Arbitrary.all([int(0, 12), int(0, 200)]), { maxLength: 200 }), settlesAll, {
      runs: 2000,
      size: 200
    })
  )

  /** What the broker has received after `last` deliveries were settled in order, a hundred per turn. */
  const inTurnsOf100 = (how: "ack" | "reply", last: number) => {
    const { broker, delivered, flush, ...settle } = setup()
    for (let tag = 1; tag <= last; tag++) delivered(tag)
    for (let tag = 1; tag <= last; tag++) {
      settle[how](tag)
      if (tag % 100 === 0) flush()
    }
    return { acked: broker.acked.length, frames: broker.frames }
  }

  it("of deliveries that are handled one after the other are sent as one, once per turn", () => {
    assert.deepStrictEqual(inTurnsOf100("ack", 300), { acked: 300, frames: 3 })
  })

  it("are sent as one also if each has a reply before it, after all replies", () => {
    assert.deepStrictEqual(inTurnsOf100("reply", 300), { acked: 300, frames: 300 + 3 })
  })

  it("never include one that is still being handled, and never withdraw one", () => {
    const { ack, broker, delivered, flush } = setup()
    for (const tag of [1, 2, 3, 4, 5]) delivered(tag)
    for (const tag of [5, 2, 1, 4]) ack(tag)
    flush()
    assert.deepStrictEqual([...broker.unsettled], [3])
    assert.sameMembers(broker.acked, [1, 2, 4, 5])
  })

  it("neither grow nor move across a mark, since a method of amqplib may follow there", () => {
    const { ack, broker, delivered, flush, output, reply } = setup()
    for (let tag = 1; tag <= 6; tag++) delivered(tag)
    ack(1)
    output.fenceAt(output.mark())
    ack(2)
    ack(3)
    flush()
    assert.deepStrictEqual([broker.acked, broker.frames], [[1], 1])
    output.mark()
    reply(4)
    reply(5)
    output.fenceAt(Infinity)
    flush()
    // 2 and 3; two replies; 4 and 5.
    assert.deepStrictEqual([broker.acked, broker.frames], [[1, 2, 3, 4, 5], 5])
  })
})
