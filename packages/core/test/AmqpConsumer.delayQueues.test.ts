/** Delay queues on a real broker: their properties, what they retain, and how they replace those of older versions. */
import { assert, describe, it, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpConsumer, AmqpMessage, AmqpPool, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Latch, Queue } from "effect"
import { declareQueue, deleteQueue, logged, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

/** A handler that fails the first time and records every delivery. */
const failing = Effect.map(Queue.unbounded<AmqpConsumer.Delivery>(), (deliveries) => ({
  deliveries,
  handler: (delivery: AmqpConsumer.Delivery) =>
    Effect.andThen(
      Queue.offer(deliveries, delivery),
      delivery.attempt === 1 ? Effect.fail(new Error("try later")) : Effect.void
    )
}))

/** Waits until the queue is removed. */
const untilGone = (name: string) =>
  Effect.flatMap(TestBroker.TestBroker, ({ queues }) =>
    Effect.repeat(queues, { until: (all) => !all.some((queue) => queue.name === name) })
  ).pipe(
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(new Error(`${name} was not removed`)) })
  )

/** Fails if the queue does not exist or has other properties. */
const assertDeclared = (name: string, options: AmqpChannel.QueueDeclareOptions) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    pool.use((channel) => Effect.andThen(channel.queueDeclarePassive(name), channel.queueDeclare(name, options)))
  )

const back = (queue: string, millis: number) => ({
  messageTtl: millis,
  deadLetterExchange: "",
  deadLetterRoutingKey: queue
})

/** A delay queue as version 0.1 declares it. */
const formerOptions = back

const formerName = (queue: string, millis: number) => `${queue}.retry.${millis}`

