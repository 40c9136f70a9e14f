/** Consuming in batches: what completes a batch on a real broker, and what is acknowledged on a scripted one. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Queue, Schema } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import {
  declareQueue,
  declareWithDeadLetters,
  deleteQueue,
  nextText,
  onBroker,
  send,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import { rangeTexts } from "./support/ranges.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const textsOf = (deliveries: ReadonlyArray<AmqpConsumer.Delivery>) => deliveries.map(AmqpMessage.text)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A batch is complete with its size, or after its time limit from its first delivery.", () => {
    it.effect("its size completes it at once", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const batches = yield* Queue.unbounded<ReadonlyArray<string>>()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(queue, (deliveries) => Queue.offer(batches, textsOf(deliveries)), {
            size: 10,
            within: "1 hour"
          })
        )
        yield* send(queue, ...rangeTexts(30))
        assert.deepStrictEqual(
          yield* Queue.takeN(batches, 3),
          [0, 10, 20].map((from) => rangeTexts(30).slice(from, from + 10))
        )
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("its time limit completes it with fewer deliveries, also behind a full batch", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const batches = yield* Queue.unbounded<ReadonlyArray<string>>()
        yield* send(queue, ...rangeTexts(13))
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(queue, (deliveries) => Queue.offer(batches, textsOf(deliveries)), {
            size: 10,
            within: 50
          })
        )
        const [full, rest] = yield* Queue.takeN(batches, 2)
        assert.deepStrictEqual([...full!, ...rest!], rangeTexts(13))
        assert.lengthOf(full!, 10)
        yield* send(queue, "alone")
        assert.deepStrictEqual(yield* Queue.take(batches), ["alone"])
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("it starts with the deliveries that arrived while an earlier batch was handled", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const batches = yield* Queue.unbounded<ReadonlyArray<string>>()
        const gate = yield* Latch.make()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (deliveries) => Effect.andThen(Queue.offer(batches, textsOf(deliveries)), gate.await),
            { size: 2, within: 50 }
          )
        )
        yield* send(queue, ...rangeTexts(5))
        assert.deepStrictEqual(yield* Queue.take(batches), ["0", "1"])
        yield* untilQueue(queue, { unacked: 5 })
        yield* gate.open
        assert.deepStrictEqual(yield* Queue.takeN(batches, 2), [["2", "3"], ["4"]])
      }).pipe(onBroker)
    )

    it.effect("its time limit includes the time for which its deliveries waited for an earlier batch", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const batches = yield* Queue.unbounded<readonly [number, ReadonlyArray<string>]>()
        const gate = yield* Latch.make()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (deliveries) => Effect.andThen(Queue.offer(batches, [Date.now(), textsOf(deliveries)]), gate.await),
            { size: 2, within: "2 seconds" }
          )
        )
        yield* send(queue, ...rangeTexts(5))
        yield* Queue.take(batches)
        yield* untilQueue(queue, { unacked: 5 })
        yield* Effect.sleep("2 seconds")
        yield* gate.open
        const [[full, two], [rest, one]] = (yield* Queue.takeN(batches, 2)) as never as [
          [number, Array<string>],
          [number, Array<string>]
        ]
        assert.deepStrictEqual([...two, ...one], ["2", "3", "4"])
        assert.isBelow(rest - full, 1500)
      }).pipe(onBroker)
    )

    it.effect("several batches are handled concurrently, as configured", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const started = yield* Queue.unbounded<number>()
        const gate = yield* Latch.make()
        yield* send(queue, ...rangeTexts(30))
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (deliveries) => Effect.andThen(Queue.offer(started, deliveries.length), gate.await),
            { size: 5, within: "1 hour", concurrency: 3 }
          )
        )
        assert.deepStrictEqual(yield* Queue.takeN(started, 3), [5, 5, 5])
        yield* untilQueue(queue, { unacked: 30 })
        assert.strictEqual(yield* Queue.size(started), 0)
        yield* gate.open
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )
  })

  describe("A batch that fails is settled delivery by delivery.", () => {
    it.effect("each follows the policy of its failure", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const again = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (deliveries) => {
              const [first] = deliveries
              return first.attempt > 1
                ? Queue.offer(again, AmqpMessage.text(first))
                : Effect.andThen(deliveries[3]!.ack, Effect.fail("no"))
            },
            {
              size: 4,
              within: 100,
              onFailure: (_error, delivery) => {
                const text = AmqpMessage.text(delivery)
                if (text === "retry") return AmqpConsumer.retry({ delay: 5, times: 1 })
                return text === "drop" ? AmqpConsumer.drop : AmqpConsumer.deadLetter
              }
            }
          )
        )
        yield* send(queue, "dead", "drop", "retry", "acked already")
        assert.strictEqual(yield* nextText(deadLetters), "dead")
        assert.strictEqual(yield* Queue.take(again), "retry")
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("a delivery that cannot be decoded is taken out, and the others are handled", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const batches = yield* Queue.unbounded<unknown>()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (values, deliveries) => Queue.offer(batches, [values, textsOf(deliveries)]),
            {
              size: 3,
              within: "1 hour",
              schema: Schema.Struct({ n: Schema.Int }),
              onDecodeFailure: AmqpConsumer.deadLetter
            }
          )
        )
        yield* send(queue, '{"n":1}', "{}", '{"n":2}', "1", "2", "3", '{"n":4}', '{"n":5}', '{"n":6}')
        assert.deepStrictEqual(yield* Queue.takeN(batches, 2), [
          [
            [{ n: 1 }, { n: 2 }],
            ['{"n":1}', '{"n":2}']
          ],
          [
            [{ n: 4 }, { n: 5 }, { n: 6 }],
            ['{"n":4}', '{"n":5}', '{"n":6}']
          ]
        ])
        for (const text of ["{}", "1", "2", "3"]) assert.strictEqual(yield* nextText(deadLetters), text)
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("a delivery that exceeds maxDeliveries is taken out", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum" })
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(queue, () => Effect.fail("no"), {
            size: 2,
            within: 20,
            maxDeliveries: 2,
            onFailure: AmqpConsumer.requeue
          })
        )
        yield* send(queue, "a", "b")
        assert.sameMembers([yield* nextText(deadLetters), yield* nextText(deadLetters)], ["a", "b"])
      }).pipe(onBroker)
    )
  })

  it.effect("the channel of a cancelled subscription is closed when its last batch is settled", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const queue = yield* declareQueue()
      const gate = yield* Latch.make()
      const started = yield* Latch.make()
      yield* Effect.forkScoped(
        AmqpConsumer.consumeBatch(queue, () => Effect.andThen(started.open, gate.await), {
          size: 2,
          within: 20,
          resubscribe: "always"
        })
      )
      yield* send(queue, "old")
      yield* started.await
      const { channels } = yield* broker.census
      yield* deleteQueue(queue)
      yield* declareQueue({}, queue)
      yield* untilQueue(queue, { consumers: 1 })
      yield* gate.open
      yield* broker.awaitCensus({ unacked: 0, consumers: 1, channels })
    }).pipe(onBroker)
  )

  it.effect("a batch that is interrupted is requeued, and so is one that is incomplete", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const ends = yield* Queue.unbounded<AmqpConsumer.End>()
      const started = yield* Latch.make()
      yield* send(queue, ...rangeTexts(8))
      const fiber = yield* Effect.forkScoped(
        AmqpConsumer.consumeBatch(queue, () => Effect.andThen(started.open, Effect.never), {
          size: 5,
          within: "1 hour",
          shutdownTimeout: 0,
          onEnd: (end) => Queue.offer(ends, end)
        })
      )
      yield* started.await
      yield* untilQueue(queue, { unacked: 8 })
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* Queue.take(ends), { queue, reason: undefined, requeued: 3, unsettled: 0 })
      yield* untilQueue(queue, { ready: 8, unacked: 0, consumers: 0 })
    }).pipe(onBroker)
  )
})

describe("A batch is acknowledged with one multiple ack that never covers a delivery outside the batch.", () => {
  /** The acknowledgements that a broker received: a tag, and a plus sign for multiple. */
  const acksOf = (broker: ScriptedBroker.ScriptedBroker) =>
    broker.log.flatMap((received) =>
      received.method === "basic.ack" ? [`${received.args.deliveryTag}${received.args.multiple ? "+" : ""}`] : []
    )
  const enqueue = (broker: ScriptedBroker.ScriptedBroker, count: number) => {
    for (const text of rangeTexts(count)) broker.enqueue("q", text)
  }

  plain.live("one ack settles each batch, if no earlier delivery is open", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      enqueue(broker, 9)
      yield* Effect.gen(function* () {
        yield* Effect.forkScoped(AmqpConsumer.consumeBatch("q", () => Effect.void, { size: 3, within: "1 hour" }))
        yield* broker.received("basic.ack", 3)
        assert.deepStrictEqual(acksOf(broker), ["3+", "6+", "9+"])
      }).pipe(withConsumers(broker.url))
    })
  )

  plain.live(
    "single acks settle a batch while an earlier one is handled; the earlier batch's ack covers only its own",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const gate = yield* Latch.make()
        enqueue(broker, 6)
        yield* Effect.gen(function* () {
          yield* Effect.forkScoped(
            AmqpConsumer.consumeBatch("q", ([first]) => (AmqpMessage.text(first) === "0" ? gate.await : Effect.void), {
              size: 3,
              within: "1 hour",
              concurrency: 2
            })
          )
          yield* broker.received("basic.ack", 3)
          assert.deepStrictEqual(acksOf(broker), ["4", "5", "6"])
          yield* gate.open
          yield* broker.received("basic.ack", 4)
          assert.deepStrictEqual(acksOf(broker).slice(3), ["3+"])
        }).pipe(withConsumers(broker.url))
      })
  )

  plain.live("deliveries that the handler has settled, or that were taken out, are not acknowledged again", () =>
    onScriptedBroker({}, function* (broker) {
      yield* Effect.forkScoped(
        AmqpConsumer.consumeBatch(
          "q",
          (_values, deliveries) => Effect.andThen(deliveries[1]!.nack({ requeue: false }), deliveries[3]!.ack),
          { size: 6, within: "1 hour", schema: Schema.Number, onDecodeFailure: AmqpConsumer.deadLetter }
        )
      )
      for (const text of ["1", "2", "not a number", "3", "4", "5"]) broker.enqueue("q", text)
      yield* broker.received("basic.ack", 2)
      assert.deepStrictEqual(acksOf(broker), ["5", "6+"])
      const nacks = broker.log.flatMap((received) =>
        received.method === "basic.nack" ? [received.args.deliveryTag] : []
      )
      assert.deepStrictEqual(nacks, [3, 2])
    })
  )
})

plain.live("a delay queue is declared once, on one channel, however many deliveries of a batch need it", () =>
  Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make()
    for (const text of rangeTexts(100)) broker.enqueue("q", text)
    yield* Effect.gen(function* () {
      yield* Effect.forkScoped(
        AmqpConsumer.consumeBatch("q", () => Effect.fail("no"), {
          size: 100,
          within: "1 hour",
          onFailure: () => AmqpConsumer.retry({ delay: 5, times: 1 })
        })
      )
      yield* broker.received("basic.ack")
      yield* broker.until(() => broker.unsettled === 0)
      assert.strictEqual(broker.ready("q"), 0)
      const declared = broker.log.filter(({ args, method }) => method === "queue.declare" && !args.passive)
      assert.strictEqual(declared.length, 1)
      // The channels of the consumer and the publisher, one that declares, and one that looks for a former delay queue.
      assert.isAtMost(broker.maxOpenChannels, 4)
    }).pipe(withConsumers(broker.url))
  })
)
