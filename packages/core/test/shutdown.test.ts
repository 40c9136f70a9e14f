/** The time budget that all parts share when they stop: arithmetic, with a clock that only the test moves. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Shutdown } from "../src/internal/connection/shutdown.ts"
import { configOf } from "./support/amqp.ts"

const seconds = Duration.seconds

const make = Effect.map(
  Clock.clockWith(Effect.succeed),
  (clock) =>
    new Shutdown(configOf("amqp://localhost", { shutdownTimeout: seconds(10), closeTimeout: seconds(3) }), clock)
)

/** A part that takes this long to stop. */
const stops = (shutdown: Shutdown, time: Duration.Input) =>
  Effect.forkChild(shutdown.during(Effect.sleep(time)), { startImmediately: true })

const passes = (time: Duration.Input) => TestClock.adjust(time)

describe("The time budget that all parts share when they stop", () => {
  it.effect("is the whole of shutdownTimeout at the beginning, and closeTimeout per close", () =>
    Effect.gen(function* () {
      const shutdown = yield* make
      yield* passes("1 hour")
      assert.strictEqual(shutdown.timeLeft(), 10_000)
      assert.strictEqual(shutdown.closeTimeLeft, 3000)
    })
  )

  it.effect("is spent once by parts that stop at the same time, and again by parts that stop later", () =>
    Effect.gen(function* () {
      const shutdown = yield* make
      yield* stops(shutdown, "4 seconds")
      yield* stops(shutdown, "3 seconds")
      yield* passes("4 seconds")
      assert.strictEqual(shutdown.timeLeft(), 6000)
      yield* stops(shutdown, "5 seconds")
      yield* passes("5 seconds")
      assert.strictEqual(shutdown.timeLeft(), 1000)
      assert.strictEqual(shutdown.closeTimeLeft, 3000)
    })
  )

  it.effect("limits the closes together to two of them when it is spent", () =>
    Effect.gen(function* () {
      const shutdown = yield* make
      yield* stops(shutdown, "1 hour")
      yield* passes("10 seconds")
      assert.deepStrictEqual([shutdown.timeLeft(), shutdown.closeTimeLeft, shutdown.answerTimeLeft()], [0, 3000, 3000])
      assert.strictEqual(shutdown.settleTimeLeft, 3000)
      yield* passes("3500 millis")
      assert.deepStrictEqual(
        [shutdown.closeTimeLeft, shutdown.answerTimeLeft(), shutdown.settleTimeLeft],
        [2500, 2500, 0]
      )
      yield* passes("1 minute")
      assert.deepStrictEqual([shutdown.closeTimeLeft, shutdown.answerTimeLeft(), shutdown.settleTimeLeft], [0, 0, 0])
    })
  )

  it.effect("refills while nothing stops, at the rate at which it was spent, up to the whole", () =>
    Effect.gen(function* () {
      const shutdown = yield* make
      yield* stops(shutdown, "8 seconds")
      yield* passes("8 seconds")
      yield* passes("5 seconds")
      assert.strictEqual(shutdown.timeLeft(), 7000)
      yield* passes("1 minute")
      assert.strictEqual(shutdown.timeLeft(), 10_000)
      // Parts that come and go in normal operation, for a long time, do not reduce it.
      for (let i = 0; i < 100; i++) {
        yield* stops(shutdown, "400 millis")
        yield* passes("1 second")
      }
      assert.strictEqual(shutdown.timeLeft(), 10_000)
    })
  )

  it.effect("is longer for parts with a longer timeout of their own, and extends the end of all", () =>
    Effect.gen(function* () {
      const shutdown = yield* make
      yield* stops(shutdown, "30 seconds")
      yield* passes("2 seconds")
      assert.strictEqual(shutdown.timeLeft(30_000), 28_000)
      assert.strictEqual(shutdown.timeLeft(1000), 0)
      yield* passes("28 seconds")
      assert.deepStrictEqual([shutdown.timeLeft(), shutdown.closeTimeLeft, shutdown.settleTimeLeft], [0, 3000, 3000])
      // The extension does not last forever.
      yield* passes("1 minute")
      yield* stops(shutdown, "20 seconds")
      yield* passes("16 seconds")
      assert.strictEqual(shutdown.closeTimeLeft, 0)
    })
  )

  it.effect("is not spent any more by a part that was interrupted", () =>
    Effect.gen(function* () {
      const shutdown = yield* make
      const part = yield* stops(shutdown, "1 hour")
      yield* passes("4 seconds")
      yield* Fiber.interrupt(part)
      assert.strictEqual(shutdown.timeLeft(), 6000)
      yield* passes("4 seconds")
      assert.strictEqual(shutdown.timeLeft(), 10_000)
    })
  )
})
