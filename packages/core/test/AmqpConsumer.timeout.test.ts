/** The consumer timeout: of a queue, of a consumer, and what follows when a delivery is not settled in time. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Queue, Stream } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { reasonOf, tagOf } from "./support/amqp.ts"
import { defaultServerProperties } from "./support/brokerAnswers.ts"
import { declareQueue, logged, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { takesQueueTimeout, timeoutEnds } from "./support/versions.ts"

/** RabbitMQ up to 4.2 looks at timeouts once a minute: here more often, on channels that are opened while it runs. */
const soon = Effect.acquireRelease(
  Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
    evaluate("application:set_env(rabbit, channel_tick_interval, 200).")
  ),
  () =>
    Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
      Effect.orDie(evaluate("application:set_env(rabbit, channel_tick_interval, 60000)."))
    )
)

/** How an ack has ended, of which delivery. */
type Ack = readonly [text: string, redelivered: boolean, tag: string]

const acknowledged = (acks: Queue.Queue<Ack>, delivery: AmqpConsumer.Delivery) =>
  Effect.flatMap(tagOf(delivery.ack), (tag) =>
    Queue.offer(acks, [AmqpMessage.text(delivery), delivery.redelivered, tag])
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A queue's consumerTimeout ends the wait for a slow handler, and the consumer goes on.", () => {
    it.effect("its late ack is DeliverySettled, its message comes again, and the log says why, with the cure", () =>
      logged((lines) =>
        Effect.gen(function* () {
          if (!(yield* takesQueueTimeout)) return
          yield* soon
          const ends = yield* timeoutEnds
          const queue = yield* declareQueue({ queueType: "quorum", consumerTimeout: "2 seconds" })
          const late = yield* Latch.make()
          const acks = yield* Queue.unbounded<Ack>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              queue,
              (delivery) =>
                Effect.andThen(delivery.redelivered ? Effect.void : late.await, acknowledged(acks, delivery)),
              { concurrency: 2 }
            )
          )
          yield* send(queue, "slow")
          assert.deepStrictEqual(yield* Queue.take(acks), ["slow", true, "Success"])
          yield* late.open
          assert.deepStrictEqual(yield* Queue.take(acks), ["slow", false, "DeliverySettled"])
          yield* send(queue, "next")
          assert.deepStrictEqual(yield* Queue.take(acks), ["next", false, "Success"])
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
          const line =
            lines.find(({ text }) => text.startsWith("AMQP consumer interrupted, subscribing again"))?.text ?? ""
          assert.include(line, ends === "consumer" ? "within the consumer timeout of 2s" : "timed out")
          if (ends === "consumer") assert.include(line, "raise consumerTimeout")
          assert.notInclude(line, "was deleted")
        })
      ).pipe(onBroker)
    )

    it.effect("since RabbitMQ 4.3 what else the consumer has in hand is still settled, once", () =>
      Effect.gen(function* () {
        if ((yield* timeoutEnds) === "channel") return
        const broker = yield* TestBroker.TestBroker
        const queue = yield* declareQueue({ queueType: "quorum", consumerTimeout: "3 seconds" })
        const started = yield* Latch.make()
        const late = yield* Latch.make()
        const again = yield* Latch.make()
        const acks = yield* Queue.unbounded<Ack>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) => {
              const text = AmqpMessage.text(delivery)
              const wait = delivery.redelivered
                ? again.open
                : text === "slow"
                  ? Effect.andThen(started.open, late.await)
                  : again.await
              return Effect.andThen(wait, acknowledged(acks, delivery))
            },
            { concurrency: 3 }
          )
        )
        yield* send(queue, "slow")
        yield* started.await
        const { channels } = yield* broker.census
        // Half of the timeout apart, so that the broker takes back one of them.
        yield* Effect.sleep("1500 millis")
        yield* send(queue, "good")
        assert.sameDeepMembers(yield* Queue.takeN(acks, 2), [
          ["slow", true, "Success"],
          ["good", false, "Success"]
        ])
        yield* late.open
        assert.deepStrictEqual(yield* Queue.take(acks), ["slow", false, "DeliverySettled"])
        // The first subscription is gone, and its consumer holds nothing.
        yield* send(queue, "next")
        assert.deepStrictEqual(yield* Queue.take(acks), ["next", false, "Success"])
        yield* broker.awaitCensus({ unacked: 0, consumers: 1, channels })
        yield* untilQueue(queue, { messages: 0, consumers: 1 })
        assert.strictEqual(yield* Queue.size(acks), 0)
      }).pipe(onBroker)
    )

    it.effect("a consumer that does not subscribe again ends with the reason", () =>
      Effect.gen(function* () {
        if (!(yield* takesQueueTimeout)) return
        yield* soon
        const queue = yield* declareQueue({ queueType: "quorum", consumerTimeout: "1500 millis" })
        yield* send(queue, "slow")
        const reason = yield* reasonOf(
          AmqpConsumer.consume(queue, () => Effect.never, { resubscribe: "never", shutdownTimeout: 0 })
        )
        if ((yield* timeoutEnds) === "channel") {
          assert.deepInclude(reason, { _tag: "PreconditionFailed", replyCode: 406 })
          return
        }
        assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue })
        assert.include(reason.message, "a delivery was not settled within the consumer timeout of 1s 500ms")
        assert.notInclude(reason.message, "was deleted")
      }).pipe(onBroker)
    )

    it.effect("since RabbitMQ 4.3 one that is not known here is named as what it may have been", () =>
      Effect.gen(function* () {
        const { evaluate } = yield* TestBroker.TestBroker
        if ((yield* timeoutEnds) === "channel") return
        yield* Effect.acquireRelease(evaluate("application:set_env(rabbit, consumer_timeout, 1500)."), () =>
          Effect.orDie(evaluate("application:set_env(rabbit, consumer_timeout, 1800000)."))
        )
        const queue = yield* declareQueue({ queueType: "quorum" })
        yield* send(queue, "slow")
        const acks = yield* Queue.unbounded<Ack>()
        const late = yield* Latch.make()
        const reason = yield* AmqpConsumer.stream(queue).pipe(
          // It is handed out, and held.
          Stream.tap((delivery) => Effect.forkScoped(Effect.andThen(late.await, acknowledged(acks, delivery)))),
          Stream.runDrain,
          reasonOf
        )
        yield* late.open
        assert.deepStrictEqual(yield* Queue.take(acks), ["slow", false, "DeliverySettled"])
        assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue })
        assert.match(
          reason.message,
          /or a delivery was not settled within the consumer timeout \(the oldest was held for 1s \d+ms\)/
        )
      }).pipe(onBroker)
    )
  })

  describe("A consumer's consumerTimeout is the broker's where the broker takes it: RabbitMQ 4.3, of quorum queues.", () => {
    it.effect("it comes before the queue's", () =>
      Effect.gen(function* () {
        if ((yield* timeoutEnds) === "channel") return
        const queue = yield* declareQueue({ queueType: "quorum", consumerTimeout: "1 hour" })
        yield* send(queue, "slow")
        const redelivered = yield* Queue.unbounded<boolean>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) =>
              Effect.andThen(
                Queue.offer(redelivered, delivery.redelivered),
                delivery.redelivered ? Effect.void : Effect.never
              ),
            { consumerTimeout: "1500 millis", concurrency: 2, shutdownTimeout: 0 }
          )
        )
        assert.deepStrictEqual(yield* Queue.takeN(redelivered, 2), [false, true])
      }).pipe(onBroker)
    )

    for (const queueType of [undefined, "classic", "quorum"] as const) {
      it.effect(`a queue that is declared as ${queueType ?? "none"} is consumed with it, on every version`, () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType })
          yield* send(queue, "a")
          const handled = yield* Queue.unbounded<string>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, (delivery) => Queue.offer(handled, AmqpMessage.text(delivery)), {
              consumerTimeout: "1 hour",
              resubscribe: "never"
            })
          )
          assert.strictEqual(yield* Queue.take(handled), "a")
        }).pipe(onBroker)
      )
    }
  })

  describe("A consumerTimeout that a queue cannot have is refused with the cure.", () => {
    for (const queueType of [undefined, "classic", "stream"] as const) {
      it.effect(`RabbitMQ 4.3 has none for ${queueType ?? "a queue without a type"}; earlier versions take it`, () =>
        Effect.gen(function* () {
          const declare = declareQueue({ queueType, consumerTimeout: "1 minute" })
          if ((yield* timeoutEnds) === "channel") return void (yield* declare)
          const reason = yield* reasonOf(declare)
          assert.deepInclude(reason, { _tag: "InvalidArgument", argument: "consumerTimeout" })
          assert.include(reason.message, 'Declare it with queueType: "quorum"')
        }).pipe(onBroker)
      )
    }
  })
})

