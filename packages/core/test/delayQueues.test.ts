/** Names of delay queues. */
import { assert, describe, it } from "@effect/vitest"
import { delayQueueName, legacyDelayQueueName, isDelayQueueOf } from "../src/internal/topology/delayQueues.ts"

const longest = 315_360_000_000
const bytes = (name: string) => Buffer.byteLength(name)

describe("A delay queue's name is computed, and fits into AMQP's 255 bytes.", () => {
  it("it is the queue's name and the delay if that fits", () => {
    assert.strictEqual(delayQueueName("orders", 10_000), "orders.delay.10000")
    const queue = "q".repeat(255 - ".delay.5".length)
    assert.strictEqual(delayQueueName(queue, 5), `${queue}.delay.5`)
  })

  it("a name that would be too long is shortened by a hash, and two queues never share one", () => {
    const start = "q".repeat(254)
    const names = new Set<string>()
    for (const queue of [`${start}a`, `${start}b`, start, "ü".repeat(127), `${"ü".repeat(126)}ä`, "😀".repeat(63)]) {
      for (const millis of [1, 1000, longest]) {
        const name = delayQueueName(queue, millis)
        assert.isAtMost(bytes(name), 255)
        assert.isTrue(name.isWellFormed())
        assert.strictEqual(delayQueueName(queue, millis), name)
        assert.isTrue(name.endsWith(`.delay.${millis}`))
        names.add(name)
      }
    }
    assert.strictEqual(names.size, 18)
  })

  it("the name for a queue that the broker has named does not begin with the broker's prefix", () => {
    const names = ["amq.gen-abc", "gen-abc", "amq.gen-abd"].map((queue) => delayQueueName(queue, 5))
    assert.strictEqual(new Set(names).size, 3)
    for (const name of names) assert.isFalse(name.startsWith("amq."))
  })

  it("a delay queue is recognized by its current and its former name, and never as another queue's", () => {
    for (const queue of ["orders", "amq.gen-abc", "q".repeat(255), "a.delay.5"]) {
      for (const millis of [1, 60_000, longest]) {
        assert.isTrue(isDelayQueueOf(queue, delayQueueName(queue, millis)))
        assert.isTrue(isDelayQueueOf(queue, legacyDelayQueueName(queue, millis)))
        assert.isFalse(isDelayQueueOf("other", delayQueueName(queue, millis)))
      }
    }
    for (const name of [
      "orders",
      "orders.delay",
      "orders.delay.",
      "orders.delay.1.5",
      "orders.delay.05",
      "orders.dlq"
    ]) {
      assert.isFalse(isDelayQueueOf("orders", name))
    }
  })
})
