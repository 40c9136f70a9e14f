/**
 * Streams on a borrowed channel: methods over which RabbitMQ would close the whole connection are not sent where the
 * stream is known.
 */
import { assert, describe, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpConnection, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Queue, SubscriptionRef } from "effect"
import { tagOf } from "./support/amqp.ts"
import { declareQueue, onBroker, send } from "./support/consumers.ts"

/** The connection is the same one, with the same link. */
const unbroken = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { state } = yield* AmqpConnection.AmqpConnection
    const before = yield* SubscriptionRef.get(state)
    const result = yield* effect
    // Any answer of the broker to the earlier methods has arrived by then.
    const pool = yield* AmqpPool.AmqpPool
    yield* pool.use((channel) => channel.queueDeclare("", { exclusive: true }))
    assert.strictEqual(yield* SubscriptionRef.get(state), before)
    return result
  })

const consumeAll = Effect.fnUntraced(function* (channel: AmqpChannel.AmqpChannel, queue: string, count: number) {
  yield* channel.qos(100)
  const consumer = yield* channel.consume(queue, { arguments: { "x-stream-offset": "first" } })
  return { ...consumer, all: yield* Queue.takeN(consumer.deliveries, count) }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a stream on a borrowed channel", () => {
    it.effect("is settled by basic.ack only: nack, reject and recover are refused, and nothing is sent", () =>
      unbroken(
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "stream" })
          const other = yield* declareQueue()
          yield* send(queue, "a", "b", "c")
          yield* send(other, "x")
          const pool = yield* AmqpPool.AmqpPool
          yield* pool.use((channel) =>
            Effect.gen(function* () {
              const { all, consumerTag } = yield* consumeAll(channel, queue, 3)
              const [a, b, c] = all as [(typeof all)[0], (typeof all)[0], (typeof all)[0]]
              for (const settled of [
                channel.nack(a),
                channel.nack(a, { requeue: false }),
                channel.nack(b, { multiple: true }),
                channel.reject(c),
                channel.recover
              ]) {
                const { message, reason } = yield* Effect.flip(settled)
                assert.strictEqual(reason._tag, "InvalidArgument")
                assert.include(message, "basic.ack")
              }
              // Deliveries of another queue, after those of the stream.
              const { deliveries } = yield* channel.consume(other)
              const x = yield* Queue.take(deliveries)
              assert.strictEqual(yield* tagOf(channel.nack(x, { multiple: true })), "InvalidArgument")
              yield* channel.ack(c, { multiple: true })
              yield* channel.nack(x, { multiple: true, requeue: false })
              yield* channel.cancel(consumerTag)
            })
          )
        })
      ).pipe(onBroker)
    )

    for (const known of ["declared here", "by its offset"]) {
      it.effect(`whose deliveries were left unsettled costs its channel, and no connection: ${known}`, () =>
        unbroken(
          Effect.gen(function* () {
            const queue = yield* declareQueue({ queueType: "stream" })
            yield* send(queue, "a", "b")
            const consuming = Effect.gen(function* () {
              const pool = yield* AmqpPool.AmqpPool
              yield* pool.use((channel) =>
                Effect.gen(function* () {
                  const { consumerTag } = yield* consumeAll(channel, queue, 2)
                  // Without a consumer the channel is clean, apart from the unsettled deliveries.
                  yield* channel.cancel(consumerTag)
                })
              )
            })
            yield* known === "declared here" ? consuming : unbroken(consuming).pipe(onBroker)
          })
        ).pipe(onBroker)
      )
    }

    it.effect("is read from offsets that the broker can read: all others are refused", () =>
      unbroken(
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "stream" })
          const pool = yield* AmqpPool.AmqpPool
          for (const offset of [
            "frist",
            "",
            "0s",
            "5 m",
            "10ms",
            -1,
            3.5,
            true,
            null,
            new Date(Number.NaN),
            2n ** 63n
          ]) {
            const consume = pool.use((channel) => channel.consume(queue, { arguments: { "x-stream-offset": offset } }))
            const { message, reason } = yield* Effect.flip(consume)
            assert.strictEqual(reason._tag, "InvalidArgument", String(offset))
            assert.include(message, "x-stream-offset")
          }
          for (const offset of [
            "first",
            "last",
            "next",
            0,
            7,
            7n,
            2n ** 40n,
            new Date(),
            "30s",
            "5m",
            "2h",
            "1D",
            "1Y"
          ]) {
            const consume = pool.use((channel) =>
              Effect.andThen(channel.qos(1), channel.consume(queue, { arguments: { "x-stream-offset": offset } }))
            )
            assert.isString((yield* consume).consumerTag, String(offset))
          }
        })
      ).pipe(onBroker)
    )
  })
})