describe("A consumer that RabbitMQ 4.3 has cancelled is ended there too, by basic.cancel.", () => {
  const product = (version: string) => ({ ...defaultServerProperties, product: "RabbitMQ", version })

  for (const [version, answers] of [
    ["4.2.9", []],
    ["4.3.6", ["basic.cancel"]],
    ["4.10.0", ["basic.cancel"]]
  ] as const) {
    plain.live(`${version}: ${answers.length === 0 ? "nothing is sent" : "else an ack would wake it up"}`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ serverProperties: product(version) })
        broker.enqueue("q", "a")
        yield* Effect.gen(function* () {
          const started = yield* Latch.make()
          const late = yield* Latch.make()
          yield* Effect.forkScoped(
            AmqpConsumer.consume("q", () => Effect.andThen(started.open, late.await), {
              consumerTag: "c",
              resubscribe: "never"
            })
          )
          yield* started.await
          const { channel } = yield* broker.received("basic.consume")
          broker.send(channel, "basic.cancel", { consumerTag: "c", noWait: true })
          if (answers.length > 0) yield* broker.received("basic.cancel")
          yield* late.open
          yield* broker.received("basic.ack")
          const seen = broker.methods({ channel }).filter((method) => method.startsWith("basic.cancel"))
          assert.deepStrictEqual(seen, [...answers])
        }).pipe(withConsumers(broker.url))
      })
    )
  }

  /** What a handler does, by the text of its message. */
  interface Gates {
    readonly lateStarted: Latch.Latch
    readonly goodStarted: Latch.Latch
    readonly late: Latch.Latch
    readonly good: Latch.Latch
  }
  const isLate = (text: string) => text === "slow" || text === "late"
  const rows: ReadonlyArray<
    readonly [what: string, consume: (gates: Gates) => Effect.Effect<never, unknown, AmqpConsumer.AmqpConsumer>]
  > = [
    [
      "handled one by one",
      ({ good, goodStarted, late, lateStarted }) => {
        const counts = { late: 0, good: 0 }
        return AmqpConsumer.consume(
          "q",
          (delivery) => {
            if (isLate(AmqpMessage.text(delivery))) {
              if (++counts.late === 2) lateStarted.openUnsafe()
              return Effect.andThen(late.await, Effect.fail("the database is down"))
            }
            if (++counts.good === 2) goodStarted.openUnsafe()
            return good.await
          },
          { concurrency: 4, consumerTag: "c", resubscribe: "never" }
        )
      }
    ],
    [
      "handled as a batch",
      ({ good, goodStarted, late, lateStarted }) =>
        AmqpConsumer.consumeBatch(
          "q",
          ([first]) =>
            isLate(AmqpMessage.text(first!))
              ? Effect.andThen(lateStarted.open, Effect.andThen(late.await, Effect.fail("the database is down")))
              : Effect.andThen(goodStarted.open, good.await),
          { size: 2, within: "1 hour", concurrency: 2, consumerTag: "c", resubscribe: "never" }
        )
    ]
  ]
  for (const [what, consume] of rows) {
    plain.live(`an ack covers nothing that the broker may hold still, of deliveries that are ${what}`, () =>
      onScriptedBroker({ broker: { serverProperties: product("4.3.6") } }, function* (broker) {
        const gates: Gates = {
          lateStarted: yield* Latch.make(),
          goodStarted: yield* Latch.make(),
          late: yield* Latch.make(),
          good: yield* Latch.make()
        }
        const consumer = yield* Effect.forkScoped(Effect.exit(consume(gates)))
        const { channel } = yield* broker.received("basic.consume")
        broker.enqueue("q", "slow")
        broker.enqueue("q", "late")
        yield* gates.lateStarted.await
        // Both count as taken back when the oldest was held for a second; what arrives later does not.
        yield* Effect.sleep("1100 millis")
        broker.enqueue("q", "good")
        broker.enqueue("q", "good")
        yield* gates.goodStarted.await
        broker.send(channel, "basic.cancel", { consumerTag: "c", noWait: true })
        yield* broker.received("basic.cancel")
        yield* gates.good.open
        yield* broker.received("basic.ack", 2)
        yield* gates.late.open
        yield* Fiber.join(consumer)
        const acks = broker.log.filter(({ method }) => method === "basic.ack").map(({ args }) => args)
        assert.deepStrictEqual(acks, [
          { deliveryTag: 3, multiple: false },
          { deliveryTag: 4, multiple: false }
        ])
        // Nobody has acknowledged what failed: it goes back with its channel.
        assert.strictEqual(broker.ready("q"), 2)
      })
    )
  }

  plain.live("one that wants an answer gets basic.cancel-ok, on every version", () =>
    onScriptedBroker({ broker: { serverProperties: product("4.3.6") } }, function* (broker) {
      yield* Effect.forkScoped(AmqpConsumer.consume("q", () => Effect.void, { consumerTag: "c" }))
      const { channel } = yield* broker.received("basic.consume")
      broker.send(channel, "basic.cancel", { consumerTag: "c", noWait: false })
      yield* broker.received("basic.cancel-ok")
    })
  )

  plain.live("a borrowed channel's as well", () =>
    onScriptedBroker({ broker: { serverProperties: product("4.3.6") } }, function* (broker) {
      const pool = yield* AmqpPool.AmqpPool
      const reason = yield* pool
        .use((channel) =>
          Effect.gen(function* () {
            const { consumerTag, deliveries } = yield* channel.consume("q")
            const start = yield* broker.received("basic.consume")
            broker.send(start.channel, "basic.cancel", { consumerTag, noWait: true })
            return yield* Queue.take(deliveries)
          })
        )
        .pipe(reasonOf)
      yield* broker.received("basic.cancel")
      assert.deepInclude(reason, { _tag: "ConsumerCancelled" })
      assert.include(reason.message, "or a delivery was not settled within the consumer timeout")
    })
  )

  plain.live("a consumer's timeout is sent where its queue is called a quorum queue, to a broker that takes it", () =>
    Effect.gen(function* () {
      for (const [version, queueType, expected] of [
        ["4.3.6", "quorum", 90_000],
        ["4.3.6", "classic", undefined],
        ["4.3.6", undefined, undefined],
        ["4.2.9", "quorum", undefined]
      ] as const) {
        const broker = yield* ScriptedBroker.make({ serverProperties: product(version) })
        yield* Effect.gen(function* () {
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consume("q", () => Effect.void, { queueType, consumerTimeout: "90 seconds", priority: 3 })
          )
          const { args } = yield* broker.received("basic.consume")
          assert.strictEqual(args.arguments["x-consumer-timeout"], expected)
          assert.strictEqual(args.arguments["x-priority"], 3)
          yield* Fiber.interrupt(consumer)
        }).pipe(withConsumers(broker.url))
      }
    })
  )
})
