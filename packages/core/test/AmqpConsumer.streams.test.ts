/** Consumers of streams: how they settle, what happens after failures, and where they continue. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage, AmqpMetrics, AmqpOffsetStore, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Latch, Metric, Option, Queue, Schema, Stream } from "effect"
import { tagOf } from "./support/amqp.ts"
import {
  declareQueue,
  deleteQueue,
  logged,
  next,
  onBroker,
  send,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

class Broken extends Schema.TaggedError<Broken>()("Broken", { message: Schema.String }) {}
const broken = Effect.fail(new Broken({ message: "no" }))

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, n) => String(from + n))

const declareStream = (...contents: ReadonlyArray<string>) =>
  Effect.tap(declareQueue({ queueType: "stream" }), (queue) => send(queue, ...contents))

/**
 * Sends until a consumer at "next" has reacted. RabbitMQ answers `basic.consume`, and lists the consumer, before it looks where
 * the stream ends, so messages that are sent directly after that may be earlier ones.
 */
const sendUntil = (queue: string, hasReacted: () => boolean, content = () => "a") =>
  Effect.repeat(
    Effect.suspend(() => send(queue, content())),
    { until: hasReacted }
  )

/** Waits until a consumer at "next" gets what is sent from now on. */
const attached = Effect.fnUntraced(function* (queue: string, got: Queue.Queue<string>) {
  let sent = 0
  yield* sendUntil(
    queue,
    () => Queue.sizeUnsafe(got) > 0,
    () => `attached ${sent++}`
  )
  for (let text = ""; text !== `attached ${sent - 1}`;) {
    text = yield* Queue.take(got)
    assert.match(text, /^attached /)
  }
})

/** Publishes although connections are cut. */
const sendAnyway = (queue: string, ...contents: ReadonlyArray<string>) =>
  Effect.forEach(
    contents,
    (content) =>
      Effect.retry(AmqpPublisher.publish({ routingKey: queue, content }), { while: (error) => error.isRetryable }),
    { discard: true }
  )

/** Runs with consumers of another application, which has declared nothing. */
const elsewhere = onBroker

/** Fails if the consumers' own connection changes its state while the effect runs. */
const ownConnectionStays = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const queue = yield* declareQueue()
    // Another consumer on the same connection, which would be interrupted too.
    yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => Effect.void))
    yield* untilQueue(queue, { consumers: 1 })
    const own = yield* AmqpConsumer.ownConnection
    const state = () => own.value?.state.value
    const before = state()
    const result = yield* effect
    // The end of the connection would arrive before these deliveries.
    const touched = yield* declareStream("touched")
    yield* AmqpConsumer.stream(touched, { offset: "first" }).pipe(Stream.take(1), Stream.runDrain)
    assert.strictEqual(state(), before)
    yield* untilQueue(queue, { consumers: 1 })
    return result
  })

const textOf = AmqpMessage.text

const handlerInto = (got: Queue.Queue<string>) => (delivery: AmqpConsumer.Delivery) =>
  Queue.offer(got, textOf(delivery))

