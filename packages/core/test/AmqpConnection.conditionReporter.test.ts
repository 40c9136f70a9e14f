/** Conditions that other packages report are read like the library's own, and end with the scope of their reporter. */
import { assert, layer } from "@effect/vitest"
import { AmqpConnection, AmqpMetrics } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Exit, Layer, Scope } from "effect"
import { onBroker } from "./support/consumers.ts"
import { gauge, withAmqp } from "./support/metrics.ts"

const conditions = Effect.map(AmqpConnection.conditions, (all) =>
  all.map(({ kind, message, notReady }) => ({ kind, message, notReady }))
)

/** Runs an effect with a connection that has the declared members only. */
const byHand = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(AmqpConnection.AmqpConnection, ({ config, flow, state }) =>
    Effect.provide(effect, Layer.mock(AmqpConnection.AmqpConnection, { config, flow, state }))
  )

const waiting = { kind: "OrdersWaiting", message: "12 orders wait", notReady: false }

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("a reporter has one condition, which it replaces and clears", () =>
    Effect.gen(function* () {
      const reporter = yield* AmqpConnection.conditionReporter
      yield* reporter.clear
      assert.deepStrictEqual(yield* conditions, [])
      yield* reporter.report(waiting)
      assert.deepStrictEqual(yield* conditions, [waiting])
      const since = (yield* AmqpConnection.conditions)[0]!.since
      assert.isAtMost(Math.abs(Date.now() - since), 10_000)
      const more = { ...waiting, message: "13 orders wait", notReady: true }
      yield* reporter.report(more)
      assert.deepStrictEqual(yield* AmqpConnection.conditions, [{ ...more, since }])
      yield* reporter.clear
      assert.deepStrictEqual(yield* conditions, [])
    }).pipe(onBroker)
  )

  it.effect("reporters do not replace one another's conditions, and one that is closed reports nothing", () =>
    Effect.gen(function* () {
      const [first, second] = [yield* Scope.make(), yield* Scope.make()]
      const one = yield* Scope.provide(AmqpConnection.conditionReporter, first)
      const other = yield* Scope.provide(AmqpConnection.conditionReporter, second)
      yield* one.report(waiting)
      yield* other.report(waiting)
      assert.deepStrictEqual(yield* conditions, [waiting, waiting])
      yield* Scope.close(first, Exit.void)
      assert.deepStrictEqual(yield* conditions, [waiting])
      yield* one.report(waiting)
      assert.deepStrictEqual(yield* conditions, [waiting])
      yield* Scope.close(second, Exit.void)
      assert.deepStrictEqual(yield* conditions, [])
    }).pipe(onBroker)
  )

  it.effect("metrics count them by kind", () =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
      Effect.gen(function* () {
        const reporter = yield* AmqpConnection.conditionReporter
        yield* reporter.report(waiting)
        assert.strictEqual(yield* gauge(AmqpMetrics.conditions, { "amqp.condition.kind": waiting.kind }), 1)
        yield* reporter.clear
        assert.strictEqual(yield* gauge(AmqpMetrics.conditions, { "amqp.condition.kind": waiting.kind }), 0)
      }).pipe(Effect.scoped, withAmqp(url))
    )
  )

  it.effect("a connection made by hand reports nothing", () =>
    Effect.gen(function* () {
      const reporter = yield* AmqpConnection.conditionReporter
      yield* reporter.report(waiting)
      yield* reporter.clear
      assert.deepStrictEqual(yield* conditions, [])
    }).pipe(byHand, onBroker)
  )
})
