/**
 * Consumers while the broker is short of memory, times them out, loses their queue, or comes back without its former
 * state.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher,
  AmqpTopology
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Latch, Queue, Stream } from "effect"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { reasonOf, tagOf } from "./support/amqp.ts"
import { declareQueue, deleteQueue, nextText, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { encodeMessage } from "./support/frames.ts"
import { eventually } from "./support/polling.ts"
import { range } from "./support/ranges.ts"
import { joinAll, outcomeOf, start, startAll } from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { timeoutEnds } from "./support/versions.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("15. A consumer's end is explicit: a queue that is deleted under load", () => {
    const load = 2000

    it.effect(
      "ends each of its consumers with ConsumerCancelled, and every running handler completes its cleanup",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const before = yield* broker.census
          yield* Effect.gen(function* () {
            const queue = yield* declareQueue()
            const publishing = yield* start(Effect.forEach(range(load), (i) => outcomeOf(send(queue, String(i)))))
            const running = { now: 0, begun: 0 }
            const handler = Effect.acquireUseRelease(
              Effect.sync(() => {
                running.now++
                running.begun++
              }),
              () => Effect.sleep(1),
              () => Effect.sync(() => running.now--)
            )
            const ends: Array<AmqpConsumer.End> = []
            const onEnd = (end: AmqpConsumer.End) => Effect.sync(() => void ends.push(end))
            const options = { prefetch: 50, concurrency: 10, onEnd }
            const consumers = yield* Effect.forEach(
              [
                AmqpConsumer.consume(queue, () => handler, options),
                AmqpConsumer.consume(queue, () => handler, options),
                AmqpConsumer.consumeBatch(queue, () => handler, { ...options, size: 5, within: 10 }),
                Stream.runForEach(AmqpConsumer.stream(queue, { prefetch: 50, onEnd }), (delivery) =>
                  Effect.andThen(handler, delivery.ack)
                )
              ],
              (consumer) => Effect.forkScoped(reasonOf(consumer))
            )
            yield* eventually(
              "deliveries in flight",
              Effect.sync(() => running.begun > 100)
            )
            yield* deleteQueue(queue)
            for (const fiber of consumers) {
              const reason = yield* Effect.timeout(Fiber.join(fiber), "10 seconds")
              assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue })
            }
            assert.strictEqual(running.now, 0)
            assert.strictEqual(ends.length, 4)
            for (const { reason } of ends) assert.strictEqual(reason?.reason._tag, "ConsumerCancelled")
            yield* Fiber.join(publishing)
            yield* broker.awaitCensus({ consumers: before.consumers, unacked: before.unacked })
          }).pipe(onBroker)
          yield* broker.awaitCensus({ connections: before.connections, channels: before.channels })
        })
    )

    it.effect(
      "lets every handler finish with resubscribe: always, and is consumed again when it is declared again, three times",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const running = { now: 0, begun: 0, ended: 0 }
          const seen = new Set<string>()
          const consumers = yield* Effect.forEach(range(3), () =>
            Effect.forkScoped(
              AmqpConsumer.consume(
                queue,
                (delivery) =>
                  Effect.acquireUseRelease(
                    Effect.sync(() => {
                      running.now++
                      running.begun++
                    }),
                    () =>
                      Effect.andThen(
                        Effect.sleep(1),
                        Effect.sync(() => seen.add(AmqpMessage.text(delivery)))
                      ),
                    () =>
                      Effect.sync(() => {
                        running.now--
                        running.ended++
                      })
                  ),
                { prefetch: 50, concurrency: 10, resubscribe: "always" }
              )
            )
          )
          for (let round = 0; round < 3; round++) {
            yield* untilQueue(queue, { consumers: 3 })
            const { begun } = running
            const publishing = yield* start(
              Effect.forEach(range(load), (i) => outcomeOf(send(queue, `${round}-${i}`)), { concurrency: 50 })
            )
            yield* eventually(
              "deliveries in flight",
              Effect.sync(() => running.begun > begun + 100)
            )
            yield* deleteQueue(queue)
            yield* declareQueue({}, queue)
            yield* Fiber.join(publishing)
            yield* untilQueue(queue, { consumers: 3 })
            yield* send(queue, `last of round ${round}`)
            yield* eventually(
              "the last of the round",
              Effect.sync(() => seen.has(`last of round ${round}`))
            )
          }
          yield* eventually(
            "all handlers to end",
            Effect.sync(() => running.now === 0)
          )
          assert.strictEqual(running.begun, running.ended)
          for (const fiber of consumers) assert.isUndefined(fiber.pollUnsafe())
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 3 })
        }).pipe(onBroker)
    )
  })

  describe("what the broker has forgotten is declared again before it is consumed, in the order of declaration", () => {
    it.effect("an exclusive queue and its bindings: no message is unroutable once the consumer is subscribed", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDeclare("news", "topic", { durable: true })))
        const declared: Array<string> = []
        const got = yield* Queue.unbounded<string>()
        const consumer = yield* AmqpConsumer.AmqpConsumer
        const { state } = yield* consumer.connection
        yield* Effect.forkScoped(
          AmqpConsumer.consume("mine", (delivery) => Queue.offer(got, AmqpMessage.text(delivery)), {
            exclusive: true,
            declare: (channel) =>
              Effect.gen(function* () {
                yield* channel.exchangeDeclare("news", "topic", { durable: true })
                yield* channel.exchangeDeclare("fleeting", "fanout", { durable: false, autoDelete: true })
                yield* channel.queueDeclare("mine", { exclusive: true })
                yield* channel.exchangeBind("fleeting", "news", "#")
                yield* channel.queueBind("mine", "fleeting", "")
                declared.push("declared")
              })
          })
        )
        for (let round = 0; round < 4; round++) {
          yield* untilQueue("mine", { consumers: 1 })
          assert.strictEqual(declared.length, round + 1)
          for (const i of range(20)) {
            const message = { exchange: "news", routingKey: "today", content: `${round}-${i}` }
            const publish = AmqpPublisher.publish(message, { mandatory: true })
            // The publishers' connection may still be reconnecting.
            yield* Effect.retry(publish, { while: ({ reason }) => reason._tag === "PublishUnknown" })
          }
          for (const i of range(20)) assert.strictEqual(yield* Queue.take(got), `${round}-${i}`)
          const generation = state.value._tag === "Open" ? state.value.generation : 0
          yield* broker.killConnections
          yield* eventually(
            "the next connection",
            Effect.sync(() => state.value._tag === "Open" && state.value.generation > generation)
          )
        }
      }).pipe(onBroker)
    )

    it.effect("by AmqpTopology too: waiting publishes are routed, and consumers find their queue", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(broker.url)
        const topology = AmqpTopology.make(
          AmqpTopology.exchange("passing", "direct", { durable: false }),
          ...range(10).map((i) => AmqpTopology.queue(`passing-${i}`, { durable: false })),
          AmqpTopology.queueBinding("passing-9", "passing", "key")
        )
        yield* Effect.gen(function* () {
          const got = yield* Queue.unbounded<string>()
          const consuming = yield* Effect.forkScoped(
            AmqpConsumer.consume("passing-9", (delivery) => Queue.offer(got, AmqpMessage.text(delivery)))
          )
          yield* untilQueue("passing-9", { consumers: 1 })
          const connection = yield* AmqpConnection.AmqpConnection
          // A caller that holds all the pool's channels, and publishes in the meantime, does not delay the declaration.
          yield* AmqpPool.get
          for (let round = 0; round < 3; round++) {
            proxy.refuse()
            proxy.rst()
            yield* eventually(
              "the connection to be lost",
              Effect.sync(() => connection.state.value._tag === "Reconnecting")
            )
            // The same state as after a restart of the broker.
            yield* Effect.gen(function* () {
              for (const i of range(10)) yield* deleteQueue(`passing-${i}`)
              yield* Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDelete("passing")))
            }).pipe(withConsumers(broker.url))
            const waiting = yield* startAll(
              range(20).map((i) =>
                outcomeOf(
                  AmqpPublisher.publish(
                    { exchange: "passing", routingKey: "key", content: `${round}-${i}` },
                    { mandatory: true, timeout: "20 seconds" }
                  )
                )
              )
            )
            proxy.heal()
            assert.deepStrictEqual(new Set(yield* joinAll(waiting)), new Set(["Confirmed"]))
            const texts = yield* Effect.timeout(Queue.takeN(got, 20), "20 seconds")
            assert.sameMembers(
              texts,
              range(20).map((i) => `${round}-${i}`)
            )
            assert.isUndefined(consuming.pollUnsafe())
          }
        }).pipe(
          Effect.provide(AmqpTopology.layer(topology)),
          withConsumers(proxy.through(broker.url), { pool: { max: 1 } })
        )
      })
    )
  })
})

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("19. No default of ours drops a message; every loop of redeliveries is paced.", () => {
    it.effect(
      "a service that forwards messages loses none in a memory alarm, and does not retry in a busy loop while it lasts",
      () =>
        onTestBroker({}, function* (broker) {
          const from = yield* declareQueue()
          const to = yield* declareQueue()
          yield* send(from, ...range(20).map(String))
          let failures = 0
          yield* broker.blockPublishers
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              from,
              ({ content }) =>
                AmqpPublisher.publish({ routingKey: to, content }, { timeout: "100 millis" }).pipe(
                  Effect.tapError(() => Effect.sync(() => failures++))
                ),
              { concurrency: 10 }
            )
          )
          // Each message has failed, and some have failed again, as often as their pauses allow.
          yield* Effect.repeat(Effect.sleep("20 millis"), { until: () => failures >= 20 })
          yield* Effect.sleep("1500 millis")
          assert.isAtMost(failures, 60)
          yield* broker.unblockPublishers
          const forwarded = new Set<string>()
          while (forwarded.size < 20) forwarded.add(yield* nextText(to))
          yield* untilQueue(from, { messages: 0, unacked: 0, consumers: 1 })
        }),
      120_000
    )
  })

  describe("13. Blocked publishers wait; consumers go on consuming and acking.", () => {
    it.effect(
      "the memory alarm is raised and cleared 20 times: consumers progress during each, no message is lost or delivered twice",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const rounds = 20
          const perAlarm = 20
          yield* Effect.gen(function* () {
            const publisher = yield* AmqpPublisher.AmqpPublisher
            const backlog = yield* declareQueue()
            const work = yield* declareQueue()
            yield* Effect.forEach(range(rounds * perAlarm), (i) => send(backlog, String(i)), {
              concurrency: 50,
              discard: true
            })

            // One consumer handles messages that existed before, one per permit. The other one handles what is
            // published.
            const permits = yield* Queue.unbounded<void>()
            const handled = { backlog: [] as Array<string>, work: [] as Array<string> }
            yield* Effect.forkScoped(
              AmqpConsumer.consume(backlog, (delivery) =>
                Effect.map(Queue.take(permits), () => void handled.backlog.push(AmqpMessage.text(delivery)))
              )
            )
            yield* Effect.forkScoped(
              AmqpConsumer.consume(
                work,
                (delivery) => Effect.sync(() => void handled.work.push(AmqpMessage.text(delivery))),
                {
                  concurrency: 10
                }
              )
            )
            yield* untilQueue(backlog, { consumers: 1 })
            yield* untilQueue(work, { consumers: 1 })

            const stop = { now: false }
            const outcomes = new Map<string, string>()
            let next = 0
            const publishing = yield* startAll(
              range(20).map(() =>
                Effect.gen(function* () {
                  while (!stop.now) {
                    const id = String(next++)
                    const outcome = yield* outcomeOf(
                      AmqpPublisher.publish({ routingKey: work, content: id, persistent: false })
                    )
                    assert.isFalse(outcomes.has(id))
                    outcomes.set(id, outcome)
                  }
                })
              )
            )
            const whileBlocked: Array<number> = []
            for (let round = 1; round <= rounds; round++) {
              const { confirmed } = yield* publisher.stats
              yield* eventually(
                "publishing",
                Effect.map(publisher.stats, (stats) => stats.confirmed > confirmed)
              )
              yield* broker.blockPublishers
              yield* eventually(
                "to be blocked",
                Effect.sync(() => publisher.flow.value._tag === "Blocked")
              )
              const [before, began] = [handled.backlog.length, performance.now()]
              yield* Effect.forEach(range(perAlarm), () => Queue.offer(permits, undefined))
              // The broker has received the acknowledgement.
              yield* untilQueue(backlog, { messages: (rounds - round) * perAlarm })
              assert.strictEqual(handled.backlog.length, before + perAlarm)
              assert.strictEqual(publisher.flow.value._tag, "Blocked")
              whileBlocked.push(performance.now() - began)
              yield* broker.unblockPublishers
              yield* eventually(
                "to be unblocked",
                Effect.sync(() => publisher.flow.value._tag === "Flowing")
              )
            }
            stop.now = true
            yield* joinAll(publishing)
            yield* untilQueue(work, { messages: 0 })
            yield* untilQueue(backlog, { messages: 0 })

            assert.strictEqual(handled.backlog.length, rounds * perAlarm)
            assert.strictEqual(new Set(handled.backlog).size, rounds * perAlarm)
            assert.strictEqual(outcomes.size, next)
            assert.deepStrictEqual(new Set(outcomes.values()), new Set(["Confirmed"]))
            assert.strictEqual(new Set(handled.work).size, next)
            assert.strictEqual(handled.work.length, next)
            const { state } = yield* AmqpConnection.AmqpConnection
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            assert.deepInclude(yield* publisher.stats, { inFlight: 0, waiting: 0, unknown: 0, timedOut: 0 })
            console.log(
              [
                "The memory alarm, raised and cleared 20 times",
                `published and confirmed          ${next}`,
                `lost                             ${next - new Set(handled.work).size}`,
                `delivered twice                  ${handled.work.length - new Set(handled.work).size}`,
                `consumed and acked while raised  ${handled.backlog.length}`,
                `ms for 20 of them, at most       ${Math.round(Math.max(...whileBlocked))}`
              ].join("\n")
            )
          }).pipe(withConsumers(broker.url, { publishTimeout: Duration.seconds(30) }))
        }),
      120_000
    )
  })

  describe("a handler that is slower than the broker's consumer_timeout", () => {
    /** Applies to channels that are opened while it is in force. */
    const shortConsumerTimeout = Effect.acquireRelease(
      Effect.flatMap(TestBroker.TestBroker, (broker) =>
        Effect.as(
          broker.evaluate(
            "application:set_env(rabbit, consumer_timeout, 1500), application:set_env(rabbit, channel_tick_interval, 200)."
          ),
          broker
        )
      ),
      (broker) =>
        Effect.orDie(
          broker.evaluate(
            "application:set_env(rabbit, consumer_timeout, 1800000), application:set_env(rabbit, channel_tick_interval, 60000)."
          )
        )
    )

    it.effect(
      "loses its delivery: its late ack is DeliverySettled, the message is delivered again, and others are not affected",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* shortConsumerTimeout
          yield* Effect.gen(function* () {
            const ends = yield* timeoutEnds
            const queue = yield* declareQueue(ends === "channel" ? {} : { queueType: "quorum" })
            const other = yield* declareQueue()
            const acks = yield* Queue.unbounded<readonly [boolean, string]>()
            // An ack can be sent while the broker closes the channel because of another delivery: then the message
            // comes once more.
            const first = Queue.take(acks).pipe(Effect.repeat({ while: ([redelivered]) => redelivered }))
            const late = yield* Latch.make()
            const started = yield* Queue.unbounded<void>()
            let slow = true
            yield* Effect.forkScoped(
              AmqpConsumer.consume(
                queue,
                (delivery) =>
                  Effect.gen(function* () {
                    if (slow) {
                      slow = false
                      yield* Queue.offer(started, undefined)
                      yield* late.await
                    }
                    yield* Queue.offer(acks, [delivery.redelivered, yield* tagOf(delivery.ack)])
                  }),
                { concurrency: 2 }
              )
            )
            const served = yield* Queue.unbounded<string>()
            yield* Effect.forkScoped(
              AmqpConsumer.consume(other, (delivery) => Queue.offer(served, AmqpMessage.text(delivery)), {
                resubscribe: "never"
              })
            )
            const ending = yield* AmqpConsumer.stream(queue, { prefetch: 1 }).pipe(
              Stream.tap((delivery) =>
                Queue.offer(started, undefined).pipe(
                  Effect.andThen(late.await),
                  Effect.andThen(tagOf(delivery.ack)),
                  Effect.map((tag) => assert.strictEqual(tag, "DeliverySettled"))
                )
              ),
              Stream.runDrain,
              reasonOf,
              Effect.forkScoped
            )
            yield* untilQueue(queue, { consumers: 2 })
            yield* untilQueue(other, { consumers: 1 })
            const consumer = yield* AmqpConsumer.AmqpConsumer
            const { state } = yield* consumer.connection

            yield* send(queue, "to the one", "to the other")
            yield* Queue.takeN(started, 2)
            const again = yield* Effect.timeout(Queue.takeN(acks, 2), "20 seconds")
            assert.deepStrictEqual(again, [
              [true, "Success"],
              [true, "Success"]
            ])
            assert.isUndefined(ending.pollUnsafe())
            yield* late.open
            assert.deepStrictEqual(yield* first, [false, "DeliverySettled"])
            // The stream ends with the reason at its next pull. The consumer with handlers continues.
            const reason = yield* Fiber.join(ending)
            if (ends === "channel") {
              assert.deepInclude(reason, { _tag: "PreconditionFailed", replyCode: 406 })
              assert.include(reason.message, "timed out")
            } else {
              assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue })
              assert.include(reason.message, "not settled within the consumer timeout")
            }
            yield* send(queue, "after")
            assert.deepStrictEqual(yield* first, [false, "Success"])
            yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
            yield* send(other, "still there")
            assert.strictEqual(yield* Queue.take(served), "still there")
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
          }).pipe(withConsumers(broker.url))
        }).pipe(Effect.scoped)
    )
  })

  describe("channel-max", () => {
    const fewChannels = Effect.acquireRelease(
      Effect.flatMap(TestBroker.TestBroker, (broker) =>
        Effect.as(broker.evaluate("application:set_env(rabbit, channel_max, 2)."), broker)
      ),
      (broker) => Effect.orDie(broker.evaluate("application:set_env(rabbit, channel_max, 2047)."))
    )

    it.effect(
      "a consumer without a channel fails, or waits until another consumer has ended; others are not affected",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* fewChannels
          yield* Effect.gen(function* () {
            const queues = yield* Effect.forEach(range(3), () => declareQueue())
            const got = yield* Queue.unbounded<string>()
            const consume = (i: number, options?: AmqpConsumer.ConsumeOptions) =>
              AmqpConsumer.consume(queues[i]!, (delivery) => Queue.offer(got, AmqpMessage.text(delivery)), options)
            const [first] = yield* Effect.forEach([0, 1], (i) => Effect.forkScoped(consume(i)))
            yield* untilQueue(queues[0]!, { consumers: 1 })
            yield* untilQueue(queues[1]!, { consumers: 1 })
            assert.deepInclude(yield* reasonOf(consume(2, { resubscribe: "never" })), {
              _tag: "ChannelMaxReached",
              channelMax: 2
            })
            const waiting = yield* Effect.forkScoped(consume(2))
            yield* send(queues[1]!, "one")
            assert.strictEqual(yield* Queue.take(got), "one")
            assert.isUndefined(waiting.pollUnsafe())
            yield* Fiber.interrupt(first!)
            yield* untilQueue(queues[2]!, { consumers: 1 })
            yield* send(queues[2]!, "two")
            assert.strictEqual(yield* Queue.take(got), "two")
            const consumer = yield* AmqpConsumer.AmqpConsumer
            const { state } = yield* consumer.connection
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
          }).pipe(withConsumers(broker.url, { pool: { max: 1 } }))
        }).pipe(Effect.scoped)
    )
  })
})

