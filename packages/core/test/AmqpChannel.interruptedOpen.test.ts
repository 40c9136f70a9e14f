/**
 * Channel openings that are interrupted. `channel.close` for a channel that is not open ends the connection, and with
 * it the work of all its other users (504). So it is sent only after `channel.open` has been answered.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMessage,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Exit, Fiber, Schema, type Scope, Stream } from "effect"
import { configOf, type Overrides, quietly } from "./support/amqp.ts"
import { eventually } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String })

const opensFor = (
  queue: string
): Record<string, Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp | Scope.Scope>> => ({
  "a borrow": AmqpChannel.use((channel) => channel.queueDeclare(queue)),
  "a confirm channel's borrow": AmqpChannel.useConfirm((channel) => channel.queueDeclare(queue)),
  "a transaction's borrow": AmqpChannel.useTransaction((channel) => channel.queueDeclare(queue)),
  "a consumer": AmqpConsumer.consume(queue, () => Effect.void),
  "a consumer with `declare`": AmqpConsumer.consume(queue, () => Effect.void, {
    declare: (channel) => channel.queueDeclare(queue)
  }),
  "a consumer with delayed retries": AmqpConsumer.consume(queue, () => Effect.void, {
    onFailure: AmqpConsumer.retry({ delay: "1 second", times: 1 })
  }),
  "a batch consumer": AmqpConsumer.consumeBatch(queue, () => Effect.void, { size: 2, within: 10 }),
  "a stream": Stream.runDrain(AmqpConsumer.stream(queue)),
  "an RPC server": AmqpRpc.serve(Echo, Effect.succeed),
  "an RPC client": AmqpRpc.client(Echo, { timeout: "10 seconds" })("x"),
  "a publisher": AmqpPublisher.publish({ routingKey: queue, content: "x" })
})

const microtask = Effect.promise(() => Promise.resolve())
const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** When the opening is interrupted, counted from the turn in which it begins. */
const moments: Record<string, Effect.Effect<void>> = {
  "in the same turn": Effect.void,
  "a microtask later": Effect.asVoid(microtask),
  "two microtasks later": Effect.andThen(microtask, Effect.asVoid(microtask)),
  "a turn later": Effect.asVoid(turn),
  "two turns later": Effect.andThen(turn, Effect.asVoid(turn))
}

/** Runs an effect in its own scope concurrently with one that fails: it is interrupted at that moment. */
const givenUp = <A, E, R>(effect: Effect.Effect<A, E, R | Scope.Scope>, moment: Effect.Effect<void>) =>
  Effect.exit(
    Effect.scoped(
      Effect.all([effect, Effect.andThen(moment, Effect.fail("given up"))], { concurrency: "unbounded", discard: true })
    )
  )

const withAmqp = (url: string, overrides: Overrides = {}) => {
  const layer = Amqp.fromConfig(configOf(url, { pool: false, ...overrides }))
  return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    quietly(Effect.scoped(Effect.provide(effect, layer, { local: true })))
}

/** Both connections of an application, open. */
const connected = Effect.gen(function* () {
  yield* AmqpConsumer.AmqpConsumer.pipe(Effect.flatMap(({ connection }) => connection))
  const own = yield* AmqpConsumer.ownConnection
  yield* eventually(
    "the consumers' connection",
    Effect.sync(() => own.value?.state.value._tag === "Open")
  )
})

