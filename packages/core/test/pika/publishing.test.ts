/** Publishing as in Pika's manual. Rows and examples of `docs/pika.md` are from these tests. */
import { assert, layer } from "@effect/vitest"
import { AmqpLive, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { ConfigProvider, Effect, Result, Schema, Stream } from "effect"
import { connected, contents, newQueue, ownQueue, quietly, reasonOf } from "./broker.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("publishing is one line: connect, publish, close", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const queue = yield* newQueue().pipe(connected())
      const program = AmqpPublisher.publish({ routingKey: queue, content: "hello" }).pipe(Effect.provide(AmqpLive))
      yield* program.pipe(Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ AMQP_URL: url }))), quietly)
      yield* awaitCensus({ connections: 0 })
      assert.deepStrictEqual(yield* contents(queue).pipe(connected()), ["hello"])
    })
  )

  it.effect("a publish is confirmed, returned or nacked, and each is a separate outcome", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const full = yield* newQueue({ exclusive: true, maxLength: 0, overflow: "reject-publish" })
      const publish = (routingKey: string) =>
        AmqpPublisher.publish({ routingKey, content: "hello" }, { mandatory: true }).pipe(
          Effect.as("published"),
          Effect.catchReason("AmqpError", "PublishReturned", () => Effect.succeed("nobody wants it")),
          Effect.catchReason("AmqpError", "PublishNacked", () => Effect.succeed("refused"))
        )
      const outcomes = yield* Effect.forEach([queue, "nobody", full], publish, { concurrency: "unbounded" })
      assert.deepStrictEqual(outcomes, ["published", "nobody wants it", "refused"])
    }).pipe(connected())
  )

  it.effect("a missing exchange fails the publish that named it", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(AmqpPublisher.publish({ exchange: "missing", routingKey: "a", content: "" }))
      assert.strictEqual(reason._tag, "NotFound")
    }).pipe(connected())
  )

  it.effect("publishes of many fibers wait for their confirms at the same time, on few channels", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const orders = Array.from({ length: 500 }, (_, i) => String(i))
      yield* Effect.forEach(orders, (content) => AmqpPublisher.publish({ routingKey: queue, content }), {
        concurrency: "unbounded",
        discard: true
      })
      const { stats } = yield* AmqpPublisher.AmqpPublisher
      assert.deepInclude(yield* stats, { confirmed: 500, inFlight: 0 })
      assert.lengthOf(yield* contents(queue), 500)
    }).pipe(connected())
  )

  it.effect("many messages of one source are published in order, and each failure is reported", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const messages = ["1", "2", "3"].map((content) => ({
        routingKey: content === "2" ? "nobody" : queue,
        content
      }))
      const failed = yield* AmqpPublisher.publishAll(messages, { mandatory: true, failures: "values" }).pipe(
        Stream.filter(({ result }) => Result.isFailure(result)),
        Stream.map(({ message }) => message.content),
        Stream.runCollect
      )
      assert.deepStrictEqual(failed, ["2"])
      assert.deepStrictEqual(yield* contents(queue), ["1", "3"])
    }).pipe(connected())
  )

  it.effect("a body is text, bytes, or a value with a schema", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const Order = AmqpMessage.json(Schema.Struct({ id: Schema.Int }))
      yield* AmqpPublisher.publish({ routingKey: queue, content: "text" })
      yield* AmqpPublisher.publish({ routingKey: queue, content: new Uint8Array([98, 121, 116, 101, 115]) })
      yield* AmqpPublisher.publish(yield* Order.encode({ id: 7 }, { routingKey: queue }))
      assert.deepStrictEqual(yield* contents(queue), ["text", "bytes", '{"id":7}'])
    }).pipe(connected())
  )
})
