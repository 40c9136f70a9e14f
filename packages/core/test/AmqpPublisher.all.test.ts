/** Publishing sequences: streams, iterables and the sink. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpError, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Exit, Fiber, Option, Queue, Result, Stream, SubscriptionRef } from "effect"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { range } from "./support/ranges.ts"
import { message, outcomeOf, published, start, startAll, untilStats } from "./support/publisher.ts"
import type * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { reasonOf } from "./support/amqp.ts"

/** Refuses every message with this content. */
const refuses = (...refused: ReadonlyArray<string>): ScriptedBroker.Script => ({
  "basic.publish": (publish) =>
    refused.includes(String(publish.content!.body))
      ? publish.reply("basic.nack", { deliveryTag: publish.deliveryTag })
      : publish.proceed()
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("publishAll on a real broker", () => {
    it.effect(
      "a queue has the messages of a stream in the stream's order, even if others publish at the same time",
      () =>
        onTestBroker({ publisher: { maxInFlight: 100 } }, function* () {
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                const { queue } = yield* channel.queueDeclare("", { exclusive: true })
                const others = yield* startAll(
                  range(50).map((i) =>
                    Effect.forever(AmqpPublisher.publish({ routingKey: "nowhere", content: `other ${i}` }))
                  )
                )
                const to = (i: number): AmqpMessage.Message => ({ routingKey: queue, content: String(i) })
                const stream = Stream.map(Stream.range(0, 1999), to)
                const results = yield* Stream.runCollect(AmqpPublisher.publishAll(stream))
                assert.strictEqual(results.length, 2000)
                assert.deepStrictEqual(results[1999], { _tag: "Confirmed" })
                assert.strictEqual(
                  yield* Stream.run(Stream.map(Stream.range(2000, 2999), to), AmqpPublisher.sink),
                  1000
                )
                yield* Fiber.interruptAll(others)
                for (let i = 0; i < 3000; i++) {
                  const delivery = Option.getOrThrow(yield* channel.get(queue, { noAck: true }))
                  assert.strictEqual(Buffer.from(delivery.content).toString(), String(i))
                }
              })
            )
          )
        })
    )

    it.effect("as values, the outcomes are in order, each with its message", () =>
      onTestBroker({ publisher: { maxInFlight: 64 } }, function* () {
        const queue = yield* Effect.scoped(
          AmqpChannel.use((channel) => Effect.map(channel.queueDeclare(""), (q) => q.queue))
        )
        const messages = range(500).map((i): AmqpMessage.Message => ({
          routingKey: i % 10 === 3 ? "nowhere" : queue,
          content: String(i)
        }))
        const outcomes = yield* Stream.runCollect(
          AmqpPublisher.publishAll(messages, { mandatory: true, failures: "values" })
        )
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome.message),
          messages
        )
        for (const [i, { result }] of outcomes.entries()) {
          const tag = Result.isFailure(result) ? result.failure.reason._tag : result.success._tag
          assert.strictEqual(tag, i % 10 === 3 ? "PublishReturned" : "Confirmed")
        }
      })
    )
  })
})

