/** The worker as its users run it, and the queues that it leaves behind. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { Broker, drain } from "./support/broker.ts"
import { run } from "./support/program.ts"

/** The worker, once it has placed its five orders. */
const start = Effect.gen(function* () {
  const { url } = yield* TestBroker.TestBroker
  const program = yield* run("worker.ts", { AMQP_URL: url })
  yield* program.until(/5 orders are placed/)
  return program
})

/** Every line of an output that matches. */
const lines = (output: string, pattern: RegExp) => output.split("\n").filter((line) => pattern.test(line))

/**
 * So many orders shipped. The broker counts what is in a quorum queue, such as one with a delay, up to five seconds later:
 * its counts do not say that nothing waits for a retry.
 */
const shipments = (count: number) => new RegExp(`(?:: shipped[^]*){${count}}`)

const unicorn = '{"id":3,"product":"unicorn"}'

// The program starts with Node's own pace, and the broker counts late.
const timeout = 90_000

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("worker.ts", () => {
    it.effect(
      "ships what can be shipped, after a retry too, and dead-letters the rest",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, queues } = yield* TestBroker.TestBroker
          const program = yield* start
          yield* Effect.provide(AmqpPublisher.publish({ routingKey: "shipments", content: "no order" }), Broker)
          yield* program.until(shipments(4))
          // All that is left then are two dead letters.
          yield* awaitCensus({ messages: 2, unacked: 0 }, { timeout: "20 seconds" })
          yield* program.kill("SIGINT")
          assert.deepStrictEqual(yield* program.ended, { code: 130, signal: null }, program.output())
          assert.deepStrictEqual(
            lines(program.output(), /: shipped$/).toSorted(),
            [1, 2, 4, 5].map((id) => `Order ${id}: shipped`)
          )
          assert.deepStrictEqual(lines(program.output(), /attempt 2$/), ["Order 2: shipping piano, attempt 2"])
          assert.match(program.output(), /CarrierBusy: Not now\.[^]*OutOfStock: We are out of unicorns\./)
          assert.deepStrictEqual((yield* queues).map(({ name }) => name).toSorted(), [
            "shipments",
            "shipments.delay.1000",
            "shipments.delay.10000",
            "shipments.dlq"
          ])
          assert.deepStrictEqual((yield* drain("shipments.dlq")).toSorted(), ["no order", unicorn])
          yield* awaitCensus({ connections: 0, channels: 0, messages: 0 })
        }),
      timeout
    )

    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      it.effect(
        `at ${signal}, finishes what it has begun, and leaves the rest to the next worker`,
        () =>
          Effect.gen(function* () {
            const { awaitCensus } = yield* TestBroker.TestBroker
            const first = yield* start
            yield* first.until(/shipping/)
            yield* first.kill(signal)
            assert.deepStrictEqual(yield* first.ended, { code: 130, signal: null }, first.output())
            const begun = lines(first.output(), /shipping/).length
            const shipped = lines(first.output(), /shipped/).length
            const failed = lines(first.output(), /AMQP delivery failed/).length
            assert.strictEqual(shipped + failed, begun, first.output())
            yield* awaitCensus(
              { connections: 0, channels: 0, messages: 5 - shipped, unacked: 0 },
              { timeout: "20 seconds" }
            )
            // A second one has what is left, and five more.
            const second = yield* start
            yield* second.until(shipments(8 - shipped))
            yield* awaitCensus({ messages: 2, unacked: 0 }, { timeout: "20 seconds" })
            yield* second.kill(signal)
            assert.deepStrictEqual(yield* second.ended, { code: 130, signal: null }, second.output())
            assert.deepStrictEqual(
              lines(first.output() + second.output(), /: shipped$/).toSorted(),
              [1, 1, 2, 2, 4, 4, 5, 5].map((id) => `Order ${id}: shipped`)
            )
            assert.deepStrictEqual(yield* drain("shipments.dlq"), [unicorn, unicorn])
            yield* awaitCensus({ connections: 0, channels: 0, messages: 0 })
          }),
        timeout
      )
    }
  })
})
