/**
 * Features that a version of RabbitMQ has removed or does not have yet: each is refused with the remedy, or made to
 * work, on that version.
 */
import { assert, describe, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpConnection, AmqpPool, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Queue } from "effect"
import { configOf, connecting, quietly, reasonOf, untilOpen } from "./support/amqp.ts"
import { onScriptedBroker } from "./support/client.ts"
import { declareQueue, logged, onBroker, send } from "./support/consumers.ts"
import { isFrom, leastFrameMax, major } from "./support/versions.ts"

const borrowed = <A, E>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E>) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use(f))

/** Why a queue with these options is not declared; undefined if it is declared. */
const refusalOf = (options: AmqpChannel.QueueDeclareOptions, name = "versions") =>
  borrowed((channel) => Effect.flip(channel.queueDeclare(name, options))).pipe(
    Effect.map(({ reason }) => reason),
    Effect.orElseSucceed(() => undefined)
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("An option of a queue that", () => {
    const removed: Record<string, readonly [AmqpChannel.QueueDeclareOptions, RegExp]> = {
      queueMode: [{ queueMode: "lazy" }, /RabbitMQ 4\.\d+\.\d+ does not support x-queue-mode\. Leave it out/],
      "arguments.x-queue-master-locator": [
        { arguments: { "x-queue-master-locator": "client-local" } },
        /would close the connection \(541\).*Use queueLeaderLocator\./
      ]
    }
    for (const [argument, [options, says]] of Object.entries(removed)) {
      it.effect(`RabbitMQ 4.3 has removed works before, and is refused with the remedy from then on: ${argument}`, () =>
        Effect.gen(function* () {
          const reason = yield* refusalOf(options, argument)
          if (!(yield* isFrom("4.3.0"))) return assert.isUndefined(reason)
          assert.deepInclude(reason, { _tag: "InvalidArgument", argument, operation: "queue.declare" })
          assert.match(reason!.message, says)
          // A topology with this option is refused or accepted in the same way.
          const topology = AmqpTopology.make(AmqpTopology.queue(argument, options))
          assert.deepInclude(yield* reasonOf(AmqpTopology.declare(topology)), { _tag: "InvalidArgument", argument })
        }).pipe(onBroker, quietly)
      )
    }

    const added: Record<string, AmqpChannel.QueueDeclareOptions> = {
      delayedRetryType: { delayedRetryType: "all", delayedRetryMin: "1 second" },
      consumerDisconnectedTimeout: { consumerDisconnectedTimeout: "10 seconds" }
    }
    for (const [argument, options] of Object.entries(added)) {
      it.effect(`RabbitMQ 4.3 has added is refused before, because it would do nothing: ${argument}`, () =>
        Effect.gen(function* () {
          const reason = yield* refusalOf({ queueType: "quorum", ...options }, argument)
          if (yield* isFrom("4.3.0")) return assert.isUndefined(reason)
          assert.deepInclude(reason, { _tag: "InvalidArgument", argument })
          assert.match(reason!.message, /ignores x-[a-z-]+, which RabbitMQ supports from 4\.3 on\. Leave it out\./)
        }).pipe(onBroker, quietly)
      )
    }
  })

  describe("A", () => {
    it.effect("global prefetch is logged once with the remedy where RabbitMQ 4.3 applies it to each consumer", () =>
      logged((lines) =>
        Effect.gen(function* () {
          yield* borrowed((channel) =>
            Effect.andThen(channel.qos(3, { global: true }), channel.qos(2, { global: true }))
          )
          yield* borrowed((channel) => channel.qos(3))
          const warnings = lines.filter(({ level, text }) => level === "Warn" && text.includes("global_qos = true"))
          assert.strictEqual(warnings.length, (yield* isFrom("4.3.0")) ? 1 : 0)
        })
      ).pipe(onBroker)
    )

    it.effect(
      "frameMax below the minimum of RabbitMQ 4.1 fails at once with the remedy: the broker reports nothing",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const config = configOf(url, { frameMax: 4096 })
          if ((yield* leastFrameMax) === 4096) {
            const { state } = yield* AmqpConnection.make(config)
            return assert.strictEqual(state.value._tag, "Open")
          }
          const reason = yield* connecting(config)
          assert.strictEqual(reason._tag, "ProtocolError")
          assert.isFalse(reason.isRetryable)
          assert.match(
            reason.message,
            /frameMax: expected at least 8192 for RabbitMQ 4\.\d+\.\d+, got 4096 .*: set frameMax to 8192/
          )
        }).pipe(Effect.scoped, quietly)
    )
  })

  describe("A quorum queue of RabbitMQ 4.3 with delayedRetryType", () => {
    /** How long a message stays away, each time that it is returned. */
    const pauses = (options: AmqpChannel.QueueDeclareOptions, how: "reject" | "nack", times: number) =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({
          queueType: "quorum",
          delayedRetryMin: 300,
          delayedRetryMax: 700,
          ...options
        })
        yield* send(queue, "x")
        return yield* borrowed((channel) =>
          Effect.gen(function* () {
            const { deliveries } = yield* channel.consume(queue)
            const found: Array<number> = []
            let delivery = yield* Queue.take(deliveries)
            for (let i = 0; i < times; i++) {
              const begun = performance.now()
              yield* channel[how](delivery, { requeue: true })
              delivery = yield* Queue.take(deliveries)
              found.push(performance.now() - begun)
            }
            yield* channel.ack(delivery)
            return found
          })
        )
      })

    it.effect(
      "failed pauses before a rejected message comes again, longer each time, and not before a nacked one",
      () =>
        Effect.gen(function* () {
          if (!(yield* isFrom("4.3.0"))) return
          const [first, second, third] = yield* pauses({ delayedRetryType: "failed" }, "reject", 3)
          assert.isAtLeast(first!, 299)
          assert.isAtLeast(second!, 599)
          // The pause would be 900 without the bound.
          assert.isAtLeast(third!, 699)
          const nacked = yield* pauses({ delayedRetryType: "failed" }, "nack", 10)
          assert.isBelow(Math.min(...nacked), 299)
        }).pipe(onBroker)
    )

    it.effect(
      "returned pauses before a nacked message comes again, equally long each time; without a bound this is the minimum",
      () =>
        Effect.gen(function* () {
          if (!(yield* isFrom("4.3.0"))) return
          const nacked = yield* pauses({ delayedRetryType: "returned" }, "nack", 3)
          for (const pause of nacked) assert.isAtLeast(pause, 299)
          const rejected = yield* pauses({ delayedRetryType: "returned" }, "reject", 10)
          assert.isBelow(Math.min(...rejected), 299)
        }).pipe(onBroker)
    )

    it.effect(
      "failed pauses before a message that was only prefetched on a channel that has closed, and counts it",
      () =>
        Effect.gen(function* () {
          if (!(yield* isFrom("4.3.0"))) return
          const queue = yield* declareQueue({ queueType: "quorum", delayedRetryType: "failed", delayedRetryMin: 400 })
          yield* send(queue, "x")
          yield* borrowed((channel) =>
            Effect.andThen(
              Effect.flatMap(channel.consume(queue), ({ deliveries }) => Queue.take(deliveries)),
              Effect.void
            )
          )
          const begun = performance.now()
          const delivery = yield* borrowed((channel) =>
            Effect.gen(function* () {
              const { deliveries } = yield* channel.consume(queue)
              const delivery = yield* Queue.take(deliveries)
              yield* channel.ack(delivery)
              return delivery
            })
          )
          assert.isAtLeast(performance.now() - begun, 350)
          assert.strictEqual(delivery.properties.headers["x-delivery-count"], 1)
        }).pipe(onBroker)
    )
  })

  describe("A broker that does not permit queues that are neither durable nor exclusive", () => {
    it.effect(
      "ends one connection over the first, and later ones are refused with the remedy, while others are declared",
      () =>
        Effect.gen(function* () {
          // Earlier versions do not know this setting.
          if ((yield* major) < 4) return
          yield* Effect.gen(function* () {
            assert.strictEqual((yield* refusalOf({ durable: false }, "first"))?._tag, "BrokerError")
            const again = yield* refusalOf({ durable: false }, "second")
            assert.deepInclude(again, { _tag: "InvalidArgument", argument: "durable" })
            assert.match(
              again!.message,
              /neither durable nor exclusive.*Declare it durable, with expires.*or exclusive/
            )
            assert.isUndefined(yield* refusalOf({ durable: false, exclusive: true }, "exclusive"))
            assert.isUndefined(yield* refusalOf({ expires: "1 minute" }, "durable"))
            const { state } = yield* AmqpConnection.AmqpConnection
            assert.deepInclude(state.value, { _tag: "Open", generation: 2 })
          }).pipe(
            onBroker,
            Effect.provide(
              TestBroker.layerPrivate({ config: ["deprecated_features.permit.transient_nonexcl_queues = false"] }),
              { local: true }
            )
          )
        }).pipe(quietly),
      120_000
    )

    it.effect(
      "is recognized by the close of the connection, not by the name of a queue that is refused for another reason",
      () =>
        Effect.gen(function* () {
          const name = "Feature `transient_nonexcl_queues` is deprecated"
          assert.isUndefined(yield* refusalOf({}, name))
          const reason = yield* refusalOf({ maxLength: 1 }, name)
          assert.deepInclude(reason, { _tag: "PreconditionFailed", replyCode: 406 })
          assert.include(reason!.message, name)
          assert.isUndefined(yield* refusalOf({ durable: false, autoDelete: true }, "transient"))
        }).pipe(onBroker, quietly)
    )

    it.effect("is asked again once its version has changed", () => {
      const serverProperties = { product: "RabbitMQ", version: "4.3.6" }
      return onScriptedBroker({ broker: { serverProperties } }, function* (broker) {
        const refused =
          "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.\nBy default, this feature is not"
        broker.once("queue.declare", ({ closeConnection }) => closeConnection(541, refused))
        assert.strictEqual((yield* refusalOf({ durable: false }, "first"))?._tag, "BrokerError")
        assert.strictEqual((yield* refusalOf({ durable: false }, "second"))?._tag, "InvalidArgument")
        serverProperties.version = "4.3.7"
        broker.closeConnections()
        yield* untilOpen(3)
        assert.isUndefined(yield* refusalOf({ durable: false }, "third"))
      })
    })
  })
})
