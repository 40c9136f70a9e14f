/** Recycling, on the test clock and a scripted broker, and the pool's minimum of open channels. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { Duration, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { onScriptedBroker } from "./support/client.ts"
import { untilStats } from "./support/amqp.ts"

const minutes = Duration.minutes

const borrowAll = (n: number) =>
  Effect.scoped(Effect.forEach(Array.from({ length: n }), () => AmqpPool.get, { discard: true, concurrency: n }))

describe("11. Recycling by age (with jitter) and by idleness are two settings; neither resets the other; none cuts a borrower off.", () => {
  it.effect("a channel in constant use is replaced at its age, between 90 % and 100 % of recycle", () =>
    onScriptedBroker({ pool: { max: 1, recycle: minutes(10), idleTimeout: minutes(2) } }, function* () {
      for (let minute = 0; minute < 100; minute++) {
        yield* borrowAll(1)
        yield* TestClock.adjust("1 minute")
      }
      const { created } = yield* AmqpPool.stats
      // A channel is never idle for two minutes here, so every replacement is by age. Use does not make a channel
      // younger.
      assert.isAtLeast(created, 10)
      assert.isAtMost(created, 12)
    })
  )

  it.effect("channels that were opened together do not all reach their age together", () =>
    onScriptedBroker({ pool: { max: 32, recycle: minutes(10) } }, function* () {
      yield* borrowAll(32)
      yield* TestClock.adjust("8 minutes")
      yield* TestClock.adjust("55 seconds")
      assert.deepInclude(yield* AmqpPool.stats, { idle: 32, recycled: 0 })
      yield* TestClock.adjust("35 seconds")
      const { recycled } = yield* AmqpPool.stats
      assert.isAbove(recycled, 0)
      assert.isBelow(recycled, 32)
      yield* TestClock.adjust("35 seconds")
      assert.deepInclude(yield* AmqpPool.stats, { recycled: 32 })
    })
  )

  it.effect("idle channels are closed after idleTimeout, however young, and borrowed channels stay", () =>
    onScriptedBroker({ pool: { max: 4, idleTimeout: minutes(2) } }, function* (broker) {
      yield* borrowAll(4)
      for (let minute = 0; minute < 3; minute++) {
        yield* borrowAll(1)
        yield* TestClock.adjust("1 minute")
      }
      yield* untilStats((stats) => stats.recycled === 3)
      assert.deepInclude(yield* AmqpPool.stats, { idle: 1, created: 4, discarded: 0 })
      yield* broker.until((now) => now.openChannels === 1)
    })
  )

  it.effect("neither cuts a borrower off: a channel that is held past its age is replaced when it is returned", () =>
    onScriptedBroker({ pool: { max: 1, recycle: minutes(10), idleTimeout: minutes(2) } }, function* (broker) {
      const scope = yield* Scope.make()
      const channel = yield* Scope.provide(AmqpPool.get, scope)
      yield* TestClock.adjust("1 hour")
      yield* channel.queueDeclare("still mine")
      assert.deepInclude(yield* AmqpPool.stats, { used: 1, recycled: 0 })
      yield* Scope.close(scope, Exit.void)
      yield* broker.received("channel.close")
      yield* borrowAll(1)
      assert.deepInclude(yield* AmqpPool.stats, { created: 2, recycled: 1, discarded: 0 })
    })
  )

  it.effect("an idle channel past its age is replaced at checkout if the sweep has not reached it", () =>
    onScriptedBroker({ pool: { max: 1, recycle: minutes(10) } }, function* () {
      yield* borrowAll(1)
      yield* TestClock.setTime(Duration.toMillis(minutes(10)))
      yield* borrowAll(1)
      assert.deepInclude(yield* AmqpPool.stats, { created: 2, recycled: 1 })
    })
  )

  it.effect("with neither, a channel lives as long as its connection", () =>
    onScriptedBroker({}, function* () {
      yield* borrowAll(2)
      yield* TestClock.adjust("30 days")
      assert.deepInclude(yield* AmqpPool.stats, { idle: 2, created: 2, recycled: 0 })
    })
  )
})

describe("min", () => {
  it.effect("channels are open before the first borrow, and are kept open", () =>
    onScriptedBroker({ pool: { min: 2, max: 4, idleTimeout: minutes(2) } }, function* (broker) {
      yield* untilStats((stats) => stats.idle === 2)
      yield* borrowAll(4)
      yield* TestClock.adjust("5 minutes")
      yield* untilStats((stats) => stats.recycled === 2 && stats.idle === 2)
      broker.closeChannels(541)
      yield* untilStats((stats) => stats.idle === 0)
      yield* TestClock.adjust("10 seconds")
      yield* untilStats((stats) => stats.idle === 2)
      yield* AmqpChannel.use(() => Effect.void)
    })
  )
})