describe("14. A delivery settles at most once, and only on the channel that delivered it. A late ack is a typed error, not a 406.", () => {
  /** The settlements on the wire: the method, the connection, the channel and the tag of each. */
  const settled = (broker: ScriptedBroker.ScriptedBroker) =>
    broker.log.flatMap((r) =>
      r.method === "basic.ack" || r.method === "basic.nack" || r.method === "basic.reject"
        ? [[r.method, r.connection.id, r.channel, r.args.deliveryTag]]
        : []
    )

  plain.live(
    "after a resubscription, an old delivery's ack does not affect the new ones, whose numbers are the same",
    () =>
      onScriptedBroker({}, function* (broker) {
        const deliveries = yield* Queue.unbounded<AmqpConsumer.Delivery>()
        const gate = yield* Latch.make()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("q", (delivery) => Effect.andThen(Queue.offer(deliveries, delivery), gate.await), {
            concurrency: 2
          })
        )
        broker.enqueue("q", "a")
        const old = yield* Queue.take(deliveries)
        broker.destroy()
        const now = yield* Queue.take(deliveries)
        assert.strictEqual(AmqpMessage.text(now), "a")
        assert.isTrue(old.isSettled)
        assert.isFalse(now.isSettled)
        for (const settle of [old.ack, old.nack(), old.reject()]) {
          const reason = yield* reasonOf(settle)
          assert.strictEqual(reason._tag, "DeliverySettled")
          assert.include(reason.message, "delivered again")
        }
        assert.deepStrictEqual(settled(broker), [])
        yield* now.ack
        assert.strictEqual(yield* tagOf(now.ack), "DeliverySettled")
        yield* gate.open
        broker.enqueue("q", "b")
        yield* broker.received("basic.ack", 2)
        const [consumers] = broker.log.flatMap((r) => (r.method === "basic.consume" ? [r.connection.id] : [])).slice(-1)
        assert.deepStrictEqual(settled(broker), [
          ["basic.ack", consumers, 1, 1],
          ["basic.ack", consumers, 1, 2]
        ])
        assert.strictEqual(broker.count("channel.close-ok"), 0)
      })
  )

  plain.live("of concurrent ack, nack and reject of one delivery one is sent, and the others fail", () =>
    onScriptedBroker({}, function* (broker) {
      const count = 100
      for (const i of range(count)) broker.enqueue("q", String(i))
      const outcomes = yield* AmqpConsumer.stream("q").pipe(
        Stream.mapEffect((delivery) =>
          Effect.all(
            [delivery.ack, delivery.nack({ requeue: false }), delivery.reject({ requeue: false })].map((settle) =>
              Effect.andThen(Effect.yieldNow, tagOf(settle))
            ),
            { concurrency: "unbounded" }
          )
        ),
        Stream.take(count),
        Stream.runCollect
      )
      for (const each of outcomes) {
        assert.sameMembers<string>(each, ["Success", "DeliverySettled", "DeliverySettled"])
      }
      const tags = settled(broker).map(([, , , tag]) => tag)
      assert.sameMembers(
        tags,
        range(count).map((i) => i + 1)
      )
    })
  )

  plain.live("a settlement after its consumer has ended fails, and nothing is sent", () =>
    onScriptedBroker({}, function* (broker) {
      broker.enqueue("q", "a")
      const [delivery] = yield* Stream.runCollect(Stream.take(AmqpConsumer.stream("q"), 1))
      assert.strictEqual(yield* tagOf(delivery!.ack), "DeliverySettled")
      assert.deepStrictEqual(settled(broker), [])
      yield* broker.until((now) => now.ready("q") === 1)
    })
  )
})