const storeError = new Error("the store is away")

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a stream is settled by basic.ack only, and no connection ends because of it", () => {
    const waysToKnow: ReadonlyArray<readonly [name: string, here: boolean, options: AmqpConsumer.SubscribeOptions]> = [
      ["declared by this application", true, {}],
      ["by queueType", false, { queueType: "stream" }],
      ["by offset", false, { offset: "first" }],
      ["by x-stream-offset", false, { arguments: { "x-stream-offset": "first" } }],
      ["by offsets", false, { offsets: { store: AmqpOffsetStore.memory(), name: "a" }, offset: "first" }]
    ]
    for (const [name, here, options] of waysToKnow) {
      it.effect(
        `known as a stream ${name}: when a consumer stops, its handler fails, or nack and reject are tried`,
        () =>
          Effect.gen(function* () {
            const queue = yield* declareQueue({ queueType: "stream" })
            const program = ownConnectionStays(
              Effect.gen(function* () {
                // Asked to stop, with prefetched deliveries and one in progress.
                let isStarted = false
                const started = Effect.sync(() => {
                  isStarted = true
                })
                const stopped = yield* Effect.forkScoped(
                  AmqpConsumer.consume(queue, () => Effect.andThen(started, Effect.never), {
                    ...options,
                    shutdownTimeout: 0
                  })
                )
                yield* untilQueue(queue, { consumers: 1 })
                yield* sendUntil(queue, () => isStarted)
                yield* send(queue, ...numbers(20))
                yield* Fiber.interrupt(stopped)
                // The handler fails.
                const failing = yield* Effect.forkScoped(tagOf(AmqpConsumer.consume(queue, () => broken, options)))
                yield* sendUntil(queue, () => failing.pollUnsafe() !== undefined)
                assert.strictEqual(yield* Fiber.join(failing), "StreamStopped")
                // Settled by the handler.
                const refused = yield* Deferred.make<ReadonlyArray<string>>()
                yield* Effect.forkScoped(
                  AmqpConsumer.stream(queue, options).pipe(
                    Stream.mapEffect((delivery) =>
                      Effect.forEach(
                        [delivery.nack(), delivery.nack({ requeue: false }), delivery.reject()],
                        (settled) => tagOf(settled)
                      )
                    ),
                    Stream.runForEach((tags) => Deferred.succeed(refused, tags))
                  )
                )
                yield* sendUntil(queue, () => Deferred.isDoneUnsafe(refused))
                const tag = "InvalidArgument"
                assert.deepStrictEqual(yield* Deferred.await(refused), [tag, tag, tag])
              })
            )
            yield* here ? program : elsewhere(program)
          }).pipe(onBroker),
        // The first test of a file starts slowly on a busy machine.
        90_000
      )
    }

    it.effect("when its service ends while a batch is handled", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream(...numbers(20))
        const begun = yield* Latch.make()
        yield* Effect.gen(function* () {
          yield* Effect.forkDetach(
            AmqpConsumer.consumeBatch(queue, () => Effect.andThen(begun.open, Effect.never), {
              offset: "first",
              size: 5,
              within: 10,
              concurrency: 2
            })
          )
          yield* begun.await
        }).pipe((effect) => onBroker(effect, { shutdownTimeout: Duration.millis(100) }))
        yield* untilQueue(queue, { consumers: 0 })
        // The handler was interrupted, so the message is still there for the next consumer.
        const got = yield* Stream.runCollect(Stream.take(AmqpConsumer.stream(queue, { offset: "first" }), 20))
        assert.deepStrictEqual(got.map(textOf), numbers(20))
      }).pipe(onBroker)
    )

    it.effect(
      "options without a meaning for a stream are refused before anything is sent, and so are options for streams elsewhere",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "stream" })
          const plain = yield* declareQueue()
          const store = AmqpOffsetStore.memory()
          const { deadLetter, drop, publishTo, redeliver, requeue, retry, skip, stop } = AmqpConsumer
          const cases: ReadonlyArray<
            readonly [string, AmqpConsumer.ConsumeOptions & { readonly [key: string]: unknown }, string]
          > = [
            ...[deadLetter, drop, redeliver, requeue, retry({ delay: 10, times: 1 })].flatMap((policy) => [
              [queue, { onFailure: policy }, "onFailure"] as const,
              [queue, { onDefect: policy }, "onDefect"] as const
            ]),
            [queue, { maxDeliveries: 3 }, "maxDeliveries"],
            [queue, { onPoison: drop }, "onPoison"],
            [queue, { deliveryLimit: 5 }, "deliveryLimit"],
            [queue, { sharedCount: false }, "sharedCount"],
            [queue, { priority: 1 }, "priority"],
            [queue, { onFailure: publishTo({ routingKey: "x".repeat(256) }) }, "publishTo.routingKey"],
            [queue, { offset: -1 }, "offset"],
            [queue, { offset: 1.5 }, "offset"],
            [queue, { offset: "frist" as "first" }, "offset"],
            [queue, { offset: { ago: 0 } }, "offset"],
            [queue, { offset: new Date(Number.NaN) }, "offset"],
            [queue, { offset: "first", arguments: { "x-stream-offset": "last" } }, "offset"],
            [queue, { arguments: { "x-stream-offset": "frist" } }, "arguments.x-stream-offset"],
            [queue, { offsets: { store, name: "" } }, "name"],
            [queue, { offsets: { store } as never }, "name"],
            [queue, { offsets: { store: {} as never, name: "a" } }, "store"],
            [queue, { offsets: { store, name: "a", saveEvery: 0 } }, "saveEvery"],
            [queue, { offsets: { store, name: "a", saveWithin: 1 } }, "saveWithin"],
            [queue, { queueType: "quorum", offset: "first" }, "queueType"],
            [queue, { queueType: "steam" as "stream" }, "queueType"],
            [plain, { onFailure: stop }, "onFailure"],
            [plain, { onDefect: skip }, "onDefect"],
            [plain, { onFailure: publishTo({ routingKey: plain }) }, "onFailure"]
          ]
          for (const [name, options, argument] of cases) {
            const { reason } = yield* Effect.flip(AmqpConsumer.consume(name, () => Effect.void, options))
            assert.deepInclude(reason, { _tag: "InvalidArgument", argument }, reason.message)
          }
          const echo = AmqpRpc.make(queue, { payload: Schema.String, success: Schema.String })
          assert.strictEqual(yield* tagOf(AmqpRpc.serve(echo, Effect.succeed)), "InvalidArgument")
          const own = yield* AmqpConsumer.ownConnection
          assert.isUndefined(own.value, "a connection was made for what was refused")
        }).pipe(onBroker)
    )

    it.effect(
      "a stream that the consumer itself declares is refused, unless the consumer's options say that it is one",
      () =>
        ownConnectionStays(
          Effect.gen(function* () {
            const queue = "declared-by-its-consumer"
            const got = yield* Queue.unbounded<string>()
            const declare: AmqpConsumer.SubscribeOptions["declare"] = (channel) =>
              Effect.asVoid(channel.queueDeclare(queue, { queueType: "stream" }))
            const { message, reason } = yield* Effect.flip(AmqpConsumer.consume(queue, handlerInto(got), { declare }))
            assert.strictEqual(reason._tag, "InvalidArgument")
            assert.include(message, "stream")
            yield* deleteQueue(queue)
            yield* Effect.forkScoped(AmqpConsumer.consume(queue, handlerInto(got), { declare, queueType: "stream" }))
            yield* untilQueue(queue, { consumers: 1 })
            yield* attached(queue, got)
          })
        ).pipe(onBroker)
    )
  })

  describe("a message of a stream whose handler fails", () => {
    it.effect("ends its consumer with its offset and the reason, and the next consumer begins with it", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream(...numbers(10))
        const offsets = { store: AmqpOffsetStore.memory(), name: "reader" }
        const got = yield* Queue.unbounded<string>()
        const failing = AmqpConsumer.consume(
          queue,
          (delivery) => (textOf(delivery) === "4" ? broken : handlerInto(got)(delivery)),
          { offset: "first", offsets }
        )
        for (let times = 0; times < 3; times++) {
          const { message, reason } = yield* Effect.flip(failing)
          assert.strictEqual(reason._tag, "StreamStopped")
          assert.deepInclude(reason, { queue, offset: 4 })
          assert.instanceOf(reason.cause, Broken)
          assert.include(message, "offset 4")
        }
        // No later message was delivered to a handler, and no earlier one twice.
        assert.deepStrictEqual(yield* Queue.takeAll(got), numbers(4) as never)
        assert.deepStrictEqual(yield* offsets.store.load("reader"), Option.some(4))
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handlerInto(got), { offset: "first", offsets }))
        assert.deepStrictEqual(yield* Queue.takeN(got, 6), numbers(6, 4))
      }).pipe(onBroker)
    )

    it.effect(
      "ends its consumer also when the handler dies or interrupts itself, or the content cannot be decoded",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareStream('"text"')
          for (const handler of [Effect.die("defect"), Effect.interrupt]) {
            const { reason } = yield* Effect.flip(AmqpConsumer.consume(queue, () => handler, { offset: "first" }))
            assert.deepInclude(reason, { _tag: "StreamStopped", offset: 0 })
          }
          const { reason } = yield* Effect.flip(
            AmqpConsumer.consume(queue, () => Effect.void, { offset: "first", schema: Schema.Number })
          )
          assert.deepInclude(reason, { _tag: "StreamStopped", offset: 0 })
        }).pipe(onBroker)
    )

    it.effect("is skipped with the policy skip: logged with its offset, counted, and passed over for good", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareStream(...numbers(5))
          const offsets = { store: AmqpOffsetStore.memory(), name: "reader" }
          const got = yield* Queue.unbounded<string>()
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consume(
              queue,
              (delivery) => (textOf(delivery) === "2" ? broken : handlerInto(got)(delivery)),
              { offset: "first", offsets, onFailure: AmqpConsumer.skip }
            )
          )
          assert.deepStrictEqual(yield* Queue.takeN(got, 4), ["0", "1", "3", "4"])
          yield* Fiber.interrupt(consumer)
          assert.deepStrictEqual(yield* offsets.store.load("reader"), Option.some(5))
          const line = lines.find(({ text }) => text.includes("AMQP delivery failed"))
          assert.include(line?.text, '"offset":2')
          assert.include(line?.text, '"policy":"skipped"')
          const skipped = Metric.withAttributes(AmqpMetrics.settledMessages, { "amqp.settlement": "skipped" })
          assert.strictEqual((yield* Metric.value(skipped)).count, 1)
        }).pipe(Effect.provide(AmqpMetrics.layer))
      ).pipe(onBroker)
    )

    it.effect(
      "is published elsewhere with the policy publishTo, with its origin and the error, and then passed over",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "stream" })
          const failed = yield* declareQueue()
          yield* AmqpPublisher.publish({
            routingKey: queue,
            content: "bad",
            messageId: "m-1",
            headers: { colour: "red", CC: [failed], "x-stream-offset": 77, "x-failed-offset": 78 }
          })
          // The copy that CC requested.
          yield* next(failed)
          yield* send(queue, "good")
          const got = yield* Queue.unbounded<string>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              queue,
              (delivery) => (textOf(delivery) === "bad" ? broken : handlerInto(got)(delivery)),
              { offset: "first", onFailure: AmqpConsumer.publishTo({ routingKey: failed }) }
            )
          )
          const copy = yield* next(failed)
          assert.strictEqual(textOf(copy), "bad")
          assert.strictEqual(copy.properties.messageId, "m-1")
          assert.deepInclude(copy.properties.headers, {
            colour: "red",
            "x-failed-queue": queue,
            "x-failed-offset": 0,
            "x-failed-exchange": "",
            "x-failed-routing-key": queue,
            "x-failed-error": "Broken",
            "x-failed-reason": "no"
          })
          assert.notProperty(copy.properties.headers, "x-stream-offset")
          assert.strictEqual(yield* Queue.take(got), "good")
          yield* untilQueue(failed, { messages: 0 })
        }).pipe(onBroker)
    )

    it.effect("ends its consumer when it cannot be published elsewhere, and is not passed over", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream("a")
        const store = AmqpOffsetStore.memory()
        for (const target of [{ routingKey: "missing" }, { exchange: "missing", routingKey: "a" }]) {
          const { message, reason } = yield* Effect.flip(
            AmqpConsumer.consume(queue, () => broken, {
              offset: "first",
              offsets: { store, name: "reader" },
              onFailure: AmqpConsumer.publishTo(target)
            })
          )
          assert.deepInclude(reason, { _tag: "StreamStopped", offset: 0 })
          assert.include(message, "missing")
        }
        assert.notDeepEqual(yield* store.load("reader"), Option.some(1))
      }).pipe(onBroker)
    )

    it.effect(
      "waits while it cannot be published elsewhere for now, and its consumer can be stopped in the meantime",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queue = yield* declareStream("a", "b")
          const failed = yield* declareQueue({ maxLength: 1, overflow: "reject-publish" })
          const onFailure = AmqpConsumer.publishTo({ routingKey: failed })
          yield* send(failed, "it is full")
          const store = AmqpOffsetStore.memory()
          const options = { offset: "first", offsets: { store, name: "reader" }, onFailure } as const
          const consumer = yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => broken, options))
          yield* broker.awaitCensus({ unacked: 2 })
          yield* Effect.sleep("100 millis")
          yield* Fiber.interrupt(consumer)
          yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => broken, options))
          assert.strictEqual(textOf(yield* next(failed)), "it is full")
          assert.strictEqual(textOf(yield* next(failed)), "a")
          assert.strictEqual(textOf(yield* next(failed)), "b")
        }).pipe((effect) => onBroker(effect, { shutdownTimeout: Duration.millis(200) }))
    )

    it.effect(
      "follows the policy that a function chooses by its error, and ends the consumer if the function chooses none",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareStream("skip", "stop")
          const choosing = AmqpConsumer.consume(queue, (delivery) => Effect.fail(textOf(delivery)), {
            offset: "first",
            onFailure: (error, { offset }) => {
              assert.isNumber(offset)
              return error === "skip" ? AmqpConsumer.skip : AmqpConsumer.stop
            }
          })
          assert.deepInclude((yield* Effect.flip(choosing)).reason, { _tag: "StreamStopped", offset: 1 })
          for (const nothing of [
            () => AmqpConsumer.requeue,
            () => undefined as never,
            () => assert.fail("no policy")
          ]) {
            const consumer = AmqpConsumer.consume(queue, () => broken, { offset: "first", onFailure: nothing })
            assert.deepInclude((yield* Effect.flip(consumer)).reason, { _tag: "StreamStopped", offset: 0 })
          }
        }).pipe(onBroker)
    )

    it.effect(
      "is handled as a whole with the rest of its batch, and the consumer ends at the batch's first message",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareStream(...numbers(9))
          const store = AmqpOffsetStore.memory()
          const offsets = { store, name: "reader" }
          const got: Array<ReadonlyArray<string>> = []
          const consumer = AmqpConsumer.consumeBatch(
            queue,
            (deliveries) => {
              got.push(deliveries.map(textOf))
              return got.length === 2 ? broken : Effect.void
            },
            { offset: "first", offsets, size: 3, within: "1 second" }
          )
          assert.deepInclude((yield* Effect.flip(consumer)).reason, { _tag: "StreamStopped", offset: 3 })
          assert.deepStrictEqual(got, [numbers(3), numbers(3, 3)])
          assert.deepStrictEqual(yield* store.load("reader"), Option.some(3))
        }).pipe(onBroker)
    )
  })

  describe("the position in a stream", () => {
    it.effect("is the lowest offset that is not handled, in any order; at most prefetch messages are above it", () =>
      Effect.gen(function* () {
        // One chunk per message, because the rest of a chunk arrives beyond the prefetch.
        const queue = yield* declareStream(...numbers(40))
        const store = AmqpOffsetStore.memory()
        const got = yield* Queue.unbounded<number>()
        const consumer = yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) => (delivery.offset === 3 ? Effect.never : Queue.offer(got, delivery.offset!)),
            { offset: "first", offsets: { store, name: "reader" }, concurrency: 4, prefetch: 10, shutdownTimeout: 0 }
          )
        )
        yield* Queue.takeN(got, 11)
        yield* Effect.sleep("200 millis")
        const above = yield* Queue.clear(got)
        assert.isBelow(above.length, 12, "as many as chunks have")
        yield* Fiber.interrupt(consumer)
        assert.deepStrictEqual(yield* store.load("reader"), Option.some(3))
      }).pipe(onBroker)
    )

    it.effect(
      "is where a reconnect continues: deliveries in progress are not delivered again, and their outcome counts",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queue = yield* declareStream(...numbers(10))
          const store = AmqpOffsetStore.memory()
          const got = yield* Queue.unbounded<number>()
          const gate = yield* Latch.make()
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consume(
              queue,
              (delivery) =>
                Effect.andThen(
                  Queue.offer(got, delivery.offset!),
                  delivery.offset! % 2 === 0 ? gate.await : Effect.void
                ),
              { offset: "first", offsets: { store, name: "reader" }, concurrency: 3, prefetch: 4 }
            )
          )
          // 0 and 2 wait, 1 is handled, and one more is running.
          const first = yield* Queue.takeN(got, 4)
          yield* broker.killConnections
          yield* untilQueue(queue, { consumers: 1 })
          yield* gate.open
          const all = [...first, ...(yield* Queue.takeN(got, 6))]
          assert.deepStrictEqual(
            all.toSorted((a, b) => a - b),
            numbers(10).map(Number)
          )
          yield* Fiber.interrupt(consumer)
          assert.deepStrictEqual(yield* store.load("reader"), Option.some(10))
        }).pipe(onBroker)
    )

    for (const offset of ["next", "last"] as const) {
      it.effect(
        `of a consumer at "${offset}" is kept before its first message: messages published during a loss arrive`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const proxy = yield* FaultProxy.make(broker.url)
            const queue = yield* declareStream()
            const got = yield* Queue.unbounded<string>()
            yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, handlerInto(got), { offset, queueType: "stream" }).pipe(
                withConsumers(proxy.through(broker.url))
              )
            )
            yield* untilQueue(queue, { consumers: 1 })
            proxy.refuse()
            proxy.rst()
            // The test's own connection.
            yield* broker.awaitCensus({ connections: 1 })
            // Several chunks.
            yield* send(queue, ...numbers(20))
            proxy.heal()
            assert.deepStrictEqual(yield* Queue.takeN(got, 20), numbers(20))
          }).pipe(onBroker)
      )
    }

    it.effect(
      "is that of its first message, for a consumer that begins with the next one: earlier ones never arrive",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queue = yield* declareStream("old", "older")
          const got = yield* Queue.unbounded<string>()
          yield* Effect.forkScoped(AmqpConsumer.consume(queue, handlerInto(got)))
          yield* untilQueue(queue, { consumers: 1 })
          yield* attached(queue, got)
          yield* broker.killConnections
          yield* sendAnyway(queue, "b")
          assert.strictEqual(yield* Queue.take(got), "b")
          assert.strictEqual(yield* Queue.size(got), 0)
        }).pipe(onBroker)
    )

    it.effect("is not taken from an x-stream-offset header that a publisher has written", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "stream" })
        for (const forged of [999, "first", -1, 2n ** 60n]) {
          yield* AmqpPublisher.publish({ routingKey: queue, content: "a", headers: { "x-stream-offset": forged } })
        }
        const got = yield* Stream.runCollect(Stream.take(AmqpConsumer.stream(queue, { offset: "first" }), 4))
        assert.deepStrictEqual(
          got.map(({ offset }) => offset),
          [0, 1, 2, 3]
        )
      }).pipe(onBroker)
    )

    it.effect("can be given as an offset, a time or a duration", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream(...numbers(10))
        const first = (offset: AmqpConsumer.StreamOffset) =>
          Effect.map(Stream.runHead(AmqpConsumer.stream(queue, { offset })), (head) => Option.getOrThrow(head).offset)
        assert.strictEqual(yield* first(7), 7)
        assert.strictEqual(yield* first(8n), 8)
        assert.strictEqual(yield* first(new Date(0)), 0)
        assert.strictEqual(yield* first({ ago: "1 hour" }), 0)
      }).pipe(onBroker)
    )

    it.effect(
      "advances by the acks of a stream's deliveries, which survive their channel; by default the stream ends instead",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queue = yield* declareStream(...numbers(5))
          const store = AmqpOffsetStore.memory()
          const offsets = { store, name: "reader" }
          const got = yield* Queue.unbounded<AmqpConsumer.Delivery>()
          const reading = yield* Effect.forkScoped(
            Stream.runForEach(
              AmqpConsumer.stream(queue, { offset: "first", offsets, resubscribe: "lost" }),
              (delivery) => Queue.offer(got, delivery)
            )
          )
          const [d0, d1, d2, d3] = (yield* Queue.takeN(got, 5)) as [
            AmqpConsumer.Delivery,
            AmqpConsumer.Delivery,
            AmqpConsumer.Delivery,
            AmqpConsumer.Delivery
          ]
          yield* d1.ack
          const own = yield* AmqpConsumer.ownConnection
          const lost = own.value?.state.value
          yield* broker.killConnections
          yield* until(
            Effect.sync(() => own.value?.state.value),
            (now) => now !== lost && now?._tag === "Open"
          )
          yield* untilQueue(queue, { consumers: 1 })
          yield* d3.ack
          yield* d0.ack
          assert.isTrue(d0.isSettled)
          assert.isFalse(d2.isSettled)
          assert.strictEqual(yield* tagOf(d0.ack), "DeliverySettled")
          yield* Fiber.interrupt(reading)
          assert.deepStrictEqual(yield* store.load("reader"), Option.some(2))
          const again = yield* Effect.forkScoped(
            tagOf(
              Stream.runForEach(AmqpConsumer.stream(queue, { offset: "first", offsets }), (delivery) =>
                Queue.offer(got, delivery)
              )
            )
          )
          assert.deepStrictEqual((yield* Queue.takeN(got, 3)).map(textOf), ["2", "3", "4"])
          yield* broker.killConnections
          assert.strictEqual(yield* Fiber.join(again), "ConnectionClosed")
        }).pipe(onBroker)
    )
  })

  describe("a stream that was deleted and declared again is read from its beginning", () => {
    it.effect("by a consumer that waits for it", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareStream(...numbers(20))
          const got = yield* Queue.unbounded<string>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, handlerInto(got), { offset: "first", resubscribe: "always" })
          )
          yield* Queue.takeN(got, 20)
          yield* deleteQueue(queue)
          yield* declareQueue({ queueType: "stream" }, queue)
          yield* send(queue, "a", "b")
          assert.deepStrictEqual(yield* Queue.takeN(got, 2), ["a", "b"])
          assert.isTrue(
            lines.some(({ level, text }) => level === "Error" && text.includes("starts again at the beginning"))
          )
        })
      ).pipe(onBroker)
    )

    it.effect("by a consumer whose position was saved; a position at the end of the same stream stays", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream(...numbers(20))
        const store = AmqpOffsetStore.memory()
        const got = yield* Queue.unbounded<string>()
        const read = (count: number) =>
          Effect.gen(function* () {
            const consumer = yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, handlerInto(got), { offset: "first", offsets: { store, name: "reader" } })
            )
            const all = yield* Queue.takeN(got, count)
            yield* Fiber.interrupt(consumer)
            return all
          })
        yield* read(20)
        assert.deepStrictEqual(yield* store.load("reader"), Option.some(20))
        yield* send(queue, "20")
        assert.deepStrictEqual(yield* read(1), ["20"])
        yield* deleteQueue(queue)
        yield* declareQueue({ queueType: "stream" }, queue)
        yield* send(queue, "a", "b")
        assert.deepStrictEqual(yield* read(2), ["a", "b"])
        assert.deepStrictEqual(yield* store.load("reader"), Option.some(2))
      }).pipe(onBroker)
    )
  })

  describe("a position in an offset store", () => {
    it.effect("is saved before the first message is handled, if its `offset` means another position later", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream("old")
        const memory = AmqpOffsetStore.memory()
        const gate = yield* Latch.make()
        let isSaving = false
        const store: AmqpOffsetStore.OffsetStore = {
          ...memory,
          save: (name, offset) =>
            Effect.suspend(() => {
              isSaving = true
              return Effect.andThen(gate.await, memory.save(name, offset))
            })
        }
        const got = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, handlerInto(got), {
            offset: "next",
            offsets: { store, name: "reader" },
            concurrency: 3
          })
        )
        yield* sendUntil(queue, () => isSaving)
        yield* send(queue, "b", "c")
        yield* Effect.sleep("50 millis")
        assert.strictEqual(yield* Queue.size(got), 0)
        yield* gate.open
        const all = new Set<string>()
        while (all.size < 3) all.add(yield* Queue.take(got))
        assert.sameMembers([...all], ["a", "b", "c"])
      }).pipe(onBroker)
    )

    it.effect("is saved per number of messages, or after a time, and not more often", () =>
      Effect.gen(function* () {
        const queue = yield* declareStream(...numbers(100))
        const saved = yield* Queue.unbounded<number>()
        const store: AmqpOffsetStore.OffsetStore = {
          load: () => Effect.succeedNone,
          save: (_name, offset) => Queue.offer(saved, offset)
        }
        let handled = 0
        const handle = Effect.andThen(
          Effect.sleep(1),
          Effect.sync(() => void handled++)
        )
        const byCount = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => handle, {
            offset: "first",
            offsets: { store, name: "reader", saveEvery: 30, saveWithin: "1 hour" }
          })
        )
        for (const least of [30, 60, 90]) assert.isAtLeast(yield* Queue.take(saved), least)
        yield* until(
          Effect.sync(() => handled),
          (handled) => handled === 100
        )
        yield* Fiber.interrupt(byCount)
        // The last position is saved at the end.
        assert.deepStrictEqual(yield* Queue.clear(saved), [100])
        const byTime = yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.void, {
            offset: "first",
            offsets: { store, name: "reader", saveEvery: 1_000_000, saveWithin: 10 }
          })
        )
        yield* until(Queue.take(saved), (offset) => offset === 100)
        yield* Fiber.interrupt(byTime)
      }).pipe(onBroker)
    )

    it.effect(
      "whose store fails is requested again: handling waits until it is loaded, and continues while it cannot be saved",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const queue = yield* declareStream(...numbers(5))
            const memory = AmqpOffsetStore.memory()
            yield* memory.save("reader", 2)
            let loads = 0
            let isAway = true
            let answer: (number | bigint) | undefined = Number.NaN
            const store: AmqpOffsetStore.OffsetStore<Error> = {
              load: (name) => {
                loads++
                if (loads === 1) return Effect.fail(storeError)
                if (loads === 2) return Effect.die(storeError)
                if (loads === 3) return Effect.succeedSome(answer ?? 0)
                answer = undefined
                return memory.load(name)
              },
              save: (name, offset) => (isAway ? Effect.fail(storeError) : memory.save(name, offset))
            }
            const got = yield* Queue.unbounded<string>()
            const consumer = yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, handlerInto(got), {
                offset: "first",
                offsets: { store, name: "reader", saveEvery: 1, saveWithin: 10 }
              })
            )
            assert.deepStrictEqual(yield* Queue.takeN(got, 3), ["2", "3", "4"])
            assert.strictEqual(loads, 4)
            const notLoaded = lines.filter(({ text }) => text.includes("could not load its position"))
            assert.strictEqual(notLoaded.length, 3)
            assert.include(
              notLoaded[2]?.cause,
              'InvalidOffset: store.load("reader"): expected an offset from 0, got NaN'
            )
            yield* until(
              Effect.sync(() => lines),
              (lines) => lines.some(({ text }) => text.includes("could not save its position"))
            )
            isAway = false
            yield* Fiber.interrupt(consumer)
            assert.deepStrictEqual(yield* memory.load("reader"), Option.some(5))
          })
        ).pipe(onBroker)
    )

    it.effect("whose store never answers delays the end by a bounded time, which is logged", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const queue = yield* declareStream(...numbers(5))
          const got = yield* Queue.unbounded<string>()
          const store: AmqpOffsetStore.OffsetStore = { load: () => Effect.succeedNone, save: () => Effect.never }
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, handlerInto(got), {
              offset: "first",
              offsets: { store, name: "reader", saveEvery: 1 },
              shutdownTimeout: "200 millis"
            })
          )
          yield* Queue.takeN(got, 5)
          const begun = performance.now()
          yield* Fiber.interrupt(consumer)
          assert.isBelow(performance.now() - begun, 5000)
          assert.isTrue(
            lines.some(({ level, text }) => level === "Error" && text.includes("ended before its position was saved"))
          )
        })
      ).pipe(onBroker)
    )
  })
})

