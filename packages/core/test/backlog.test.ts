/** The backlog is counted, kept in order, and sent by one loop. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { Backlog, type BacklogItem, Load } from "../src/internal/waiting/backlog.ts"
import { WaitQueue } from "../src/internal/waiting/waitQueue.ts"

class Item implements BacklogItem<Item> {
  waitQueue: WaitQueue<Item> | undefined = undefined
  previous: Item | undefined = undefined
  next: Item | undefined = undefined
  readonly size: number

  constructor(size: number) {
    this.size = size
  }
}

const unbounded = { maxCount: Infinity, maxBytes: Infinity }

describe("a load", () => {
  it("accepts as many messages and bytes as its bounds allow, and a first message of any size", () => {
    const load = new Load({ maxCount: 2, maxBytes: 10 })
    assert.isTrue(load.hasRoomFor(11))
    load.add(11)
    assert.isFalse(load.hasRoomFor(0))
    load.remove(11)
    load.add(4)
    assert.deepStrictEqual([load.hasRoomFor(6), load.hasRoomFor(7)], [true, false])
    assert.isTrue(load.hasRoomFor(7, { maxCount: 0, maxBytes: 1 }))
    load.add(0)
    assert.isFalse(load.hasRoomFor(0))
    assert.isTrue(load.hasRoomFor(0, { maxCount: 1, maxBytes: 0 }))
    assert.isFalse(new Load({ maxCount: 0, maxBytes: 10 }).hasRoomFor(0))
  })
})

describe("a backlog", () => {
  it.effect("holds what was added and not removed, in the order of each queue, and knows its size", () => {
    const step = Arbitrary.schema(
      Schema.Struct({
        does: Schema.Literals(["add", "addFirst", "remove"]),
        other: Schema.Boolean,
        size: Schema.Int,
        at: Schema.Int
      })
    )
    return Effect.map(
      Arbitrary.checkEffect(
        Arbitrary.array(step, { maxLength: 100 }),
        (steps) => {
          const backlog = new Backlog<Item>("items", unbounded)
          const lines = [backlog.queue, new WaitQueue<Item>()] as const
          const models: readonly [Array<Item>, Array<Item>] = [[], []]
          for (const { at, does, other, size } of steps) {
            const which = other ? 1 : 0
            const [line, model] = [lines[which], models[which]]
            if (does === "remove") {
              const index = model.length === 0 ? 0 : Math.abs(at) % model.length
              const [item] = model.splice(index, 1)
              if (item === undefined) continue
              if (!backlog.remove(item) || backlog.remove(item)) return false
            } else {
              const item = new Item(Math.abs(size))
              if (does === "add") {
                model.push(item)
                backlog.add(item, other ? line : undefined)
              } else {
                model.unshift(item)
                backlog.addFirst(item, other ? line : undefined)
              }
            }
          }
          const all = models.flat()
          return (
            ([0, 1] as const).every((which) =>
              Array.from(lines[which]).every((item, i) => item === models[which][i])
            ) &&
            lines[0].size === models[0].length &&
            lines[1].size === models[1].length &&
            backlog.load.count === all.length &&
            backlog.load.bytes === all.reduce((sum, { size }) => sum + size, 0)
          )
        },
        { runs: 200, size: 100 }
      ),
      (result) => assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
    )
  })

  it("is drained by one loop, which handles what is added while it runs, and restarts after a defect", () => {
    const backlog = new Backlog<Item>("items", unbounded)
    const sent: Array<number> = []
    let depth = 0
    const sendNext = (): boolean => {
      assert.strictEqual(++depth, 1)
      const item = backlog.queue.first!
      backlog.remove(item)
      sent.push(item.size)
      if (item.size === 1) backlog.add(new Item(3))
      backlog.drain(sendNext)
      depth--
      return true
    }
    backlog.add(new Item(1))
    backlog.add(new Item(2))
    backlog.drain(sendNext)
    assert.deepStrictEqual(sent, [1, 2, 3])
    backlog.add(new Item(4))
    assert.throws(() =>
      backlog.drain(() => {
        throw new Error("defect")
      })
    )
    assert.isFalse(backlog.isDraining)
    backlog.drain(() => false)
    assert.strictEqual(backlog.load.count, 1)
    backlog.drain(sendNext)
    assert.deepStrictEqual(sent, [1, 2, 3, 4])
  })

  it("is stalled when nothing was sent from it for a second", () => {
    const backlog = new Backlog<Item>("items", unbounded)
    assert.deepStrictEqual(
      [0, 999, 1000].map((now) => backlog.isStalled(now)),
      [false, false, true]
    )
    backlog.sent()
    assert.deepStrictEqual(
      [1001, 2000, 2001].map((now) => backlog.isStalled(now)),
      [false, false, true]
    )
  })
})
