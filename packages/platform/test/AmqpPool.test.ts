import { AmqpChannel, type AmqpError, type AmqpMessage, AmqpPool } from "@effect-amqp/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import { scopeOf } from "../src/internal/run.ts"
import * as Application from "./support/application.ts"

describe("borrowed channels", () => {
  layer(Application.layer({ pool: { max: 4 } }), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("a channel declares, publishes, gets and acknowledges", () =>
      Effect.gen(function* () {
        const content = yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            yield* channel.queueDeclare("round")
            yield* channel.publish({ routingKey: "round", content: "hello", headers: { a: 1 } })
            const delivery = yield* Effect.repeat(channel.get("round"), { until: Option.isSome })
            assert(Option.isSome(delivery))
            yield* channel.ack(delivery.value)
            assert.deepStrictEqual({ ...delivery.value.properties.headers }, { a: 1 })
            return new TextDecoder().decode(delivery.value.content)
          })
        )
        assert.strictEqual(content, "hello")
      })
    )

    it.scoped("a scope has one channel, however often it uses it", () =>
      Effect.gen(function* () {
        const [first, second] = yield* Effect.all([AmqpChannel.use(Effect.succeed), AmqpChannel.use(Effect.succeed)])
        assert.strictEqual(first, second)
        assert.strictEqual((yield* AmqpPool.stats).used, 1)
      })
    )

    it.effect(
      "a borrower whose scope closes while it waits gets a channel that is returned already, as in the core",
      () =>
        Effect.gen(function* () {
          const pool = yield* AmqpPool.AmqpPool
          for (const kind of ["get", "ofScope"] as const) {
            const holders = yield* Scope.make()
            yield* Effect.replicateEffect(Scope.extend(pool.get, holders), 4)
            const scope = yield* Scope.make()
            const waiter = yield* Effect.fork(Scope.extend(pool[kind], scope))
            yield* Effect.repeat(pool.stats, { until: ({ pending }) => pending === 1 })
            yield* Scope.close(scope, Exit.void)
            yield* Scope.close(holders, Exit.void)
            const channel = yield* Fiber.join(waiter)
            const error = yield* Effect.flip(channel.publish({ routingKey: "nowhere", content: "x" }))
            assert.strictEqual(error.reason._tag, "ChannelReleased")
            const { pending, used } = yield* pool.stats
            assert.deepStrictEqual({ pending, used }, { pending: 0, used: 0 })
          }
        })
    )

    it.effect("a scope closes its counterpart, wherever its first use is interrupted", () =>
      Effect.gen(function* () {
        // Fibers yield after so many operations. The first use is interrupted while it yields, at each of its steps.
        for (const operations of [10, 11, 12, 13]) {
          for (let before = 0; before < 60; before++) {
            const scope = yield* Scope.make()
            const use = Array.from({ length: before % 20 }).reduce<Effect.Effect<unknown>>(
              (next) => Effect.flatMap(Effect.void, () => next),
              scopeOf(scope)
            )
            const fiber = yield* Effect.fork(Effect.withMaxOpsBeforeYield(use, operations))
            for (let turn = 0; turn <= before / 20; turn++) yield* Effect.yieldNow()
            yield* Fiber.interrupt(fiber)
            const made = yield* scopeOf(scope)
            yield* Scope.close(scope, Exit.void)
            assert.strictEqual(made.state._tag, "Closed", `${before}: yields after ${operations} operations`)
          }
        }
      })
    )

    it.scoped("a scope keeps nothing of a borrower that gets no channel", () =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        // Effect 3 declares the methods of a scope as internal.
        type Adding = Scope.Scope & { readonly addFinalizer: (finalizer: unknown) => Effect.Effect<void> }
        const own = (yield* Effect.scope) as Adding
        let finalizers = 0
        const counting: Adding = {
          ...own,
          addFinalizer: (finalizer) =>
            Effect.zipRight(
              Effect.sync(() => finalizers++),
              own.addFinalizer(finalizer)
            )
        }
        const borrow = Effect.provideService(pool.get, Scope.Scope, counting)
        yield* Effect.replicateEffect(borrow, 4)
        assert.strictEqual(finalizers, 4)
        for (let i = 0; i < 3; i++) {
          const fiber = yield* Effect.fork(borrow)
          yield* Effect.repeat(pool.stats, { until: ({ pending }) => pending === 1 })
          yield* Fiber.interrupt(fiber)
        }
        assert.strictEqual(finalizers, 4)
      })
    )

    it.scoped("a stream of deliveries or of returns that ends early leaves the others to the next one", () =>
      Effect.gen(function* () {
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const numbers = ["0", "1", "2", "3"]
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            for (const content of numbers) yield* channel.publish({ routingKey: queue, content })
            const { consumerTag, deliveries } = yield* channel.consume(queue)
            for (const content of numbers) {
              yield* channel.publish({ routingKey: "nowhere", content }, { mandatory: true })
            }
            // The broker has sent everything before it answers.
            yield* channel.cancel(consumerTag)
            for (const all of [deliveries, channel.returns]) {
              const texts = Stream.map(all as Stream.Stream<AmqpMessage.Message, AmqpError.AmqpError>, (message) =>
                new TextDecoder().decode(message.content as Uint8Array)
              )
              const first = Option.getOrThrow(yield* Stream.runHead(texts))
              const next = yield* Stream.runCollect(Stream.take(texts, 2))
              const last = Option.getOrThrow(yield* Stream.runHead(texts))
              assert.deepStrictEqual([first, ...next, last], numbers)
            }
          })
        )
      })
    )
  })
})
