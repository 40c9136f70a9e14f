/**
 * Deliveries that return to their queue by `basic.reject` or `basic.nack`, and the end of the loop of a message that
 * always fails.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Queue } from "effect"
import {
  declareQueue,
  declareWithDeadLetters,
  nextText,
  onBroker,
  send,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { countsNacks } from "./support/versions.ts"

/** The returns and rejections that a broker received, in order. */
const returned = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.flatMap((received) => {
    if (received.method === "basic.reject") {
      return [`reject ${received.args.deliveryTag}${received.args.requeue ? " requeue" : ""}`]
    }
    if (received.method !== "basic.nack") return []
    const { deliveryTag, multiple, requeue } = received.args
    return [`nack ${deliveryTag}${multiple ? " multiple" : ""}${requeue ? " requeue" : ""}`]
  })

describe("Each way to return a message sends its own method: reject sends basic.reject and nack sends basic.nack.", () => {
  type Settle = (delivery: AmqpConsumer.Delivery) => Effect.Effect<void, unknown>
  const rows: ReadonlyArray<readonly [title: string, settle: Settle, expected: string]> = [
    ["reject()", (delivery) => delivery.reject(), "reject 1 requeue"],
    ["reject({ requeue: false })", (delivery) => delivery.reject({ requeue: false }), "reject 1"],
    ["nack()", (delivery) => delivery.nack(), "nack 1 requeue"],
    ["nack({ requeue: false })", (delivery) => delivery.nack({ requeue: false }), "nack 1"]
  ]
  for (const [title, settle, expected] of rows) {
    plain.live(`${title} of a handler`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        broker.enqueue("q", "a")
        yield* Effect.gen(function* () {
          yield* Effect.forkScoped(
            AmqpConsumer.consume("q", (delivery) => (delivery.redelivered ? Effect.void : settle(delivery)))
          )
          yield* broker.until(() => returned(broker).length === 1)
          assert.deepStrictEqual(returned(broker), [expected])
        }).pipe(withConsumers(broker.url))
      })
    )
  }

  const policies = [
    ["requeue", AmqpConsumer.requeue, "reject 1 requeue"],
    ["redeliver", AmqpConsumer.redeliver, "nack 1 requeue"]
  ] as const
  for (const [name, policy, expected] of policies) {
    plain.live(`the policy ${name} of a handler, after its pause`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        broker.enqueue("q", "a")
        yield* Effect.gen(function* () {
          const handler = ({ redelivered }: AmqpConsumer.Delivery) => (redelivered ? Effect.void : Effect.fail("no"))
          yield* Effect.forkScoped(AmqpConsumer.consume("q", handler, { onFailure: policy }))
          yield* broker.received("basic.ack")
          assert.deepStrictEqual(returned(broker), [expected])
        }).pipe(withConsumers(broker.url))
      })
    )
  }

  plain.live("a consumer that stops rejects what its policy rejects, and returns the rest with one nack", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of ["rejected", "redelivered", "failing", "unseen", "unseen"]) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        const gate = yield* Latch.make()
        const started = yield* Queue.unbounded<string>()
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consume(
            "q",
            (delivery) =>
              Queue.offer(started, AmqpMessage.text(delivery)).pipe(
                Effect.andThen(AmqpMessage.text(delivery) === "failing" ? gate.await : Effect.void),
                Effect.andThen(Effect.fail(AmqpMessage.text(delivery)))
              ),
            {
              prefetch: 5,
              onFailure: (text) => (text === "redelivered" ? AmqpConsumer.redeliver : AmqpConsumer.requeue)
            }
          )
        )
        yield* Queue.takeN(started, 3)
        const stopped = yield* Effect.forkScoped(Fiber.interrupt(fiber))
        yield* broker.received("basic.cancel")
        yield* gate.open
        yield* Fiber.join(stopped)
        assert.deepStrictEqual(returned(broker), ["reject 1 requeue", "reject 3 requeue", "nack 5 multiple requeue"])
        yield* broker.until((now) => now.ready("q") === 5)
      }).pipe(withConsumers(broker.url))
    })
  )

  plain.live("the deliveries of a batch that fails are rejected one by one", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of ["a", "b", "c"]) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            "q",
            (deliveries) => (deliveries.some(({ redelivered }) => redelivered) ? Effect.void : Effect.fail("no")),
            { size: 3, within: "1 hour", prefetch: 8, onFailure: AmqpConsumer.requeue }
          )
        )
        yield* broker.received("basic.ack")
        assert.sameMembers(returned(broker), ["reject 1 requeue", "reject 2 requeue", "reject 3 requeue"])
      }).pipe(withConsumers(broker.url))
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A message that always fails is not redelivered in a busy loop.", () => {
    it.effect("requeue pauses for a second before the first return, and twice as long before the next", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const handled = yield* Queue.unbounded<number>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            () =>
              Effect.andThen(
                Effect.sync(() => Queue.offerUnsafe(handled, performance.now())),
                Effect.fail("no")
              ),
            { onFailure: AmqpConsumer.requeue }
          )
        )
        yield* send(queue, "a")
        const [first, second, third] = yield* Queue.takeN(handled, 3)
        assert.isAtLeast(second! - first!, 990)
        assert.isAtLeast(third! - second!, 1990)
      }).pipe(onBroker)
    )
  })

  describe("maxDeliveries ends the loop of a message that always fails.", () => {
    type Way = readonly [
      name: string,
      onFailure: AmqpConsumer.Policy,
      handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void, unknown>
    ]
    const ways: ReadonlyArray<Way> = [
      ["requeue", AmqpConsumer.requeue, () => Effect.fail("no")],
      ["redeliver", AmqpConsumer.redeliver, () => Effect.fail("no")],
      ["nack by the handler", AmqpConsumer.redeliver, (delivery) => delivery.nack()],
      ["reject by the handler", AmqpConsumer.redeliver, (delivery) => delivery.reject()]
    ]
    for (const queueType of ["classic", "quorum"] as const) {
      for (const sharedCount of [true, false]) {
        it.effect(`in a ${queueType} queue, ${sharedCount ? "counted for all processes" : "counted here"}`, () =>
          Effect.gen(function* () {
            const loops = yield* Effect.forEach(
              ways,
              ([name, onFailure, handle]) =>
                Effect.gen(function* () {
                  const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
                  const attempts: Array<number> = []
                  yield* Effect.forkScoped(
                    AmqpConsumer.consume(
                      queue,
                      (delivery) =>
                        Effect.suspend(() => {
                          attempts.push(delivery.attempt)
                          return handle(delivery)
                        }),
                      { maxDeliveries: 3, sharedCount, onFailure }
                    )
                  )
                  yield* send(queue, name)
                  yield* untilQueue(deadLetters, { messages: 1 })
                  assert.strictEqual(yield* nextText(deadLetters), name)
                  return [name, attempts]
                }),
              { concurrency: "unbounded" }
            )
            assert.deepStrictEqual(
              loops,
              ways.map(([name]) => [name, [1, 2, 3]])
            )
          }).pipe(onBroker)
        )
      }
    }
  })

  describe("A rejected message counts towards the delivery limit of a quorum queue; since RabbitMQ 4.3 a nacked one does not.", () => {
    it.effect("the policy requeue ends at the limit, in the dead-letter exchange", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum", deliveryLimit: 2 })
        const attempts = yield* Queue.unbounded<number>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            ({ attempt }) => Effect.andThen(Queue.offer(attempts, attempt), Effect.fail("no")),
            { onFailure: AmqpConsumer.requeue }
          )
        )
        yield* send(queue, "poison")
        yield* untilQueue(deadLetters, { messages: 1 })
        assert.deepStrictEqual(yield* Queue.takeAll(attempts), [1, 2, 3])
      }).pipe(onBroker)
    )

    it.effect("the policy requeue loses the message at the limit, in a queue without a dead-letter exchange", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "quorum", deliveryLimit: 1 })
        const attempts = yield* Queue.unbounded<number>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            ({ attempt }) => Effect.andThen(Queue.offer(attempts, attempt), Effect.fail("no")),
            { onFailure: AmqpConsumer.requeue }
          )
        )
        yield* send(queue, "poison")
        assert.deepStrictEqual(yield* Queue.takeN(attempts, 2), [1, 2])
        yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
      }).pipe(onBroker)
    )

    const limit = 3
    for (const [name, isCounted] of [
      ["reject", Effect.succeed(true)],
      ["nack", countsNacks]
    ] as const) {
      it.effect(`a handler that settles by ${name} reaches the limit as that method counts`, () =>
        Effect.gen(function* () {
          const counts = yield* isCounted
          const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType: "quorum", deliveryLimit: limit })
          const attempts = yield* Queue.unbounded<number>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, (delivery) =>
              Effect.andThen(
                Queue.offer(attempts, delivery.attempt),
                delivery.attempt > 2 * limit ? delivery.ack : delivery[name]()
              )
            )
          )
          yield* send(queue, "poison")
          yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
          yield* untilQueue(deadLetters, { messages: counts ? 1 : 0 })
          assert.lengthOf(yield* Queue.takeAll(attempts), counts ? limit + 1 : 2 * limit + 1)
        }).pipe(onBroker)
      )
    }
  })
})
