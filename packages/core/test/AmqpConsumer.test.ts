/** Consuming with handlers, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, type AmqpError, AmqpMessage, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Exit, Fiber, Latch, Queue, Schema, SchemaGetter } from "effect"
import {
  declareQueue,
  declareWithDeadLetters,
  logged,
  next,
  nextText,
  onBroker,
  send,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import { major } from "./support/versions.ts"

/** A handler that records the text of each delivery and then runs an effect. */
const recording = <A, E, R>(then: Effect.Effect<A, E, R>) =>
  Effect.map(Queue.unbounded<string>(), (received) => ({
    received,
    handler: (delivery: AmqpConsumer.Delivery) =>
      Effect.andThen(Queue.offer(received, AmqpMessage.text(delivery)), then)
  }))

class Broken extends Schema.TaggedError<Broken>()("Broken", { message: Schema.String }) {}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A delivery is settled by how its handler ends.", () => {
    it.effect("a handler that succeeds acknowledges it", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handler, received } = yield* recording(Effect.void)
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
        yield* send(queue, "a", "b")
        assert.deepStrictEqual([yield* Queue.take(received), yield* Queue.take(received)], ["a", "b"])
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )

    it.effect("a handler that fails follows its policy, and the consumer continues", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.fail(new Broken({ message: "no" })), {
            onFailure: AmqpConsumer.deadLetter
          })
        )
        yield* send(queue, "a", "b")
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.strictEqual(yield* nextText(deadLetters), "b")
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )

    it.effect(
      "a defect, thrown or died of, follows its policy, is logged as an error, and the consumer continues",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const { deadLetters, queue } = yield* declareWithDeadLetters()
            yield* Effect.forkScoped(
              AmqpConsumer.consume(
                queue,
                (delivery) => {
                  if (AmqpMessage.text(delivery) === "throw") throw new Error("thrown")
                  return Effect.die(new Error("died"))
                },
                { onDefect: AmqpConsumer.deadLetter }
              )
            )
            yield* send(queue, "throw", "die")
            assert.strictEqual(yield* nextText(deadLetters), "throw")
            assert.strictEqual(yield* nextText(deadLetters), "die")
            const errors = lines.filter(({ level }) => level === "Error")
            assert.lengthOf(errors, 2)
            for (const { text } of errors) assert.include(text, `"queue":"${queue}"`)
          })
        ).pipe(onBroker)
    )

    it.effect("defects have their own policy", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) => (AmqpMessage.text(delivery) === "die" ? Effect.die("defect") : Effect.fail("failure")),
            { onDefect: AmqpConsumer.drop, onFailure: AmqpConsumer.deadLetter }
          )
        )
        yield* send(queue, "die", "fail")
        assert.strictEqual(yield* nextText(deadLetters), "fail")
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("a policy can depend on the error", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const seen = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) =>
              Effect.gen(function* () {
                const text = AmqpMessage.text(delivery)
                yield* Queue.offer(seen, `${text} ${delivery.redelivered}`)
                if (!delivery.redelivered || text !== "requeue") yield* new Broken({ message: text })
              }),
            {
              onFailure: (error, delivery) => {
                assert.strictEqual(error.message, AmqpMessage.text(delivery))
                if (error.message === "requeue") return AmqpConsumer.requeue
                return error.message === "drop" ? AmqpConsumer.drop : AmqpConsumer.deadLetter
              }
            }
          )
        )
        yield* send(queue, "requeue")
        assert.deepStrictEqual([yield* Queue.take(seen), yield* Queue.take(seen)], ["requeue false", "requeue true"])
        yield* send(queue, "drop", "dead")
        assert.strictEqual(yield* nextText(deadLetters), "dead")
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("a function that chooses no policy means redeliver, and the consumer continues", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const again = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) => {
              const text = AmqpMessage.text(delivery)
              return delivery.redelivered ? Queue.offer(again, text) : Effect.fail(text)
            },
            {
              onFailure: (error) => {
                if (error === "throws") throw new Error("no policy")
                if (error === "nothing") return undefined as never
                return AmqpConsumer.retry({ delay: Number.NaN, times: 1 })
              }
            }
          )
        )
        yield* send(queue, "throws", "nothing", "invalid")
        assert.sameMembers(yield* Queue.takeN(again, 3), ["throws", "nothing", "invalid"])
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("a delivery that the handler has settled stays settled, however the handler ends", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const done = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, (delivery) =>
            Effect.gen(function* () {
              const text = AmqpMessage.text(delivery)
              if (text === "reject") yield* delivery.reject({ requeue: false })
              else yield* delivery.ack
              assert.isTrue(delivery.isSettled)
              yield* Queue.offer(done, text)
              if (text === "ack and fail") yield* new Broken({ message: "late" })
            })
          )
        )
        yield* send(queue, "ack", "ack and fail", "reject")
        assert.deepStrictEqual(yield* Queue.takeN(done, 3), ["ack", "ack and fail", "reject"])
        assert.strictEqual(yield* nextText(deadLetters), "reject")
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )

    it.effect("a handler that interrupts itself has its delivery requeued, after a pause", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const times = yield* Queue.unbounded<number>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, (delivery) =>
            Effect.andThen(Queue.offer(times, Date.now()), delivery.redelivered ? Effect.void : Effect.interrupt)
          )
        )
        yield* send(queue, "a")
        const [first, second] = yield* Queue.takeN(times, 2)
        assert.isAtLeast(second! - first!, 900)
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )

    it.effect("a handler has its own scope, which is closed before the delivery is settled", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const closing = yield* Queue.unbounded<boolean>()
        const pool = yield* AmqpPool.AmqpPool
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, (delivery) =>
            Effect.gen(function* () {
              yield* Effect.addFinalizer(() => Queue.offer(closing, delivery.isSettled))
              yield* AmqpChannel.use((channel) => channel.queueDeclarePassive(queue))
              assert.strictEqual((yield* pool.stats).used, 1)
            })
          )
        )
        yield* send(queue, "a", "b")
        assert.deepStrictEqual(yield* Queue.takeN(closing, 2), [false, false])
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        assert.strictEqual((yield* pool.stats).used, 0)
      }).pipe(onBroker)
    )
  })

  describe("A consumer decodes by its schema, and a message that does not decode never stops it.", () => {
    const Order = Schema.Struct({ id: Schema.Int, placed: Schema.Date })

    it.effect("the handler gets the value and the delivery", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const got = yield* Deferred.make<readonly [number, string, string]>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (order, delivery) =>
              Deferred.succeed(got, [order.id, order.placed.toISOString(), delivery.properties.messageId ?? ""]),
            { schema: Order }
          )
        )
        const message = yield* AmqpMessage.json(Order).encode(
          { id: 7, placed: new Date(0) },
          { routingKey: queue, messageId: "m" }
        )
        yield* AmqpPublisher.publish(message)
        assert.deepStrictEqual(yield* Deferred.await(got), [7, "1970-01-01T00:00:00.000Z", "m"])
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect(
      "a message that does not decode follows its own policy: dead-lettered, without its content in the log",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const { deadLetters, queue } = yield* declareWithDeadLetters()
            const { handler, received } = yield* recording(Effect.void)
            yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, (_order, delivery) => handler(delivery), {
                schema: Order,
                onDecodeFailure: AmqpConsumer.deadLetter
              })
            )
            const good = '{"id":1,"placed":"1970-01-01T00:00:00.000Z"}'
            yield* send(queue, "geheim", '{"id":"geheim"}', good)
            assert.strictEqual(yield* Queue.take(received), good)
            assert.strictEqual(yield* nextText(deadLetters), "geheim")
            assert.strictEqual(yield* nextText(deadLetters), '{"id":"geheim"}')
            yield* untilQueue(queue, { messages: 0, unacked: 0 })
            assert.isAtLeast(lines.length, 2)
            assert.notInclude(JSON.stringify(lines), "geheim")
          })
        ).pipe(onBroker)
    )

    it.effect("a schema that dies is a defect, and follows that policy", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const { handler, received } = yield* recording(Effect.void)
        const fragile = Schema.String.pipe(
          Schema.decodeTo(Schema.String, {
            decode: SchemaGetter.transform((text): string => {
              if (text === "die") throw new Error("died")
              return text
            }),
            encode: SchemaGetter.passthrough()
          })
        )
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, (_text, delivery) => handler(delivery), {
            schema: fragile,
            onDecodeFailure: AmqpConsumer.drop,
            onDefect: AmqpConsumer.deadLetter
          })
        )
        yield* send(queue, '"die"', '"live"')
        assert.strictEqual(yield* Queue.take(received), '"live"')
        assert.strictEqual(yield* nextText(deadLetters), '"die"')
      }).pipe(onBroker)
    )

    it.effect("the policy can be a function of the reason", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const reasons = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.void, {
            schema: Order,
            onDecodeFailure: (error) => {
              Queue.offerUnsafe(reasons, error.reason._tag)
              return AmqpConsumer.drop
            }
          })
        )
        yield* send(queue, "not json")
        assert.strictEqual(yield* Queue.take(reasons), "DecodeFailed")
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )
  })

  describe("Messages that are delivered too often are given up.", () => {
    /** Consumes with a handler that fails each time but the last, and returns the number of each attempt. */
    const failing = (queue: string, options?: AmqpConsumer.ConsumeOptions, last = Infinity) =>
      Effect.gen(function* () {
        const attempts = yield* Queue.unbounded<number>()
        const handler = ({ attempt }: AmqpConsumer.Delivery) =>
          Effect.andThen(Queue.offer(attempts, attempt), attempt < last ? Effect.fail("again") : Effect.void)
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, options))
        return attempts
      })

    it.effect("each failure counts, in a quorum queue", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum" })
        const attempts = yield* failing(queue, { maxDeliveries: 3, onFailure: AmqpConsumer.requeue })
        yield* send(queue, "a")
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.deepStrictEqual(yield* Queue.takeAll(attempts), [1, 2, 3])
      }).pipe(onBroker)
    )

    it.effect(
      "a quorum queue of RabbitMQ 4 gives up a message that was returned 20 times, one of RabbitMQ 3 never",
      () =>
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum" })
          const attempts = yield* Queue.unbounded<number>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, (delivery) =>
              Effect.andThen(
                Queue.offer(attempts, delivery.attempt),
                delivery.attempt < 30 ? delivery.reject() : Effect.void
              )
            )
          )
          yield* send(queue, "a")
          const last = (yield* major) < 4 ? 30 : 21
          assert.deepStrictEqual(
            yield* Queue.takeN(attempts, last),
            Array.from({ length: last }, (_, i) => i + 1)
          )
          yield* untilQueue(queue, { messages: 0, unacked: 0 })
          yield* untilQueue(deadLetters, { messages: last === 21 ? 1 : 0 })
        }).pipe(onBroker)
    )

    it.effect("each failure counts in a classic queue too, which has no count of its own", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const attempts = yield* failing(queue, { maxDeliveries: 1, onFailure: AmqpConsumer.requeue })
        yield* send(queue, "a")
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.deepStrictEqual(yield* Queue.takeAll(attempts), [1])
      }).pipe(onBroker)
    )

    it.effect("a message that was rejected and came back through a dead-letter exchange counts", () =>
      Effect.gen(function* () {
        const deadLetterRoutingKey = "rejected"
        const work = yield* declareQueue({ deadLetterExchange: "", deadLetterRoutingKey })
        yield* declareQueue({ messageTtl: 1, deadLetterExchange: "", deadLetterRoutingKey: work }, deadLetterRoutingKey)
        const attempts = yield* failing(work, { onFailure: AmqpConsumer.deadLetter })
        yield* send(work, "a")
        assert.deepStrictEqual(yield* Queue.takeN(attempts, 3), [1, 2, 3])
      }).pipe(onBroker)
    )

    it.effect(
      "a message that a client has published again with its history counts; a dead letter that RabbitMQ 4 makes does not continue it",
      () =>
        Effect.forEach(["publish", "reject"] as const, (deadLettering) =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            const waiting = yield* declareQueue({ messageTtl: 1, deadLetterExchange: "", deadLetterRoutingKey: queue })
            const work = yield* declareQueue({ deadLetterExchange: "", deadLetterRoutingKey: waiting })
            // The message goes from the waiting queue into the first queue, and from there, by a bridge, back to the second
            // one with its history.
            const attempts = yield* failing(work, { onFailure: AmqpConsumer.deadLetter, deadLettering })
            const bridge = AmqpConsumer.consume(queue, (delivery) =>
              AmqpPublisher.publish(AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: work }))
            )
            yield* Effect.forkScoped(bridge)
            yield* send(work, "a")
            const isContinued = deadLettering === "publish" || (yield* major) < 4
            assert.deepStrictEqual(yield* Queue.takeN(attempts, 3), isContinued ? [1, 2, 3] : [1, 2, 2])
          }).pipe(onBroker)
        )
    )

    it.effect("a message that is given up is dropped if configured so", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum" })
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.fail("again"), {
            maxDeliveries: 1,
            onFailure: AmqpConsumer.requeue,
            onPoison: AmqpConsumer.drop
          })
        )
        yield* send(queue, "a")
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
      }).pipe(onBroker)
    )
  })

  describe("Concurrency and prefetch bound the running handlers and the deliveries in memory.", () => {
    it.effect(
      "at most the concurrency of handlers run at a time, and at most the prefetch of deliveries are unsettled",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const gate = yield* Latch.make()
          const started = yield* Queue.unbounded<void>()
          let running = 0
          let most = 0
          yield* send(queue, ...Array.from({ length: 40 }, (_, i) => String(i)))
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              queue,
              () =>
                Effect.gen(function* () {
                  most = Math.max(most, ++running)
                  yield* Queue.offer(started, undefined)
                  yield* gate.await
                  running--
                }),
              { concurrency: 4, prefetch: 10 }
            )
          )
          yield* Queue.takeN(started, 4)
          yield* untilQueue(queue, { unacked: 10, ready: 30 })
          assert.strictEqual(running, 4)
          yield* gate.open
          yield* Queue.takeN(started, 36)
          yield* untilQueue(queue, { messages: 0, unacked: 0 })
          assert.strictEqual(most, 4)
        }).pipe(onBroker)
    )

    it.effect("deliveries are handled in order with a concurrency of 1", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const contents = Array.from({ length: 600 }, (_, i) => String(i))
        const { handler, received } = yield* recording(Effect.yieldNow)
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { prefetch: 100 }))
        yield* send(queue, ...contents)
        assert.deepStrictEqual(yield* Queue.takeN(received, 600), contents)
      }).pipe(onBroker)
    )
  })

  describe("A consumer that ends gets no new deliveries, running handlers finish within a deadline, and the rest is returned.", () => {
    it.effect("running handlers finish and are acknowledged, prefetched deliveries are requeued and counted", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const gate = yield* Latch.make()
        const { handler, received } = yield* recording(gate.await)
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        yield* send(queue, "a", "b", "c", "d", "e")
        const consumer = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { concurrency: 2, onEnd: (end) => Queue.offer(ends, end) })
        )
        yield* Queue.takeN(received, 2)
        yield* untilQueue(queue, { unacked: 5 })
        const stopping = yield* Effect.forkScoped(Fiber.interrupt(consumer))
        // The handlers are still running.
        yield* untilQueue(queue, { consumers: 0, unacked: 5 })
        yield* gate.open
        yield* Fiber.join(stopping)
        yield* untilQueue(queue, { messages: 3, ready: 3, unacked: 0 })
        assert.deepStrictEqual(yield* Queue.take(ends), { queue, reason: undefined, requeued: 3, unsettled: 0 })
        assert.strictEqual(yield* Queue.size(received), 0)
        assert.strictEqual(yield* nextText(queue), "c")
      }).pipe(onBroker)
    )

    it.effect(
      "a handler that takes longer is interrupted, and its delivery is requeued: one warning says so, and no error",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            const { handler, received } = yield* recording(Effect.never)
            yield* send(queue, "a", "b")
            const consumer = yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { shutdownTimeout: 50 }))
            yield* Queue.take(received)
            const [time] = yield* Effect.timed(Fiber.interrupt(consumer))
            // Without the option it would be 10 seconds.
            assert.isBelow(Duration.toMillis(time), 8000)
            yield* untilQueue(queue, { ready: 2, unacked: 0, consumers: 0 })
            assert.isTrue((yield* next(queue)).redelivered)
            const [warning, ...others] = lines.filter(({ text }) => text.includes(`"${queue}"`))
            assert.deepInclude(warning, { level: "Warn", cause: "" })
            assert.match(warning!.text, /^AMQP consumer interrupted handlers .*"handlers":1\b/)
            assert.deepStrictEqual(others, [])
          })
        ).pipe(onBroker)
    )

    it.effect("a handler that cannot be interrupted is not waited for, and cannot settle any more", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const gate = yield* Latch.make()
        const late = yield* Deferred.make<Exit.Exit<void, AmqpError.AmqpError>>()
        const started = yield* Latch.make()
        yield* send(queue, "a")
        const consumer = yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) =>
              started.open.pipe(
                Effect.andThen(gate.await),
                Effect.andThen(Effect.exit(delivery.ack)),
                Effect.andThen((exit) => Deferred.succeed(late, exit)),
                Effect.uninterruptible
              ),
            { shutdownTimeout: 0 }
          )
        )
        yield* started.await
        yield* Fiber.interrupt(consumer)
        yield* untilQueue(queue, { ready: 1, unacked: 0, consumers: 0 })
        yield* gate.open
        const exit = yield* Deferred.await(late)
        assert.strictEqual(Exit.isFailure(exit) && (yield* Effect.flip(exit)).reason._tag, "DeliverySettled")
      }).pipe((effect) => onBroker(effect, { closeTimeout: Duration.millis(200) }))
    )

    it.effect("nothing is left on the broker, and the connection closes with the layer", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const census = yield* broker.census
        yield* Effect.gen(function* () {
          const queue = yield* declareQueue({ exclusive: true })
          const { handler, received } = yield* recording(Effect.void)
          // Exclusive to the connection that declared it, which is not that of the consumers.
          const refused = yield* Effect.flip(AmqpConsumer.consume(queue, handler))
          assert.strictEqual(refused.reason._tag, "ResourceLocked")
          const shared = yield* declareQueue({ autoDelete: true })
          const consumers = yield* Effect.forEach([1, 2, 3], () =>
            Effect.forkScoped(AmqpConsumer.consume(shared, handler))
          )
          yield* untilQueue(shared, { consumers: 3 })
          yield* send(shared, "a", "b", "c")
          yield* Queue.takeN(received, 3)
          // One connection for the publishers, and one for all consumers.
          assert.strictEqual((yield* broker.census).connections, census.connections + 2)
          yield* Fiber.interruptAll(consumers)
        }).pipe(withConsumers(broker.url))
        yield* broker.awaitCensus({ connections: census.connections, channels: census.channels, consumers: 0 })
      })
    )
  })

  it.effect("a handler that takes longer than three heartbeats keeps its connection, and acknowledges afterwards", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const { handler, received } = yield* recording(Effect.sleep("3500 millis"))
      const fiber = yield* Effect.forkScoped(
        AmqpConsumer.consume(queue, handler, { resubscribe: "never", onFailure: AmqpConsumer.requeue })
      )
      yield* send(queue, "a")
      yield* Queue.take(received)
      yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(yield* Queue.size(received), 0)
    }).pipe((effect) => onBroker(effect, { heartbeat: Duration.seconds(1) }))
  )
})
