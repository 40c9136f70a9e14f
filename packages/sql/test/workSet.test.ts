/** What a relay has in hand: the order of reads, without a database. */
import { assert, describe, it } from "@effect/vitest"
import { type Row, type Snapshot, WorkSet } from "../src/internal/outbox/workSet.ts"

const row = (position: number, orderKey?: string, shard = 0): Row => ({ shard, position, orderKey, bytes: 10 })

/** Settles what a read that begins at a time may settle. Returns the position from which the next one begins. */
const settledAt = (work: WorkSet<Row>, time: number, upTo = Infinity, snapshot?: Snapshot) => {
  work.settle(0, upTo, time, snapshot)
  return work.readAfter(0)
}

describe("A shard is read again from a position that was reached five seconds before", () => {
  it("so a row that appears behind others is found", () => {
    const work = new WorkSet()
    work.beginRead(32)
    for (const position of [1, 2, 4]) assert.isTrue(work.take(row(position), 1000))
    assert.strictEqual(settledAt(work, 1000), 0)
    assert.strictEqual(settledAt(work, 5999), 0)
    assert.strictEqual(settledAt(work, 6000), 4)
  })

  it("also if rows are read all the time", () => {
    const work = new WorkSet()
    for (let at = 0; at <= 20_000; at += 10) work.take(row(at + 1), at)
    assert.isAtLeast(settledAt(work, 20_000), 14_000)
    assert.isAtMost(settledAt(work, 20_000), 15_001)
  })

  it("and never beyond a row that was put back", () => {
    const work = new WorkSet()
    const first = row(1)
    work.take(first, 0)
    work.take(row(2), 0)
    work.putBack(first)
    assert.strictEqual(settledAt(work, 10_000), 0)
    work.take(first, 10_000)
    assert.strictEqual(settledAt(work, 10_000), 2)
  })

  it("and never beyond what a read has brought: it may have left out rows in between", () => {
    const work = new WorkSet()
    work.take(row(1), 0)
    work.take(row(5), 1000)
    assert.strictEqual(settledAt(work, 10_000, 4), 1)
    assert.strictEqual(settledAt(work, 10_000, 5), 5)
  })
})

describe("A transaction that may commit behind this position", () => {
  const snapshot = (next: bigint, ...open: ReadonlyArray<bigint>): Snapshot => ({ next, open: new Set(open) })

  it("makes a read out of date when it has ended, until everything is read from its beginning", () => {
    const work = new WorkSet()
    work.take(row(9), 0)
    assert.strictEqual(settledAt(work, 1000, 9, snapshot(100n, 90n)), 0)
    // The id of a later transaction does not count, although it is open.
    assert.strictEqual(settledAt(work, 5000, 9, snapshot(120n, 90n, 110n)), 9)
    assert.isFalse(work.isOutdated(snapshot(130n, 90n)))
    assert.isTrue(work.isOutdated(snapshot(130n)))
    work.rewindAll()
    assert.strictEqual(work.readAfter(0), 0)
    assert.isFalse(work.isOutdated(snapshot(130n)))
  })

  it("is seen by a read a second later: it takes its position before it has an id", () => {
    const work = new WorkSet()
    work.take(row(9), 0)
    settledAt(work, 500, 9, snapshot(100n))
    settledAt(work, 6000, 9, snapshot(200n, 150n))
    assert.strictEqual(work.readAfter(0), 9)
    assert.isTrue(work.isOutdated(snapshot(201n)))
  })
})

describe("Rows of one key are published one after another", () => {
  it("in the order of their positions", () => {
    const work = new WorkSet()
    const [a, b, c] = [row(1, "k"), row(2, "k"), row(3, "k")]
    assert.deepStrictEqual(
      [a, b, c].map((each) => work.take(each, 0)),
      [true, false, false]
    )
    assert.strictEqual(work.next(a), b)
    assert.strictEqual(work.next(b), c)
    assert.isUndefined(work.next(c))
    assert.isTrue(work.take(row(4, "k"), 0))
  })

  it("and are all put back with the one that fails", () => {
    const work = new WorkSet()
    const [a, b] = [row(1, "k"), row(2, "k")]
    work.take(a, 0)
    work.take(b, 0)
    work.putBack(a)
    assert.strictEqual(work.size, 0)
    assert.strictEqual(work.inHandOf(0), 0)
    assert.strictEqual(work.bytes, 0)
    assert.strictEqual(settledAt(work, 60_000), 0)
  })

  it("so what a read brings that began before is not taken", () => {
    const work = new WorkSet()
    const [a, b] = [row(1, "k"), row(2, "k")]
    work.beginRead(32)
    work.take(a, 0)
    work.beginRead(32)
    work.putBack(a)
    // The read that is under way has left out the first row, which was in hand when it began.
    assert.isFalse(work.take(b, 0))
    work.beginRead(32)
    assert.isTrue(work.take(a, 0))
    assert.isFalse(work.take(b, 0))
  })

  it("and a key that was left out of a read is left out until none of its rows is in hand", () => {
    const work = new WorkSet()
    const [a, b] = [row(1, "k"), row(2, "k")]
    work.take(a, 0)
    work.take(b, 0)
    assert.deepStrictEqual(work.beginRead(2), ["k"])
    work.next(a)
    // One row is in hand: the third row of the key is still in the table.
    assert.deepStrictEqual(work.beginRead(2), ["k"])
    assert.strictEqual(settledAt(work, 60_000), 2)
    work.next(b)
    assert.deepStrictEqual(work.beginRead(2), [])
    assert.strictEqual(settledAt(work, 60_000), 0)
  })

  it("so a row that is read and not taken does not free its key for later rows", () => {
    const work = new WorkSet()
    const [a, b] = [row(1, "k"), row(2, "k")]
    work.beginRead(32)
    work.take(a, 0)
    // The first row is under way, and the lease of the shard has ended when the read brings the second.
    work.putBack(b)
    work.beginRead(32)
    assert.isFalse(work.take(b, 0))
    assert.strictEqual(work.next(a), b)
  })

  it("and what a read brings is not reached, if rows were left out of it that are free now", () => {
    const work = new WorkSet()
    const [a, b, other] = [row(1, "k"), row(2, "k"), row(9)]
    work.take(a, 0)
    assert.deepStrictEqual(work.beginRead(1), ["k"])
    // The read leaves out the second row of the key, whose first row ends before the read does.
    work.next(a)
    work.remove(a)
    work.take(other, 0)
    assert.strictEqual(settledAt(work, 60_000), 0)
    work.beginRead(1)
    assert.isTrue(work.take(b, 60_000))
  })
})
