/**
 * Every method of a borrowed channel, on a real broker. `AmqpChannel.test.ts` has publishing and taking single
 * messages.
 */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Option, Queue } from "effect"
import { onTestBroker } from "./support/client.ts"
import { isFrom } from "./support/versions.ts"
import { reasonOf, untilStats, withPool } from "./support/amqp.ts"
import { drain, take } from "./support/queues.ts"

type Channel = AmqpChannel.AmqpChannel

/** Runs a program with one borrowed channel of its own pool. */
const borrowed = <A, E>(program: (channel: Channel) => Effect.Effect<A, E, AmqpPool.AmqpPool>) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    AmqpChannel.use(program).pipe(Effect.scoped, withPool(url, { pool: { max: 2 } }))
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("exchanges", () => {
    it.effect("exist once declared, for a passive declare too, and not once deleted", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          yield* channel.exchangeDeclare("x", "fanout", { durable: false })
          yield* channel.exchangeDeclarePassive("x")
          yield* channel.exchangeDelete("x")
          const reason = yield* reasonOf(channel.exchangeDeclarePassive("x"))
          assert.deepInclude(reason, { _tag: "NotFound", replyCode: 404 })
        })
      )
    )

    it.effect("that are in use are not deleted with ifUnused", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.exchangeDeclare("used", "fanout", { autoDelete: true })
          yield* channel.queueBind(queue, "used", "")
          assert.strictEqual(
            (yield* reasonOf(channel.exchangeDelete("used", { ifUnused: true })))._tag,
            "PreconditionFailed"
          )
        })
      )
    )

    it.effect("that are bound to each other forward messages, until they are unbound", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.exchangeDeclare("source", "topic", { durable: false })
          yield* channel.exchangeDeclare("destination", "fanout", { durable: false, internal: true })
          yield* channel.exchangeBind("destination", "source", "a.*")
          yield* channel.queueBind(queue, "destination", "")
          for (const routingKey of ["a.b", "b.b"])
            yield* channel.publish({ exchange: "source", routingKey, content: routingKey })
          assert.deepStrictEqual(yield* drain(channel, queue), ["a.b"])
          yield* channel.exchangeUnbind("destination", "source", "a.*")
          yield* channel.publish({ exchange: "source", routingKey: "a.b", content: "" })
          assert.deepStrictEqual(yield* drain(channel, queue), [])
          yield* channel.exchangeDelete("source")
          yield* channel.exchangeDelete("destination")
        })
      )
    )

    it.effect("forward messages that match no binding to their alternate exchange", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.exchangeDeclare("rest", "fanout", { durable: false })
          yield* channel.exchangeDeclare("main", "direct", { durable: false, alternateExchange: "rest" })
          yield* channel.queueBind(queue, "rest", "")
          yield* channel.publish({ exchange: "main", routingKey: "unbound", content: "rest" })
          assert.deepStrictEqual(yield* drain(channel, queue), ["rest"])
          yield* channel.exchangeDelete("main")
          yield* channel.exchangeDelete("rest")
        })
      )
    )

    it.effect("of type headers compare the arguments of their bindings", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.exchangeDeclare("by-headers", "headers", { durable: false })
          const binding = { arguments: { "x-match": "all", kind: "a", size: 3 } }
          yield* channel.queueBind(queue, "by-headers", "", binding)
          for (const headers of [{ kind: "a", size: 3 }, { kind: "a" }]) {
            yield* channel.publish({
              exchange: "by-headers",
              routingKey: "",
              content: JSON.stringify(headers),
              headers
            })
          }
          assert.deepStrictEqual(yield* drain(channel, queue), ['{"kind":"a","size":3}'])
          yield* channel.queueUnbind(queue, "by-headers", "", binding)
          yield* channel.publish({
            exchange: "by-headers",
            routingKey: "",
            content: "",
            headers: { kind: "a", size: 3 }
          })
          assert.deepStrictEqual(yield* drain(channel, queue), [])
          yield* channel.exchangeDelete("by-headers")
        })
      )
    )
  })

  describe("queues", () => {
    it.effect("get names from the broker that are returned; a passive declare returns the counts", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          assert.match(queue, /^amq\.gen-/)
          yield* channel.publish({ routingKey: queue, content: "" })
          yield* take(channel, queue)
          yield* channel.publish({ routingKey: queue, content: "" })
          yield* take(channel, queue)
          yield* channel.recover
          const consumer = yield* channel.consume(queue, { noAck: true })
          yield* Queue.take(consumer.deliveries)
          yield* Queue.take(consumer.deliveries)
          assert.deepStrictEqual(yield* channel.queueDeclarePassive(queue), {
            queue,
            messageCount: 0,
            consumerCount: 1
          })
        })
      )
    )

    it.effect("are declared with each option as its x- argument", () =>
      Effect.gen(function* () {
        const { evaluate, vhost } = yield* TestBroker.TestBroker
        const is43 = yield* isFrom("4.3.0")
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            yield* channel.queueDeclare("classic", {
              queueType: "classic",
              // Options that 4.3 has removed, and options that it has added.
              ...(is43 ? {} : { queueMode: "lazy" as const, arguments: { "x-queue-master-locator": "client-local" } }),
              singleActiveConsumer: true,
              maxLength: 1000,
              maxLengthBytes: 1_000_000,
              overflow: "reject-publish-dlx",
              deadLetterExchange: "",
              deadLetterRoutingKey: "dead",
              messageTtl: "1 minute",
              expires: 90_000,
              maxPriority: 5
            })
            yield* channel.queueDeclare("quorum", {
              queueType: "quorum",
              deliveryLimit: 3,
              quorumInitialGroupSize: 1,
              deadLetterExchange: "dlx",
              deadLetterStrategy: "at-least-once",
              overflow: "reject-publish",
              queueLeaderLocator: "balanced",
              ...(is43
                ? {
                    delayedRetryType: "failed" as const,
                    delayedRetryMin: "1 second",
                    delayedRetryMax: 5000,
                    consumerDisconnectedTimeout: "30 seconds"
                  }
                : {})
            })
            yield* channel.queueDeclare("stream", {
              queueType: "stream",
              maxAge: "7 days",
              streamMaxSegmentSizeBytes: 500_000
            })
          })
        )
        const found = yield* evaluate(
          `iolist_to_binary([io_lib:format("~s ~s ~s~n", [element(4, amqqueue:get_name(Q)), K, case is_binary(V) of true -> V; false -> io_lib:format("~w", [V]) end]) || Q <- rabbit_amqqueue:list(<<"${vhost}">>), {K, _, V} <- amqqueue:get_arguments(Q)]).`
        )
        const lines = found
          .split("\n")
          .filter((line) => line !== "")
          .sort()
        assert.deepStrictEqual(lines, [
          "classic x-dead-letter-exchange ",
          "classic x-dead-letter-routing-key dead",
          "classic x-expires 90000",
          "classic x-max-length 1000",
          "classic x-max-length-bytes 1000000",
          "classic x-max-priority 5",
          "classic x-message-ttl 60000",
          "classic x-overflow reject-publish-dlx",
          ...(is43 ? [] : ["classic x-queue-master-locator client-local", "classic x-queue-mode lazy"]),
          "classic x-queue-type classic",
          "classic x-single-active-consumer true",
          ...(is43 ? ["quorum x-consumer-disconnected-timeout 30000"] : []),
          "quorum x-dead-letter-exchange dlx",
          "quorum x-dead-letter-strategy at-least-once",
          ...(is43
            ? [
                "quorum x-delayed-retry-max 5000",
                "quorum x-delayed-retry-min 1000",
                "quorum x-delayed-retry-type failed"
              ]
            : []),
          "quorum x-delivery-limit 3",
          "quorum x-overflow reject-publish",
          "quorum x-queue-leader-locator balanced",
          "quorum x-queue-type quorum",
          "quorum x-quorum-initial-group-size 1",
          "stream x-max-age 604800s",
          "stream x-queue-type stream",
          "stream x-stream-max-segment-size-bytes 500000"
        ])
        yield* borrowed((channel) =>
          Effect.forEach(["classic", "quorum", "stream"], (queue) => channel.queueDelete(queue), { discard: true })
        )
      })
    )

    it.effect("with messages are not deleted with ifEmpty, and those with consumers not with ifUnused", () =>
      Effect.gen(function* () {
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            yield* channel.queueDeclare("kept")
            yield* channel.publish({ routingKey: "kept", content: "" })
            assert.strictEqual(
              (yield* reasonOf(channel.queueDelete("kept", { ifEmpty: true })))._tag,
              "PreconditionFailed"
            )
          })
        )
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            yield* channel.consume("kept")
            assert.strictEqual(
              (yield* reasonOf(channel.queueDelete("kept", { ifUnused: true })))._tag,
              "PreconditionFailed"
            )
          })
        )
        yield* borrowed((channel) => channel.queueDelete("kept"))
      })
    )
  })

  describe("settling", () => {
    it.effect("with multiple settles a delivery and all earlier ones, and no later one", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            for (const content of ["1", "2", "3", "4"]) yield* channel.publish({ routingKey: queue, content })
            const first = yield* take(channel, queue)
            const second = yield* take(channel, queue)
            const third = yield* take(channel, queue)
            yield* channel.ack(second, { multiple: true })
            assert.strictEqual((yield* reasonOf(channel.ack(first)))._tag, "DeliverySettled")
            yield* awaitCensus({ unacked: 1 })
            const fourth = yield* take(channel, queue)
            yield* channel.nack(fourth, { multiple: true, requeue: true })
            assert.strictEqual((yield* reasonOf(channel.reject(third)))._tag, "DeliverySettled")
            yield* awaitCensus({ unacked: 0 })
            assert.deepStrictEqual(yield* drain(channel, queue), ["3", "4"])
          })
        )
      })
    )

    it.effect("with reject returns one message to its queue, or drops it", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.publish({ routingKey: queue, content: "a" })
          yield* channel.reject(yield* take(channel, queue))
          const again = yield* take(channel, queue)
          assert.isTrue(again.redelivered)
          yield* channel.reject(again, { requeue: false })
          assert.deepStrictEqual(yield* drain(channel, queue), [])
        })
      )
    )

    it.effect("with recover returns all unsettled deliveries, which cannot be settled any more", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          for (const content of ["1", "2"]) yield* channel.publish({ routingKey: queue, content })
          const delivery = yield* take(channel, queue)
          yield* take(channel, queue)
          const recovering = yield* Effect.forkChild(channel.recover, { startImmediately: true })
          assert.strictEqual((yield* reasonOf(channel.ack(delivery)))._tag, "DeliverySettled")
          yield* Fiber.join(recovering)
          assert.deepStrictEqual(yield* drain(channel, queue), ["1", "2"])
        })
      )
    )

    it.effect("is neither needed nor possible for a message that was taken with noAck", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.publish({ routingKey: queue, content: "a" })
          const delivery = Option.getOrThrow(yield* channel.get(queue, { noAck: true }))
          assert.strictEqual((yield* reasonOf(channel.ack(delivery)))._tag, "DeliverySettled")
          yield* channel.recover
          assert.deepStrictEqual(yield* drain(channel, queue), [])
        })
      )
    )
  })

  describe("consuming", () => {
    it.effect("delivers in order, and no more unsettled deliveries than qos allows", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          for (const content of ["1", "2", "3"]) yield* channel.publish({ routingKey: queue, content })
          yield* channel.qos(2)
          const { consumerTag, deliveries } = yield* channel.consume(queue)
          assert.match(consumerTag, /^ctag-/)
          const first = yield* Queue.take(deliveries)
          assert.strictEqual(AmqpMessage.text(first), "1")
          assert.strictEqual(AmqpMessage.text(yield* Queue.take(deliveries)), "2")
          // This is a round trip on the same channel: a third delivery would have arrived before its answer.
          yield* channel.queueDeclarePassive(queue)
          assert.strictEqual(yield* Queue.size(deliveries), 0)
          yield* channel.ack(first)
          assert.strictEqual(AmqpMessage.text(yield* Queue.take(deliveries)), "3")
        })
      )
    )

    it.effect("ends after cancel, and unsettled deliveries can still be settled", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            yield* channel.publish({ routingKey: queue, content: "1" })
            const { deliveries } = yield* channel.consume(queue, { consumerTag: "mine", priority: 3, exclusive: true })
            const delivery = yield* Queue.take(deliveries)
            yield* channel.cancel("mine")
            assert.deepStrictEqual(yield* Queue.collect(deliveries), [])
            yield* awaitCensus({ consumers: 0, unacked: 1 })
            yield* channel.ack(delivery)
            yield* awaitCensus({ unacked: 0 })
            // The consumer tag is free again.
            yield* channel.consume(queue, { consumerTag: "mine" })
          })
        )
      })
    )

    it.effect("fails with ConsumerCancelled when the queue is deleted", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          yield* channel.queueDeclare("short-lived")
          const { consumerTag, deliveries } = yield* channel.consume("short-lived")
          yield* AmqpPool.AmqpPool.use((pool) => pool.use((other) => other.queueDelete("short-lived")))
          const reason = yield* reasonOf(Queue.collect(deliveries))
          assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue: "short-lived", consumerTag })
          yield* channel.cancel(consumerTag)
        })
      )
    )

    it.effect("can reuse the tag of a consumer that the broker has cancelled", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const queue = "deleted-and-declared"
          const consume = channel.consume(queue, { consumerTag: "reused" })
          yield* channel.queueDeclare(queue)
          const { deliveries: ended } = yield* consume
          yield* channel.queueDelete(queue)
          assert.strictEqual((yield* reasonOf(Queue.collect(ended)))._tag, "ConsumerCancelled")
          yield* channel.queueDeclare(queue)
          const { deliveries } = yield* consume
          yield* channel.publish({ routingKey: queue, content: "1" })
          yield* channel.ack(yield* Queue.take(deliveries))
          // The tag is in use again.
          assert.deepInclude(yield* reasonOf(consume), { _tag: "InvalidArgument", argument: "consumerTag" })
          yield* channel.cancel("reused")
          assert.deepStrictEqual(yield* Queue.collect(deliveries), [])
          yield* channel.queueDelete(queue)
        })
      )
    )

    it.effect("fails with the reason when its channel ends", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          const { deliveries } = yield* channel.consume(queue)
          yield* reasonOf(channel.queueDeclarePassive("missing"))
          const reason = yield* reasonOf(Queue.take(deliveries))
          assert.strictEqual(reason._tag, "ChannelClosed")
          assert.include(reason.message, "missing")
        })
      )
    )

    it.effect("ends when its scope closes, requeues its deliveries, and fails them with ChannelReleased", () =>
      onTestBroker({}, function* ({ awaitCensus }) {
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              yield* channel.queueDeclare("left")
              for (const content of ["1", "2"]) yield* channel.publish({ routingKey: "left", content })
            })
          )
        )
        const { deliveries } = yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.tap(channel.consume("left"), (consumer) => Queue.take(consumer.deliveries))
          )
        )
        const ended = Effect.forever(Queue.take(deliveries))
        assert.strictEqual((yield* reasonOf(ended))._tag, "ChannelReleased")
        yield* awaitCensus({ consumers: 0, unacked: 0, messages: 2 })
        // The next borrower gets a channel without any altered state.
        assert.deepInclude(yield* AmqpPool.stats, { discarded: 1, used: 0 })
        assert.strictEqual(yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("left"))), 2)
      })
    )

    it.effect("8. A lent channel is clean: default prefetch. One with another is discarded.", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.qos(1, { global: true })))
        yield* untilStats((stats) => stats.discarded === 1 && stats.idle === 0)
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const { queue } = yield* channel.queueDeclare("", { exclusive: true })
              for (const content of ["1", "2"]) yield* channel.publish({ routingKey: queue, content })
              const { deliveries } = yield* channel.consume(queue)
              assert.lengthOf(yield* Queue.takeN(deliveries, 2), 2)
            })
          )
        )
      })
    )

    it.effect("reads a stream from the requested offset", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          yield* channel.queueDeclare("log", { queueType: "stream" })
          for (const content of ["0", "1", "2"]) yield* channel.publish({ routingKey: "log", content })
          yield* channel.qos(10)
          const { deliveries } = yield* channel.consume("log", { arguments: { "x-stream-offset": 1 } })
          assert.strictEqual(AmqpMessage.text(yield* Queue.take(deliveries)), "1")
          yield* channel.queueDelete("log")
        })
      )
    )
  })

  describe("flow", () => {
    it.effect(
      "is refused as a request to stop, which would close the connection at RabbitMQ; a request to resume is answered",
      () =>
        borrowed((channel) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(channel.flow(false))
            assert.deepInclude(reason, { _tag: "InvalidArgument", argument: "active" })
            assert.isTrue(yield* channel.flow(true))
          })
        )
    )
  })

  describe("returns", () => {
    it.effect("bring back a mandatory message that is routed to no queue, with code and text", () =>
      borrowed((channel) =>
        Effect.gen(function* () {
          yield* channel.publish({ routingKey: "unbound", content: "back", headers: { n: 1 } }, { mandatory: true })
          const returned = yield* Queue.take(channel.returns)
          assert.deepInclude(returned, { exchange: "", routingKey: "unbound", replyCode: 312, replyText: "NO_ROUTE" })
          assert.strictEqual(Buffer.from(returned.content).toString(), "back")
          assert.deepStrictEqual({ ...returned.properties.headers }, { n: 1 })
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          yield* channel.publish({ routingKey: queue, content: "" }, { mandatory: true })
          yield* take(channel, queue)
          assert.strictEqual(yield* Queue.size(channel.returns), 0)
        })
      )
    )

    it.effect("end with their scope or channel", () =>
      Effect.gen(function* () {
        const returns = yield* borrowed((channel) => Effect.succeed(channel.returns))
        assert.strictEqual((yield* reasonOf(Queue.take(returns)))._tag, "ChannelReleased")
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            const { returns } = channel
            yield* channel.publish({ exchange: "missing", routingKey: "", content: "" }, { mandatory: true })
            assert.strictEqual((yield* reasonOf(Queue.take(returns)))._tag, "ChannelClosed")
          })
        )
      })
    )
  })
})
