/** Dead letters while something fails, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import {
  AmqpConsumer,
  AmqpDeadLetters,
  AmqpError,
  type AmqpMessage,
  AmqpPool,
  AmqpPublisher,
  AmqpTopology
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber, Stream } from "effect"
import {
  declareQueue,
  declareWithDeadLetters,
  deleteQueue,
  next,
  onBroker,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import * as Users from "./support/users.ts"

const fill = (queue: string, from: string, count: number, content = "letter") =>
  AmqpPublisher.publishAll(
    Stream.map(Stream.range(1, count), (i): AmqpMessage.Message => ({
      routingKey: queue,
      content,
      messageId: `${i}`,
      headers: { "x-failed-queue": from, "x-failed-error": "Busy" }
    }))
  ).pipe(Stream.runDrain)

const reasonOf = <A, R>(effect: Effect.Effect<A, AmqpError.AmqpError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

/** The ids of all messages that are in a queue, which is empty afterwards. */
const idsOf = Effect.fnUntraced(function* (queue: string) {
  const { messageCount } = yield* Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    pool.use((channel) => channel.queueDeclarePassive(queue))
  )
  const ids: Array<number> = []
  for (let i = 0; i < messageCount; i++) ids.push(Number((yield* next(queue)).properties.messageId))
  return ids
})

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i + 1)

/** A user of its own for one test. */
const asUser = Effect.fnUntraced(function* (configure: string, write: string, read: string) {
  const { url } = yield* TestBroker.TestBroker
  const user = yield* Users.make("s3cret")
  yield* user.permit(configure, write, read)
  const address = new URL(url)
  address.username = user.name
  address.password = "s3cret"
  return address.href
})