describe("generations: what an old connection still delivers does not affect the next one, whose numbers are the same", () => {
  plain.live("deliveries and cancels behind connection.close, in the same segment", () =>
    onScriptedBroker({}, function* (broker) {
      const got = yield* Queue.unbounded<string>()
      yield* Effect.forkScoped(
        AmqpConsumer.consume("q", (delivery) => Queue.offer(got, AmqpMessage.text(delivery)), { consumerTag: "same" })
      )
      yield* broker.received("basic.consume")
      broker.enqueue("q", "first")
      assert.strictEqual(yield* Queue.take(got), "first")
      yield* broker.received("basic.ack")
      const forced = { replyCode: 320, replyText: "CONNECTION_FORCED", classId: 0, methodId: 0 }
      const deliver = { consumerTag: "same", deliveryTag: 2, redelivered: false, exchange: "", routingKey: "q" }
      broker
        .connection()
        .write(
          Buffer.concat([
            encodeMessage(0, "connection.close", forced),
            encodeMessage(1, "basic.deliver", deliver, { body: Buffer.from("stale") }),
            encodeMessage(1, "basic.cancel", { consumerTag: "same", noWait: true })
          ])
        )
      yield* broker.received("basic.consume", 2)
      broker.enqueue("q", "second")
      assert.strictEqual(yield* Queue.take(got), "second")
      yield* broker.received("basic.ack", 2)
      assert.strictEqual(Queue.sizeUnsafe(got), 0)
      assert.deepStrictEqual(
        broker.log.flatMap((r) => (r.method === "basic.consume" ? [[r.channel, r.args.consumerTag]] : [])),
        [
          [1, "same"],
          [1, "same"]
        ]
      )
    })
  )
})

