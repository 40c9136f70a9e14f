/** Metrics report what has happened, in the shape that collectors read. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConnection, AmqpMetrics, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Metric, Stream, SubscriptionRef } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { configOf, reasonOf, untilState, untilStats } from "./support/amqp.ts"
import { until } from "./support/polling.ts"
import { count, gauge } from "./support/metrics.ts"

const states = Effect.all(
  Object.fromEntries(
    ["connecting", "open", "reconnecting", "closed"].map((state) => [
      state,
      gauge(AmqpMetrics.connectionState, { "amqp.connection.state": state })
    ])
  )
)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("on a real broker", () => {
    it.effect("channels are counted by kind and state, and so are waiting borrowers and those that timed out", () =>
      onTestBroker({ pool: { max: 1, acquireTimeout: Duration.millis(200) } }, function* () {
        const regular = { "amqp.channel.kind": "regular" }
        const release = yield* Deferred.make<void>()
        const holder = yield* Effect.forkChild(Effect.scoped(AmqpChannel.use(() => Deferred.await(release))))
        yield* untilStats(({ used }) => used === 1)
        const second = yield* Effect.forkChild(reasonOf(Effect.scoped(AmqpChannel.use(() => Effect.void))))
        yield* untilStats(({ pending }) => pending === 1)
        assert.strictEqual(yield* gauge(AmqpMetrics.channelCount, { ...regular, state: "used" }), 1)
        assert.strictEqual(yield* gauge(AmqpMetrics.channelCount, { ...regular, state: "idle" }), 0)
        assert.strictEqual(yield* gauge(AmqpMetrics.channelMax, regular), 1)
        assert.strictEqual(yield* gauge(AmqpMetrics.pendingRequests, regular), 1)
        assert.strictEqual((yield* Fiber.join(second))._tag, "AcquireTimeout")
        assert.strictEqual(yield* count(AmqpMetrics.acquireTimeouts, regular), 1)
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(holder)
        assert.strictEqual(yield* gauge(AmqpMetrics.channelCount, { ...regular, state: "idle" }), 1)
        assert.strictEqual(yield* count(AmqpMetrics.channelsCreated, regular), 1)
        yield* Effect.ignore(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("not there"))))
        assert.strictEqual(yield* count(AmqpMetrics.channelsClosed, { ...regular, reason: "discarded" }), 1)
        assert.strictEqual(yield* count(AmqpMetrics.channelsCreated, { "amqp.channel.kind": "confirm" }), 0)
      })
    )

    it.effect("publishes are counted by their outcome", () =>
      onTestBroker({}, function* () {
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("m")))
        for (let i = 0; i < 3; i++) yield* AmqpPublisher.publish({ routingKey: "m", content: "x" })
        yield* Effect.ignore(AmqpPublisher.publish({ routingKey: "nowhere", content: "x" }, { mandatory: true }))
        yield* Effect.ignore(AmqpPublisher.publish({ routingKey: "m".repeat(256), content: "x" }))
        const outcome = (name: string) => count(AmqpMetrics.sentMessages, { "amqp.outcome": name })
        assert.strictEqual(yield* outcome("confirmed"), 3)
        assert.strictEqual(yield* outcome("returned"), 1)
        assert.strictEqual(yield* outcome("refused"), 1)
        assert.strictEqual(yield* outcome("unknown"), 0)
        assert.strictEqual(yield* gauge(AmqpMetrics.inFlight), 0)
        assert.strictEqual(yield* gauge(AmqpMetrics.publisherChannels), 1)
      })
    )

    it.effect("a collector gets all metrics, and none when the application has ended", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const registry: Metric.MetricRegistry = new Map()
        const collect = Effect.provideService(PrometheusMetrics.format(), Metric.MetricRegistry, registry)
        yield* Effect.gen(function* () {
          yield* AmqpPool.stats
          const text = yield* collect
          for (const line of [
            'amqp_client_connection_state{amqp_connection_name="orders",amqp_connection_state="open"} 1',
            'amqp_client_channel_max{amqp_connection_name="orders",amqp_channel_kind="regular"} 4',
            'messaging_client_sent_messages{amqp_connection_name="orders",amqp_outcome="confirmed"} 0',
            "amqp_client_connection_blocked_time"
          ]) {
            assert.include(text, line)
          }
        }).pipe(
          Effect.provide(Amqp.fromConfig(configOf(url, { connectionName: "orders" })), { local: true }),
          Effect.provideService(Metric.MetricRegistry, registry)
        )
        assert.strictEqual(registry.size, 0)
        assert.notInclude(yield* collect, "amqp")
      })
    )
  })
})

describe("the connection", () => {
  it.live("is in one state at a time; reconnects and failed attempts are counted", () =>
    onScriptedBroker({}, function* (broker) {
      assert.deepStrictEqual(yield* states, { connecting: 0, open: 1, reconnecting: 0, closed: 0 })
      yield* broker.down
      yield* untilState((state) => state._tag === "Reconnecting" && state.attempt >= 2)
      assert.deepStrictEqual(yield* states, { connecting: 0, open: 0, reconnecting: 1, closed: 0 })
      assert.isAtLeast(yield* gauge(AmqpMetrics.connectAttempts), 2)
      assert.strictEqual(yield* count(AmqpMetrics.reconnects), 0)
      yield* broker.up
      yield* untilState(({ _tag }) => _tag === "Open")
      assert.strictEqual(yield* gauge(AmqpMetrics.connectAttempts), 0)
      yield* until(count(AmqpMetrics.reconnects), (reconnects) => reconnects === 1)
    })
  )

  it.live("counts the time for which it was blocked, during the block and afterwards", () =>
    onScriptedBroker({}, function* (broker) {
      assert.strictEqual(yield* count(AmqpMetrics.blockedTime), 0)
      broker.block("low on memory")
      yield* until(count(AmqpMetrics.blockedTime), (seconds) => seconds > 0)
      broker.unblock()
      const { flow } = yield* AmqpConnection.AmqpConnection
      yield* Stream.runHead(Stream.filter(SubscriptionRef.changes(flow), ({ _tag }) => _tag === "Flowing"))
      yield* Effect.sleep(5)
      const after = yield* count(AmqpMetrics.blockedTime)
      assert.isAbove(after, 0)
      yield* Effect.sleep(20)
      assert.strictEqual(yield* count(AmqpMetrics.blockedTime), after)
    })
  )
})
