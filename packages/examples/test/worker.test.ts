/** The worker on a broker in memory, then as its users run it, and the queues that it leaves behind. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { AmqpTest, TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, type Scope } from "effect"
import { TestConsole } from "effect/testing"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { Broker, drain } from "./support/broker.ts"
import { run } from "./support/program.ts"
import { bringBack, place, products, Shipments, shipments as queues, worker } from "../src/worker.ts"

/** The worker, after it has placed its five orders. */
const start = Effect.fn("start")(function* (env: Readonly<Record<string, string>> = {}) {
  const { url } = yield* TestBroker.TestBroker
  const program = yield* run("worker.ts", { AMQP_URL: url, ...env })
  yield* program.until(/5 orders are placed/)
  return program
})

/** The path of a database file that is removed with the scope. */
const databaseFile: Effect.Effect<string, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "worker-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  ),
  (folder) => join(folder, "shipments.db")
)

/** The orders whose shipment the database records, one per record. */
const recorded = (path: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new DatabaseSync(path, { readOnly: true })),
    (database) =>
      Effect.sync(() =>
        database
          .prepare("SELECT order_id FROM shipments ORDER BY order_id")
          .all()
          .map((row) => row["order_id"])
      ),
    (database) => Effect.sync(() => database.close())
  )

/** Every line of an output that matches. */
const lines = (output: string, pattern: RegExp) => output.split("\n").filter((line) => pattern.test(line))

/**
 * Matches when `count` orders were shipped, now or before. The broker counts what is in a quorum queue, such as one with a delay, up
 * to five seconds late, so its counts do not show whether a message waits for a retry.
 */
const shipments = (count: number) => new RegExp(`(?:: (?:shipped|was shipped before)\\n[^]*){${count}}`)

const unicorn = '{"id":3,"product":"unicorn"}'

// The program takes its time to start Node.js, and the broker counts late.
const timeout = 90_000

const InMemory = Shipments.layer.pipe(
  Layer.provideMerge(AmqpTopology.layer(queues)),
  Layer.provideMerge(AmqpTest.layer())
)

