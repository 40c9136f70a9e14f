/** Durations and outcomes, as collectors read them. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpMetrics, AmqpPool, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber, Metric, Schema, Stream } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { Histogram } from "../src/internal/metrics/histogram.ts"
import { type Overrides, untilStats } from "./support/amqp.ts"
import { until } from "./support/polling.ts"
import { withAmqp, count, value } from "./support/metrics.ts"
import { declare } from "./support/queues.ts"

/** An application with its own registry, on the test's broker. */
const onBroker =
  (overrides?: Overrides) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => effect.pipe(Effect.scoped, withAmqp(url, overrides)))

const times = (metric: Metric.Histogram<number>, attributes: Readonly<Record<string, string>>) =>
  value(metric, attributes)

const of = (name: string, outcome: string) => ({
  "messaging.system": "rabbitmq",
  "messaging.operation.name": name,
  "amqp.outcome": outcome
})

const settled = Effect.all(
  Object.fromEntries(
    ["acked", "requeued", "dead_lettered", "dropped", "retried", "skipped", "lost"].map((settlement) => [
      settlement,
      count(AmqpMetrics.settledMessages, { "amqp.settlement": settlement })
    ])
  )
)

const regular = { "amqp.channel.kind": "regular" }

describe("a histogram", () => {
  it("puts a time into the first bucket whose bound it does not exceed, and reports seconds", () => {
    const histogram = new Histogram()
    assert.deepStrictEqual([histogram.state.count, histogram.state.sum], [0, 0])
    for (const milliseconds of [0, 0.5, 0.6, 10, 11, 10_000, 10_001]) histogram.record(milliseconds)
    const { buckets, count, max, min, sum } = histogram.state
    const upTo = Object.fromEntries(buckets)
    assert.deepStrictEqual(
      [upTo[0.0005], upTo[0.001], upTo[0.005], upTo[0.01], upTo[0.025], upTo[7.5], upTo[10]],
      [2, 3, 3, 4, 5, 5, 6]
    )
    assert.deepStrictEqual([count, min, max], [7, 0, 10.001])
    assert.closeTo(sum, 20.0231, 1e-9)
  })
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("times", () => {
    it.effect("of publishes are measured from the call to the outcome, by outcome", () =>
      Effect.gen(function* () {
        yield* declare("timed")
        for (let i = 0; i < 3; i++) yield* AmqpPublisher.publish({ routingKey: "timed", content: "x" })
        yield* Effect.ignore(AmqpPublisher.publish({ routingKey: "nowhere", content: "x" }, { mandatory: true }))
        yield* Stream.runDrain(AmqpPublisher.publishAll([{ routingKey: "timed", content: "x" }]))
        const confirmed = yield* times(AmqpMetrics.operationDuration, of("publish", "confirmed"))
        assert.strictEqual(confirmed.count, 4)
        assert.isAbove(confirmed.min, 0)
        assert.isAtLeast(confirmed.max, confirmed.min)
        assert.isBelow(confirmed.max, 10)
        assert.isAtLeast(confirmed.sum, confirmed.max)
        assert.strictEqual((yield* times(AmqpMetrics.operationDuration, of("publish", "returned"))).count, 1)
        assert.strictEqual((yield* times(AmqpMetrics.operationDuration, of("publish", "unknown"))).count, 0)
      }).pipe(onBroker())
    )

    it.effect("of borrows are how long the borrower waited for the channel, and how long it held it", () =>
      Effect.gen(function* () {
        yield* Effect.scoped(AmqpChannel.use(() => Effect.void))
        // A borrower does not wait for an idle channel.
        const pool = yield* AmqpPool.AmqpPool
        yield* pool.use(() => Effect.void)
        const release = yield* Deferred.make<void>()
        const holder = yield* Effect.forkChild(pool.use(() => Deferred.await(release)))
        yield* untilStats(({ used }) => used === 1)
        const second = yield* Effect.forkChild(Effect.scoped(AmqpChannel.use(() => Effect.void)))
        yield* untilStats(({ pending }) => pending === 1)
        yield* Effect.sleep("60 millis")
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(holder)
        yield* Fiber.join(second)
        const waits = yield* times(AmqpMetrics.waitTime, regular)
        assert.deepStrictEqual([waits.count, waits.min], [4, 0])
        assert.isAtLeast(waits.max, 0.05)
        const uses = yield* times(AmqpMetrics.useTime, regular)
        assert.strictEqual(uses.count, 4)
        assert.isAtLeast(uses.max, 0.05)
        assert.isBelow(uses.min, 0.05)
        assert.strictEqual((yield* times(AmqpMetrics.useTime, { "amqp.channel.kind": "confirm" })).count, 0)
      }).pipe(onBroker({ pool: { max: 1 } }))
    )

    it.effect("of handlers are counted by success and failure, deliveries by how they were settled", () =>
      Effect.gen(function* () {
        yield* declare("handled")
        const policies: Record<string, AmqpConsumer.Policy> = {
          drop: AmqpConsumer.drop,
          dead: AmqpConsumer.deadLetter,
          again: AmqpConsumer.requeue,
          later: AmqpConsumer.retry({ delay: 10, times: 1 })
        }
        const failing = (delivery: AmqpConsumer.Delivery) => {
          const { type } = delivery.properties
          if (type === "slow") return Effect.sleep("60 millis")
          return delivery.attempt === 1 ? Effect.fail(type ?? "") : Effect.void
        }
        const consumer = yield* Effect.forkChild(
          AmqpConsumer.consume("handled", failing, { onFailure: (type) => policies[type]! })
        )
        for (const type of ["slow", "drop", "dead", "again", "later"]) {
          yield* AmqpPublisher.publish({ routingKey: "handled", content: "x", type })
        }
        const all = yield* until(settled, ({ acked }) => acked === 3)
        assert.deepStrictEqual(all, {
          acked: 3,
          requeued: 1,
          dead_lettered: 1,
          dropped: 1,
          retried: 1,
          skipped: 0,
          lost: 0
        })
        assert.strictEqual(yield* count(AmqpMetrics.consumedMessages), 7)
        assert.strictEqual(yield* count(AmqpMetrics.redeliveries), 1)
        const succeeded = yield* times(AmqpMetrics.processDuration, of("process", "succeeded"))
        assert.strictEqual(succeeded.count, 3)
        assert.isAtLeast(succeeded.max, 0.05)
        assert.strictEqual((yield* times(AmqpMetrics.processDuration, of("process", "failed"))).count, 4)
        yield* Fiber.interrupt(consumer)
        // A batch counts as one handling, and so does what a stream takes.
        for (let i = 0; i < 3; i++) yield* AmqpPublisher.publish({ routingKey: "handled", content: "x" })
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch("handled", () => Effect.void, { size: 2, within: "10 seconds" })
        )
        yield* until(settled, ({ acked }) => acked === 5)
        assert.strictEqual((yield* times(AmqpMetrics.processDuration, of("process", "succeeded"))).count, 4)
      }).pipe(onBroker())
    )

    it.effect("deliveries whose channel ended while their handler ran are counted as lost", () =>
      Effect.gen(function* () {
        yield* declare("lost")
        const broker = yield* TestBroker.TestBroker
        const started = yield* Deferred.make<AmqpConsumer.Delivery>()
        const release = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("lost", (delivery) =>
            delivery.redelivered
              ? Effect.void
              : Effect.andThen(Deferred.succeed(started, delivery), Deferred.await(release))
          )
        )
        yield* AmqpPublisher.publish({ routingKey: "lost", content: "x" })
        const delivery = yield* Deferred.await(started)
        yield* broker.closeConnections()
        yield* until(
          Effect.sync(() => delivery.isSettled),
          (isSettled) => isSettled
        )
        yield* Deferred.succeed(release, undefined)
        const all = yield* until(settled, ({ acked, lost }) => acked === 1 && lost === 1)
        assert.deepInclude(all, { acked: 1, lost: 1 })
        assert.strictEqual(yield* count(AmqpMetrics.redeliveries), 1)
      }).pipe(onBroker())
    )
  })

  describe("outcomes", () => {
    it.effect("channels are discarded with a reason", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const discarded = (reason: string) => count(AmqpMetrics.channelsDiscarded, { ...regular, reason })
        yield* Effect.ignore(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("not there"))))
        assert.strictEqual(yield* discarded("channel_error"), 1)
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.qos(7)))
        assert.strictEqual(yield* discarded("unclean"), 1)
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.flatMap(
              Effect.forkChild(channel.queueDeclare("interrupted"), { startImmediately: true }),
              Fiber.interrupt
            )
          )
        )
        assert.strictEqual(yield* discarded("interrupted"), 1)
        yield* Effect.scoped(
          AmqpChannel.use(() =>
            Effect.andThen(
              broker.closeConnections(),
              until(count(AmqpMetrics.reconnects), (reconnects) => reconnects > 0)
            )
          )
        )
        assert.strictEqual(yield* discarded("connection_lost"), 1)
        assert.strictEqual(yield* discarded("defect"), 0)
        assert.strictEqual(yield* count(AmqpMetrics.channelsClosed, { ...regular, reason: "discarded" }), 4)
      }).pipe(onBroker())
    )

    it.effect("requests are counted by how they end, replies by their type", () =>
      Effect.gen(function* () {
        const Try = AmqpRpc.make("try", { payload: Schema.Finite, error: Schema.String })
        const attempt = AmqpRpc.client(Try)
        yield* declare("try")
        const fiber = yield* Effect.forkChild(attempt(0), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        yield* Effect.ignore(attempt(0, { timeout: "20 millis" }))
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queuePurge("try")))
        yield* Effect.forkScoped(
          AmqpRpc.serve(Try, (what) => (what === 1 ? Effect.void : what === 2 ? Effect.fail("no") : Effect.die("bad")))
        )
        for (const what of [1, 1, 2, 3]) yield* Effect.ignore(attempt(what))
        const Nowhere = AmqpRpc.make("nowhere")
        const nowhere = AmqpRpc.client(Nowhere)
        yield* Effect.ignore(nowhere(undefined))
        const ended = yield* Effect.forEach(["replied", "failed", "timed_out", "given_up"], (outcome) =>
          count(AmqpMetrics.calls, { "amqp.outcome": outcome })
        )
        assert.deepStrictEqual(ended, [4, 1, 1, 1])
        assert.strictEqual((yield* times(AmqpMetrics.operationDuration, of("call", "replied"))).count, 4)
        const replies = yield* Effect.forEach(["success", "failure", "defect"], (reply) =>
          count(AmqpMetrics.serverReplies, { "amqp.rpc.reply": reply })
        )
        assert.deepStrictEqual(replies, [2, 1, 1])
        assert.strictEqual(yield* count(AmqpMetrics.unclaimedReplies), 0)
      }).pipe(onBroker())
    )

    it.effect("a hundred queues add no series, and Prometheus reads them all", () =>
      Effect.gen(function* () {
        const registry = yield* Metric.MetricRegistry
        const before = registry.size
        for (let i = 0; i < 100; i++) {
          yield* Effect.ignore(AmqpPublisher.publish({ routingKey: `no ${i}`, content: "x" }, { mandatory: true }))
        }
        assert.strictEqual(registry.size, before)
        assert.isBelow(before, 120)
        const text = yield* PrometheusMetrics.format()
        for (const line of [
          /^messaging_client_operation_duration_count\{.*amqp_outcome="returned".*\} 100$/m,
          /^messaging_client_operation_duration_bucket\{.*amqp_outcome="returned".*le="10"\} 100$/m,
          /^messaging_process_duration_count\{.*amqp_outcome="failed".*\} 0$/m,
          /^amqp_client_channel_wait_time_bucket\{.*amqp_channel_kind="regular".*le="\+Inf"\} 0$/m,
          /^amqp_client_consumer_settled\{.*amqp_settlement="acked".*\} 0$/m
        ]) {
          assert.match(text, line)
        }
      }).pipe(onBroker())
    )
  })
})
