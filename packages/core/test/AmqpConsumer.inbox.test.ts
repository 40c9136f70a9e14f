/** An inbox decides whether and in what the handler of a consumer runs; what it ends with settles the delivery. */
import { assert, layer } from "@effect/vitest"
import { AmqpConnection, AmqpConsumer, AmqpError, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Context, Data, Deferred, Effect, Exit, Fiber, Layer, Queue, Schema, Scope } from "effect"
import { declareQueue, declareWithDeadLetters, logged, nextText, onBroker, untilQueue } from "./support/consumers.ts"
import { start } from "./support/publisher.ts"

class Locked extends Data.TaggedError("Locked")<{ readonly id: string }> {}
class Refused extends Data.TaggedError("Refused")<{}> {}

const idOf = ({ properties }: AmqpConsumer.Delivery) => properties.messageId ?? "none"

/** An inbox that records in memory which messages are handled. */
const inMemory = (handled: Set<string>, events: Array<string> = []): AmqpConsumer.Inbox => ({
  make: (consumer) =>
    Effect.as(
      Effect.acquireRelease(
        Effect.sync(() => void events.push(`made ${JSON.stringify(consumer)}`)),
        () => Effect.sync(() => void events.push("closed"))
      ),
      (delivery, handler) =>
        Effect.suspend(() => {
          const id = idOf(delivery)
          if (handled.has(id)) return Effect.sync(() => void events.push(`repeated ${id}`))
          return Effect.andThen(
            handler,
            Effect.sync(() => void handled.add(id))
          )
        })
    )
})