describe("the worker", () => {
  it.effect("ships a piano a second later at its second attempt, and unicorns when there are some", () =>
    Effect.gen(function* () {
      yield* Effect.forkScoped(worker)
      yield* Effect.forEach(products, (product, i) => place({ id: i + 1, product }))
      const shipped = Effect.map(TestConsole.logLines, (all) =>
        all.map(String).filter((line) => line.endsWith(": shipped"))
      )
      yield* AmqpTest.adjust("1500 millis")
      assert.deepStrictEqual(
        (yield* shipped).toSorted(),
        [1, 4, 5].map((id) => `Order ${id}: shipped`)
      )
      yield* AmqpTest.adjust("1 second")
      assert.deepStrictEqual((yield* shipped).slice(3), ["Order 2: shipped"])
      assert.deepStrictEqual(
        (yield* AmqpTest.queue("shipments.dlq")).messages.map(({ text }) => text),
        [unicorn]
      )
      yield* bringBack
      yield* AmqpTest.adjust("1 second")
      assert.deepStrictEqual((yield* shipped).slice(4), ["Order 3: shipped"])
      yield* AmqpTest.awaitIdle
      assert.lengthOf((yield* AmqpTest.queue("shipments.dlq")).messages, 0)
    }).pipe(Effect.provide(InMemory))
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("worker.ts", () => {
    it.effect(
      "ships what can be shipped, also after a retry, dead-letters the rest with its reason, and brings it back",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, queues } = yield* TestBroker.TestBroker
          const program = yield* start()
          const anonymous = '{"id":6,"product":"sofa"}'
          const strays = [{ content: "no order" }, { content: anonymous }]
          yield* Effect.forEach(strays, (stray) => AmqpPublisher.publish({ routingKey: "shipments", ...stray })).pipe(
            Effect.provide(Broker)
          )
          yield* program.until(shipments(4))
          // All that is left then are three dead letters.
          yield* awaitCensus({ messages: 3, unacked: 0 }, { timeout: "20 seconds" })
          yield* program.type("\n")
          yield* program.until(/Unicorns are in stock again: 1 orders are back, 2 dead letters stay/)
          const reasons = lines(program.output(), /^ {2}1 of shipments: /).map((line) => line.replace(/, last.*/, ""))
          assert.deepStrictEqual(
            reasons.toSorted(),
            ["DecodeFailed", "NoMessageId", "OutOfStock"].map((error) => `  1 of shipments: ${error}`)
          )
          yield* program.until(/Order 3: shipped/)
          yield* awaitCensus({ messages: 2, unacked: 0 }, { timeout: "20 seconds" })
          yield* program.kill("SIGINT")
          assert.deepStrictEqual(yield* program.ended, { code: 130, signal: null }, program.output())
          assert.deepStrictEqual(
            lines(program.output(), /: shipped$/).toSorted(),
            [1, 2, 3, 4, 5].map((id) => `Order ${id}: shipped`)
          )
          assert.deepStrictEqual(lines(program.output(), /attempt 2$/), ["Order 2: shipping piano, attempt 2"])
          assert.match(program.output(), /CarrierBusy[^]*Not now\.[^]*OutOfStock: We are out of unicorns\./)
          assert.deepStrictEqual((yield* queues).map(({ name }) => name).toSorted(), [
            "shipments",
            "shipments.delay.1000",
            "shipments.delay.10000",
            "shipments.dlq"
          ])
          assert.deepStrictEqual((yield* drain("shipments.dlq")).toSorted(), ["no order", anonymous])
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
            const DATABASE = yield* databaseFile
            const first = yield* start({ DATABASE })
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
            // A second worker gets what is left, and the same five orders, which it publishes again.
            const second = yield* start({ DATABASE })
            yield* second.until(shipments(8 - shipped))
            yield* awaitCensus({ messages: 2, unacked: 0 }, { timeout: "20 seconds" })
            yield* second.kill(signal)
            assert.deepStrictEqual(yield* second.ended, { code: 130, signal: null }, second.output())
            const output = first.output() + second.output()
            for (const outcome of ["shipped", "was shipped before"]) {
              assert.deepStrictEqual(
                lines(output, new RegExp(`: ${outcome}$`)).toSorted(),
                [1, 2, 4, 5].map((id) => `Order ${id}: ${outcome}`)
              )
            }
            assert.deepStrictEqual(yield* recorded(DATABASE), [1, 2, 4, 5])
            assert.deepStrictEqual(yield* drain("shipments.dlq"), [unicorn, unicorn])
            yield* awaitCensus({ connections: 0, channels: 0, messages: 0 })
          }),
        timeout
      )
    }

    it.effect(
      "killed between the commit and the acknowledgement, ships each order once",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          const DATABASE = yield* databaseFile
          const proxy = yield* FaultProxy.make(url)
          const first = yield* start({ AMQP_URL: proxy.through(url), DATABASE })
          yield* first.until(/shipping/)
          // Nothing that the worker sends reaches the broker any more: neither acknowledgements nor retries.
          proxy.drop("up")
          yield* first.until(shipments(1))
          yield* first.kill("SIGKILL")
          assert.deepStrictEqual(yield* first.ended, { code: null, signal: "SIGKILL" }, first.output())
          const committed = yield* recorded(DATABASE)
          assert.isAtLeast(committed.length, 1)
          yield* awaitCensus({ connections: 0, messages: 5, unacked: 0 }, { timeout: "20 seconds" })
          // The second worker gets all of them again, and the same five orders, which it publishes again.
          const second = yield* start({ DATABASE })
          yield* second.until(shipments(8))
          yield* awaitCensus({ messages: 2, unacked: 0 }, { timeout: "20 seconds" })
          yield* second.kill("SIGTERM")
          assert.deepStrictEqual(yield* second.ended, { code: 130, signal: null }, second.output())
          assert.lengthOf(lines(second.output(), /: shipped$/), 4 - committed.length)
          assert.deepStrictEqual(yield* recorded(DATABASE), [1, 2, 4, 5])
          assert.deepStrictEqual(yield* drain("shipments.dlq"), [unicorn, unicorn])
        }),
      timeout
    )
  })
})
