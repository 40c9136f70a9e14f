/** Confirmed publishing on a real broker: the outcomes of many fibers over few channels. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { onTestBroker } from "./support/client.ts"
import { reasonOf } from "./support/amqp.ts"
import { Effect, Fiber, Random } from "effect"
import { range } from "./support/ranges.ts"
import { outcomeOf, untilStats, withPublisher } from "./support/publisher.ts"
import { takeAll } from "./support/queues.ts"
import { major } from "./support/versions.ts"

const declare = (options?: AmqpChannel.QueueDeclareOptions) =>
  Effect.scoped(AmqpChannel.use((channel) => Effect.map(channel.queueDeclare("", options), ({ queue }) => queue)))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("12. A confirmed publish resolves once, and never as success without the broker's ack.", () => {
    it.effect("thousands of fibers share two channels, and each message is in the queue once", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          const queue = yield* declare()
          const all = range(3000)
          const outcomes = yield* Effect.forEach(
            all,
            (i) => outcomeOf(AmqpPublisher.publish({ routingKey: queue, content: String(i) })),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(new Set(outcomes), new Set(["Confirmed"]))
          assert.deepStrictEqual(new Set((yield* takeAll(queue)).map(Number)), new Set(all))
          const { stats } = yield* AmqpPublisher.AmqpPublisher
          assert.deepStrictEqual(yield* stats, {
            inFlight: 0,
            waiting: 0,
            channels: 2,
            confirmed: 3000,
            nacked: 0,
            returned: 0,
            unknown: 0,
            timedOut: 0,
            forbidden: 0,
            refused: 0
          })
          // The third channel is one that the pool has opened.
          yield* awaitCensus({ channels: 3, connections: 1 })
        }).pipe(withPublisher(url))
        yield* awaitCensus({ channels: 0, connections: 0 })
      })
    )

    it.effect("one message at a time needs one channel, and none is open before the first", () =>
      onTestBroker({}, function* ({ awaitCensus }) {
        const { stats } = yield* AmqpPublisher.AmqpPublisher
        assert.strictEqual((yield* stats).channels, 0)
        for (let i = 0; i < 5; i++) yield* AmqpPublisher.publish({ routingKey: "nowhere", content: "" })
        yield* awaitCensus({ channels: 1 })
      })
    )

    it.effect("a mandatory message that reaches no queue is PublishReturned, and no other is", () =>
      onTestBroker({}, function* () {
        const queue = yield* declare()
        const to = (routingKey: string) =>
          AmqpPublisher.publish({ routingKey, content: "the same content", messageId: "1" }, { mandatory: true })
        const outcomes = yield* Effect.forEach(range(200), (i) => outcomeOf(to(i % 4 === 0 ? `nowhere-${i}` : queue)), {
          concurrency: "unbounded"
        })
        for (const [i, outcome] of outcomes.entries()) {
          assert.strictEqual(outcome, i % 4 === 0 ? "PublishReturned" : "Confirmed", `${i}`)
        }
        const reason = yield* reasonOf(to("nowhere"))
        assert.deepInclude(reason, {
          _tag: "PublishReturned",
          replyCode: 312,
          replyText: "NO_ROUTE",
          exchange: "",
          routingKey: "nowhere",
          isRetryable: false
        })
        assert.strictEqual((yield* takeAll(queue)).length, 150)
      })
    )

    it.effect("a message that the queue rejects is PublishNacked", () =>
      onTestBroker({}, function* () {
        const queue = yield* declare({ maxLength: 10, overflow: "reject-publish" })
        const outcomes = yield* Effect.forEach(
          range(100),
          () => outcomeOf(AmqpPublisher.publish({ routingKey: queue, content: "x" })),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(outcomes.filter((tag) => tag === "Confirmed").length, (yield* takeAll(queue)).length)
        assert.strictEqual(outcomes.filter((tag) => tag === "PublishNacked").length, 90)
      })
    )

    it.effect("whatever happens to connections, each publish ends once, and each success is in the queue", () =>
      onTestBroker({}, function* ({ closeConnections, killConnections }) {
        const queue = yield* declare({ durable: true })
        const reported = new Map<number, string>()
        let next = 0
        const stop = { now: false }
        const worker = Effect.gen(function* () {
          while (!stop.now) {
            const i = next++
            const outcome = yield* outcomeOf(AmqpPublisher.publish({ routingKey: queue, content: String(i) }))
            assert.isFalse(reported.has(i))
            reported.set(i, outcome)
          }
        })
        const workers = yield* Effect.forEach(range(100), () => Effect.forkChild(worker))
        for (let round = 0; round < 5; round++) {
          const before = (yield* untilStats((stats) => stats.confirmed > 0)).confirmed
          yield* untilStats((stats) => stats.confirmed > before + 200)
          yield* round % 2 === 0 ? killConnections : closeConnections()
        }
        const before = (yield* (yield* AmqpPublisher.AmqpPublisher).stats).confirmed
        yield* untilStats((stats) => stats.confirmed > before + 100)
        stop.now = true
        yield* Effect.forEach(workers, Fiber.join)
        assert.strictEqual(reported.size, next)
        const stored = new Set((yield* takeAll(queue)).map(Number))
        for (const [i, outcome] of reported) {
          assert.include(["Confirmed", "PublishUnknown"], outcome)
          if (outcome === "Confirmed") assert.isTrue(stored.has(i), `${i} was confirmed`)
        }
        const { inFlight, waiting } = yield* (yield* AmqpPublisher.AmqpPublisher).stats
        assert.deepStrictEqual({ inFlight, waiting }, { inFlight: 0, waiting: 0 })
      })
    )

    it.effect("however many publishes are interrupted, no place is lost and the others are confirmed", () =>
      onTestBroker({ publisher: { maxInFlight: 50 } }, function* () {
        const queue = yield* declare()
        for (let round = 0; round < 20; round++) {
          const fibers = yield* Effect.forEach(range(200), () =>
            Effect.forkChild(AmqpPublisher.publish({ routingKey: queue, content: "x" }), { startImmediately: true })
          )
          const some = yield* Effect.filter(fibers, () => Random.nextBoolean)
          yield* Fiber.interruptAll(some)
          const others = fibers.filter((fiber) => !some.includes(fiber))
          yield* Effect.forEach(others, Fiber.join)
        }
        yield* untilStats((stats) => stats.inFlight === 0 && stats.waiting === 0)
      })
    )
  })

  describe("a message that kills its channel", () => {
    it.effect("gets the 404 of its missing exchange; the others are confirmed or unknown, never blamed for it", () =>
      onTestBroker({}, function* () {
        const queue = yield* declare()
        for (let round = 0; round < 10; round++) {
          const at = 20 + round * 7
          const message = (i: number): AmqpMessage.Message =>
            i === at
              ? { exchange: "missing", routingKey: queue, content: `${round}/${i}` }
              : { routingKey: queue, content: `${round}/${i}` }
          const outcomes = yield* Effect.forEach(range(200), (i) => outcomeOf(AmqpPublisher.publish(message(i))), {
            concurrency: "unbounded"
          })
          assert.strictEqual(outcomes[at], "NotFound")
          const stored = new Set(yield* takeAll(queue))
          for (const [i, outcome] of outcomes.entries()) {
            if (i === at) continue
            assert.include(["Confirmed", "PublishUnknown"], outcome)
            if (outcome === "Confirmed") assert.isTrue(stored.has(`${round}/${i}`))
          }
        }
      })
    )

    it.effect("does not end the publisher: the next message is confirmed", () =>
      onTestBroker({}, function* ({ awaitCensus }) {
        for (let round = 0; round < 10; round++) {
          const reason = yield* reasonOf(AmqpPublisher.publish({ exchange: "missing", routingKey: "k", content: "" }))
          assert.strictEqual(reason._tag, "NotFound")
          assert.include(reason.message, "basic.publish: NOT_FOUND - no exchange 'missing'")
          yield* AmqpPublisher.publish({ routingKey: "nowhere", content: "" })
        }
        yield* awaitCensus({ channels: 1, connections: 1 })
      })
    )

    it.effect(
      "is recognized by what it did: wrong user, forbidden topic, forbidden and internal exchange, a name too long to quote",
      () =>
        Effect.gen(function* () {
          const { ctl, url, vhost } = yield* TestBroker.TestBroker
          const user = `user-of-${vhost}`
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* Effect.acquireRelease(ctl("add_user", user, "secret"), () =>
                Effect.ignore(ctl("delete_user", user))
              )
              yield* ctl("set_permissions", "-p", vhost, user, ".*", "^(topics|inner|x.*|amq\\.gen.*)$", ".*")
              yield* AmqpChannel.use((channel) =>
                Effect.gen(function* () {
                  yield* channel.exchangeDeclare("topics", "topic", { autoDelete: false })
                  yield* channel.exchangeDeclare("inner", "fanout", { internal: true })
                  yield* channel.exchangeDeclare("forbidden", "fanout")
                  yield* channel.exchangeDeclare("x-there", "fanout")
                })
              ).pipe(Effect.scoped, withPublisher(url))
              // RabbitMQ 4.3 refuses the permission unless the exchange exists.
              yield* ctl("set_topic_permissions", "-p", vhost, user, "topics", "^allowed", ".*")
              const long = `x-${"l".repeat(240)}`
              const notAscii = `x-${"ü".repeat(120)}`
              // This works up to RabbitMQ 3. RabbitMQ 4 (at least 4.0.5) measures its answer in characters, and crashes when it has
              // too many bytes.
              const notFound = (yield* major) < 4 ? "NotFound" : "PublishUnknown"
              const content = "x"
              const culprits: ReadonlyArray<readonly [string, AmqpMessage.Message]> = [
                ["PreconditionFailed", { exchange: "topics", routingKey: "allowed.1", userId: "guest", content }],
                ["AccessRefused", { exchange: "topics", routingKey: "denied", content }],
                ["AccessRefused", { exchange: "forbidden", routingKey: "k", content }],
                ["AccessRefused", { exchange: "inner", routingKey: "k", content }],
                ["AccessRefused", { routingKey: "k", content }],
                ["NotFound", { exchange: long, routingKey: "k", content }],
                [notFound, { exchange: notAscii, routingKey: "k", content }],
                ["NotFound", { exchange: "x-missing' in vhost 'x", routingKey: "k", content }]
              ]
              yield* Effect.forEach(culprits, ([expected, culprit]) =>
                Effect.gen(function* () {
                  const innocents: ReadonlyArray<AmqpMessage.Message> = [
                    { exchange: "topics", routingKey: "allowed.1", content },
                    { exchange: "x-there", routingKey: "denied", content },
                    { exchange: "topics", routingKey: "allowed.2", userId: user, content }
                  ]
                  const messages = [...innocents, ...innocents, culprit, ...innocents]
                  const outcomes = yield* Effect.forEach(messages, (m) => outcomeOf(AmqpPublisher.publish(m)), {
                    concurrency: "unbounded"
                  })
                  assert.strictEqual(outcomes[6], expected, `${culprit.exchange} ${culprit.routingKey}`)
                  for (const i of [0, 1, 2, 3, 4, 5, 7, 8, 9]) {
                    assert.include(["Confirmed", "PublishUnknown"], outcomes[i])
                  }
                }).pipe(withPublisher(url.replace("guest:guest", `${user}:secret`), { channels: 1 }))
              )
            })
          )
        })
    )
  })

  describe("a connection that is lost", () => {
    it.effect("is waited for: messages that are published in the meantime are sent on the next one", () =>
      onTestBroker({}, function* ({ closeConnections }) {
        const queue = yield* declare({ durable: true })
        const { state } = yield* AmqpConnection.AmqpConnection
        for (let round = 0; round < 3; round++) {
          yield* AmqpPublisher.publish({ routingKey: queue, content: "before" })
          yield* closeConnections()
          while (state.value._tag === "Open") yield* Effect.yieldNow
          yield* AmqpPublisher.publish({ routingKey: queue, content: "after" })
        }
        assert.strictEqual((yield* takeAll(queue)).length, 6)
      })
    )
  })

  describe("a message with a reply address on its own channel", () => {
    it.effect(
      "is InvalidArgument before anything is sent, since no consumer is there and the broker would close the channel",
      () =>
        onTestBroker({}, function* () {
          const queue = yield* declare()
          const publish = (replyTo?: string) => AmqpPublisher.publish({ routingKey: queue, content: "it", replyTo })
          yield* publish()
          const outcomes = yield* Effect.forEach(
            range(300),
            (i) => outcomeOf(publish(i % 3 === 0 ? "amq.rabbitmq.reply-to" : undefined)),
            { concurrency: "unbounded" }
          )
          for (const [i, outcome] of outcomes.entries()) {
            assert.strictEqual(outcome, i % 3 === 0 ? "InvalidArgument" : "Confirmed", `${i}`)
          }
          // RabbitMQ's name and LavinMQ's.
          for (const replyTo of ["amq.rabbitmq.reply-to", "amq.direct.reply-to"]) {
            const reason = yield* reasonOf(publish(replyTo))
            assert.strictEqual(reason._tag, "InvalidArgument")
            assert.include(reason.message, `replyTo: expected a queue, got ${replyTo}. Direct replies need a channel`)
            assert.include(reason.message, "AmqpRpc")
          }
        })
    )
  })

  describe("a message that is too large", () => {
    it.effect("is MessageTooLarge before anything is sent, since other messages depend on that channel", () =>
      onTestBroker({ publisher: { maxMessageSize: 1000 } }, function* () {
        const queue = yield* declare()
        const of = (size: number) => AmqpPublisher.publish({ routingKey: queue, content: new Uint8Array(size) })
        yield* of(1000)
        const reason = yield* reasonOf(of(1001))
        assert.strictEqual(reason._tag, "MessageTooLarge")
        assert.include(reason.message, "at most 1000 bytes")
        assert.include(reason.message, "got 1001")
        assert.strictEqual(
          yield* outcomeOf(AmqpPublisher.publish({ routingKey: queue, content: "ü".repeat(501) })),
          "MessageTooLarge"
        )
        assert.strictEqual((yield* takeAll(queue)).length, 1)
        assert.strictEqual((yield* (yield* AmqpPublisher.AmqpPublisher).stats).channels, 1)
      })
    )
  })
})
