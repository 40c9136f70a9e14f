/** The services of the library on a broker in memory, as applications test with them. */
import { AmqpConsumer, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { AmqpTest } from "@effect-amqp/core/testing"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"

const orders = AmqpTopology.workQueue("orders", { retryDelays: ["1 minute", "10 minutes"] })

it.effect("a worker's retries over minutes take one adjustment of the TestClock", () =>
  Effect.gen(function* () {
    const attempts: Array<number> = []
    yield* AmqpConsumer.consume(
      "orders",
      ({ attempt }) => {
        attempts.push(attempt)
        return attempt < 3 ? Effect.fail("busy" as const) : Effect.void
      },
      { onFailure: orders.onFailure }
    ).pipe(Effect.forkScoped)
    yield* AmqpPublisher.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
    yield* AmqpTest.adjust("11 minutes")
    assert.deepStrictEqual(attempts, [1, 2, 3])
  }).pipe(Effect.provide(AmqpTopology.layer(orders)), Effect.provide(AmqpTest.layer()))
)

// The README shows this test.
it.effect("an order that fails three times is a dead letter", () =>
  Effect.gen(function* () {
    yield* Effect.forkScoped(AmqpConsumer.consume("orders", () => Effect.fail("busy"), { onFailure: orders.onFailure }))
    yield* AmqpPublisher.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
    yield* AmqpTest.adjust("11 minutes")
    const { messages } = yield* AmqpTest.queue("orders.dlq")
    assert.deepStrictEqual(
      messages.map(({ text }) => text),
      ["one order"]
    )
  }).pipe(Effect.provide(AmqpTopology.layer(orders)), Effect.provide(AmqpTest.layer()))
)

it.effect("a handler that sleeps on the TestClock does not keep the layer open", () =>
  Effect.gen(function* () {
    yield* Effect.forkScoped(AmqpConsumer.consume("orders", () => Effect.sleep("1 hour")))
    yield* AmqpPublisher.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
    yield* AmqpTest.adjust("1 second")
    assert.deepInclude(yield* AmqpTest.queue("orders"), { ready: 0, unsettled: 1 })
  }).pipe(Effect.provide(AmqpTopology.layer(orders)), Effect.provide(AmqpTest.layer()))
)