layer(TestBroker.layer, { excludeTestServices: true, timeout: "3 minutes" })((it) => {
  describe("A delay queue returns its messages at least once.", () => {
    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(`it is a quorum queue, also for a ${queueType} queue`, () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType })
          const { deliveries, handler } = yield* failing
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 5, times: 1 }) })
          )
          yield* send(queue, "a")
          yield* Queue.takeN(deliveries, 2)
          yield* assertDeclared(AmqpTopology.retryQueueName(queue, 5), {
            ...back(queue, 5),
            queueType: "quorum",
            deadLetterStrategy: "at-least-once",
            overflow: "reject-publish"
          })
        }).pipe(onBroker)
      )
    }

    it.effect("it is classic if configured so", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.void, {
            onFailure: AmqpConsumer.retry({ delay: 5, times: 1, queueType: "classic" })
          })
        )
        yield* untilQueue(queue, { consumers: 1 })
        yield* assertDeclared(AmqpTopology.retryQueueName(queue, 5), { ...back(queue, 5), queueType: "classic" })
      }).pipe(onBroker)
    )

    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(`a retry to a full ${queueType} queue waits until there is room`, () =>
        Effect.gen(function* () {
          const { evaluate } = yield* TestBroker.TestBroker
          const offered = (millis: string) =>
            evaluate(`application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, ${millis}).`)
          // The default is three minutes.
          yield* Effect.acquireRelease(offered("500"), () => Effect.orDie(offered("180000")))
          const work = AmqpTopology.workQueue(`full-${queueType}`, {
            queueType,
            maxLength: 2,
            overflow: "reject-publish",
            retryDelays: [3000]
          })
          yield* AmqpTopology.declare(work)
          const { deliveries, handler } = yield* failing
          const fiber = yield* Effect.forkScoped(
            AmqpConsumer.consume(work.queue, handler, { onFailure: work.onFailure })
          )
          yield* send(work.queue, "a")
          yield* Queue.take(deliveries)
          yield* untilQueue(work.queue, { messages: 0, unacked: 0 })
          yield* Fiber.interrupt(fiber)
          // Fills the queue until it refuses: a quorum queue accepts more than its maximum.
          const refused = yield* Effect.flip(Effect.forever(send(work.queue, "filled")))
          assert.strictEqual(refused.reason._tag, "PublishNacked")
          const [delayQueue] = work.retryQueues
          // The message has expired and was refused: it is in the delay queue, but not ready there.
          yield* untilQueue(delayQueue!, { messages: 1, ready: 0 })
          yield* Effect.sleep("1200 millis")
          yield* untilQueue(delayQueue!, { messages: 1, ready: 0 })
          const room = yield* Latch.make()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(work.queue, (delivery) =>
              AmqpMessage.text(delivery) === "a"
                ? Effect.andThen(Queue.offer(deliveries, delivery), room.open)
                : Effect.void
            )
          )
          yield* room.await
          const again = yield* Queue.take(deliveries)
          assert.strictEqual(again.attempt, 2)
          yield* untilQueue(delayQueue!, { messages: 0 })
        }).pipe(Effect.scoped, onBroker)
      )
    }

    it.effect(
      "a retry that a delay queue without a leader does not confirm is requeued and handled",
      () =>
        Effect.gen(function* () {
          const { evaluate, vhost } = yield* TestBroker.TestBroker
          const queue = yield* declareQueue()
          const { deliveries, handler } = yield* failing
          const gate = yield* Latch.make()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, (delivery) => Effect.andThen(gate.await, handler(delivery)), {
              onFailure: AmqpConsumer.retry({ delay: 5, times: 3 })
            })
          )
          yield* untilQueue(queue, { consumers: 1 })
          // Published before the broker's channel waits for that leader, which delays the confirms of other messages.
          yield* AmqpPublisher.publish({ routingKey: queue, content: "a" })
          const leader = `list_to_atom("${vhost === "/" ? "%2F" : vhost}_${AmqpTopology.retryQueueName(queue, 5)}")`
          yield* Effect.acquireRelease(evaluate(`sys:suspend(${leader}).`), () =>
            Effect.ignore(evaluate(`sys:resume(${leader}).`))
          )
          yield* gate.open
          yield* Queue.take(deliveries)
          const again = yield* Queue.take(deliveries)
          assert.isTrue(again.redelivered)
          yield* evaluate(`sys:resume(${leader}).`)
          yield* untilQueue(queue, { messages: 0, unacked: 0 })
        }).pipe(Effect.scoped, (effect) => onBroker(effect, { publishTimeout: Duration.seconds(1) })),
      // The broker's channel waits for the leader, several times five seconds.
      120_000
    )

    it.effect("one that exists with other properties is used as it is, and a warning is logged", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          yield* declareQueue({ ...back(queue, 20), queueType: "classic" }, AmqpTopology.retryQueueName(queue, 20))
          const { deliveries, handler } = yield* failing
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 20, times: 1 }) })
          )
          yield* send(queue, "a")
          yield* Queue.takeN(deliveries, 2)
          const warning = lines.find(({ text }) => text.includes("exists with other properties"))
          assert.strictEqual(warning?.level, "Warn")
          assert.include(warning?.text, "inequivalent arg")
        })
      ).pipe(onBroker)
    )

    it.effect("one whose name would exceed 255 bytes gets a shorter name, and its retries come back", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ autoDelete: true }, "q".repeat(255))
        const { deliveries, handler } = yield* failing
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 10_000, times: 1 }) })
        )
        yield* untilQueue(queue, { consumers: 1 })
        yield* send(queue, "a")
        yield* Queue.take(deliveries)
        yield* untilQueue(AmqpTopology.retryQueueName(queue, 10_000), { messages: 1 })
      }).pipe(onBroker)
    )
  })

  describe("A queue that is deleted with its consumers has delay queues that are deleted with them.", () => {
    it.effect("those of an exclusive queue are exclusive", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = "mine"
        const { deliveries, handler } = yield* failing
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, {
            declare: (channel) => Effect.asVoid(channel.queueDeclare(queue, { exclusive: true, durable: false })),
            onFailure: AmqpConsumer.retry({ delay: 20, times: 1 })
          })
        )
        yield* untilQueue(queue, { consumers: 1 })
        yield* send(queue, "a")
        yield* Queue.takeN(deliveries, 2)
        const other = yield* Effect.flip(declareQueue({}, AmqpTopology.retryQueueName(queue, 20)))
        assert.strictEqual(other.reason._tag, "ResourceLocked")
        // A new connection starts with new queues.
        const connection = yield* Effect.flatMap(AmqpConsumer.AmqpConsumer, ({ connection }) => connection)
        assert.strictEqual(connection.state.value._tag, "Open")
        yield* broker.killConnections
        yield* untilQueue(queue, { consumers: 1 })
        yield* send(queue, "b")
        const [, again] = yield* Queue.takeN(deliveries, 2)
        assert.strictEqual(AmqpMessage.text(again!), "b")
        yield* Fiber.interrupt(fiber)
      }).pipe(Effect.scoped, onBroker, Effect.andThen(untilGone(AmqpTopology.retryQueueName("mine", 20))))
    )

    it.effect("those of auto-delete queues and of queues that the broker has named expire", () =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        const named = (yield* pool.use((channel) => channel.queueDeclare("", {}))).queue
        assert.isTrue(named.startsWith("amq."))
        for (const queue of [yield* declareQueue({ autoDelete: true }), named]) {
          const { deliveries, handler } = yield* failing
          const fiber = yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 20, times: 1 }) })
          )
          yield* send(queue, "a")
          const [, again] = yield* Queue.takeN(deliveries, 2)
          assert.strictEqual(again!.attempt, 2)
          yield* assertDeclared(AmqpTopology.retryQueueName(queue, 20), {
            ...back(queue, 20),
            queueType: "classic",
            expires: 600_020
          })
          yield* Fiber.interrupt(fiber)
        }
        yield* deleteQueue(named)
      }).pipe(onBroker)
    )
  })

  describe("The delay queues of version 0.1 are drained and removed.", () => {
    it.effect("they are removed once they are empty, and not before", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const former = yield* declareQueue(formerOptions(queue, 1500), formerName(queue, 1500))
        const { deliveries, handler } = yield* failing
        // The message as version 0.1 left it: with this queue in its headers.
        yield* AmqpPublisher.publish({ routingKey: former, content: "a", headers: { "x-retry-queue": queue } })
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.retry({ delay: 1500, times: 1 }) })
        )
        const delivery = yield* Queue.take(deliveries)
        assert.strictEqual(AmqpMessage.text(delivery), "a")
        yield* untilGone(former)
        yield* Queue.take(deliveries)
      }).pipe(onBroker)
    )

    it.effect("a quorum queue among them stays, because RabbitMQ cannot delete one only if it is empty", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const former = yield* declareQueue(
            { ...formerOptions(queue, 100), queueType: "quorum" },
            formerName(queue, 100)
          )
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, () => Effect.void, {
              onFailure: AmqpConsumer.retry({ delay: 100, times: 1 })
            })
          )
          yield* untilQueue(queue, { consumers: 1 })
          const consumers = yield* Effect.flatMap(AmqpConsumer.AmqpConsumer, ({ connection }) => connection)
          yield* Effect.sleep(10).pipe(
            Effect.repeat({ until: () => lines.some(({ text }) => text.includes("Delete it manually")) }),
            Effect.timeout("20 seconds")
          )
          yield* untilQueue(former, { messages: 0 })
          // The consumers' connection was not affected.
          assert.deepInclude(consumers.state.value, { _tag: "Open", generation: 1 })
        })
      ).pipe(onBroker)
    )

    it.effect("nothing is lost or delivered twice while version 0.1 uses them side by side", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const millis = 100
        const former = formerName(queue, millis)
        const pool = yield* AmqpPool.AmqpPool
        // Version 0.1 handles a retry as follows: it looks for the delay queue once, declares it if it is missing,
        // publishes with `mandatory`, and does this again when the message is returned.
        let declared = false
        let declarations = 0
        const declare = Effect.suspend(() =>
          declared
            ? Effect.void
            : pool
                .use((channel) => channel.queueDeclarePassive(former))
                .pipe(
                  Effect.catchReason("AmqpError", "NotFound", () => {
                    declarations++
                    return pool.use((channel) => channel.queueDeclare(former, formerOptions(queue, millis)))
                  }),
                  Effect.tap(() => Effect.sync(() => (declared = true)))
                )
        )
        const retry = (content: string) => {
          const headers = { "x-retry-queue": queue, "x-retry-count": 1, "x-retry-deliveries": 1 }
          const once = Effect.andThen(
            declare,
            AmqpPublisher.publish({ routingKey: former, content, headers }, { mandatory: true })
          )
          return Effect.catchReason(once, "AmqpError", "PublishReturned", () => {
            declared = false
            return once
          })
        }
        const handled = yield* Queue.unbounded<string>()
        const start = Effect.forkScoped(
          AmqpConsumer.consume(queue, (delivery) => Queue.offer(handled, AmqpMessage.text(delivery)), {
            onFailure: AmqpConsumer.retry({ delay: millis, times: 1 })
          })
        )
        const count = 40
        let consumer: Fiber.Fiber<unknown, unknown> | undefined
        // Retries come often, and then so seldom that the queue is removed in between: each time it is declared again.
        // A consumer that finds no former queue at its start looks again ten minutes later, so each of these starts
        // when there is one.
        for (let i = 0; i < count; i++) {
          yield* retry(String(i))
          consumer ??= yield* start
          if (i === 20 || i === 30) {
            yield* untilGone(former)
            yield* Fiber.interrupt(consumer)
            consumer = undefined
          }
        }
        const seen = yield* Queue.takeN(handled, count)
        assert.strictEqual(new Set(seen).size, count)
        assert.isAtLeast(declarations, 3)
        yield* untilGone(former)
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        assert.strictEqual(yield* Queue.size(handled), 0)
      }).pipe(onBroker)
    )
  })
})

