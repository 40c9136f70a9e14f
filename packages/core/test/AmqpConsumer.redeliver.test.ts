/** Deliveries that return to their queue after a pause, which is the default of all consumers. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConnection, AmqpConsumer, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Queue, Schema } from "effect"
import { connectionInternals } from "../src/internal/connection/connectionInternals.ts"
import {
  declareQueue,
  declareWithDeadLetters,
  logged,
  next,
  nextText,
  onBroker,
  send,
  untilQueue
} from "./support/consumers.ts"
import { countsNacks } from "./support/versions.ts"

/** The handled texts, each with its time in milliseconds. */
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
      it.effect(
        `after ${what} a message is delivered again, a second later, from a queue without a dead-letter exchange`,
        () =>
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

    it.effect("a message that cannot be decoded stays in its queue", () =>
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

    it.effect("one failure of a batch pauses all its deliveries, and they are delivered again", () =>
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

  describe("A pause counts against the prefetch, but not against the concurrency.", () => {
    it.effect("other messages are handled during a pause", () =>
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

    it.effect("a pause doubles where the attempt is known", () =>
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

    it.effect("a pause ends at once when the consumer ends, and leaves nothing", () =>
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
    it.effect(
      "no message is delivered again within a second, however many fail, although half of the prefetch is paused",
      () =>
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

    it.effect("the longest pause ends first beyond half of the prefetch", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        // A classic queue redelivers them, so all of them are to pause for two seconds.
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        yield* send(queue, "1", "2", "3", "4")
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 6 }))
        yield* Queue.takeN(handled, 4)
        const second = yield* Queue.takeN(handled, 4)
        const third = yield* Queue.take(handled)
        // Half of the prefetch is three: the first of four is returned after one second.
        assert.strictEqual(third.text, "1")
        assert.closeTo(third.at - second[0]!.at, 1000, 400)
      }).pipe(onBroker)
    )

    it.effect("a delivery keeps its full pause with a prefetch of 1, and the order is kept", () =>
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

  describe("What is retained is bounded.", () => {
    it.effect("no pause is longer than the consumer timeout", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handled, handler } = yield* recorded(() => Effect.fail("not yet"))
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { consumerTimeout: "800 millis" }))
        yield* send(queue, "a")
        const [first, second, third] = yield* Queue.takeN(handled, 3)
        assert.closeTo(second!.at - first!.at, 600, 150)
        assert.closeTo(third!.at - second!.at, 600, 150)
      }).pipe(onBroker)
    )

    it.effect("a lost connection ends a pause: the message is delivered again once, on the next connection", () =>
      Effect.gen(function* () {
        const { closeConnections } = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        const { handled, handler } = yield* recorded(({ redelivered }) =>
          redelivered ? Effect.void : Effect.fail("not yet")
        )
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
        yield* send(queue, "a", "b")
        yield* Queue.takeN(handled, 2)
        yield* closeConnections()
        const again = yield* Queue.takeN(handled, 2)
        assert.sameMembers(
          again.map(({ text }) => text),
          ["a", "b"]
        )
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
        // Longer than the pauses would have lasted.
        yield* Effect.sleep("1200 millis")
        assert.strictEqual(yield* Queue.size(handled), 0)
      }).pipe(onBroker)
    )

    it.effect("all pauses have their full length with a single active consumer", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ singleActiveConsumer: true })
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        yield* send(queue, "1", "2", "3", "4")
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 4 }))
        yield* Queue.takeN(handled, 4)
        const second = yield* Queue.takeN(handled, 4)
        const third = yield* Queue.take(handled)
        assert.isAtLeast(third.at - second[0]!.at, 1900)
      }).pipe(onBroker)
    )
  })

  describe("A queue's delivery limit loses no message.", () => {
    const conditionsOf = Effect.map(AmqpConnection.AmqpConnection, (connection) =>
      Array.from(connectionInternals(connection).conditions.all.values(), ({ kind, message }) => ({ kind, message }))
    )

    it.effect(
      "where returns count, the delivery is retained one return before the limit, and the consumer is paused until it succeeds",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const counts = yield* countsNacks
            const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 2 })
            let failures = 0
            const { handled, handler } = yield* recorded((_, text) =>
              text === "good" || ++failures > 3 ? Effect.void : Effect.fail("the database is down")
            )
            yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
            yield* send(queue, "bad")
            yield* Queue.takeN(handled, 2)
            yield* send(queue, "good")
            const conditions = yield* Effect.repeat(conditionsOf, {
              until: (all) => all.length === (counts ? 1 : 0)
            })
            const rest = yield* Queue.takeN(handled, 3)
            assert.deepStrictEqual(
              rest.map(({ text }) => text),
              counts ? ["bad", "bad", "good"] : ["good", "bad", "bad"]
            )
            yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
            assert.deepStrictEqual(yield* conditionsOf, [])
            const pauses = lines.filter(({ text }) => text.startsWith("AMQP consumer paused"))
            assert.lengthOf(pauses, counts ? 1 : 0)
            if (!counts) return
            assert.strictEqual(conditions[0]!.kind, "ConsumerPaused")
            assert.include(conditions[0]!.message, queue)
            assert.include(pauses[0]!.text, `"queue":"${queue}"`)
          })
        ).pipe(onBroker)
    )

    it.effect("a retained delivery that is then requeued does not delay others, also where the broker removes it", () =>
      Effect.gen(function* () {
        const counts = yield* countsNacks
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 0 })
        const { handled, handler } = yield* recorded((_, text) =>
          text === "good" ? Effect.void : Effect.fail("the database is down")
        )
        const policies = [AmqpConsumer.redeliver, AmqpConsumer.requeue]
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { onFailure: () => policies.shift()! }))
        yield* send(queue, "bad")
        yield* Queue.take(handled)
        // Where returns count, this message waits behind the retained one.
        yield* send(queue, "good")
        const rest = yield* Queue.takeN(handled, 2)
        assert.deepStrictEqual(
          rest.map(({ text }) => text),
          counts ? ["bad", "good"] : ["good", "bad"]
        )
        yield* Effect.repeat(conditionsOf, { until: (all) => all.length === 0 })
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
        assert.strictEqual(yield* Queue.size(handled), 0)
      }).pipe(onBroker)
    )

    it.effect("a retained delivery that then pauses is returned once when the consumer ends", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 1 })
        const { handled, handler } = yield* recorded((_, text) =>
          text === "good" ? Effect.void : Effect.fail("the database is down")
        )
        const policies = [AmqpConsumer.redeliver, AmqpConsumer.requeue]
        const ends: Array<AmqpConsumer.End> = []
        const consumer = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, {
            onFailure: () => policies.shift() ?? AmqpConsumer.redeliver,
            onEnd: (end) => Effect.sync(() => ends.push(end))
          })
        )
        yield* send(queue, "bad")
        yield* Queue.take(handled)
        yield* send(queue, "good")
        yield* Queue.takeN(handled, 2)
        yield* Fiber.interrupt(consumer)
        assert.deepStrictEqual(ends, [{ queue, reason: undefined, requeued: 0, unsettled: 0 }])
        assert.strictEqual(yield* nextText(queue), "bad")
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 0 })
      }).pipe(onBroker)
    )

    it.effect("a retained delivery is returned when the consumer ends, and is delivered again", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 1 })
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        for (let i = 0; i < 3; i++) {
          const consumer = yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
          if (i === 0) yield* send(queue, "an order")
          yield* Queue.take(handled)
          yield* Fiber.interrupt(consumer)
        }
        assert.strictEqual(yield* nextText(queue), "an order")
        assert.deepStrictEqual(yield* conditionsOf, [])
      }).pipe(onBroker)
    )

    it.effect(
      "a delivery whose handler is interrupted on its last return is published again, with its properties",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 0 })
          const started = yield* Queue.unbounded<void>()
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, () => Effect.andThen(Queue.offer(started, undefined), Effect.never), {
              shutdownTimeout: 0
            })
          )
          yield* AmqpPublisher.publish({
            routingKey: queue,
            content: "an order",
            messageId: "m-1",
            headers: { tenant: "a" }
          })
          yield* Queue.take(started)
          yield* Fiber.interrupt(consumer)
          const delivery = yield* next(queue)
          assert.strictEqual(AmqpMessage.text(delivery), "an order")
          assert.deepInclude(delivery.properties, { messageId: "m-1" })
          assert.strictEqual(delivery.properties.headers["tenant"], "a")
        }).pipe(onBroker)
    )

    it.effect("a retained delivery is published again before the consumer timeout, and the consumer continues", () =>
      Effect.gen(function* () {
        const counts = yield* countsNacks
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 0 })
        const again = yield* Queue.unbounded<boolean>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            ({ attempt, redelivered }) => {
              Queue.offerUnsafe(again, redelivered)
              return Effect.fail(`attempt ${attempt}`)
            },
            { consumerTimeout: "3 seconds" }
          )
        )
        yield* send(queue, "an order")
        // It is retained for a second and then replaced by a copy: none of these was ever returned.
        if (counts) assert.deepStrictEqual(yield* Queue.takeN(again, 4), [false, false, false, false])
        yield* untilQueue(queue, { messages: 1, consumers: 1 })
      }).pipe(onBroker)
    )

    it.effect("a batch is retained and handled again as a whole", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 1 })
        const batches = yield* Queue.unbounded<ReadonlyArray<string>>()
        let failures = 0
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (deliveries) =>
              Effect.andThen(
                Queue.offer(batches, deliveries.map(AmqpMessage.text)),
                ++failures > 2 ? Effect.void : Effect.fail("the database is down")
              ),
            { size: 3, within: "1 hour" }
          )
        )
        yield* send(queue, "a", "b", "c")
        for (const batch of yield* Queue.takeN(batches, 3)) assert.deepStrictEqual(batch, ["a", "b", "c"])
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )

    it.effect("a lost connection ends the pause of the consumer", () =>
      Effect.gen(function* () {
        const { closeConnections } = yield* TestBroker.TestBroker
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 1 })
        let failures = 0
        const { handled, handler } = yield* recorded(() =>
          ++failures > 1 ? Effect.void : Effect.fail("the database is down")
        )
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
        yield* send(queue, "a")
        yield* Queue.take(handled)
        yield* closeConnections()
        assert.strictEqual((yield* Queue.take(handled)).text, "a")
        assert.deepStrictEqual(yield* conditionsOf, [])
        yield* send(queue, "b")
        assert.strictEqual((yield* Queue.take(handled)).text, "b")
      }).pipe(onBroker)
    )

    it.effect("a delivery limit with a dead-letter exchange ends the loop there", () =>
      Effect.gen(function* () {
        const counts = yield* countsNacks
        const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum", deliveryLimit: 1 })
        const { handled, handler } = yield* recorded(() => Effect.fail("the database is down"))
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
        yield* send(queue, "a")
        yield* Queue.takeN(handled, 2)
        if (counts) assert.strictEqual(yield* nextText(deadLetters), "a")
        else yield* Queue.take(handled)
      }).pipe(onBroker)
    )
  })

  describe("The log says what happens to a rejected message, as far as it is known.", () => {
    const rows = [
      [
        "a queue of another application",
        undefined,
        "rejected (dead-lettered only if the queue has a dead-letter exchange)"
      ],
      [
        "a queue declared without a dead-letter exchange",
        false,
        "rejected (dropped unless a policy gives the queue a dead-letter exchange)"
      ],
      ["a queue declared with a dead-letter exchange", true, "dead-lettered"]
    ] as const
    for (const [title, has, expected] of rows) {
      it.effect(`${title}: ${expected}`, () =>
        logged((lines) =>
          Effect.gen(function* () {
            const declared = has === true ? (yield* declareWithDeadLetters()).queue : yield* declareQueue()
            if (has === undefined) connectionInternals(yield* AmqpConnection.AmqpConnection).queues.forget(declared)
            yield* Effect.forkScoped(
              AmqpConsumer.consume(declared, () => Effect.fail("no"), { onFailure: AmqpConsumer.deadLetter })
            )
            yield* send(declared, "a")
            yield* untilQueue(declared, { messages: 0, unacked: 0, consumers: 1 })
            const failed = lines.find(({ text }) => text.startsWith("AMQP delivery failed"))
            assert.include(failed?.text, `"policy":"${expected}"`)
          })
        ).pipe(onBroker)
      )
    }
  })
})
