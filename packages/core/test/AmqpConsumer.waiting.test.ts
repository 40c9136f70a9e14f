/** Deliveries that wait in memory longer than they should: a warning that says what to do. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Stream } from "effect"
import { adviceOf } from "../src/internal/consumer/longWaits.ts"
import { declareQueue, logged, onBroker, send, untilQueue } from "./support/consumers.ts"

const texts = (count: number) => Array.from({ length: count }, (_, i) => String(i))

const warningsOf = (lines: ReadonlyArray<{ readonly level: string; readonly text: string }>) =>
  lines.filter(({ level, text }) => level === "Warn" && text.startsWith("AMQP deliveries have waited"))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("Deliveries that have waited for a third of the consumer timeout cause one warning, with the remedy.", () => {
    it.effect("of a consumer with handlers", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          yield* send(queue, ...texts(40))
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, () => Effect.sleep("50 millis"), {
              prefetch: 40,
              consumerTimeout: "900 millis"
            })
          )
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
          const warnings = warningsOf(lines)
          assert.lengthOf(warnings, 1)
          assert.match(warnings[0]!.text, /lower prefetch from 40 to [1-3],? or raise concurrency from 1 to \d+/)
          assert.include(warnings[0]!.text, `"queue":"${queue}"`)
        })
      ).pipe(onBroker)
    )

    it.effect("of batches, and of a handler that never ends", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          yield* send(queue, ...texts(10))
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consumeBatch(queue, () => Effect.never, {
              size: 2,
              within: "1 hour",
              consumerTimeout: "900 millis",
              shutdownTimeout: 0
            })
          )
          yield* Effect.repeat(
            Effect.sync(() => warningsOf(lines).length),
            { until: (count) => count > 0 }
          )
          assert.match(warningsOf(lines)[0]!.text, /lower prefetch from 250 to 2, or raise concurrency from 1 to 125 /)
          yield* Fiber.interrupt(consumer)
        })
      ).pipe(onBroker)
    )

    it.effect("of a stream, by the timeout that its queue was declared with", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "quorum", arguments: { "x-consumer-timeout": 3000 } })
          yield* send(queue, ...texts(16))
          yield* AmqpConsumer.stream(queue).pipe(
            Stream.tap((delivery) => Effect.andThen(Effect.sleep("100 millis"), delivery.ack)),
            Stream.take(15),
            Stream.runDrain
          )
          assert.lengthOf(warningsOf(lines), 1)
          assert.include(warningsOf(lines)[0]!.text, "take deliveries faster")
        })
      ).pipe(onBroker)
    )

    it.effect("not where each delivery is handled as it arrives, however long its handler takes", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          yield* send(queue, ...texts(3))
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, () => Effect.sleep("400 millis"), {
              prefetch: 1,
              consumerTimeout: "600 millis"
            })
          )
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
          assert.deepStrictEqual(warningsOf(lines), [])
        })
      ).pipe(onBroker)
    )
  })
})

plain("the last of a prefetch of 250 waits 41 minutes with a concurrency of 1 and a handler of 10 s", () => {
  const minute = 60_000
  const about = { waited: 10 * minute, consumerTimeout: 30 * minute, prefetch: 250, leastPrefetch: 1, taken: 60 }
  assert.strictEqual(
    adviceOf({ ...about, concurrency: 1 }),
    "AMQP deliveries have waited in memory for 10m, a third of the consumer timeout of 30m, after which the broker takes them back: 60 were taken in that time, and the last of 250 waits about 41m 40s. To avoid this, lower prefetch from 250 to 30, or raise concurrency from 1 to 6"
  )
})