describe("A broker that dead-letters at most once is detected, and a warning says what to do.", () => {
  // RabbitMQ's error texts.
  const disabled =
    "INTERNAL_ERROR - Cannot declare a queue 'queue 'x' in vhost '/'' of type 'rabbit_stream_queue' on node 'rabbit@host': the corresponding feature flag is disabled"
  const exclusive = "PRECONDITION_FAILED - invalid property 'exclusive-owner' for queue 'x' in vhost '/'"

  /**
   * The warnings that are logged while two consumers with retries start one after the other, and the number of
   * connections.
   */
  const starting = (version: string, isEnabled: boolean) =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ serverProperties: { product: "RabbitMQ", version } })
      broker.on("queue.declare", ({ args, closeChannel, closeConnection, proceed }) => {
        if (args.arguments["x-queue-type"] !== "stream") return proceed()
        return isEnabled ? closeChannel(406, exclusive) : closeConnection(541, disabled)
      })
      return yield* logged((lines) =>
        Effect.gen(function* () {
          for (const [i, queue] of ["a", "b"].entries()) {
            yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, () => Effect.void, {
                onFailure: AmqpConsumer.retry({ delay: 5, times: 1 })
              })
            )
            yield* broker.until(({ count }) => count("basic.consume") === i + 1)
            // The broker is asked after the delay queue has been declared. No event shows that it is not asked.
            yield* Effect.sleep("500 millis")
          }
          // The consumers' connection was not affected.
          const { state } = yield* Effect.flatMap(AmqpConsumer.AmqpConsumer, ({ connection }) => connection)
          assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
          return {
            warnings: lines.filter(({ level, text }) => level === "Warn" && text.includes("at most once")),
            connections: broker.count("accept")
          }
        })
      ).pipe(withConsumers(broker.url))
    }).pipe(Effect.scoped)

  it.live("3.10 and 3.11 without the feature flag stream_queue are warned about", () =>
    Effect.gen(function* () {
      const { warnings } = yield* starting("3.10.8", false)
      assert.isNotEmpty(warnings)
      assert.include(warnings[0]!.text, "rabbitmqctl enable_feature_flag stream_queue")
    })
  )

  it.live("a broker with the flag is asked once per application, without a warning", () =>
    Effect.gen(function* () {
      const { connections, warnings } = yield* starting("3.11.2", true)
      assert.isEmpty(warnings)
      // The publishers' connection, the consumers' and the one that asks.
      assert.strictEqual(connections, 3)
    })
  )

  it.live("later versions have the flag and are not asked", () =>
    Effect.gen(function* () {
      for (const version of ["3.12.0", "4.3.6"]) {
        const { connections, warnings } = yield* starting(version, false)
        assert.isEmpty(warnings)
        assert.strictEqual(connections, 2)
      }
    })
  )

  it.live("earlier versions are warned about, without a remedy", () =>
    Effect.gen(function* () {
      const { warnings } = yield* starting("3.9.13", false)
      assert.include(warnings[0]?.text, "RabbitMQ 3.9 does not support dead-lettering at least once")
    })
  )
})
