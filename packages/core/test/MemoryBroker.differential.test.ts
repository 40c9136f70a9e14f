/** The short form of `npm run chaos -- --memory`, and whether it detects differences. */
import { TestBroker } from "@effect-amqp/core/testing"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { compare, compareRequests, report, run, shrink, versionOf } from "../chaos/differential/differential.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })("beside RabbitMQ", (it) => {
  it.effect(
    "random programs see the same, step by step",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const version = yield* versionOf(url)
        const found = yield* run({ url, version, seed: 1, programs: 40, steps: 25, most: 1, waits: false })
        assert.deepStrictEqual(found.map(report), [])
      }),
    120_000
  )

  it.effect(
    "single requests get the same answers, or an error that names what the memory broker does not have",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const { disagreements, leftOut } = yield* compareRequests(url, yield* versionOf(url))
        assert.deepStrictEqual(disagreements, [])
        // Otherwise nothing would be compared.
        assert.isBelow(leftOut.length, 40)
      }),
    120_000
  )

  it.effect(
    "a difference is found, and becomes a small program",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        // A memory broker that plays another version than the broker beside it.
        const version = (yield* versionOf(url)) === "4.3" ? "3.10" : "4.3"
        const queue = { do: "declareQueue", queue: 0, durable: true, exclusive: false, autoDelete: false } as const
        const single = { ...queue, queue: 1, args: { "x-queue-type": "quorum", "x-single-active-consumer": true } }
        const get = { do: "get", queue: 1, noAck: false } as const
        const steps = [{ ...queue, args: {} }, single, { do: "purge", queue: 0 }, get, { do: "recover" }] as const
        const found = yield* compare(1, steps, url, version)
        assert.strictEqual(found?.index, 3)
        assert.deepStrictEqual((yield* shrink(found!, url, version)).steps, [single, get])
      }),
    120_000
  )
})