describe("a subscription whose answer is lost with its connection", () => {
  const product = (name: string) => ({
    product: name,
    version: "4.0.5",
    capabilities: { consumer_cancel_notify: true, "basic.nack": true, publisher_confirms: true }
  })

  for (const [name, offset, sent, again, margin] of [
    ["next", "next", "next", /^[5-9]s$/, 5],
    ["last", "last", "last", /^6[0-4]s$/, 60],
    ["2 hours ago", { ago: "2 hours" }, "7200s", /^720[1-4]s$/, 7200]
  ] as const) {
    plain.live(`begins where the first one would have begun, for "${name}": messages published in between arrive`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ serverProperties: product("RabbitMQ") })
        broker.once("basic.consume", (consume) => consume.destroy())
        yield* Effect.gen(function* () {
          yield* Effect.forkScoped(AmqpConsumer.consume("q", () => Effect.void, { offset, queueType: "stream" }))
          const first = yield* broker.received("basic.consume")
          assert.deepInclude(first.args.arguments, { "x-stream-offset": sent })
          const second = yield* broker.received("basic.consume", 2)
          assert.match(String(second.args.arguments["x-stream-offset"]), again)
        }).pipe(withConsumers(broker.url))
      })
    )

    plain.live(`begins there on LavinMQ too, which supports no intervals, by a timestamp, for "${name}"`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ serverProperties: product("LavinMQ") })
        broker.once("basic.consume", (consume) => consume.destroy())
        yield* Effect.gen(function* () {
          const begun = Date.now()
          yield* Effect.forkScoped(AmqpConsumer.consume("q", () => Effect.void, { offset, queueType: "stream" }))
          const first = (yield* broker.received("basic.consume")).args.arguments["x-stream-offset"]
          const subscribed = Date.now()
          const second = (yield* broker.received("basic.consume", 2)).args.arguments["x-stream-offset"]
          const isFrom = (value: unknown) => {
            assert.instanceOf(value, Date)
            assert.isAtLeast(Number(value), Math.floor(begun / 1000 - margin) * 1000)
            assert.isAtMost(Number(value), subscribed - margin * 1000)
          }
          if (typeof offset === "string") assert.strictEqual(first, offset)
          else isFrom(first)
          isFrom(second)
        }).pipe(withConsumers(broker.url))
      })
    )
  }
})