describe("a channel that the broker has closed", () => {
  plain.live("may still get what was on its way: that is dropped, and other channels and the connection continue", () =>
    onScriptedBroker({}, function* (broker) {
      const got = yield* Queue.unbounded<string>()
      const take = (delivery: AmqpConsumer.Delivery) => Queue.offer(got, AmqpMessage.text(delivery))
      yield* Effect.forkScoped(AmqpConsumer.consume("q", take, { consumerTag: "one" }))
      yield* broker.received("basic.consume")
      const sibling = yield* Effect.forkScoped(AmqpConsumer.consume("r", take, { resubscribe: "never" }))
      yield* broker.received("basic.consume", 2)
      const timedOut = { replyCode: 406, replyText: "PRECONDITION_FAILED - timed out", classId: 0, methodId: 0 }
      const deliver = { consumerTag: "one", deliveryTag: 1, redelivered: false, exchange: "", routingKey: "q" }
      const connections = broker.count("connection.open")
      const connection = broker.connection()
      const opens = broker.count("channel.open")
      broker.on("channel.open", (open) => open.hold())
      connection.inOneSegment(() => {
        connection.send(1, "channel.close", timedOut)
        connection.send(1, "basic.deliver", deliver, { body: Buffer.from("on its way") })
        connection.send(1, "basic.ack", { deliveryTag: 1, multiple: false })
        connection.send(1, "basic.cancel", { consumerTag: "one", noWait: true })
      })
      // The next channel has the same number and consumes with the same tag.
      const next = yield* broker.received("channel.open", opens + 1)
      assert.strictEqual(next.channel, 1)
      connection.write(encodeMessage(1, "basic.deliver", deliver, { body: Buffer.from("later still") }))
      broker.off("channel.open")
      broker.release("channel.open")
      yield* broker.received("basic.consume", 3)
      broker.enqueue("q", "next")
      assert.strictEqual(yield* Queue.take(got), "next")
      broker.enqueue("r", "at the sibling's")
      assert.strictEqual(yield* Queue.take(got), "at the sibling's")
      assert.isUndefined(sibling.pollUnsafe())
      assert.strictEqual(broker.count("connection.open"), connections)
      assert.strictEqual(broker.count("connection.close"), 0)
    })
  )

  plain.live(
    "does not excuse other violations: a method without a message, on a channel that is not open, ends the connection",
    () =>
      onScriptedBroker({ broker: { protocolErrors: "record" } }, function* (broker) {
        const ending = yield* Effect.forkScoped(
          reasonOf(AmqpConsumer.consume("q", () => Effect.void, { resubscribe: "never" }))
        )
        yield* broker.received("basic.consume")
        broker.connection().write(encodeMessage(7, "basic.cancel", { consumerTag: "one", noWait: true }))
        broker.connection().write(encodeMessage(7, "queue.purge-ok", { messageCount: 1 }))
        const reason = yield* Fiber.join(ending)
        assert.strictEqual(reason._tag, "ConnectionClosed")
        assert.deepInclude(reason, { isRetryable: true })
        assert.strictEqual((reason as AmqpError.ConnectionClosed).cause instanceof AmqpError.ProtocolError, true)
      })
  )
})

