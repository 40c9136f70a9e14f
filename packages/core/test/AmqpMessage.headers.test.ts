/** Headers come from other publishers. Wherever they are handed out they are tables without a prototype. */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, type AmqpMessage, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Option, Queue, References, Schema, Stream } from "effect"
import { configOf } from "./support/amqp.ts"
import { objectKeys } from "./support/hostileTables.ts"

const names = [...objectKeys, "prototype", "!"]

const record = (entries: ReadonlyArray<readonly [string, AmqpMessage.FieldValue]>): AmqpMessage.FieldTable =>
  Object.fromEntries([...entries, ["plain", 1]])

/** Each name with a text, with a table of the same names, and with a table in an array. */
const flat = record(names.map((name) => [name, name]))
const headers: AmqpMessage.Headers = record(
  names.map((name) => [
    name,
    record([
      [name, flat],
      ["list", [flat, name]]
    ])
  ])
)

const isTable = (value: unknown): value is AmqpMessage.FieldTable =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date)

/** Every table in a value, at any depth. */
const tablesIn = (value: unknown): Array<AmqpMessage.FieldTable> =>
  Array.isArray(value)
    ? value.flatMap(tablesIn)
    : isTable(value)
      ? [value, ...Object.values(value).flatMap(tablesIn)]
      : []

const areHarmless = (received: AmqpMessage.Headers | undefined, where: string) => {
  const tables = tablesIn(received)
  for (const table of tables) assert.isNull(Object.getPrototypeOf(table), where)
  assert.isAtLeast(tables.length, 1 + 3 * names.length, where)
  for (const name of names) {
    assert.isTrue(Object.hasOwn(received!, name), `${where}: ${name}`)
    const nested = received![name] as AmqpMessage.FieldTable
    assert.isTrue(Object.hasOwn(nested, name), `${where}: ${name}`)
    assert.strictEqual((nested[name] as AmqpMessage.FieldTable)[name], name, where)
  }
  const plain: Record<string, unknown> = {}
  assert.isUndefined(plain["plain"])
  assert.isFunction(plain.toString)
}

let queues = 0
const declare = (options?: AmqpChannel.QueueDeclareOptions) => {
  const queue = `headers-${++queues}`
  return Effect.as(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, options))), queue)
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("headers named like members of an object are only headers, whichever way they come", () =>
    Effect.gen(function* () {
      const deadLetters = yield* declare()
      const queue = yield* declare({ deadLetterExchange: "", deadLetterRoutingKey: deadLetters })
      const send = (routingKey = queue) => AmqpPublisher.publish({ routingKey, content: "one", headers })
      /** What a consumer sees first. */
      const first = <A>(
        consumer: (seen: (value: A) => Effect.Effect<void>) => Effect.Effect<unknown, unknown, Amqp.Amqp>
      ) =>
        Effect.gen(function* () {
          const seen = yield* Deferred.make<A>()
          yield* Effect.forkScoped(consumer((value) => Effect.asVoid(Deferred.succeed(seen, value))))
          return yield* Deferred.await(seen)
        }).pipe(Effect.scoped)

      yield* send()
      const got = yield* Effect.scoped(AmqpChannel.use((channel) => channel.get(queue, { noAck: true })))
      areHarmless(Option.getOrThrow(got).properties.headers, "get")

      yield* send()
      const consumed = yield* Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { consumerTag, deliveries } = yield* channel.consume(queue, { noAck: true })
            const delivery = yield* Queue.take(deliveries)
            // Otherwise the consumer may take the next message as well.
            yield* channel.cancel(consumerTag)
            return delivery
          })
        )
      )
      areHarmless(consumed.properties.headers, "consume on a channel")

      yield* send()
      const streamed = yield* AmqpConsumer.stream(queue).pipe(
        Stream.tap(({ ack }) => ack),
        Stream.runHead
      )
      areHarmless(Option.getOrThrow(streamed).properties.headers, "stream")

      yield* send()
      const batch = yield* first<ReadonlyArray<AmqpConsumer.Delivery>>((seen) =>
        AmqpConsumer.consumeBatch(queue, seen, { size: 1, within: 10 })
      )
      areHarmless(batch[0]?.properties.headers, "consumeBatch")

      yield* send()
      const retried = yield* first<AmqpConsumer.Delivery>((seen) =>
        AmqpConsumer.consume(queue, (delivery) => (delivery.attempt === 1 ? Effect.fail("again") : seen(delivery)), {
          onFailure: AmqpConsumer.retry({ delay: 1, times: 1 })
        })
      )
      assert.strictEqual(retried.attempt, 2)
      areHarmless(retried.properties.headers, "retry")

      yield* send()
      const died = yield* first<AmqpConsumer.Delivery>((seen) =>
        Effect.all(
          [
            AmqpConsumer.consume(queue, () => Effect.fail("never"), { onFailure: AmqpConsumer.deadLetter }),
            AmqpConsumer.consume(deadLetters, seen)
          ],
          {
            concurrency: "unbounded"
          }
        )
      )
      areHarmless(died.properties.headers, "dead-lettered")
      const deaths = died.properties.headers["x-death"] as ReadonlyArray<AmqpMessage.FieldTable>
      assert.isNull(Object.getPrototypeOf(deaths[0]))
      assert.strictEqual(deaths[0]?.["queue"], queue)

      const returned = yield* Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.andThen(
            channel.publish({ routingKey: "headers-nowhere", content: "", headers }, { mandatory: true }),
            Queue.take(channel.returns)
          )
        )
      )
      areHarmless(returned.properties.headers, "return")
      const unroutable = yield* Effect.flip(
        AmqpPublisher.publish({ routingKey: "headers-nowhere", content: "", headers }, { mandatory: true })
      )
      assert.strictEqual(unroutable.reason._tag, "PublishReturned")

      const Ask = AmqpRpc.make(yield* declare(), { payload: Schema.Int, success: Schema.Int })
      const asked = yield* Deferred.make<AmqpConsumer.Delivery>()
      yield* Effect.forkScoped(AmqpRpc.serve(Ask, (n, request) => Effect.as(Deferred.succeed(asked, request), n + 1)))
      assert.strictEqual(yield* AmqpRpc.client(Ask)(1, { headers }), 2)
      areHarmless((yield* Deferred.await(asked)).properties.headers, "request")
    }).pipe(
      Effect.scoped,
      (program) =>
        Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
          Effect.provide(program, Amqp.fromConfig(configOf(url)), { local: true })
        ),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  )
})
