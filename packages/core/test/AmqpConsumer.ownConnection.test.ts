/** The consumers' own connection, as it is observed without consuming. */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpMetrics } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Exit, Fiber, Layer, Metric, References, Scope, Stream, SubscriptionRef } from "effect"
import { configOf } from "./support/amqp.ts"

const named = { "amqp.connection.name": "shop consumers" }

const metrics = Effect.gen(function* () {
  const states = yield* Effect.forEach(["connecting", "open", "reconnecting", "closed"], (state) =>
    Metric.value(Metric.withAttributes(AmqpMetrics.connectionState, { ...named, "amqp.connection.state": state }))
  )
  const { count } = yield* Metric.value(Metric.withAttributes(AmqpMetrics.reconnects, named))
  return { states: states.map(({ value }) => value), reconnects: count }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect(
    "exists while there is a consumer, is observed without keeping it open, and is counted like the other connection",
    () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(
          Amqp.fromConfig(configOf(broker.url, { connectionName: "shop" })),
          scope
        )
        const own = yield* Effect.provideContext(AmqpConsumer.ownConnection, services)
        const nameNow = () => own.value?.config.connectionName
        yield* Effect.gen(function* () {
          assert.isUndefined(nameNow())
          assert.deepStrictEqual(yield* metrics, { states: [0, 0, 0, 0], reconnects: 0 })
          yield* broker.awaitCensus({ connections: 1 })
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("work")))
          const consumer = yield* Effect.forkChild(Effect.exit(AmqpConsumer.consume("work", () => Effect.void)), {
            startImmediately: true
          })
          const untilOpen = (generation: number) =>
            SubscriptionRef.changes(own).pipe(
              Stream.switchMap((connection) =>
                connection === undefined ? Stream.empty : SubscriptionRef.changes(connection.state)
              ),
              Stream.filter((state) => state._tag === "Open" && state.generation === generation),
              Stream.runHead,
              Effect.timeout("10 seconds")
            )
          yield* untilOpen(1)
          assert.strictEqual(nameNow(), "shop consumers")
          assert.deepStrictEqual(yield* metrics, { states: [0, 1, 0, 0], reconnects: 0 })
          yield* broker.closeConnections()
          yield* untilOpen(2)
          // The metrics are updated at the same time.
          yield* Effect.repeat(Effect.tap(metrics, Effect.sleep("2 millis")), {
            until: ({ reconnects }) => reconnects === 1
          }).pipe(Effect.timeout("5 seconds"))
          yield* Fiber.interrupt(consumer)
        }).pipe(Effect.provideContext(services))
        yield* Scope.close(scope, Exit.void)
        assert.isUndefined(nameNow())
        yield* broker.awaitCensus({ connections: 0 })
      }).pipe(
        Effect.provideService(Metric.MetricRegistry, new Map()),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
  )
})
