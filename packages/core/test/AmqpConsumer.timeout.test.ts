/** The consumer timeout: of a queue, of a consumer, and the effects of a delivery that is not settled in time. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Queue, References, Stream } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { reasonOf, tagOf } from "./support/amqp.ts"
import { defaultServerProperties } from "./support/brokerAnswers.ts"
import { declareQueue, logged, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import { eventually } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { takesQueueTimeout, timeoutEnds } from "./support/versions.ts"

/**
 * RabbitMQ up to 4.2 checks timeouts once a minute. This makes it check more often, on channels that are opened while
 * it is in force.
 */
const soon = Effect.acquireRelease(
  Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
    evaluate("application:set_env(rabbit, channel_tick_interval, 200).")
  ),
  () =>
    Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
      Effect.orDie(evaluate("application:set_env(rabbit, channel_tick_interval, 60000)."))
    )
)

/** The outcome of an ack, with the delivery's text. */
type Ack = readonly [text: string, redelivered: boolean, tag: string]

const acknowledged = (acks: Queue.Queue<Ack>, delivery: AmqpConsumer.Delivery) =>
  Effect.flatMap(tagOf(delivery.ack), (tag) =>
    Queue.offer(acks, [AmqpMessage.text(delivery), delivery.redelivered, tag])
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A queue's consumerTimeout ends the wait for a slow handler, and the consumer continues.", () => {
    it.effect(
      "its late ack is DeliverySettled, its message is delivered again, and the log says why, with the remedy",
      () =>
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

    it.effect("the consumer's other deliveries are still settled, once, since RabbitMQ 4.3", () =>
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
        // The first subscription has ended, and its consumer holds nothing.
        yield* send(queue, "next")
        assert.deepStrictEqual(yield* Queue.take(acks), ["next", false, "Success"])
        yield* broker.awaitCensus({ unacked: 0, consumers: 1, channels })
        yield* untilQueue(queue, { messages: 0, consumers: 1 })
        assert.strictEqual(yield* Queue.size(acks), 0)
      }).pipe(onBroker)
    )

    it.effect("a consumer that does not resubscribe ends with the reason", () =>
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

    it.effect("a timeout that is not known to the client is named as a possible reason, since RabbitMQ 4.3", () =>
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
          // The delivery is taken, and not settled.
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

  describe("A consumer's consumerTimeout is sent to brokers that support it: RabbitMQ 4.3, for quorum queues.", () => {
    it.effect("it overrides the queue's", () =>
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

  describe("A consumerTimeout that a queue cannot have is refused with the remedy.", () => {
    for (const queueType of [undefined, "classic", "stream"] as const) {
      it.effect(`RabbitMQ 4.3 has none for ${queueType ?? "a queue without a type"}; earlier versions accept it`, () =>
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

const product = (version: string) => ({ ...defaultServerProperties, product: "RabbitMQ", version })

describe("A consumer that RabbitMQ 4.3 has cancelled for its timeout is also ended there, by basic.cancel.", () => {
  for (const [version, answers] of [
    ["4.2.9", []],
    ["4.3.6", ["basic.cancel"]],
    ["4.10.0", ["basic.cancel"]]
  ] as const) {
    plain.live(
      `${version}: ${answers.length === 0 ? "no basic.cancel is sent" : "basic.cancel is sent, because an ack would resume the consumer"}`,
      () =>
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

  /** The effect of a handler, by the text of its message. */
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
    plain.live(`an ack covers no delivery that the broker may still hold, of deliveries that are ${what}`, () =>
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
        // Both count as taken back when the oldest was held for a second. A delivery that arrives later does not.
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
        // The deliveries that failed were not acknowledged: they go back with their channel.
        assert.strictEqual(broker.ready("q"), 2)
      })
    )
  }

  plain.live("a basic.cancel that expects an answer gets basic.cancel-ok, on every version", () =>
    onScriptedBroker({ broker: { serverProperties: product("4.3.6") } }, function* (broker) {
      yield* Effect.forkScoped(AmqpConsumer.consume("q", () => Effect.void, { consumerTag: "c" }))
      const { channel } = yield* broker.received("basic.consume")
      broker.send(channel, "basic.cancel", { consumerTag: "c", noWait: false })
      yield* broker.received("basic.cancel-ok")
    })
  )

  plain.live("a borrowed channel's consumer is ended there as well", () =>
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

  plain.live("a consumer's timeout is sent to a broker that supports it where queueType says quorum", () =>
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

/** The connection logs its own loss, so that of a consumer is a line for debugging. */
const withDebugLines = Effect.provideService(References.MinimumLogLevel, "Debug")

/** Ends the connection, and waits until the consumer has logged its second subscription. */
const secondSubscription = (broker: ScriptedBroker.ScriptedBroker, lines: ReadonlyArray<{ readonly text: string }>) =>
  Effect.gen(function* () {
    yield* broker.received("basic.consume")
    broker.destroy()
    yield* eventually(
      "the second subscription",
      Effect.sync(() => lines.filter(({ text }) => text.startsWith("AMQP consumer subscribed")).length === 2)
    )
  })

describe("A consumer's timeout that sets nothing on the broker is logged once, with the reason", () => {
  const linesOf = (lines: ReadonlyArray<{ readonly level: string; readonly text: string }>) =>
    lines.filter(({ text }) => text.startsWith("AMQP consumerTimeout"))

  for (const [version, queueType, expected] of [
    ["3.10.8", "quorum", "RabbitMQ 3.10.8 takes it from its own configuration only (consumer_timeout)."],
    ["4.2.9", "quorum", "RabbitMQ 4.2.9 takes it from the queue's declaration (consumerTimeout there) or from"],
    [
      "4.3.6",
      undefined,
      "RabbitMQ 4.3.6 has this timeout for quorum queues only. If this is one, say so with queueType"
    ],
    ["4.3.6", "classic", "RabbitMQ 4.3.6 has this timeout for quorum queues only."],
    ["4.3.6", "quorum", undefined]
  ] as const) {
    plain.live(`${queueType ?? "a queue of unknown type"} on RabbitMQ ${version}`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ serverProperties: product(version) })
        yield* logged((lines) =>
          Effect.gen(function* () {
            yield* Effect.forkScoped(
              AmqpConsumer.consume("q", () => Effect.void, {
                queueType,
                consumerTimeout: "90 seconds",
                resubscribe: "always"
              })
            )
            yield* secondSubscription(broker, lines)
            const about = linesOf(lines)
            assert.lengthOf(about, expected === undefined ? 0 : 1)
            if (expected === undefined) return
            assert.strictEqual(about[0]!.level, "Info")
            assert.include(about[0]!.text, `of 1m 30s sets nothing on the broker: ${expected}`)
            assert.include(about[0]!.text, '"queue":"q"')
          }).pipe(withDebugLines)
        ).pipe(withConsumers(broker.url))
      })
    )
  }
})

plain.live("a consumer's timeout that its queue was declared with is not logged where the queue has it", () =>
  Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make({ serverProperties: product("4.2.9") })
    yield* logged((lines) =>
      Effect.gen(function* () {
        yield* declareQueue({ queueType: "quorum", consumerTimeout: "90 seconds" }, "q")
        yield* Effect.forkScoped(AmqpConsumer.consume("q", () => Effect.void, { consumerTimeout: "90 seconds" }))
        yield* secondSubscription(broker, lines)
        assert.isFalse(lines.some(({ text }) => text.startsWith("AMQP consumerTimeout")))
      }).pipe(withDebugLines)
    ).pipe(withConsumers(broker.url))
  })
)
