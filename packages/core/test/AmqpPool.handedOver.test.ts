/** A pool whose application may open one channel: a returned channel goes to another place, whose borrower waits. */
import { assert, describe, it } from "@effect/vitest"
import { type AmqpChannel, AmqpConnection, AmqpPool } from "@effect-amqp/core"
import { Duration, Effect, Exit, Fiber, Logger, Scope } from "effect"
import { TestClock } from "effect/testing"
import { connectionInternals } from "../src/internal/connection/connectionInternals.ts"
import { onScriptedBroker } from "./support/client.ts"
import { tagOf, untilStats, withPool } from "./support/amqp.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

/** The pool's only channel is borrowed. `f` runs with the channel after it has moved to another place. */
const handedOver = <A, E, R>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { budget } = connectionInternals(yield* AmqpConnection.AmqpConnection)
    budget.linkEnded(
      { channelMax: 0, closedBy: undefined },
      "number of channels opened for user 'u' has reached the maximum allowed user limit of (1)"
    )
    const former = yield* Scope.make()
    yield* Scope.provide(AmqpPool.get, former)
    yield* TestClock.adjust("8 minutes")
    const next = yield* Effect.forkChild(Effect.scoped(Effect.flatMap(AmqpPool.get, f)), { startImmediately: true })
    yield* untilStats((stats) => stats.used === 2)
    yield* Scope.close(former, Exit.void)
    yield* Fiber.join(next)
    assert.deepInclude(yield* AmqpPool.stats, { used: 0, created: 1 })
  })

describe("a channel that is handed to a place whose borrower waits", () => {
  it.effect("keeps its age", () =>
    onScriptedBroker({ pool: { max: 2, recycle: Duration.minutes(10) } }, function* () {
      yield* handedOver(() => TestClock.adjust("2 minutes"))
      assert.deepInclude(yield* AmqpPool.stats, { recycled: 1 })
    })
  )

  it.effect("belongs to its borrower: an end that an operation fails with is not logged as well", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const lines: Array<string> = []
      yield* handedOver((channel) =>
        Effect.gen(function* () {
          broker.closeChannels(404)
          yield* until(tagOf(channel.queueDeclare("q")), (tag) => tag !== "Success", "the channel")
        })
      ).pipe(
        withPool(broker.url, { pool: { max: 2 } }),
        Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))]))
      )
      assert.notInclude(lines.join("\n"), "AMQP channel closed by the broker")
    })
  )
})
