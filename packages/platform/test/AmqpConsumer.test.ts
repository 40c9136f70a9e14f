import { AmqpChannel, AmqpConsumer, AmqpError, AmqpMessage, AmqpPublisher, AmqpTopology } from "@effect-amqp/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Cause, Chunk, Context, Deferred, Effect, Either, Exit, Fiber, FiberRef, Queue, Schema, Stream } from "effect"
import * as Application from "./support/application.ts"
import { Broker } from "./support/Broker.ts"

const Order = Schema.Struct({ id: Schema.NumberFromString, items: Schema.Array(Schema.String) })

class Prices extends Context.Tag("test/Prices")<Prices, { readonly of: (item: string) => number }>() {}

const declare = (...queues: ReadonlyArray<string>) =>
  AmqpTopology.declare(AmqpTopology.make(...queues.map((name) => AmqpTopology.queue(name))))

const publish = (routingKey: string, content: string) =>
  AmqpPublisher.publish({ routingKey, content }, { mandatory: true })

const settled = (queue: string) =>
  Effect.flatMap(Broker, ({ queues }) =>
    Effect.repeat(queues, {
      until: (all) => all.some(({ messages, name }) => name === queue && messages === 0)
    })
  )

describe("consumers with handlers of Effect 3", () => {
  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("a handler that succeeds acknowledges", () =>
      Effect.gen(function* () {
        yield* declare("succeeds")
        const seen = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("succeeds", (delivery) => seen.offer(AmqpMessage.text(delivery)), { concurrency: 4 })
        )
        yield* Effect.forEach(["a", "b", "c"], (content) => publish("succeeds", content), { discard: true })
        const all = yield* Queue.takeN(seen, 3)
        assert.deepStrictEqual([...all].toSorted(), ["a", "b", "c"])
        yield* settled("succeeds")
      })
    )

    it.scoped("a failure is redelivered, and onFailure gets the handler's own error", () =>
      Effect.gen(function* () {
        yield* declare("fails")
        const error = { _tag: "Mine", secret: new Date(0) } as const
        const seen: Array<unknown> = []
        const done = yield* Deferred.make<number>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            "fails",
            (delivery) => (delivery.attempt < 3 ? Effect.fail(error) : Deferred.succeed(done, delivery.attempt)),
            {
              onFailure: (failure, delivery) => {
                seen.push(failure, delivery.attempt)
                return AmqpConsumer.requeue
              }
            }
          )
        )
        yield* publish("fails", "x")
        assert.strictEqual(yield* Deferred.await(done), 3)
        assert.deepStrictEqual(seen, [error, 1, error, 2])
        assert.strictEqual(seen[0], error)
        yield* settled("fails")
      })
    )

    it.scoped("a defect goes to onDefect, and drop drops the message", () =>
      Effect.gen(function* () {
        yield* declare("dies")
        const bug = new Error("bug")
        const seen = yield* Deferred.make<unknown>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("dies", () => Effect.die(bug), {
            onDefect: (defect) => {
              Deferred.unsafeDone(seen, Effect.succeed(defect))
              return AmqpConsumer.drop
            }
          })
        )
        yield* publish("dies", "x")
        assert.strictEqual(yield* Deferred.await(seen), bug)
        yield* settled("dies")
      })
    )

    it.scoped("interrupting the consumer interrupts its handler, which finishes its finalizers, and requeues", () =>
      Effect.gen(function* () {
        yield* declare("interrupted")
        const started = yield* Deferred.make<void>()
        const ends: Array<string> = []
        const fiber = yield* Effect.fork(
          AmqpConsumer.consume(
            "interrupted",
            () =>
              Effect.acquireRelease(Deferred.succeed(started, undefined), (_, exit) =>
                Effect.sync(() => ends.push(Exit.isInterrupted(exit) ? "released" : exit._tag))
              ).pipe(
                Effect.zipRight(Effect.never),
                Effect.onInterrupt(() => Effect.sync(() => ends.push("interrupted")))
              ),
            { shutdownTimeout: "10 millis" }
          )
        )
        yield* publish("interrupted", "x")
        yield* Deferred.await(started)
        const exit = yield* Fiber.interrupt(fiber)
        assert(Exit.isInterrupted(exit))
        assert.deepStrictEqual(ends, ["interrupted", "released"])
        const { messageCount } = yield* Effect.repeat(
          AmqpChannel.use((channel) => channel.queueDeclarePassive("interrupted")),
          { until: ({ messageCount }) => messageCount === 1 }
        )
        assert.strictEqual(messageCount, 1)
      })
    )

    it.scoped("a handler has the context, fiber references and schema of Effect 3", () =>
      Effect.gen(function* () {
        yield* declare("typed")
        const tenant = yield* FiberRef.make("nobody")
        const total = yield* Deferred.make<readonly [number, number, string, number]>()
        const consumer = AmqpConsumer.consume(
          "typed",
          (order, delivery) =>
            Effect.gen(function* () {
              const prices = yield* Prices
              // A scope of its own: the channel is back before the delivery is settled.
              yield* AmqpChannel.use((channel) => channel.queueDeclarePassive("typed"))
              const sum = order.items.reduce((sum, item) => sum + prices.of(item), 0)
              yield* Deferred.succeed(total, [order.id, sum, yield* FiberRef.get(tenant), delivery.attempt])
            }),
          { schema: Order }
        )
        yield* Effect.forkScoped(
          consumer.pipe(Effect.locally(tenant, "acme"), Effect.provideService(Prices, { of: (item) => item.length }))
        )
        const message = yield* AmqpMessage.json(Order).encode({ id: 7, items: ["ab", "c"] }, { routingKey: "typed" })
        assert.strictEqual(message.content, '{"id":"7","items":["ab","c"]}')
        yield* AmqpPublisher.publish(message)
        assert.deepStrictEqual(yield* Deferred.await(total), [7, 3, "acme", 1])
      })
    )

    it.scoped("a schema has its services, in a consumer and in AmqpMessage.json", () =>
      Effect.gen(function* () {
        yield* declare("services")
        const Priced = Schema.transformOrFail(Schema.String, Schema.Number, {
          strict: true,
          decode: (item) => Effect.map(Prices, (prices) => prices.of(item)),
          encode: (price) => Effect.map(Prices, (prices) => "x".repeat(prices.of("x") * price))
        })
        const got = yield* Deferred.make<number>()
        const message = yield* AmqpMessage.json(Priced).encode(3, { routingKey: "services" })
        assert.strictEqual(message.content, '"xxx"')
        yield* Effect.forkScoped(
          AmqpConsumer.consume("services", (price) => Deferred.succeed(got, price), { schema: Priced })
        )
        yield* AmqpPublisher.publish(message)
        assert.strictEqual(yield* Deferred.await(got), 3)
      }).pipe(Effect.provideService(Prices, { of: (item) => item.length }))
    )

    it.scoped("a message that does not match the schema goes to onDecodeFailure, without its content", () =>
      Effect.gen(function* () {
        yield* declare("undecodable")
        const failed = yield* Deferred.make<AmqpError.AmqpError>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("undecodable", () => Effect.die("never"), {
            schema: Order,
            onDecodeFailure: (error) => {
              Deferred.unsafeDone(failed, Effect.succeed(error))
              return AmqpConsumer.drop
            }
          })
        )
        yield* publish("undecodable", '{"id":"s3cret","items":["a",5]}')
        const error = yield* Deferred.await(failed)
        assert(error instanceof AmqpError.AmqpError)
        assert.strictEqual(error.reason._tag, "DecodeFailed")
        assert.notInclude(error.message, "s3cret")
        assert.include(error.message, "$.id")
        assert.include(error.message, "$.items[1]")
      })
    )

    it.scoped("a batch is handled at once", () =>
      Effect.gen(function* () {
        yield* declare("batch")
        const got = yield* Deferred.make<ReadonlyArray<string>>()
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch("batch", (deliveries) => Deferred.succeed(got, deliveries.map(AmqpMessage.text)), {
            size: 3,
            within: "30 seconds"
          })
        )
        yield* Stream.runDrain(
          AmqpPublisher.publishAll(["1", "2", "3"].map((content) => ({ routingKey: "batch", content })))
        )
        assert.deepStrictEqual(yield* Deferred.await(got), ["1", "2", "3"])
        yield* settled("batch")
      })
    )

    it.effect("a stream of deliveries ends when its consumer takes no more, and the rest is requeued", () =>
      Effect.gen(function* () {
        yield* declare("stream")
        const source = Stream.map(Stream.range(1, 5), (n) => ({ routingKey: "stream", content: String(n) }))
        const confirmed = yield* Stream.runCount(AmqpPublisher.publishAll(source))
        assert.strictEqual(confirmed, 5)
        const texts = yield* AmqpConsumer.stream("stream").pipe(
          Stream.take(3),
          Stream.tap((delivery) => delivery.ack),
          Stream.map(AmqpMessage.text),
          Stream.runCollect
        )
        assert.deepStrictEqual(Chunk.toReadonlyArray(texts), ["1", "2", "3"])
        yield* Effect.scoped(
          Effect.repeat(
            AmqpChannel.use((channel) => channel.queueDeclarePassive("stream")),
            { until: ({ messageCount }) => messageCount === 2 }
          )
        )
      })
    )

    it.effect("publishAll gives the failures as values, with the application's own messages", () =>
      Effect.gen(function* () {
        yield* declare("values")
        const messages = ["values", "nowhere"].map((routingKey) => ({ routingKey, content: "x" }))
        const outcomes = yield* Stream.runCollect(
          AmqpPublisher.publishAll(messages, { mandatory: true, failures: "values" })
        )
        const [first, second] = Chunk.toReadonlyArray(outcomes)
        assert(first?.result._tag === "Right" && second?.result._tag === "Left")
        assert.strictEqual(second.message, messages[1])
        assert.strictEqual(second.result.left.reason._tag, "PublishReturned")
      })
    )

    it.effect("publishAll runs its source in one fiber: what it forks and which references it sets last", () =>
      Effect.gen(function* () {
        yield* declare("batch.forks")
        const count = FiberRef.unsafeMake(0)
        const source = Stream.unwrap(
          Effect.gen(function* () {
            const queue = yield* Queue.bounded<number>(1)
            yield* Effect.fork(
              Effect.forEach([1, 2, 3, 4, 5], (n) => Effect.zipRight(Effect.yieldNow(), queue.offer(n)))
            )
            return Stream.fromQueue(queue, { maxChunkSize: 1 }).pipe(
              Stream.take(5),
              Stream.mapEffect(() => FiberRef.updateAndGet(count, (n) => n + 1)),
              Stream.map((n) => ({ routingKey: "batch.forks", content: String(n) }))
            )
          })
        )
        const outcomes = yield* Stream.runCollect(AmqpPublisher.publishAll(source, { failures: "values" }))
        assert.deepStrictEqual(
          [...outcomes].map(({ message, result }) => [message.content, Either.isRight(result)]),
          ["1", "2", "3", "4", "5"].map((content) => [content, true])
        )
      })
    )

    it.effect("the fiber of a source ends with publishAll, whose scopes close first", () =>
      Effect.gen(function* () {
        yield* declare("batch.ends")
        const exits: Array<string> = []
        const message = { routingKey: "batch.ends", content: "x" }
        const source = (rest: Stream.Stream<typeof message>) =>
          Stream.unwrapScoped(
            Effect.as(
              Effect.addFinalizer((exit) => Effect.sync(() => exits.push(exit._tag))),
              Stream.concat(Stream.make(message), rest)
            )
          )
        const drained = yield* Stream.runCount(AmqpPublisher.publishAll(source(Stream.empty)))
        assert.deepStrictEqual([drained, ...exits], [1, "Success"])
        yield* Stream.runDrain(Stream.take(AmqpPublisher.publishAll(source(Stream.never)), 1))
        assert.strictEqual(exits.length, 2)
        const first = yield* Deferred.make<void>()
        const fiber = yield* AmqpPublisher.publishAll(source(Stream.never)).pipe(
          Stream.tap(() => Deferred.succeed(first, undefined)),
          Stream.runDrain,
          Effect.fork
        )
        yield* Deferred.await(first)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(exits.slice(2), ["Failure"])
        const bug = new Error("bug")
        const dies = Stream.make(message).pipe(Stream.ensuring(Effect.die(bug)))
        const died = yield* Effect.exit(Stream.runDrain(AmqpPublisher.publishAll(dies)))
        assert(Exit.isFailure(died))
        assert.deepStrictEqual([...Cause.defects(died.cause)], [bug])
      })
    )

    it.effect("a failing source ends publishAll with its own error", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(Stream.runDrain(AmqpPublisher.publishAll(Stream.fail("source" as const))))
        assert.deepStrictEqual(exit, Exit.fail("source" as const))
      })
    )

    it.effect("a consumer of a queue that does not exist fails with NotFound, for catchTag", () =>
      Effect.gen(function* () {
        const caught = yield* AmqpConsumer.consume("missing", () => Effect.void).pipe(
          Effect.catchTag("AmqpError", (error) => Effect.succeed(error.reason._tag))
        )
        assert.strictEqual(caught, "NotFound")
        const reason = yield* AmqpConsumer.consume("missing", () => Effect.void).pipe(
          AmqpError.unwrapReason,
          Effect.catchTag("NotFound", ({ isRetryable, replyCode, severity }) =>
            Effect.succeed([isRetryable, replyCode, severity] as const)
          )
        )
        assert.deepStrictEqual(reason, [false, 404, "channel"])
        const handled = yield* AmqpConsumer.consume("missing", () => Effect.void).pipe(
          AmqpError.catchReason("NotFound", (_, error) => Effect.succeed(error.isRetryable))
        )
        assert.strictEqual(handled, false)
      })
    )

    it.scoped("the option inbox, which Effect 4 has, is an unknown option, whatever its value", () =>
      Effect.gen(function* () {
        for (const inbox of [undefined, { make: () => Effect.succeed(() => Effect.void) }]) {
          const options = { inbox } as {}
          const { reason } = yield* Effect.flip(AmqpConsumer.consume("absent", () => Effect.void, options))
          assert(reason instanceof AmqpError.InvalidArgument)
          assert.include(reason.message, "inbox")
          assert.include(reason.message, "an unknown option")
        }
      })
    )

    it.scoped("a cause of several failures keeps its shape through a handler's failure", () =>
      Effect.gen(function* () {
        yield* declare("causes")
        const seen = yield* Deferred.make<unknown>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            "causes",
            () => Effect.failCause(Cause.parallel(Cause.fail("first"), Cause.die("second"))),
            {
              onFailure: (error) => {
                Deferred.unsafeDone(seen, Effect.succeed(error))
                return AmqpConsumer.drop
              },
              onDefect: (defect) => {
                Deferred.unsafeDone(seen, Effect.succeed(defect))
                return AmqpConsumer.drop
              }
            }
          )
        )
        yield* publish("causes", "x")
        assert.include(["first", "second"], yield* Deferred.await(seen))
      })
    )

    it.scoped(
      "an AmqpError or a reason that a handler fails with or dies of is the same one in onFailure and onDefect",
      () =>
        Effect.gen(function* () {
          yield* declare("own errors")
          const refused = AmqpChannel.use((channel) => channel.queueDeclarePassive("missing"))
          const error = yield* Effect.flip(Effect.scoped(refused))
          // Errors of other copies of the core and of this package, which may be newer.
          const reason = { _tag: "Newer", message: "newer" }
          const copied = ["core", "platform"].flatMap((name) => {
            const id = `~@effect-amqp/${name}/AmqpError`
            return [
              Object.assign(new Error("newer"), { _tag: "AmqpError", [id]: id, reason }),
              Object.assign(new Error("newer"), { ...reason, [`${id}/Reason`]: `${id}/Reason` })
            ]
          })
          const values = [error, error.reason, new Error("own", { cause: error }), ...copied]
          const seen = yield* Queue.unbounded<unknown>()
          const choose = (value: unknown) => {
            seen.unsafeOffer(value)
            return AmqpConsumer.drop
          }
          const endings = values.flatMap((value) => [Effect.fail(value), Effect.die(value)])
          let next = 0
          yield* Effect.forkScoped(
            AmqpConsumer.consume("own errors", () => endings[next++]!, { onFailure: choose, onDefect: choose })
          )
          for (const value of values.flatMap((value) => [value, value])) {
            yield* publish("own errors", "x")
            assert.strictEqual(yield* Queue.take(seen), value)
          }
        })
    )

    it.scoped("a dead letter says the reason of the AmqpError with which its handler has failed", () =>
      Effect.gen(function* () {
        const orders = AmqpTopology.workQueue("failing orders")
        yield* AmqpTopology.declare(orders)
        const dead = yield* Deferred.make<AmqpConsumer.Delivery>()
        const refused = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("missing")))
        yield* Effect.forkScoped(AmqpConsumer.consume(orders.queue, () => refused, { onFailure: orders.onFailure }))
        yield* Effect.forkScoped(
          AmqpConsumer.consume(orders.deadLetterQueue, (delivery) => Deferred.succeed(dead, delivery))
        )
        yield* publish(orders.queue, "x")
        const { properties } = yield* Deferred.await(dead)
        assert.strictEqual(properties.headers["x-failed-error"], "NotFound")
      })
    )
  })
})
