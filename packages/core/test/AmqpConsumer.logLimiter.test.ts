/** Repeated log lines are summed up. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpConsumer } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Clock, Data, Effect, Fiber, Latch, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { LogLimiter } from "../src/internal/telemetry/logLimiter.ts"
import { Deadlines } from "../src/internal/waiting/deadlines.ts"
import { declareQueue, logged, onBroker, send } from "./support/consumers.ts"
import { rangeTexts } from "./support/ranges.ts"

const repeating = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<Scope.Scope>()
  const fork = Effect.runForkWith(context)
  const deadlines = new Deadlines(clock, fork)
  yield* Effect.addFinalizer(() => Effect.sync(() => deadlines.stop()))
  const repeats = new LogLimiter(deadlines, fork, { queue: "orders" })
  const fail = (error: string, times: number, isError = false) =>
    Effect.forEach(
      Array.from({ length: times }),
      () =>
        repeats.write(
          { title: "AMQP delivery failed", isError, error, policy: "redelivered" },
          Effect.logWarning(`AMQP delivery failed ${error}`)
        ),
      { discard: true }
    )
  return { deadlines, repeats, fail }
})

describe("Log lines of one kind are summed up.", () => {
  plain.effect(
    "the first five in ten seconds are written in full, and then one line says how many more there were",
    () =>
      logged((lines) =>
        Effect.gen(function* () {
          const { fail } = yield* repeating
          yield* fail("Timeout", 5000)
          assert.lengthOf(lines, 5)
          yield* TestClock.adjust("9999 millis")
          assert.lengthOf(lines, 5)
          yield* TestClock.adjust("1 millis")
          assert.lengthOf(lines, 6)
          assert.strictEqual(lines[5]!.level, "Warn")
          assert.include(lines[5]!.text, "AMQP delivery failed, and 4,995 more in the last 10s")
          for (const text of ['"queue":"orders"', '"error":"Timeout"', '"policy":"redelivered"', '"repeated":4995']) {
            assert.include(lines[5]!.text, text)
          }
          // The next interval begins with the next line.
          yield* TestClock.adjust("1 minute")
          yield* fail("Timeout", 7)
          assert.lengthOf(lines, 11)
          yield* TestClock.adjust("10 seconds")
          assert.include(lines[11]!.text, "and 2 more")
        })
      ).pipe(Effect.scoped)
  )

  plain.effect("an error with another tag is not hidden by those of the first", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const { fail } = yield* repeating
        yield* fail("Timeout", 5000)
        yield* fail("OutOfStock", 1)
        assert.include(lines.at(-1)?.text, "AMQP delivery failed OutOfStock")
        yield* fail("Defect", 6, true)
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(
          lines.slice(11).map(({ level, text }) => [level, /and [\d,]+ more/.exec(text)?.[0]]),
          [
            ["Warn", "and 4,995 more"],
            ["Error", "and 1 more"]
          ]
        )
      })
    ).pipe(Effect.scoped)
  )

  plain.effect("the number of further ones is written at the consumer's end, and no timer is left", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const { deadlines, fail, repeats } = yield* repeating
        yield* fail("Timeout", 8)
        yield* TestClock.adjust("3 seconds")
        yield* repeats.end
        assert.lengthOf(lines, 6)
        assert.include(lines[5]!.text, "and 3 more in the last 3s")
        assert.strictEqual(deadlines.size, 0)
        yield* fail("Timeout", 8)
        assert.lengthOf(lines, 14)
      })
    ).pipe(Effect.scoped)
  )

  plain.effect("errors with different tags share one kind beyond a hundred tags", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const { deadlines, fail } = yield* repeating
        for (let i = 0; i < 1000; i++) yield* fail(`Error${i}`, 1)
        assert.lengthOf(lines, 105)
        assert.strictEqual(deadlines.size, 101)
        yield* TestClock.adjust("10 seconds")
        assert.lengthOf(lines, 106)
        assert.include(lines[105]!.text, "and 895 more")
      })
    ).pipe(Effect.scoped)
  )
})

class Broken extends Data.TaggedError("Broken")<{ readonly at: number }> {}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  type Failing = (...handled: ReadonlyArray<unknown>) => Effect.Effect<void, Broken>
  const all = 300
  const rows: ReadonlyArray<
    readonly [
      whose: string,
      declared: AmqpChannel.QueueDeclareOptions,
      consume: (
        queue: string,
        each: Failing,
        batch: Failing
      ) => Effect.Effect<never, unknown, AmqpConsumer.AmqpConsumer>
    ]
  > = [
    [
      "a handler's",
      {},
      (queue, each) => AmqpConsumer.consume(queue, each, { onFailure: AmqpConsumer.drop, concurrency: 10 })
    ],
    [
      "a batch's",
      {},
      (queue, _, batch) =>
        AmqpConsumer.consumeBatch(queue, batch, { size: 50, within: "10 millis", onFailure: AmqpConsumer.drop })
    ],
    [
      "a stream's",
      { queueType: "stream" },
      (queue, each) => AmqpConsumer.consume(queue, each, { offset: "first", onFailure: AmqpConsumer.skip })
    ]
  ]
  for (const [whose, declared, consume] of rows) {
    it.effect(`${whose} ${all} failures write a few lines, and the last one says how many there were`, () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue(declared)
          yield* send(queue, ...rangeTexts(all))
          let handled = 0
          const isDone = yield* Latch.make()
          const fails = (more: number) =>
            Effect.andThen(
              Effect.suspend(() => ((handled += more) === all ? isDone.open : Effect.void)),
              new Broken({ at: handled })
            )
          const fiber = yield* Effect.forkScoped(
            consume(
              queue,
              () => fails(1),
              (batch) => fails((batch as ReadonlyArray<unknown>).length)
            )
          )
          yield* isDone.await
          yield* Fiber.interrupt(fiber)
          const failed = lines.filter(({ text }) => text.startsWith("AMQP delivery failed"))
          assert.lengthOf(failed, 6)
          assert.match(failed[5]!.text, /^AMQP delivery failed, and 295 more in the last /)
          assert.include(failed[5]!.text, '"error":"Broken"')
        })
      ).pipe(onBroker)
    )
  }
})