const publish = (queue: string, ...ids: ReadonlyArray<string>) =>
  Effect.forEach(
    ids,
    (messageId) => AmqpPublisher.publish({ routingKey: queue, messageId, content: messageId }, { mandatory: true }),
    { discard: true }
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("a repeated message is acknowledged without its handler, as the inbox decides", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const calls = yield* Queue.unbounded<string>()
      const events: Array<string> = []
      const handler = (delivery: AmqpConsumer.Delivery) => Queue.offer(calls, idOf(delivery))
      yield* start(AmqpConsumer.consume(queue, handler, { inbox: inMemory(new Set(), events) }))
      yield* publish(queue, "1", "1", "2")
      assert.deepStrictEqual([yield* Queue.take(calls), yield* Queue.take(calls)], ["1", "2"])
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
      assert.strictEqual(yield* Queue.size(calls), 0)
      assert.deepStrictEqual(events, [`made ${JSON.stringify({ queue, name: queue, concurrency: 1 })}`, "repeated 1"])
    }).pipe(onBroker)
  )

  it.effect("its name is the option name, by default the queue, and never has a consumer tag", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const made = yield* Queue.unbounded<AmqpConsumer.InboxConsumer>()
      const inbox: AmqpConsumer.Inbox = {
        make: (consumer) => Effect.as(Queue.offer(made, consumer), (_delivery, handler) => Effect.asVoid(handler))
      }
      const consume = (options: AmqpConsumer.ConsumeOptions<never>) =>
        start(AmqpConsumer.consume(queue, () => Effect.void, { ...options, inbox }))
      yield* consume({ consumerTag: "tag", concurrency: 3 })
      assert.deepStrictEqual(yield* Queue.take(made), { queue, name: queue, concurrency: 3 })
      yield* consume({ name: "payments", consumerTag: "other" })
      assert.deepStrictEqual(yield* Queue.take(made), { queue, name: "payments", concurrency: 1 })
    }).pipe(onBroker)
  )

  it.effect("onFailure decides about the errors of the inbox and of the handler, and onDefect about its defects", () =>
    Effect.gen(function* () {
      const { deadLetters, queue } = yield* declareWithDeadLetters()
      const seen: Array<string> = []
      const inbox: AmqpConsumer.Inbox<Locked> = {
        make: () =>
          Effect.succeed((delivery, handler) => {
            const id = idOf(delivery)
            if (id === "locked") return Effect.fail(new Locked({ id }))
            if (id === "thrown") throw new Error("thrown")
            return Effect.asVoid(handler)
          })
      }
      yield* start(
        AmqpConsumer.consume(queue, () => Effect.fail(new Refused()), {
          inbox,
          onFailure: (error) => {
            seen.push(error._tag)
            return AmqpConsumer.deadLetter
          },
          onDefect: (defect) => {
            seen.push(String(defect))
            return AmqpConsumer.deadLetter
          }
        })
      )
      yield* publish(queue, "locked", "refused", "thrown")
      for (const id of ["locked", "refused", "thrown"]) assert.strictEqual(yield* nextText(deadLetters), id)
      assert.deepStrictEqual(seen, ["Locked", "Refused", "Error: thrown"])
    }).pipe(onBroker)
  )

  it.effect("an inbox that handles the handler's error has the delivery acknowledged, and may run it again", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const calls = yield* Queue.unbounded<string>()
      const inbox: AmqpConsumer.Inbox = {
        make: () => Effect.succeed((_delivery, handler) => Effect.asVoid(Effect.retry(handler, { times: 2 })))
      }
      let runs = 0
      const handler = () =>
        Effect.gen(function* () {
          const run = ++runs
          yield* Effect.addFinalizer(() => Queue.offer(calls, `closed ${run}`))
          yield* Queue.offer(calls, `run ${run}`)
          if (run < 3) return yield* new Refused()
        })
      yield* start(AmqpConsumer.consume(queue, handler, { inbox }))
      yield* publish(queue, "1")
      const order = yield* Queue.takeN(calls, 6)
      assert.deepStrictEqual(order, ["run 1", "closed 1", "run 2", "closed 2", "run 3", "closed 3"])
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
    }).pipe(onBroker)
  )

  it.effect("it is not called for a message that cannot be decoded, or that was delivered too often", () =>
    Effect.gen(function* () {
      const { deadLetters, queue } = yield* declareWithDeadLetters()
      const called: Array<string> = []
      const inbox: AmqpConsumer.Inbox = {
        make: () =>
          Effect.succeed((delivery, handler) =>
            Effect.suspend(() => {
              called.push(`${idOf(delivery)} ${delivery.attempt}`)
              return Effect.asVoid(handler)
            })
          )
      }
      yield* start(
        AmqpConsumer.consume(queue, () => Effect.fail(new Refused()), {
          inbox,
          schema: Schema.Int,
          maxDeliveries: 2,
          onFailure: AmqpConsumer.requeue,
          onDecodeFailure: AmqpConsumer.deadLetter
        })
      )
      yield* publish(queue, "no number")
      assert.strictEqual(yield* nextText(deadLetters), "no number")
      yield* publish(queue, "1")
      assert.strictEqual(yield* nextText(deadLetters), "1")
      assert.deepStrictEqual(called, ["1 1", "1 2"])
    }).pipe(onBroker)
  )

  it.effect("a handler that settles its delivery settles it, whatever the inbox does", () =>
    Effect.gen(function* () {
      const { deadLetters, queue } = yield* declareWithDeadLetters()
      const settle = (delivery: AmqpConsumer.Delivery) => delivery.reject({ requeue: false })
      yield* start(AmqpConsumer.consume(queue, settle, { inbox: inMemory(new Set()) }))
      yield* publish(queue, "1")
      assert.strictEqual(yield* nextText(deadLetters), "1")
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
    }).pipe(onBroker)
  )

  it.effect("at the end of the consumer it is interrupted, the delivery returns, and then its scope closes", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const started = yield* Deferred.make<void>()
      const events: Array<string> = []
      const inner = inMemory(new Set(), events)
      const inbox: AmqpConsumer.Inbox = {
        make: (consumer) =>
          Effect.map(
            inner.make(consumer),
            (run): AmqpConsumer.InboxHandler =>
              (delivery, handler) =>
                Effect.onInterrupt(run(delivery, handler), () => Effect.sync(() => void events.push("rolled back")))
          )
      }
      const handler = () => Effect.andThen(Deferred.succeed(started, undefined), Effect.never)
      const fiber = yield* start(AmqpConsumer.consume(queue, handler, { inbox, shutdownTimeout: 0 }))
      yield* publish(queue, "1")
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(events.slice(1), ["rolled back", "closed"])
      assert.strictEqual(yield* nextText(queue), "1")
    }).pipe(onBroker)
  )

  it.effect("its scope closes after the last handler, which may finish", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const [started, finish] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const events: Array<string> = []
      const handler = () =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Deferred.await(finish)),
          Effect.andThen(Effect.sync(() => void events.push("handled")))
        )
      const fiber = yield* start(AmqpConsumer.consume(queue, handler, { inbox: inMemory(new Set(), events) }))
      yield* publish(queue, "1")
      yield* Deferred.await(started)
      const stopping = yield* start(Fiber.interrupt(fiber))
      yield* untilQueue(queue, { consumers: 0 })
      yield* Deferred.succeed(finish, undefined)
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(events.slice(1), ["handled", "closed"])
      yield* untilQueue(queue, { ready: 0 })
    }).pipe(onBroker)
  )

  it.effect("a failure to make it ends the consumer before it subscribes, with a logged error and a condition", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const message = "inbox: expected the table inbox, got none. Run the migrations."
        const refused = AmqpError.fromReason(
          new AmqpError.InvalidArgument({ message, operation: "AmqpInbox.sql", argument: "table" })
        )
        const ended = yield* Deferred.make<AmqpConsumer.End>()
        const error = yield* AmqpConsumer.consume(queue, () => Effect.void, {
          inbox: { make: () => Effect.fail(refused) },
          onEnd: (end) => Effect.asVoid(Deferred.succeed(ended, end))
        }).pipe(Effect.flip)
        assert.strictEqual(error, refused)
        assert.strictEqual((yield* Deferred.await(ended)).reason, refused)
        const errors = lines.filter(({ level }) => level === "Error").map(({ text }) => text)
        assert.lengthOf(errors, 1)
        assert.include(errors[0], message)
        const [condition] = yield* AmqpConnection.conditions
        assert.strictEqual(condition?.kind, "ConsumerEnded")
        assert.include(condition?.message, message)
      })
    ).pipe(onBroker)
  )

  it.effect("that never becomes ready does not keep a service from ending", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const scope = yield* Scope.make()
      const consumer = yield* Scope.provide(AmqpConsumer.make, scope)
      const making = yield* Deferred.make<void>()
      const inbox: AmqpConsumer.Inbox = {
        make: () => Effect.andThen(Deferred.succeed(making, undefined), Effect.never)
      }
      const fiber = yield* AmqpConsumer.consume(queue, () => Effect.void, { inbox }).pipe(
        Effect.provideService(AmqpConsumer.AmqpConsumer, consumer),
        start
      )
      yield* Deferred.await(making)
      yield* Scope.close(scope, Exit.void)
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.strictEqual(error.reason._tag, "ConnectionClosed")
    }).pipe(onBroker)
  )

  it.effect("uses the services of the consumer and a scope per delivery, also as a layer and for a stream", () =>
    Effect.gen(function* () {
      class Database extends Context.Service<Database, { readonly log: Queue.Queue<string> }>()("Database") {}
      const log = yield* Queue.unbounded<string>()
      const inbox: AmqpConsumer.Inbox<never, Database | Scope.Scope> = {
        make: () =>
          Effect.map(Database, ({ log }) => (delivery, handler) => {
            const begun = Effect.flatMap(Database, ({ log }) => Queue.offer(log, `begin ${idOf(delivery)}`))
            return Effect.acquireRelease(begun, () => Queue.offer(log, "end")).pipe(
              Effect.andThen(handler),
              Effect.asVoid
            )
          })
      }
      const queue = yield* declareQueue({ queueType: "stream" })
      yield* publish(queue, "1", "2")
      const handler = (delivery: AmqpConsumer.Delivery) => Queue.offer(log, AmqpMessage.text(delivery))
      yield* Layer.build(AmqpConsumer.layerConsume(queue, handler, { inbox, offset: "first" })).pipe(
        Effect.provideService(Database, { log })
      )
      assert.deepStrictEqual(yield* Queue.takeN(log, 6), ["begin 1", "1", "end", "begin 2", "2", "end"])
    }).pipe(onBroker)
  )
})
