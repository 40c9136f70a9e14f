/** What is logged while a connection stays lost: that it does, and not each attempt. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConnection } from "@effect-amqp/core"
import { Clock, Effect, Logger, References, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { configOf } from "./support/amqp.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

interface Line {
  readonly level: string
  readonly message: string
  readonly at: number
  readonly annotations: Readonly<Record<string, unknown>>
}

describe("A long outage", () => {
  it.effect("is logged after 30 seconds, and then after intervals that double, with its start and its attempts", () =>
    Effect.gen(function* () {
      const lines: Array<Line> = []
      const clock = yield* Clock.clockWith(Effect.succeed)
      const logger = Logger.make(({ fiber, logLevel, message }) => {
        lines.push({
          level: logLevel,
          message: String(message),
          at: clock.currentTimeMillisUnsafe() / 1000,
          annotations: fiber.getRef(References.CurrentLogAnnotations)
        })
      })
      const about = (message: string) => lines.filter((line) => line.message === message)
      const lasting = () => about("AMQP connection still not open, trying again")
      yield* Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const { reconnect } = configOf(broker.url)
        const schedule = Schedule.spaced("5 seconds")
        yield* AmqpConnection.make(configOf(broker.url, { reconnect: { ...reconnect, schedule } }))
        yield* broker.down
        // An attempt takes time of its own, so the clock moves on however many attempts there are.
        yield* Effect.andThen(TestClock.adjust("1 second"), TestClock.withLive(Effect.sleep(1))).pipe(
          Effect.repeat({ until: () => lasting().length === 3 })
        )
      }).pipe(
        Effect.scoped,
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      const [lost] = about("AMQP connection lost, reconnecting")
      const attempts = lines.filter(({ annotations }) => annotations["attempt"] !== undefined)
      let last = lost!.at
      let interval = 30
      for (const [i, { annotations, at, level }] of attempts.entries()) {
        const isDue = at - last >= interval
        assert.strictEqual(level, isDue ? "Warn" : "Debug", `attempt ${i + 1}, ${at - last} s after the last line`)
        assert.strictEqual(annotations["attempt"], i + 1)
        assert.include(String(annotations["reason"]), "cannot reach")
        if (isDue) {
          last = at
          interval *= 2
        }
      }
      for (const { annotations, at } of lasting()) {
        assert.strictEqual(annotations["since"], new Date(lost!.at * 1000).toISOString())
        const [, minutes = 0, seconds = 0] = /^(?:(\d+)m ?)?(?:(\d+)s)?$/.exec(String(annotations["for"])) ?? []
        assert.strictEqual(Number(minutes) * 60 + Number(seconds), at - lost!.at)
      }
    })
  )
})
