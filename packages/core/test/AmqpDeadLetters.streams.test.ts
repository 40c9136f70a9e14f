/** Dead letters of streams: what `publishTo` writes, and what a redrive does with it, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpDeadLetters, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Redacted, Schema } from "effect"
import { hostname } from "node:os"
import { declareQueue, next, onBroker, send, untilQueue } from "./support/consumers.ts"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { message: Schema.String }) {}

const secret = Redacted.make("0123456789abcdef")

/** A stream whose consumer fails at each message with this text, and publishes it to the queue `dead`. */
const failing = Effect.fnUntraced(function* (message: string, options?: AmqpConsumer.ConsumeOptions<OutOfStock>) {
  const stream = yield* declareQueue({ queueType: "stream" })
  const dead = yield* declareQueue()
  yield* Effect.forkScoped(
    AmqpConsumer.consume(stream, () => Effect.fail(new OutOfStock({ message })), {
      offset: "first",
      onFailure: AmqpConsumer.publishTo({ routingKey: dead }),
      ...options
    })
  )
  return { stream, dead }
})

const letterOf = (queue: string, options?: AmqpDeadLetters.Options) =>
  Effect.gen(function* () {
    yield* untilQueue(queue, { ready: 1 })
    return (yield* AmqpDeadLetters.of(queue, options).peek()).letters[0]!
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A message of a stream that is published elsewhere", () => {
    it.effect("says why, as every dead letter does, and where in the stream it is", () =>
      Effect.gen(function* () {
        const { dead, stream } = yield* failing("none at https://me:s3cret@shop/", { name: "stock" })
        const before = Date.now()
        const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
        const headers = {
          traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
          "x-failed-host": "forged",
          "x-failed-signature": "forged"
        }
        yield* AmqpPublisher.publish({ routingKey: stream, content: "order", messageId: "1", headers })
        const letter = yield* letterOf(dead)
        const { firstAt, lastAt, ...reason } = letter.reason
        assert.deepStrictEqual(reason, {
          kind: "failed",
          error: "OutOfStock",
          message: "none at https://<redacted>@shop/",
          attempt: 1,
          consumer: "stock",
          host: hostname(),
          traceId,
          verified: false
        })
        assert.deepStrictEqual(firstAt, lastAt)
        assert.isAtLeast(lastAt!.getTime(), before)
        assert.isAtMost(lastAt!.getTime(), Date.now())
        assert.deepStrictEqual(letter.origin, { queue: stream, offset: 0, exchange: "", routingKey: stream })
        assert.strictEqual(letter.properties.headers["x-failed-version"], 1)
        assert.notProperty(letter.properties.headers, "x-failed-signature")
        assert.notProperty(letter.properties.headers, "x-stream-offset")
      }).pipe(onBroker)
    )

    it.effect("is verified with its offset, if the consumer signs", () =>
      Effect.gen(function* () {
        const { dead, stream } = yield* failing("none", { retrySecret: secret })
        yield* send(stream, "order")
        const signed = yield* letterOf(dead, { secret })
        assert.isTrue(signed.reason.verified)
        assert.strictEqual(signed.origin?.offset, 0)
        yield* next(dead)
        // Without its offset it would pass for a message of a queue.
        for (const offset of [undefined, 1]) {
          yield* AmqpPublisher.publish({
            routingKey: dead,
            content: signed.content,
            headers: { ...signed.properties.headers, "x-failed-offset": offset }
          })
          const forged = yield* letterOf(dead, { secret })
          assert.isFalse(forged.reason.verified)
          assert.isUndefined(forged.origin)
          yield* next(dead)
        }
      }).pipe(onBroker)
    )

    it.effect("leaves out the message of the error first, if its own headers are large", () =>
      Effect.gen(function* () {
        const { dead, stream } = yield* failing("x".repeat(1000))
        for (const [size, error] of [
          [129_900, "OutOfStock"],
          [130_780, undefined]
        ] as const) {
          yield* AmqpPublisher.publish({ routingKey: stream, content: "", headers: { large: "x".repeat(size) } })
          const { origin, reason } = yield* letterOf(dead)
          assert.strictEqual(origin?.queue, stream)
          assert.isNumber(origin?.offset)
          assert.include(reason, { error, message: undefined, attempt: 1 })
          yield* next(dead)
        }
      }).pipe(onBroker)
    )
  })

  describe("A redrive of what failed in a stream", () => {
    it.effect("leaves it and says why, since all consumers of the stream would get it again", () =>
      Effect.gen(function* () {
        const { dead, stream } = yield* failing("none")
        yield* send(stream, "order")
        yield* letterOf(dead)
        const letters = AmqpDeadLetters.of(dead)
        for (const dryRun of [true, false]) {
          const { failures, ...report } = yield* letters.redrive({ dryRun })
          assert.include(report, { redriven: 0, failed: 1, left: 1 })
          assert.include(failures[0]!.message, `the stream ${JSON.stringify(stream)} at offset 0`)
        }
        yield* untilQueue(dead, { ready: 1, unacked: 0 })
        yield* untilQueue(stream, { messages: 1 })
      }).pipe(onBroker)
    )

    it.effect("publishes it where the caller says so, without the past", () =>
      Effect.gen(function* () {
        const { dead, stream } = yield* failing("none")
        const repair = yield* declareQueue()
        yield* send(stream, "order")
        yield* letterOf(dead)
        assert.include(yield* AmqpDeadLetters.of(dead).redrive({ to: repair }), { redriven: 1, left: 0 })
        const delivery = yield* next(repair)
        assert.strictEqual(AmqpMessage.text(delivery), "order")
        assert.deepStrictEqual(Object.keys(delivery.properties.headers).toSorted(), ["x-redriven", "x-redriven-run"])
      }).pipe(onBroker)
    )
  })
})