describe("a topology that cannot be declared again", () => {
  for (const [how, code, continuationTimeout, least, most] of [
    ["for a temporary reason delays publishers and consumers for continuationTimeout at most", 405, 300, 300, 4000],
    ["for a permanent reason delays no publisher and no consumer", 406, 8000, 0, 4000]
  ] as const) {
    plain.live(how, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const topology = AmqpTopology.make(AmqpTopology.queue("q"))
        yield* Effect.gen(function* () {
          const got = yield* Queue.unbounded<string>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume("q", (delivery) => Queue.offer(got, AmqpMessage.text(delivery)))
          )
          yield* broker.received("basic.consume")
          broker.on("queue.declare", (declare) => declare.closeChannel(code))
          const began = performance.now()
          broker.destroy()
          yield* broker.until(({ connections }) => connections === 0)
          assert.strictEqual(yield* outcomeOf(send("q", "a")), "Confirmed")
          assert.strictEqual(yield* Queue.take(got), "a")
          const took = performance.now() - began
          assert.isAtLeast(took, least)
          // A declare that fails because the queue is locked is retried. A declare of a queue that exists with other
          // properties is not.
          assert.isAtLeast(broker.count("queue.declare"), 2)
          assert.isBelow(took, most)
        }).pipe(
          Effect.provide(AmqpTopology.layer(topology)),
          withConsumers(broker.url, { continuationTimeout: Duration.millis(continuationTimeout) })
        )
      })
    )
  }
})