/** A redrive of `count` dead letters that has brought back the first of them. */
const begunRedrive = Effect.fnUntraced(function* (queueType: "classic" | "quorum", rate: number, count = 2000) {
  const work = yield* declareQueue()
  const dead = yield* declareQueue({ queueType })
  yield* fill(dead, work, count)
  const begun = yield* Deferred.make<void>()
  const fiber = yield* Effect.forkScoped(
    AmqpDeadLetters.of(dead).redrive({
      rate,
      onProgress: ({ redriven }) => (redriven > 0 ? Effect.asVoid(Deferred.succeed(begun, undefined)) : Effect.void)
    })
  )
  yield* Deferred.await(begun)
  return { work, dead, fiber }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("An operation that cannot work fails with a typed error", () => {
    it.effect("on a queue that does not exist, and on a stream", () =>
      Effect.gen(function* () {
        const missing = AmqpDeadLetters.of("missing")
        for (const operation of [missing.peek(), missing.redrive(), missing.discard({ all: true })]) {
          assert.strictEqual((yield* reasonOf<unknown, AmqpConsumer.AmqpConsumer>(operation))._tag, "NotFound")
        }
        const stream = yield* declareQueue({ queueType: "stream" })
        assert.include((yield* reasonOf(AmqpDeadLetters.of(stream).peek())).message, "stream")
        const unknown = yield* onBroker(reasonOf(AmqpDeadLetters.of(stream).redrive()))
        assert.strictEqual(unknown._tag, "InvalidArgument")
        assert.include(unknown.message, "stream")
      }).pipe(onBroker)
    )

    it.effect("on a stream whose type this user may not find out", () =>
      Effect.gen(function* () {
        const stream = yield* onBroker(
          Effect.gen(function* () {
            const queue = yield* declareQueue({ queueType: "stream" })
            yield* fill(queue, "work", 3)
            yield* untilQueue(queue, { ready: 3 })
            return queue
          })
        )
        yield* withConsumers(yield* asUser("^$", "^$", ".*"))(
          Effect.gen(function* () {
            const reason = yield* reasonOf(
              Effect.repeat(AmqpDeadLetters.of(stream).peek(), { until: ({ total }) => total > 0 })
            )
            assert.strictEqual(reason._tag, "InvalidArgument")
            assert.include(reason.message, "stream")
          })
        )
      })
    )

    it.effect("with wrong options, before anything is sent", () =>
      Effect.gen(function* () {
        const letters = AmqpDeadLetters.of("any")
        const refused = [
          letters.peek({ limit: 0 }),
          letters.redrive({ rate: 0 }),
          letters.redrive({ ids: [] }),
          letters.redrive({ to: "" }),
          letters.discard({}),
          letters.discard({ all: true, ids: ["1"] }),
          AmqpDeadLetters.of("").peek(),
          AmqpDeadLetters.of("any", { deliveryLimit: 0.5 }).peek(),
          AmqpDeadLetters.of(AmqpTopology.queue("orders")).peek()
        ]
        for (const operation of refused) {
          assert.strictEqual((yield* reasonOf<unknown, AmqpConsumer.AmqpConsumer>(operation))._tag, "InvalidArgument")
        }
      }).pipe(onBroker)
    )

    it.effect("without the permission to read, or to publish; reading alone needs no more", () =>
      Effect.gen(function* () {
        const { dead, work } = yield* onBroker(
          Effect.gen(function* () {
            const queues = { work: yield* declareQueue(), dead: yield* declareQueue() }
            yield* fill(queues.dead, queues.work, 3)
            return queues
          })
        )
        void work
        const letters = AmqpDeadLetters.of(dead)
        yield* withConsumers(yield* asUser(".*", ".*", "^$"))(
          Effect.gen(function* () {
            assert.strictEqual((yield* reasonOf(letters.peek()))._tag, "AccessRefused")
          })
        )
        yield* withConsumers(yield* asUser("^$", "^$", ".*"))(
          Effect.gen(function* () {
            assert.strictEqual((yield* letters.peek()).letters.length, 3)
            assert.strictEqual((yield* reasonOf(letters.redrive()))._tag, "AccessRefused")
          })
        )
        yield* untilQueue(dead, { ready: 3, unacked: 0 })
      })
    )

    it.effect("while the broker blocks publishers for longer than the timeout; peek works meanwhile", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const work = yield* declareQueue()
        const dead = yield* declareQueue()
        yield* fill(dead, work, 10)
        yield* Effect.acquireRelease(broker.blockPublishers, () => Effect.orDie(broker.unblockPublishers))
        const letters = AmqpDeadLetters.of(dead, { timeout: "2 seconds" })
        assert.strictEqual((yield* letters.peek()).letters.length, 10)
        assert.strictEqual((yield* reasonOf(letters.redrive()))._tag, "PublishTimeout")
        yield* broker.unblockPublishers
        assert.include(yield* AmqpDeadLetters.of(dead).redrive(), { redriven: 10 })
      }).pipe(onBroker)
    )
  })

  describe("A redrive", () => {
    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(`that is interrupted loses nothing and publishes nothing twice (${queueType})`, () =>
        Effect.gen(function* () {
          const { dead, fiber, work } = yield* begunRedrive(queueType, 2000)
          yield* Fiber.interrupt(fiber)
          const { messageCount } = yield* Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
            pool.use((channel) => channel.queueDeclarePassive(work))
          )
          assert.isAtLeast(messageCount, 1)
          assert.isBelow(messageCount, 2000)
          yield* untilQueue(dead, { ready: 2000 - messageCount, unacked: 0 })
          const all = [...(yield* idsOf(work)), ...(yield* idsOf(dead))]
          assert.deepStrictEqual(
            all.toSorted((a, b) => a - b),
            numbers(2000)
          )
        }).pipe(onBroker)
      )

      it.effect(`continues after its connections are killed, and loses nothing (${queueType})`, () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const { dead, fiber, work } = yield* begunRedrive(queueType, 1000)
          yield* broker.killConnections
          const report = yield* Fiber.join(fiber)
          assert.include(report, { redriven: 2000, left: 0, failed: 0 })
          yield* untilQueue(dead, { messages: 0 })
          const ids = yield* idsOf(work)
          assert.strictEqual(new Set(ids).size, 2000)
          assert.isAtMost(ids.length - 2000, report.duplicates)
        }).pipe(onBroker)
      )
    }

    it.effect("does not follow its own messages, which fail again at once", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* fill(deadLetters, queue, 300)
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.fail("again"), {
            onFailure: AmqpConsumer.deadLetter,
            concurrency: 50
          })
        )
        const report = yield* AmqpDeadLetters.of(deadLetters).redrive({ rate: 500 })
        assert.include(report, { total: 300, scanned: 300, redriven: 300 })
        yield* untilQueue(deadLetters, { ready: 300 })
        const { letters } = yield* AmqpDeadLetters.of(deadLetters).peek()
        assert.deepStrictEqual(new Set(letters.map(({ redriven }) => redriven)), new Set([1]))
        assert.strictEqual(letters[0]!.reason.attempt, 1)
      }).pipe(onBroker)
    )

    it.effect("leaves those whose queue is gone, and says so; another target takes them", () =>
      Effect.gen(function* () {
        const work = yield* declareQueue()
        const dead = yield* declareQueue()
        yield* fill(dead, work, 5)
        yield* deleteQueue(work)
        const letters = AmqpDeadLetters.of(dead)
        const report = yield* letters.redrive()
        assert.include(report, { redriven: 0, failed: 5, left: 5 })
        assert.strictEqual(report.failures.length, 5)
        const other = yield* declareQueue()
        assert.include(yield* letters.redrive({ to: other }), { redriven: 5, left: 0 })
        assert.deepStrictEqual(yield* idsOf(other), numbers(5))
      }).pipe(onBroker)
    )

    it.effect("counts the copies of a full queue that dead-letters what it refuses", () =>
      Effect.gen(function* () {
        const dead = yield* declareQueue()
        const work = yield* declareQueue({
          maxLength: 10,
          overflow: "reject-publish-dlx",
          deadLetterExchange: "",
          deadLetterRoutingKey: dead
        })
        yield* fill(dead, work, 100)
        const report = yield* AmqpDeadLetters.of(dead).redrive()
        const copies = report.failed
        assert.isAtLeast(copies, 1)
        assert.include(report, { redriven: 100 - copies, duplicates: copies, left: copies })
        yield* untilQueue(dead, { ready: 2 * copies, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("counts each publish without an outcome", () =>
      Effect.gen(function* () {
        const work = yield* declareQueue()
        const dead = yield* declareQueue()
        yield* fill(dead, work, 1)
        let publishes = 0
        const unknown = AmqpError.fromReason(
          new AmqpError.PublishUnknown({
            message: "basic.publish: the connection was lost",
            operation: "basic.publish"
          })
        )
        let duplicates = 0
        const redrive = Effect.updateService(
          AmqpDeadLetters.of(dead).redrive({
            onProgress: (progress) => Effect.sync(() => void (duplicates = progress.duplicates))
          }),
          AmqpConsumer.AmqpConsumer,
          (consumer) => ({
            ...consumer,
            publisher: {
              ...consumer.publisher,
              publish: (message, options) =>
                Effect.suspend(() =>
                  ++publishes < 3 ? Effect.fail(unknown) : consumer.publisher.publish(message, options)
                )
            }
          })
        )
        assert.strictEqual((yield* reasonOf(redrive))._tag, "PublishUnknown")
        assert.strictEqual(duplicates, 2)
        yield* untilQueue(dead, { ready: 1, unacked: 0 })
      }).pipe(onBroker)
    )

    it.effect("ends when its queue was deleted and declared again as a stream", () =>
      Effect.gen(function* () {
        const { dead, fiber } = yield* begunRedrive("classic", 2000, 4000)
        yield* deleteQueue(dead)
        yield* declareQueue({ queueType: "stream" }, dead)
        const { reason } = yield* Effect.flip(Fiber.join(fiber))
        assert.include(["InvalidArgument", "NotFound"], reason._tag)
      }).pipe(onBroker)
    )

    it.effect("passes thousands that it does not choose, and takes the last one", () =>
      Effect.gen(function* () {
        const work = yield* declareQueue()
        const dead = yield* declareQueue({ queueType: "quorum" })
        yield* fill(dead, work, 5000)
        const report = yield* AmqpDeadLetters.of(dead).redrive({ ids: ["5000"] })
        assert.include(report, { scanned: 5000, redriven: 1, left: 4999 })
        assert.deepStrictEqual(yield* idsOf(work), [5000])
        yield* untilQueue(dead, { ready: 4999, unacked: 0 })
      }).pipe(onBroker)
    )
  })

  it.effect("a queue with a delivery limit loses nothing, however often it is peeked", () =>
    Effect.gen(function* () {
      const work = yield* declareQueue()
      const dead = yield* declareQueue({ queueType: "quorum", deliveryLimit: 3 })
      yield* fill(dead, work, 10)
      for (let i = 0; i < 12; i++) {
        const { letters } = yield* AmqpDeadLetters.of(dead).peek()
        assert.strictEqual(letters.length, 10)
      }
      // RabbitMQ 4.3 counts what has come back a moment later.
      yield* untilQueue(dead, { ready: 10, unacked: 0 })
      const ids = yield* idsOf(dead)
      assert.deepStrictEqual(
        ids.toSorted((a, b) => a - b),
        numbers(10)
      )
    }).pipe(onBroker)
  )

  it.effect("a message without an id keeps the same id, also when its count of returns starts again", () =>
    Effect.gen(function* () {
      const dead = yield* declareQueue({ queueType: "quorum", deliveryLimit: 1 })
      const pool = yield* AmqpPool.AmqpPool
      yield* pool.use((channel) => channel.queueBind(dead, "amq.direct", "failed"))
      yield* AmqpPublisher.publish({ exchange: "amq.direct", routingKey: "failed", content: "letter" })
      const letters = AmqpDeadLetters.of(dead)
      const ids = new Set<string>()
      for (let i = 0; i < 3; i++) for (const { id } of (yield* letters.peek()).letters) ids.add(id)
      assert.strictEqual(ids.size, 1)
      assert.include(yield* letters.discard({ ids: [...ids] }), { discarded: 1 })
    }).pipe(onBroker)
  )

  for (const queueType of ["classic", "quorum"] as const) {
    it.effect(`a queue with a single active consumer is read to its end (${queueType})`, () =>
      Effect.gen(function* () {
        const work = yield* declareQueue()
        const dead = yield* declareQueue({ queueType, singleActiveConsumer: true })
        yield* fill(dead, work, 4000)
        const redrive = (id: string) => AmqpDeadLetters.of(dead, { timeout: "10 seconds" }).redrive({ ids: [id] })
        assert.include(yield* redrive("4000"), { scanned: 4000, redriven: 1, left: 3999 })
        // Another application knows nothing about it.
        assert.include(yield* onBroker(redrive("3999")), { scanned: 3999, redriven: 1, left: 3998 })
        yield* untilQueue(dead, { ready: 3998, unacked: 0 })
      }).pipe(onBroker)
    )
  }

  it.effect("messages that are larger than those before are redriven, each once", () =>
    Effect.gen(function* () {
      const work = yield* declareQueue()
      const dead = yield* declareQueue({ queueType: "quorum" })
      yield* fill(dead, work, 100)
      yield* fill(dead, work, 50, "x".repeat(2_000_000))
      // The slower the redrive, the more of them arrive before they are handled.
      const report = yield* AmqpDeadLetters.of(dead).redrive({ rate: 100 })
      assert.include(report, { redriven: 150, duplicates: 0, failed: 0, left: 0 })
      yield* untilQueue(dead, { messages: 0 })
      yield* untilQueue(work, { ready: 150 })
    }).pipe(onBroker)
  )

  it.effect("a page ends before its headers fill the memory", () =>
    Effect.gen(function* () {
      const dead = yield* declareQueue()
      yield* AmqpPublisher.publishAll(
        Stream.map(Stream.range(1, 400), (i): AmqpMessage.Message => ({
          routingKey: dead,
          content: "letter",
          messageId: `${i}`,
          headers: { large: "x".repeat(100_000) }
        }))
      ).pipe(Stream.runDrain)
      const page = yield* AmqpDeadLetters.of(dead).peek({ limit: 400 })
      assert.strictEqual(page.total, 400)
      assert.isAbove(page.scanned, 300)
      assert.isBelow(page.scanned, 400)
      yield* untilQueue(dead, { ready: 400, unacked: 0 })
    }).pipe(onBroker)
  )

  it.effect("an auto-delete queue still exists after it was read", () =>
    Effect.gen(function* () {
      const work = yield* declareQueue()
      const dead = yield* declareQueue({ autoDelete: true })
      yield* fill(dead, work, 50)
      // Another application knows nothing about it.
      yield* onBroker(
        Effect.gen(function* () {
          const letters = AmqpDeadLetters.of(dead)
          assert.strictEqual((yield* letters.peek()).letters.length, 50)
          assert.include(yield* letters.redrive({ limit: 20 }), { redriven: 20 })
        })
      )
      yield* untilQueue(dead, { ready: 30, unacked: 0 })
    }).pipe(onBroker)
  )

  it.effect("a message that is too large to be read stays, and is counted", () =>
    Effect.gen(function* () {
      const work = yield* declareQueue()
      const dead = yield* declareQueue()
      yield* fill(dead, work, 1)
      yield* fill(dead, work, 1, "x".repeat(100_000))
      yield* fill(dead, work, 1)
      yield* onBroker(
        Effect.gen(function* () {
          const page = yield* AmqpDeadLetters.of(dead).peek()
          assert.deepStrictEqual([page.scanned, page.unreadable, page.letters.length], [3, 1, 2])
          const report = yield* AmqpDeadLetters.of(dead).redrive()
          assert.include(report, { scanned: 3, redriven: 2, left: 1, unreadable: 1 })
        }),
        { maxInboundMessageBodySize: 50_000 }
      )
      yield* untilQueue(dead, { ready: 1, unacked: 0 })
    }).pipe(onBroker)
  )

  it.effect("a topology stands for the queues in which its dead letters end", () =>
    Effect.gen(function* () {
      const topology = AmqpTopology.make(
        AmqpTopology.workQueue("orders", { retryDelays: ["1 second"] }),
        AmqpTopology.queue("mails", { deadLetterExchange: "", deadLetterRoutingKey: "mails.dead" }),
        AmqpTopology.queue("mails.dead")
      )
      assert.deepStrictEqual(AmqpDeadLetters.of(topology).queues, ["orders.dlq", "mails.dead"])
      yield* AmqpTopology.declare(topology)
      yield* fill("orders.dlq", "orders", 2)
      yield* fill("mails.dead", "mails", 3)
      const { queues, total } = yield* AmqpDeadLetters.of(topology).peek()
      assert.strictEqual(total, 5)
      assert.deepStrictEqual(queues, [
        { queue: "orders.dlq", total: 2 },
        { queue: "mails.dead", total: 3 }
      ])
      assert.include(yield* AmqpDeadLetters.of(topology).redrive({ limit: 4 }), { redriven: 4, scanned: 4 })
    }).pipe(onBroker)
  )
})
