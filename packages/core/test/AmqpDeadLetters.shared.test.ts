/** Dead-letter queues that others use at the same time: exclusively, or with another redrive or discard. */
import { assert, describe, layer } from "@effect/vitest"
import {
  AmqpConsumer,
  AmqpDeadLetters,
  type AmqpError,
  type AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Schedule, Stream } from "effect"
import { declareQueue, next, onBroker, untilQueue, withConsumers } from "./support/consumers.ts"
import { onScriptedBroker } from "./support/client.ts"
import * as FaultProxy from "./support/FaultProxy.ts"

const fill = (queue: string, from: string, count: number) =>
  AmqpPublisher.publishAll(
    Stream.map(Stream.range(1, count), (i): AmqpMessage.Message => ({
      routingKey: queue,
      content: "letter",
      messageId: `${i}`,
      headers: { "x-failed-queue": from, "x-failed-error": i % 2 === 0 ? "Even" : "Odd" }
    }))
  ).pipe(Stream.runDrain)

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i + 1)

/** The ids of all messages that are in a queue, sorted. The queue is empty afterwards. */
const idsOf = Effect.fnUntraced(function* (queue: string) {
  const { messageCount } = yield* Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    pool.use((channel) => channel.queueDeclarePassive(queue))
  )
  const ids: Array<number> = []
  for (let i = 0; i < messageCount; i++) ids.push(Number((yield* next(queue)).properties.messageId))
  return ids.sort((a, b) => a - b)
})

const operationsOn = (
  queue: string
): ReadonlyArray<Effect.Effect<unknown, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer>> => {
  const letters = AmqpDeadLetters.of(queue)
  return [letters.peek(), letters.redrive(), letters.redrive({ dryRun: true }), letters.discard({ all: true })]
}

