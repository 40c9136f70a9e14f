/** What comes back to its queue after a pause: the default of all consumers. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Queue, Schema } from "effect"
import { declareQueue, nextText, onBroker, send, untilQueue } from "./support/consuming.ts"

/** What was handled, and when, in milliseconds. */
const recorded = <A, E, R>(then: (delivery: AmqpConsumer.Delivery, text: string) => Effect.Effect<A, E, R>) =>
  Effect.map(Queue.unbounded<{ readonly text: string; readonly at: number }>(), (handled) => ({
    handled,
    handler: (delivery: AmqpConsumer.Delivery) =>
      Effect.suspend(() => {
        const text = AmqpMessage.text(delivery)
        Queue.offerUnsafe(handled, { text, at: performance.now() })
        return then(delivery, text)
      })
  }))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("No default of ours drops a message.", () => {
    const rows = [
      ["a failure", Effect.fail("the database is down")],
      ["a defect", Effect.die(new Error("undefined is not a function"))],
      ["an interruption of its own", Effect.interrupt]
    ] as const
    for (const [what, end] of rows) {
      it.effect(`after ${what} it comes again, a second later, from a queue without a dead-letter exchange`, () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const { handled, handler } = yield* recorded(({ redelivered }): Effect.Effect<void, string> =>
            redelivered ? Effect.void : end
          )
          yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
          yield* send(queue, "an order")
          const [first, second] = yield* Queue.takeN(handled, 2)
          assert.strictEqual(second!.text, "an order")
          assert.isAtLeast(second!.at - first!.at, 990)
          assert.isBelow(second!.at - first!.at, 3000)
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
        }).pipe(onBroker)
      )
    }

    it.effect("what cannot be decoded is in its queue still", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const consumer = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.void, { schema: Schema.Number })
        )
        yield* send(queue, "not a number")
        yield* untilQueue(queue, { messages: 1, unacked: 1 })
        yield* Fiber.interrupt(consumer)
        assert.strictEqual(yield* nextText(queue), "not a number")
      }).pipe(onBroker)
    )

    it.effect("one failure of a batch pauses all its deliveries, and they come again", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const batches = yield* Queue.unbounded<ReadonlyArray<string>>()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (deliveries) =>
              Effect.andThen(
                Queue.offer(batches, deliveries.map(AmqpMessage.text)),
                deliveries.some(({ redelivered }) => redelivered) ? Effect.void : Effect.fail("the database is down")
              ),
            { size: 3, within: "1 hour" }
          )
        )
        const startedAt = performance.now()
        yield* send(queue, "a", "b", "c")
        assert.deepStrictEqual(yield* Queue.takeN(batches, 2), [
          ["a", "b", "c"],
          ["a", "b", "c"]
        ])
        assert.isAtLeast(performance.now() - startedAt, 990)
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )
  })

  describe("A pause holds a place in the prefetch, but no worker.", () => {
    it.effect("others are handled meanwhile", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handled, handler } = yield* recorded((_, text) =>
          text === "bad" ? Effect.fail("not yet") : Effect.void
        )
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 2 }))
        yield* send(queue, "bad", ...Array.from({ length: 20 }, () => "good"))
        const all = yield* Queue.takeN(handled, 21)
        assert.isBelow(all[20]!.at - all[0]!.at, 900)
        yield* untilQueue(queue, { messages: 1, unacked: 1 })
      }).pipe(onBroker)
    )

    it.effect("it doubles where the attempt is known", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "quorum" })
        const { handled, handler } = yield* recorded(() => Effect.fail("not yet"))
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
        yield* send(queue, "a")
        const [first, second, third] = yield* Queue.takeN(handled, 3)
        assert.closeTo(second!.at - first!.at, 1000, 400)
        assert.closeTo(third!.at - second!.at, 2000, 400)
      }).pipe(onBroker)
    )

    it.effect("it ends at once when the consumer ends, and nothing of it is left", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        const ends: Array<AmqpConsumer.End> = []
        const consumer = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onEnd: (end) => Effect.sync(() => ends.push(end)) })
        )
        yield* send(queue, "a", "b", "c")
        yield* Queue.takeN(handled, 3)
        yield* untilQueue(queue, { messages: 3, unacked: 3 })
        const startedAt = performance.now()
        yield* Fiber.interrupt(consumer)
        assert.isBelow(performance.now() - startedAt, 500)
        yield* untilQueue(queue, { ready: 3, unacked: 0, consumers: 0 })
        for (const text of ["a", "b", "c"]) assert.strictEqual(yield* nextText(queue), text)
        assert.deepStrictEqual(ends, [{ queue, reason: undefined, requeued: 0, unsettled: 0 }])
      }).pipe(onBroker)
    )
  })

  describe("Every loop of redeliveries is paced.", () => {
    it.effect("no message comes again within a second, however many fail, though half of the prefetch is paused", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        yield* send(queue, ...Array.from({ length: 30 }, (_, i) => String(i)))
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 10, concurrency: 5 }))
        const all = yield* Queue.takeN(handled, 30)
        const lastOf = new Map<string, number>()
        for (const { at, text } of all) {
          const before = lastOf.get(text)
          if (before !== undefined) assert.isAtLeast(at - before, 990)
          lastOf.set(text, at)
        }
        assert.isAtLeast(all[29]!.at - all[0]!.at, 1900)
      }).pipe(onBroker)
    )

    it.effect("beyond half of the prefetch the longest pause ends first", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        // Redelivered by a classic queue, all of them are to pause for two seconds.
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        yield* send(queue, "1", "2", "3", "4")
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 6 }))
        yield* Queue.takeN(handled, 4)
        const second = yield* Queue.takeN(handled, 4)
        const third = yield* Queue.take(handled)
        // Half of the prefetch is three: the first of four goes back after one second.
        assert.strictEqual(third.text, "1")
        assert.closeTo(third.at - second[0]!.at, 1000, 400)
      }).pipe(onBroker)
    )

    it.effect("with a prefetch of 1 a delivery holds its place for its full pause, and order is kept", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handled, handler } = yield* recorded(({ redelivered }) =>
          redelivered ? Effect.void : Effect.fail("not yet")
        )
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 1 }))
        yield* send(queue, "a", "b")
        const all = yield* Queue.takeN(handled, 4)
        assert.deepStrictEqual(
          all.map(({ text }) => text),
          ["a", "a", "b", "b"]
        )
      }).pipe(onBroker)
    )
  })
})