describe("publishAll", () => {
  it.live("by default the first failure in order ends it, and nothing is sent after the failure is known", () =>
    onScriptedBroker({ broker: { on: refuses("5", "3") }, publisher: { maxInFlight: 10 } }, function* (broker) {
      const seen: Array<unknown> = []
      const error = yield* AmqpPublisher.publishAll(range(1000).map(message)).pipe(
        Stream.runForEach((result) => Effect.sync(() => seen.push(result))),
        Effect.flip
      )
      assert.strictEqual(error.reason._tag, "PublishNacked")
      assert.deepStrictEqual(
        seen,
        range(3).map(() => ({ _tag: "Confirmed" }))
      )
      assert.isAtMost(published(broker).length, 30)
      assert.deepStrictEqual(published(broker), range(published(broker).length).map(String))
    })
  )

  it.live("outcomes are emitted as they are known, without waiting for further messages of the source", () =>
    onScriptedBroker({}, function* () {
      const source = yield* Queue.unbounded<AmqpMessage.Message>()
      const results = yield* Queue.unbounded<unknown>()
      yield* start(
        Stream.runForEach(AmqpPublisher.publishAll(Stream.fromQueue(source)), (result) => Queue.offer(results, result))
      )
      for (let i = 0; i < 5; i++) {
        yield* Queue.offer(source, message(i))
        assert.deepStrictEqual(yield* Queue.take(results), { _tag: "Confirmed" })
      }
    })
  )

  it.live("a slow reader, or a broker that does not answer, keeps it from taking more than maxInFlight messages", () =>
    onScriptedBroker({ publisher: { maxInFlight: 20, channels: 1 } }, function* (broker) {
      let taken = 0
      const endless = {
        *[Symbol.iterator]() {
          while (true) yield message(taken++)
        }
      }
      const gate = yield* Deferred.make<void>()
      const reading = yield* start(
        AmqpPublisher.publishAll(endless).pipe(
          Stream.take(100),
          Stream.runForEach(() => Deferred.await(gate))
        )
      )
      yield* untilStats((stats) => stats.confirmed >= 10 && stats.inFlight === 0)
      // One chunk is being read, and one more chunk has been confirmed behind it.
      assert.isAtMost(taken, 40)
      broker.on("basic.publish", () => {})
      yield* Deferred.succeed(gate, undefined)
      yield* untilStats((stats) => stats.inFlight === 20)
      assert.isAtMost(taken, 60 + broker.count("basic.publish"))
      broker.off("basic.publish")
      broker.send(1, "basic.ack", { deliveryTag: 0, multiple: true })
      yield* Fiber.join(reading)
      assert.isAtMost(taken, 160)
    })
  )

  it.live("while the broker accepts nothing, one message waits and no more are taken from the source", () =>
    onScriptedBroker({}, function* (broker) {
      const { flow } = yield* AmqpPublisher.AmqpPublisher
      yield* AmqpPublisher.publish(message("first"))
      broker.block()
      yield* Stream.runForEachWhile(SubscriptionRef.changes(flow), (now) => Effect.succeed(now._tag !== "Blocked"))
      let taken = 0
      const messages = function* () {
        while (taken < 100) yield message(taken++)
      }
      const all = yield* start(Stream.runCount(AmqpPublisher.publishAll(messages())))
      yield* untilStats((stats) => stats.waiting === 1)
      assert.strictEqual(taken, 1)
      broker.unblock()
      assert.strictEqual(yield* Fiber.join(all), 100)
      assert.deepStrictEqual(published(broker), ["first", ...range(100).map(String)])
    })
  )

  it.live(
    "as values it continues after each failure: of the broker, of the message, of time, and after a lost connection",
    () =>
      onScriptedBroker(
        {
          broker: {
            on: {
              "basic.publish": (publish) => {
                const content = String(publish.content!.body)
                if (content === "silence") return
                if (content === "death") return publish.destroy()
                if (content === "nack") return publish.reply("basic.nack", { deliveryTag: publish.deliveryTag })
                return publish.proceed()
              }
            }
          },
          publisher: { channels: 1 }
        },
        function* () {
          const invalid = { routingKey: 7, content: "" } as unknown as AmqpMessage.Message
          const messages = [
            message(1),
            message("nack"),
            invalid,
            message("silence"),
            message(2),
            message("death"),
            message(3)
          ]
          const outcomes = yield* Stream.runCollect(
            AmqpPublisher.publishAll(messages, { failures: "values", timeout: "300 millis" })
          )
          const tags = outcomes.map(({ result }) =>
            Result.isFailure(result) ? result.failure.reason._tag : "Confirmed"
          )
          assert.deepStrictEqual(tags.slice(0, 3), ["Confirmed", "PublishNacked", "InvalidArgument"])
          assert.include(["PublishTimeout", "PublishUnknown"], tags[3])
          assert.deepStrictEqual(tags.slice(5, 6), ["PublishUnknown"])
          assert.strictEqual(outcomes.length, 7)
        }
      )
  )

  it.live("the source's own failure or defect comes after the outcomes before it", () =>
    onScriptedBroker({}, function* () {
      const seen: Array<unknown> = []
      const all = <E>(source: Stream.Stream<AmqpMessage.Message, E> | Iterable<AmqpMessage.Message>) =>
        Effect.exit(
          Stream.runForEach(AmqpPublisher.publishAll(source), (result) => Effect.sync(() => seen.push(result)))
        )
      const failing = Stream.concat(Stream.fromIterable(range(10).map(message)), Stream.fail("out of orders"))
      assert.deepStrictEqual(yield* all(failing), Exit.fail("out of orders"))
      assert.strictEqual(seen.length, 10)
      const throwing = function* () {
        yield message(1)
        throw new Error("broken")
      }
      const exit = yield* all(throwing())
      assert.isTrue(Exit.hasDies(exit))
      assert.strictEqual(seen.length, 11)
      assert.deepStrictEqual(yield* all([]), Exit.void)
      assert.deepStrictEqual(yield* all(Stream.empty), Exit.void)
    })
  )

  it.live("when it is left early or interrupted, it ends its source and holds nothing back", () =>
    onScriptedBroker({ publisher: { maxInFlight: 10 } }, function* (broker) {
      let open = 0
      const endless = function* () {
        open++
        try {
          for (let i = 0; ; i++) yield message(i)
        } finally {
          open--
        }
      }
      const endlessStream = Stream.ensuring(
        Stream.unwrap(
          Effect.sync(() => {
            open++
            return Stream.map(Stream.range(0, 1_000_000), message)
          })
        ),
        Effect.sync(() => open--)
      )
      for (const source of [endless, () => endlessStream]) {
        const some = AmqpPublisher.publishAll(source()).pipe(Stream.take(5), Stream.runCount)
        assert.strictEqual(yield* some, 5)
        assert.strictEqual(open, 0)
        yield* untilStats((stats) => stats.inFlight === 0 && stats.waiting === 0)
        broker.on("basic.publish", (publish) => publish.hold())
        const before = broker.count("basic.publish")
        const all = yield* start(Stream.runDrain(AmqpPublisher.publishAll(source())))
        yield* broker.until(() => broker.count("basic.publish") > before + 5)
        yield* Fiber.interrupt(all)
        assert.strictEqual(open, 0)
        broker.off("basic.publish")
        broker.release("basic.publish")
        yield* untilStats((stats) => stats.inFlight === 0 && stats.waiting === 0)
      }
    })
  )

  it.live("many runs at the same time, and single publishes among them, all make progress", () =>
    onScriptedBroker({ publisher: { maxInFlight: 7 } }, function* (broker) {
      const all = (prefix: string) =>
        Stream.runCount(AmqpPublisher.publishAll(range(200).map((i) => message(`${prefix}${i}`))))
      const [counts, singles] = yield* Effect.all(
        [
          Effect.forEach(["a", "b", "c", "d", "e"], all, { concurrency: "unbounded" }),
          Effect.forEach(range(100), (i) => outcomeOf(AmqpPublisher.publish(message(`s${i}`))), {
            concurrency: "unbounded"
          })
        ],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(counts, [200, 200, 200, 200, 200])
      assert.deepStrictEqual(new Set(singles), new Set(["Confirmed"]))
      for (const prefix of ["a", "b", "c", "d", "e"]) {
        assert.deepStrictEqual(
          published(broker).filter((content) => content.startsWith(prefix)),
          range(200).map((i) => `${prefix}${i}`)
        )
      }
    })
  )

  it.live("options are checked: those of publish, and failures", () =>
    onScriptedBroker({}, function* (broker) {
      for (const [argument, options] of [
        ["failures", { failures: "ignore" }],
        ["timeout", { timeout: -1 }],
        ["retries", { retries: 3 }],
        ["options", null]
      ] as const) {
        const all = Stream.runDrain(AmqpPublisher.publishAll([message(1)], options as never))
        assert.deepInclude(yield* reasonOf(all as Effect.Effect<void, AmqpError.AmqpError>), {
          _tag: "InvalidArgument",
          argument
        })
      }
      assert.strictEqual(broker.count("basic.publish"), 0)
    })
  )

  it.live("with a publisher that was written by hand, it publishes one message after the other", () =>
    onScriptedBroker({}, function* () {
      const { flow, stats } = yield* AmqpPublisher.AmqpPublisher
      const published: Array<unknown> = []
      const fake: AmqpPublisher.AmqpPublisher["Service"] = {
        flow,
        stats,
        publish: (message) =>
          Effect.suspend(() => {
            published.push(message.content)
            return message.content === "2"
              ? Effect.fail(AmqpError.fromReason(new AmqpError.PublishNacked({ message: "no" })))
              : Effect.succeed({ _tag: "Confirmed" as const })
          })
      }
      const provided = Effect.provideService(AmqpPublisher.AmqpPublisher, fake)
      const all = range(4).map(message)
      assert.strictEqual(
        (yield* reasonOf(provided(Stream.runDrain(AmqpPublisher.publishAll(all)))))._tag,
        "PublishNacked"
      )
      const outcomes = yield* provided(Stream.runCollect(AmqpPublisher.publishAll(all, { failures: "values" })))
      assert.deepStrictEqual(
        outcomes.map(({ result }) => Result.isSuccess(result)),
        [true, true, false, true]
      )
      assert.deepStrictEqual(published, ["0", "1", "2", "0", "1", "2", "3"])
    })
  )
})

describe("sink", () => {
  it.live("counts the confirmed messages, and fails with the first failure", () =>
    onScriptedBroker({ broker: { on: refuses("500") } }, function* () {
      const stream = (n: number) => Stream.map(Stream.range(0, n - 1), message)
      assert.strictEqual(yield* Stream.run(stream(300), AmqpPublisher.sink), 300)
      assert.strictEqual(yield* Stream.run(Stream.empty, AmqpPublisher.sinkWith({ mandatory: false })), 0)
      const reason = yield* reasonOf(Stream.run(stream(1000), AmqpPublisher.sink))
      assert.strictEqual(reason._tag, "PublishNacked")
    })
  )
})