/** Each operation fails at once: the timeout of an operation is 30 seconds. */
const lockedAtOnce = Effect.fnUntraced(function* (queue: string, remedy: string) {
  for (const operation of operationsOn(queue)) {
    const { message, reason } = yield* Effect.flip(operation).pipe(Effect.timeout("5 seconds"), Effect.orDie)
    assert.strictEqual(reason._tag, "ResourceLocked")
    assert.include(message, remedy)
    assert.include(message, JSON.stringify(queue))
  }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A queue that another connection keeps for itself is ResourceLocked at once, with what to do:", () => {
    it.effect("an exclusive queue, of this application or of another one", () =>
      Effect.gen(function* () {
        const work = yield* declareQueue()
        const dead = yield* declareQueue({ exclusive: true })
        yield* fill(dead, work, 3)
        yield* lockedAtOnce(dead, "declare the dead-letter queue without exclusive")
        yield* onBroker(lockedAtOnce(dead, "declare the dead-letter queue without exclusive"))
        yield* untilQueue(dead, { ready: 3, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("a queue with an exclusive consumer", () =>
      Effect.gen(function* () {
        const work = yield* declareQueue()
        const dead = yield* declareQueue()
        const pool = yield* AmqpPool.AmqpPool
        const consuming = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          pool.use((channel) =>
            Effect.gen(function* () {
              yield* channel.qos(1)
              yield* channel.consume(dead, { exclusive: true })
              yield* Deferred.succeed(consuming, undefined)
              yield* Effect.never
            })
          )
        )
        yield* Deferred.await(consuming)
        yield* fill(dead, work, 5)
        yield* untilQueue(dead, { ready: 4, unacked: 1 })
        yield* lockedAtOnce(dead, "Stop that consumer")
      }).pipe(onBroker)
    )
  })

  describe("If acknowledgements are lost with a connection,", () => {
    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(
        `a discard counts each message once, and removes what came back, also beyond its limit (${queueType})`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const proxy = yield* FaultProxy.make(broker.url)
            const work = yield* declareQueue()
            const dead = yield* declareQueue({ queueType })
            yield* fill(dead, work, 600)
            const half = yield* Deferred.make<void>()
            const all = yield* Deferred.make<void>()
            const report = yield* withConsumers(proxy.through(broker.url))(
              Effect.gen(function* () {
                const fiber = yield* Effect.forkScoped(
                  AmqpDeadLetters.of(dead).discard({
                    where: ({ reason }) => reason.error === "Even",
                    limit: 200,
                    rate: 400,
                    onProgress: ({ discarded }) =>
                      Effect.sync(() => {
                        if (discarded > 0) Deferred.doneUnsafe(half, Effect.void)
                        if (discarded === 200) Deferred.doneUnsafe(all, Effect.void)
                      })
                  })
                )
                yield* Deferred.await(half)
                proxy.drop("up")
                yield* Deferred.await(all)
                proxy.heal()
                proxy.rst()
                return yield* Fiber.join(fiber)
              })
            )
            assert.include(report, { total: 600, discarded: 200, failed: 0, duplicates: 0 })
            yield* untilQueue(dead, { ready: 400, unacked: 0 })
            const even = numbers(600).filter((i) => i % 2 === 0)
            assert.deepStrictEqual(
              yield* idsOf(dead),
              numbers(600).filter((i) => i % 2 === 1 || even.indexOf(i) >= 200)
            )
          }).pipe(onBroker)
      )
    }

    it.effect("a redrive takes what came back, also beyond its limit, and counts it as duplicates", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(broker.url)
        const publisher = yield* AmqpPublisher.AmqpPublisher
        const work = yield* declareQueue()
        const dead = yield* declareQueue()
        yield* fill(dead, work, 300)
        const some = yield* Deferred.make<void>()
        const all = yield* Deferred.make<void>()
        const redrive = AmqpDeadLetters.of(dead).redrive({
          limit: 200,
          rate: 400,
          onProgress: ({ redriven }) =>
            Effect.sync(() => {
              if (redriven > 0) Deferred.doneUnsafe(some, Effect.void)
              if (redriven === 200) Deferred.doneUnsafe(all, Effect.void)
            })
        })
        const report = yield* withConsumers(proxy.through(broker.url))(
          Effect.gen(function* () {
            // Only the acknowledgements pass through the proxy.
            const fiber = yield* Effect.forkScoped(
              Effect.updateService(redrive, AmqpConsumer.AmqpConsumer, (consumer) => ({ ...consumer, publisher }))
            )
            yield* Deferred.await(some)
            proxy.drop("up")
            yield* Deferred.await(all)
            proxy.heal()
            proxy.rst()
            return yield* Fiber.join(fiber)
          })
        )
        assert.include(report, { redriven: 200, failed: 0 })
        assert.isAtLeast(report.duplicates, 1)
        yield* untilQueue(dead, { ready: 100, unacked: 0 })
        const ids = yield* idsOf(work)
        assert.strictEqual(ids.length, 200 + report.duplicates)
        assert.deepStrictEqual([...new Set(ids)], numbers(200))
      }).pipe(onBroker)
    )

    it.effect("before a quorum queue has them, the operation has not ended: it removes what comes back", () =>
      onScriptedBroker({ pool: { max: 2 } }, function* (broker) {
        yield* declareQueue({ queueType: "quorum" }, "dead")
        for (const letter of ["a", "b", "c"]) broker.enqueue("dead", letter)
        // The channel of a quorum queue collects acknowledgements, and forgets them with its connection.
        broker.on("basic.ack", () => {})
        broker.once("basic.cancel", (cancel) => {
          broker.off("basic.ack")
          cancel.destroy()
        })
        const report = yield* AmqpDeadLetters.of("dead").discard({ all: true })
        assert.include(report, { total: 3, discarded: 3, left: 0 })
        assert.strictEqual(broker.ready("dead"), 0)
        assert.strictEqual(broker.unsettled, 0)
      })
    )

    it.effect("an interruption while there is no connection waits for nothing", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(broker.url)
        const work = yield* declareQueue()
        const dead = yield* declareQueue()
        yield* fill(dead, work, 300)
        const begun = yield* Deferred.make<void>()
        yield* withConsumers(proxy.through(broker.url), { closeTimeout: Duration.seconds(20) })(
          Effect.gen(function* () {
            const fiber = yield* Effect.forkScoped(
              AmqpDeadLetters.of(dead).discard({
                all: true,
                rate: 100,
                onProgress: ({ discarded }) =>
                  Effect.sync(() => discarded > 0 && Deferred.doneUnsafe(begun, Effect.void))
              })
            )
            yield* Deferred.await(begun)
            proxy.refuse()
            proxy.rst()
            yield* proxy.until(({ refused }) => refused >= 6)
            yield* Fiber.interrupt(fiber).pipe(Effect.timeout("5 seconds"))
          })
        )
      }).pipe(onBroker)
    )
  })

  describe("Two operations on one queue at the same time", () => {
    it.effect("two runs on a quorum queue with a small delivery limit lose nothing while connections are killed", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const work = yield* declareQueue()
        const deliveryLimit = 4
        const dead = yield* declareQueue({ queueType: "quorum", deliveryLimit })
        yield* fill(dead, work, 100)
        for (let i = 0; i < 16; i++) {
          const none = onBroker(AmqpDeadLetters.of(dead, { deliveryLimit }).redrive({ where: () => false }))
          // At any moment: while they connect, read, publish copies or return messages.
          const kill = Effect.delay(broker.killConnections, 20 + 5 * i)
          yield* Effect.all([none, none, kill], { concurrency: "unbounded" })
        }
        // The copies of messages whose acknowledgement was lost are there, too.
        yield* untilQueue(dead, { unacked: 0 })
        assert.deepStrictEqual([...new Set(yield* Effect.retry(idsOf(dead), Schedule.recurs(3)))], numbers(100))
      }).pipe(onBroker)
    )

    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(`two redrives bring back each message once, and their reports add up (${queueType})`, () =>
        Effect.gen(function* () {
          const work = yield* declareQueue()
          const dead = yield* declareQueue({ queueType })
          yield* fill(dead, work, 5000)
          const redrive = onBroker(AmqpDeadLetters.of(dead).redrive())
          const [a, b] = yield* Effect.all([redrive, redrive], { concurrency: "unbounded" })
          assert.deepStrictEqual([a.left, a.failed, a.duplicates, b.left, b.failed, b.duplicates], [0, 0, 0, 0, 0, 0])
          const { messageCount: stays } = yield* Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
            pool.use((channel) => channel.queueDeclarePassive(dead))
          )
          assert.strictEqual(a.redriven + b.redriven + stays, 5000)
          const ids = [...(yield* idsOf(work)), ...(yield* idsOf(dead))]
          assert.deepStrictEqual(
            ids.sort((x, y) => x - y),
            numbers(5000)
          )
        }).pipe(onBroker)
      )

      it.effect(`a redrive and a discard share what both choose, and lose nothing else (${queueType})`, () =>
        Effect.gen(function* () {
          const work = yield* declareQueue()
          const dead = yield* declareQueue({ queueType })
          yield* fill(dead, work, 5000)
          const letters = AmqpDeadLetters.of(dead)
          const isOdd = { where: ({ reason }: AmqpDeadLetters.DeadLetter) => reason.error === "Odd" }
          const [redriven, discarded] = yield* Effect.all(
            [onBroker(letters.redrive()), onBroker(letters.discard(isOdd))],
            {
              concurrency: "unbounded"
            }
          )
          assert.deepStrictEqual([redriven.duplicates, redriven.failed, redriven.left], [0, 0, 0])
          yield* untilQueue(work, { ready: redriven.redriven })
          const stays = 5000 - redriven.redriven - discarded.discarded
          yield* untilQueue(dead, { ready: stays, unacked: 0 })
          const back = yield* idsOf(work)
          const rest = yield* idsOf(dead)
          assert.deepStrictEqual(
            [...back, ...rest].filter((i) => i % 2 === 0).sort((x, y) => x - y),
            numbers(5000).filter((i) => i % 2 === 0)
          )
          assert.strictEqual(new Set([...back, ...rest]).size, 5000 - discarded.discarded)
        }).pipe(onBroker)
      )
    }
  })
})
