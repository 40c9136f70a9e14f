/** Consuming with a stream, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Exit, Fiber, Queue, Stream } from "effect"
import {
  declareQueue,
  declareWithDeadLetters,
  deleteQueue,
  logged,
  next,
  nextText,
  onBroker,
  send,
  untilQueue
} from "./support/consumers.ts"
import { range, rangeTexts } from "./support/ranges.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("Leaving a stream cancels its consumer, and returns what was not settled.", () => {
    it.effect("take(10) gets ten deliveries, and the prefetched ones are requeued and counted", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        yield* send(queue, ...rangeTexts(30))
        const taken = yield* AmqpConsumer.stream(queue, { onEnd: (end) => Queue.offer(ends, end) }).pipe(
          // The broker has sent all that there are.
          Stream.tap(() => untilQueue(queue, { ready: 0 })),
          Stream.tap((delivery) => delivery.ack),
          Stream.map(AmqpMessage.text),
          Stream.take(10),
          Stream.runCollect
        )
        assert.deepStrictEqual(taken, rangeTexts(10))
        assert.deepStrictEqual(yield* Queue.take(ends), { queue, reason: undefined, requeued: 20, unsettled: 0 })
        yield* untilQueue(queue, { ready: 20, unacked: 0, consumers: 0 })
        assert.strictEqual(yield* nextText(queue), "10")
      }).pipe(onBroker)
    )

    it.effect("deliveries that were taken and not settled are requeued too, and counted separately", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        yield* send(queue, ...rangeTexts(5))
        const taken = yield* AmqpConsumer.stream(queue, { onEnd: (end) => Queue.offer(ends, end) }).pipe(
          Stream.tap(() => untilQueue(queue, { ready: 0 })),
          Stream.take(3),
          Stream.runCollect
        )
        assert.deepStrictEqual(yield* Queue.take(ends), { queue, reason: undefined, requeued: 2, unsettled: 3 })
        yield* untilQueue(queue, { ready: 5, unacked: 0 })
        assert.deepStrictEqual(
          taken.map(({ isSettled }) => isSettled),
          [true, true, true]
        )
        assert.strictEqual((yield* Effect.flip(taken[0]!.ack)).reason._tag, "DeliverySettled")
        // The order is unchanged.
        for (const text of rangeTexts(5)) assert.strictEqual(yield* nextText(queue), text)
      }).pipe(onBroker)
    )

    it.effect("interruption and failure have the same effect", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const got = yield* Queue.unbounded<string>()
        yield* send(queue, ...rangeTexts(3))
        const reading = AmqpConsumer.stream(queue).pipe(
          Stream.tap((delivery) => Queue.offer(got, AmqpMessage.text(delivery))),
          Stream.runDrain
        )
        const fiber = yield* Effect.forkScoped(reading)
        yield* Queue.takeN(got, 3)
        yield* Fiber.interrupt(fiber)
        yield* untilQueue(queue, { ready: 3, unacked: 0, consumers: 0 })
        const exit = yield* Effect.exit(
          Stream.runForEach(AmqpConsumer.stream(queue), () => Effect.fail("the reader's own" as const))
        )
        assert.isTrue(Exit.isFailure(exit))
        yield* untilQueue(queue, { ready: 3, unacked: 0, consumers: 0 })
      }).pipe(onBroker)
    )

    it.effect("the stream's channel and connection are not left behind, however often it runs", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        yield* send(queue, "a")
        const read = AmqpConsumer.stream(queue).pipe(Stream.take(1), Stream.runDrain)
        yield* read
        const { channels, connections } = yield* broker.awaitCensus({ consumers: 0, unacked: 0 })
        for (let i = 0; i < 20; i++) yield* read
        yield* broker.awaitCensus({ channels, connections, consumers: 0, unacked: 0 })
      }).pipe(onBroker)
    )
  })

  describe("Deliveries carry their own ack, nack and reject.", () => {
    it.effect("each sends its AMQP method", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* send(queue, "ack", "nack", "dead", "reject", "gone")
        yield* AmqpConsumer.stream(queue).pipe(
          Stream.tap((delivery) => {
            const text = AmqpMessage.text(delivery)
            if (text === "ack" || delivery.redelivered) return delivery.ack
            if (text === "nack") return delivery.nack()
            if (text === "dead") return delivery.nack({ requeue: false })
            return delivery.reject({ requeue: text === "reject" })
          }),
          Stream.take(7),
          Stream.runDrain
        )
        assert.strictEqual(yield* nextText(deadLetters), "dead")
        assert.strictEqual(yield* nextText(deadLetters), "gone")
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("an option that does not exist is refused, and nothing is settled", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* send(queue, "a")
        yield* AmqpConsumer.stream(queue).pipe(
          Stream.tap((delivery) =>
            Effect.gen(function* () {
              const refused = yield* Effect.flip(delivery.nack({ multiple: true } as never))
              assert.strictEqual(refused.reason._tag, "InvalidArgument")
              assert.isFalse(delivery.isSettled)
              yield* delivery.ack
            })
          ),
          Stream.take(1),
          Stream.runDrain
        )
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("each can be called from any fiber", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* send(queue, ...rangeTexts(100))
        yield* AmqpConsumer.stream(queue, { prefetch: 10 }).pipe(
          Stream.mapEffect((delivery) => Effect.andThen(Effect.yieldNow, delivery.ack), { concurrency: 10 }),
          Stream.take(100),
          Stream.runDrain
        )
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 0 })
      }).pipe(onBroker)
    )
  })

  describe("14. A delivery settles at most once, and only on the channel that delivered it. A late ack is a typed error, not a 406.", () => {
    it.effect("a second settlement fails, in every combination, and the channel stays open", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* send(queue, "a", "b", "c", "d")
        yield* AmqpConsumer.stream(queue).pipe(
          Stream.tap((delivery) =>
            Effect.gen(function* () {
              const ways = [delivery.ack, delivery.nack({ requeue: false }), delivery.reject({ requeue: false })]
              yield* ways[AmqpMessage.text(delivery).charCodeAt(0) % 3]!
              for (const again of [...ways, delivery.nack(), delivery.reject()]) {
                const { reason } = yield* Effect.flip(again)
                assert.strictEqual(reason._tag, "DeliverySettled")
                assert.include(reason.message, "settled before")
              }
            })
          ),
          Stream.take(4),
          Stream.runDrain
        )
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("one of many concurrent settlements succeeds", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* send(queue, "a")
        const exits = yield* AmqpConsumer.stream(queue).pipe(
          Stream.mapEffect((delivery) =>
            Effect.forEach(range(50), () => Effect.exit(Effect.andThen(Effect.yieldNow, delivery.ack)), {
              concurrency: "unbounded"
            })
          ),
          Stream.take(1),
          Stream.runCollect
        )
        assert.lengthOf(
          exits[0]!.filter((exit) => Exit.isSuccess(exit)),
          1
        )
      }).pipe(onBroker)
    )

    it.effect("a settlement after its channel was lost fails, and the message is delivered again", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        yield* send(queue, "a")
        const failures: Array<string> = []
        const acked = yield* Deferred.make<void>()
        yield* AmqpConsumer.stream(queue, { resubscribe: "lost" }).pipe(
          Stream.tap((delivery) =>
            Effect.gen(function* () {
              if (delivery.redelivered) {
                yield* delivery.ack
                return yield* Deferred.succeed(acked, undefined)
              }
              yield* broker.killConnections
              yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => delivery.isSettled })
              const { reason } = yield* Effect.flip(delivery.ack)
              failures.push(reason._tag, reason.message)
              return true
            })
          ),
          Stream.runDrain,
          Effect.forkScoped
        )
        yield* Deferred.await(acked)
        assert.strictEqual(failures[0], "DeliverySettled")
        assert.include(failures[1], "delivered again")
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )
  })

  describe("Silence is distinguished from the end.", () => {
    it.effect("silence for the inactivity timeout is an error, the consumer is cancelled, and nothing is logged", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          yield* send(queue, "a", "b")
          const taken: Array<string> = []
          const error = yield* AmqpConsumer.stream(queue, { inactivityTimeout: 50 }).pipe(
            Stream.tap((delivery) => {
              taken.push(AmqpMessage.text(delivery))
              return delivery.ack
            }),
            Stream.runDrain,
            Effect.flip
          )
          assert.deepStrictEqual(taken, ["a", "b"])
          assert.deepInclude(error.reason, { _tag: "InactivityTimeout", queue })
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 0 })
          assert.deepStrictEqual(
            lines.filter(({ text }) => text.includes(queue)),
            []
          )
        })
      ).pipe(onBroker)
    )

    it.effect("a slow reader is not inactivity", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* send(queue, "a", "b", "c")
        const taken = yield* AmqpConsumer.stream(queue, { inactivityTimeout: "1 second" }).pipe(
          Stream.tap((delivery) => Effect.andThen(Effect.sleep("1200 millis"), delivery.ack)),
          Stream.take(3),
          Stream.runCollect
        )
        assert.lengthOf(taken, 3)
      }).pipe(onBroker)
    )

    it.effect("Stream.timeout ends the stream without an error", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* send(queue, "a")
        const taken = yield* AmqpConsumer.stream(queue).pipe(Stream.timeout(1000), Stream.runCollect)
        assert.lengthOf(taken, 1)
        yield* untilQueue(queue, { ready: 1, unacked: 0, consumers: 0 })
      }).pipe(onBroker)
    )

    it.effect("a stream that fails unexpectedly reports its end to onEnd and to the log", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const ends = yield* Queue.unbounded<AmqpConsumer.End>()
          const fiber = yield* AmqpConsumer.stream(queue, { onEnd: (end) => Queue.offer(ends, end) }).pipe(
            Stream.runDrain,
            Effect.flip,
            Effect.forkScoped
          )
          yield* untilQueue(queue, { consumers: 1 })
          yield* deleteQueue(queue)
          const error = yield* Fiber.join(fiber)
          assert.strictEqual(error.reason._tag, "ConsumerCancelled")
          const end = yield* Queue.take(ends)
          assert.strictEqual(end.reason?.reason._tag, "ConsumerCancelled")
          assert.lengthOf(
            lines.filter(({ level, text }) => level === "Error" && text.includes(queue)),
            1
          )
        })
      ).pipe(onBroker)
    )
  })

  it.effect("a late reader gets messages that were sent before it started", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      yield* send(queue, "a")
      const [taken] = yield* AmqpConsumer.stream(queue).pipe(
        Stream.tap((delivery) => delivery.ack),
        Stream.take(1),
        Stream.runCollect
      )
      assert.deepInclude(taken!, { exchange: "", routingKey: queue, redelivered: false, attempt: 1 })
      yield* send(queue, "b")
      assert.strictEqual(AmqpMessage.text(yield* next(queue)), "b")
    }).pipe(onBroker)
  )
})
