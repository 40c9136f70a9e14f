/** What a reader of dead letters holds in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import type { DeliveredMessage } from "../src/internal/driver/driver.ts"
import type { QueueFacts } from "../src/internal/deadLetters/queueFacts.ts"
import { QueueReader } from "../src/internal/deadLetters/queueReader.ts"

const facts: QueueFacts = { type: "classic", reading: "consume", canGet: true, deliveryLimit: undefined }

const readerOf = (budget: number) => new QueueReader({} as never, "dead", facts, budget, Duration.seconds(1), 2000)

const message = (deliveryTag: number, content: Uint8Array, headers: Record<string, string> = {}): DeliveredMessage =>
  ({ deliveryTag, content, exchange: "", routingKey: "dead", redelivered: false, properties: { headers } }) as never

/** How many of the messages that have arrived can be taken. */
const taken = (reader: QueueReader) => {
  let count = 0
  while (reader.takeNow() !== undefined) count++
  return count
}

describe("A reader holds", () => {
  it("all small messages", () => {
    const reader = readerOf(2000)
    for (let i = 1; i <= 2000; i++) reader.deliver(message(i, new Uint8Array(100)))
    assert.isFalse(reader.isOverflown)
    assert.strictEqual(taken(reader), 2000)
  })

  it("at most 64 MiB of contents, the first ones in order", () => {
    const reader = readerOf(2000)
    const content = new Uint8Array(2 * 1024 * 1024)
    for (let i = 1; i <= 100; i++) reader.deliver(message(i, content))
    assert.isTrue(reader.isOverflown)
    assert.isAtMost(taken(reader), 32)
  })

  it("at most 64 MiB of headers", () => {
    const reader = readerOf(2000)
    const headers = { large: "x".repeat(100_000) }
    for (let i = 1; i <= 1000; i++) reader.deliver(message(i, new Uint8Array(0), headers))
    assert.isTrue(reader.isOverflown)
    assert.isAtMost(taken(reader), 672)
  })

  it("a message that is larger than that, on its own", () => {
    const reader = readerOf(2000)
    reader.deliver(message(1, new Uint8Array(65 * 1024 * 1024)))
    assert.isFalse(reader.isOverflown)
    assert.strictEqual(taken(reader), 1)
    reader.deliver(message(2, new Uint8Array(1)))
    assert.strictEqual(taken(reader), 1)
  })
})