describe("no method is sent for a channel that was never opened, and an interrupted opening is closed after its answer", () => {
  for (const name of Object.keys(opensFor(""))) {
    for (const [moment, wait] of Object.entries(moments)) {
      plain.live(`${name}, interrupted ${moment}`, () =>
        Effect.gen(function* () {
          // The broker fails the test if a client sends a method on a channel that is not open.
          const broker = yield* ScriptedBroker.make({ on: { "channel.open": (open) => open.hold() } })
          yield* Effect.gen(function* () {
            yield* connected
            yield* givenUp(opensFor("q")[name]!, wait)
            yield* turn
            assert.strictEqual(broker.count("channel.close"), 0)
            broker.off("channel.open")
            broker.release("channel.open")
          }).pipe(withAmqp(broker.url))
          yield* broker.socketsClosed
          assert.deepStrictEqual(broker.protocolErrors, [])
        })
      )
    }
  }

  const frames = (
    name: string,
    overrides: Overrides,
    run: (broker: ScriptedBroker.ScriptedBroker) => Effect.Effect<unknown, unknown, Amqp.Amqp>
  ) =>
    plain.live(name, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          broker.once("channel.open", (open) => open.hold())
          yield* run(broker)
          yield* broker.until((now) => now.held("channel.open") === 1)
          yield* turn
          const { channel } = broker.log.at(-1)!
          assert.deepStrictEqual(broker.methods({ channel }), ["channel.open"])
          broker.release("channel.open")
          yield* broker.received("channel.close")
          assert.deepStrictEqual(broker.methods({ channel }), ["channel.open", "channel.close"])
          yield* broker.until((now) => now.openChannels === 0)
        }).pipe(withAmqp(broker.url, overrides))
      })
    )

  frames(
    "an opening that is interrupted in the same turn sends only `channel.open` and, after its answer, `channel.close`",
    {},
    () => givenUp(opensFor("q")["a confirm channel's borrow"]!, Effect.void)
  )
  frames("an opening that is interrupted after `channel.open` was sent sends the same", {}, (broker) =>
    Effect.gen(function* () {
      const borrowing = yield* Effect.forkChild(Effect.scoped(opensFor("q")["a confirm channel's borrow"]!))
      yield* broker.received("channel.open")
      yield* Fiber.interrupt(borrowing)
    })
  )
  frames(
    "an opening that is not answered within continuationTimeout sends the same",
    { continuationTimeout: Duration.millis(50) },
    () => Effect.flip(Effect.scoped(opensFor("q")["a confirm channel's borrow"]!))
  )

  plain.live("a connection that ends before the answer leaves nothing to close", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "channel.open": (open) => open.hold() } })
      yield* Effect.gen(function* () {
        yield* givenUp(opensFor("q")["a borrow"]!, Effect.void)
        yield* broker.received("channel.open")
        broker.off("channel.open")
        broker.destroy()
        yield* Effect.scoped(opensFor("q")["a borrow"]!)
        yield* broker.until((now) => now.openChannels === 0)
        assert.strictEqual(broker.count("channel.open"), 2)
      }).pipe(withAmqp(broker.url))
    })
  )

  plain.live("a pool that is closed during such an opening waits for its close", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.once("channel.open", (open) => open.hold())
        const borrowing = yield* Effect.forkChild(Effect.scoped(opensFor("q")["a borrow"]!))
        yield* broker.received("channel.open")
        yield* Fiber.interrupt(borrowing)
        yield* Effect.forkDetach(
          Effect.andThen(
            turn,
            Effect.sync(() => broker.release("channel.open"))
          )
        )
      }).pipe(withAmqp(broker.url))
      assert.strictEqual(broker.count("channel.close"), 1)
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("an opening that is interrupted does not affect the work of others", () => {
    for (const pool of ["with a pool", "without pooling"]) {
      it.effect(`${pool}: there is one connection of each kind, and every message is handled once`, () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const before = yield* broker.census
          const handled: Array<string> = []
          const outcomes: Array<string> = []
          yield* Effect.gen(function* () {
            const jobs = "interrupted-jobs"
            const queue = "interrupted-queue"
            yield* Effect.scoped(
              AmqpChannel.use((channel) =>
                Effect.andThen(
                  channel.queueDeclare(jobs, { autoDelete: true }),
                  Effect.andThen(channel.queueDeclare("echo"), channel.queueDeclare(queue))
                )
              )
            )
            yield* Effect.forkScoped(
              AmqpConsumer.consume(
                jobs,
                (delivery) =>
                  Effect.andThen(
                    Effect.sync(() => handled.push(AmqpMessage.text(delivery))),
                    Effect.sleep("20 millis")
                  ),
                { concurrency: 5 }
              )
            )
            yield* connected
            for (let i = 0; i < 100; i++) yield* AmqpPublisher.publish({ routingKey: jobs, content: String(i) })
            const generation = Effect.gen(function* () {
              const { state } = yield* AmqpConnection.AmqpConnection
              const own = yield* AmqpConsumer.ownConnection
              return [state.value, own.value?.state.value].map((now) => (now?._tag === "Open" ? now.generation : now))
            })
            assert.deepStrictEqual(yield* generation, [1, 1])
            for (const wait of Object.values(moments)) {
              for (const [name, opening] of Object.entries(opensFor(queue))) {
                const exit = yield* givenUp(opening, wait)
                if (Exit.isFailure(exit)) outcomes.push(name)
              }
            }
            yield* eventually(
              "every message handled",
              Effect.sync(() => handled.length >= 100)
            )
            assert.deepStrictEqual(yield* generation, [1, 1])
            assert.strictEqual(handled.length, 100)
            assert.strictEqual(new Set(handled).size, 100)
            assert.isAbove(outcomes.length, 40)
          }).pipe(withAmqp(broker.url, pool === "with a pool" ? { pool: {} } : {}))
          yield* broker.awaitCensus({ connections: before.connections, channels: before.channels })
        })
      )
    }
  })
})
