/** The pool's promises, on a real broker. The numbers are those of docs/lifecycle.md. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, type AmqpError, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Logger, Option, References, Scope } from "effect"
import { ChannelEnded } from "../src/internal/driver/driver.ts"
import type { Lease } from "../src/internal/channel/lease.ts"
import { onTestBroker } from "./support/client.ts"
import { tagOf, untilStats, withPool } from "./support/amqp.ts"

/** The channel behind a handle: its identity, and its listeners. */
const behind = (handle: AmqpChannel.AmqpChannel) => (handle as Lease).channel!

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("1. Leaving a scope by success, failure, defect or interruption settles its channel exactly once. There is no return call.", () => {
    const exits: Record<string, Effect.Effect<void, string>> = {
      success: Effect.void,
      failure: Effect.fail("business"),
      defect: Effect.die("defect"),
      interruption: Effect.interrupt
    }
    for (const [name, exit] of Object.entries(exits)) {
      for (const [way, borrow] of Object.entries({
        "AmqpChannel.use": AmqpChannel.use,
        "AmqpPool.get": <A, E, R>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
          Effect.flatMap(AmqpPool.get, f),
        "AmqpPool.use": <A, E, R>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
          Effect.flatMap(AmqpPool.AmqpPool, (pool) => AmqpPool.use(pool, f))
      })) {
        it.effect(`${way}, by ${name}`, () =>
          Effect.gen(function* () {
            const { awaitCensus, url } = yield* TestBroker.TestBroker
            yield* Effect.gen(function* () {
              let first: unknown
              const borrowing = Effect.scoped(
                borrow((channel) => {
                  first = behind(channel)
                  return Effect.andThen(
                    Effect.map(AmqpPool.stats, (stats) => assert.strictEqual(stats.used, 1)),
                    exit
                  )
                })
              )
              const result = yield* Effect.exit(Effect.flatten(Effect.map(Effect.forkChild(borrowing), Fiber.join)))
              assert.strictEqual(Exit.isSuccess(result), name === "success")
              const stats = yield* AmqpPool.stats
              assert.deepInclude(stats, { idle: 1, used: 0, created: 1, discarded: 0 })
              // The pool has one place: only a returned channel can be borrowed, and it is the same one.
              yield* Effect.scoped(
                AmqpChannel.use((channel) => Effect.sync(() => assert.strictEqual(behind(channel), first)))
              )
              yield* awaitCensus({ connections: 1, channels: 1 })
            }).pipe(withPool(url, { pool: { max: 1 } }))
            yield* awaitCensus({ connections: 0, channels: 0 })
          })
        )
      }
    }

    it.effect("a scope whose finalizers run in parallel returns its channels, too", () =>
      onTestBroker({}, function* () {
        const scope = yield* Scope.make("parallel")
        yield* Scope.provide(Effect.all([AmqpPool.get, AmqpPool.get, AmqpPool.get]), scope)
        yield* Scope.close(scope, Exit.void)
        assert.deepInclude(yield* AmqpPool.stats, { idle: 3, used: 0 })
      })
    )

    it.effect("a scope that ends while its fiber continues leaves nothing borrowed", () =>
      onTestBroker({}, function* () {
        const scope = yield* Scope.make()
        yield* Scope.close(scope, Exit.void)
        const reason = yield* tagOf(
          Scope.provide(
            AmqpChannel.use((channel) => channel.queueDeclare("late")),
            scope
          )
        )
        assert.strictEqual(reason, "ChannelReleased")
        assert.strictEqual((yield* AmqpPool.stats).used, 0)
      })
    )
  })

  describe("the channel of a scope", () => {
    it.effect("is the same, however often and from however many fibers it is used", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const channels = yield* Effect.scoped(
          Effect.all(
            Array.from({ length: 10 }, () => AmqpChannel.use((channel) => Effect.succeed(behind(channel)))),
            { concurrency: "unbounded" }
          )
        )
        assert.strictEqual(new Set(channels).size, 1)
        assert.deepInclude(yield* AmqpPool.stats, { created: 1, used: 0 })
      })
    )

    it.effect("is another one in a nested scope", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.scoped(
          AmqpChannel.use((outer) =>
            Effect.scoped(
              AmqpChannel.use((inner) => Effect.sync(() => assert.notStrictEqual(behind(inner), behind(outer))))
            )
          )
        ).pipe(withPool(url))
      })
    )

    it.effect("is replaced after it has died, in a pool of one, too", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.scoped(
          Effect.gen(function* () {
            const reason = yield* tagOf(AmqpChannel.use((channel) => channel.get("missing")))
            assert.strictEqual(reason, "NotFound")
            const { queue } = yield* AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true }))
            assert.match(queue, /^amq\.gen-/)
            assert.deepInclude(yield* AmqpPool.stats, { used: 1, created: 2, discarded: 1 })
          })
        ).pipe(withPool(url, { pool: { max: 1 } }))
      })
    )

    it.effect("is borrowed by another fiber when the first to request it is interrupted", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const held = yield* Scope.make()
        yield* Scope.provide(AmqpPool.get, held)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const first = yield* Effect.forkChild(
              AmqpChannel.use(() => Effect.void),
              { startImmediately: true }
            )
            const second = yield* Effect.forkChild(
              AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })),
              { startImmediately: true }
            )
            yield* Fiber.interrupt(first)
            yield* Scope.close(held, Exit.void)
            assert.match((yield* Fiber.join(second)).queue, /^amq\.gen-/)
          })
        )
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      })
    )
  })

  describe("5. A checkout always ends: with a channel, `AcquireTimeout`, `PoolClosed`, or the error of opening.", () => {
    it.effect("with AcquireTimeout, which describes the state of the pool", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* AmqpPool.get
            const error = yield* Effect.flip(AmqpPool.get)
            assert.strictEqual(error.reason._tag, "AcquireTimeout")
            assert.isTrue(error.isRetryable)
            assert.include(error.message, "no channel within 50ms (pool.acquireTimeout): 1 of 1 in use, 0 idle")
            assert.deepInclude(yield* AmqpPool.stats, { timedOut: 1, used: 1, pending: 0 })
          })
        ).pipe(withPool(url, { pool: { max: 1, acquireTimeout: Duration.millis(50) } }))
      })
    )

    it.effect("with PoolExhausted at once when maxWaiting callers are in the wait queue", () =>
      onTestBroker({ pool: { max: 1, maxWaiting: 1 } }, function* () {
        const held = yield* Scope.make()
        yield* Scope.provide(AmqpPool.get, held)
        const waiting = yield* Effect.forkChild(Effect.scoped(AmqpPool.get), { startImmediately: true })
        assert.strictEqual(yield* tagOf(Effect.scoped(AmqpPool.get)), "PoolExhausted")
        yield* Scope.close(held, Exit.void)
        yield* Fiber.join(waiting)
      })
    )

    it.effect("with PoolClosed when the pool ends, for waiting callers and for later ones", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const scope = yield* Scope.make()
        const pool = yield* Effect.gen(function* () {
          yield* Scope.provide(AmqpPool.get, scope)
          const pool = yield* AmqpPool.AmqpPool
          const waiting = yield* Effect.forkDetach(Effect.scoped(pool.get), { startImmediately: true })
          return { pool, waiting }
        }).pipe(withPool(url, { pool: { max: 1 }, shutdownTimeout: Duration.millis(100) }))
        assert.strictEqual(yield* tagOf(Fiber.join(pool.waiting)), "PoolClosed")
        assert.strictEqual(yield* tagOf(Effect.scoped(pool.pool.get)), "PoolClosed")
        yield* Scope.close(scope, Exit.void)
      })
    )
  })

  describe("a pool that has ended", () => {
    it.effect("fails every use in a scope that continues, and no use hangs", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const pool = yield* AmqpPool.AmqpPool.pipe(withPool(url))
        const uses = Effect.provideService(
          AmqpChannel.use(() => Effect.void),
          AmqpPool.AmqpPool,
          pool
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            assert.strictEqual(yield* tagOf(uses), "PoolClosed")
            assert.strictEqual(yield* Effect.timeout(tagOf(uses), "1 second"), "PoolClosed")
          })
        )
      })
    )
  })

  describe("6. Waiters are served first come, first served; a cancelled waiter never swallows a place.", () => {
    it.effect("and a cancelled waiter never swallows a place", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const held = yield* Scope.make()
        yield* Scope.provide(AmqpPool.get, held)
        const served: Array<number> = []
        const fibers = yield* Effect.forEach(
          Array.from({ length: 100 }, (_, i) => i),
          (i) =>
            Effect.forkChild(
              Effect.scoped(
                AmqpChannel.use(() =>
                  Effect.sync(() => {
                    served.push(i)
                  })
                )
              ),
              { startImmediately: true }
            )
        )
        const cancelled = fibers.filter((_, i) => i % 3 === 0)
        yield* Fiber.interruptAll(cancelled)
        yield* Scope.close(held, Exit.void)
        yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual(
          served,
          Array.from({ length: 100 }, (_, i) => i).filter((i) => i % 3 !== 0)
        )
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, created: 1 })
      })
    )

    it.effect("no later caller is served before those in the wait queue", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const held = yield* Scope.make()
        yield* Scope.provide(AmqpPool.get, held)
        const served: Array<string> = []
        const borrow = (name: string) =>
          Effect.scoped(
            AmqpChannel.use(() =>
              Effect.sync(() => {
                served.push(name)
              })
            )
          )
        const early = yield* Effect.forkChild(borrow("early"), { startImmediately: true })
        yield* Scope.close(held, Exit.void)
        // The place is free at this moment, but it is not this fiber's turn.
        yield* borrow("late")
        yield* Fiber.join(early)
        assert.deepStrictEqual(served, ["early", "late"])
      })
    )
  })

  describe("7. A channel known to be closed is never lent.", () => {
    it.effect("after the broker has closed all connections, the next borrower gets a channel that works", () =>
      onTestBroker({}, function* ({ closeConnections }) {
        yield* Effect.scoped(Effect.all([AmqpPool.get, AmqpPool.get, AmqpPool.get]))
        const before = yield* AmqpPool.stats
        assert.deepInclude(before, { idle: 3, created: 3 })
        yield* closeConnections()
        yield* untilStats((stats) => stats.idle === 0)
        yield* Effect.scoped(
          AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true, autoDelete: true }))
        )
      })
    )
  })

  describe("8. A lent channel is clean: no consumers, no unsettled deliveries, no pending confirms, default prefetch, no stray listeners. One that cannot be made clean is discarded.", () => {
    it.effect("unsettled deliveries of the last borrower are back in their queue, and can no longer be settled", () =>
      onTestBroker({ pool: { max: 1 } }, function* ({ awaitCensus }) {
        let first: unknown
        const taken = yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              first = behind(channel)
              yield* channel.queueDeclare("dirty")
              yield* channel.publish({ routingKey: "dirty", content: "a" })
              const delivery = Option.getOrThrow(yield* channel.get("dirty"))
              yield* awaitCensus({ unacked: 1 })
              return delivery
            })
          )
        )
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              assert.strictEqual(behind(channel), first)
              assert.strictEqual(yield* tagOf(channel.ack(taken)), "DeliverySettled")
              const again = Option.getOrThrow(yield* channel.get("dirty"))
              assert.isTrue(again.redelivered)
              yield* channel.ack(again)
              yield* channel.queueDelete("dirty")
            })
          )
        )
        yield* awaitCensus({ unacked: 0 })
        assert.deepInclude(yield* AmqpPool.stats, { created: 1, discarded: 0 })
      })
    )

    it.effect("a channel whose deliveries cannot be given back is discarded, and the broker requeues them", () =>
      onTestBroker({ pool: { max: 1 } }, function* ({ awaitCensus }) {
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              yield* channel.queueDeclare("stuck")
              yield* channel.publish({ routingKey: "stuck", content: "a" })
              yield* channel.get("stuck")
              // This is what the driver does when a channel is closing.
              Object.assign(behind(channel).driver, {
                nack: () => {
                  throw new ChannelEnded("the channel is closed")
                }
              })
            })
          )
        )
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("stuck")))
        yield* awaitCensus({ unacked: 0, channels: 1 })
        assert.deepInclude(yield* AmqpPool.stats, { created: 2, discarded: 1 })
      })
    )

    it.effect("borrowers leave no listener on it, whatever they do", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const listeners = Effect.scoped(
          AmqpChannel.use((channel) => {
            const { link, pendingRequests: sent } = behind(channel)
            return Effect.succeed([link.watchers.size, link.channels.size, Array.from(sent).length])
          })
        )
        const before = yield* listeners
        for (let i = 0; i < 20; i++) {
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                const { queue } = yield* channel.queueDeclare("", { exclusive: true })
                yield* Effect.forEach(Array.from({ length: 200 }), () =>
                  channel.publish({ routingKey: queue, content: new Uint8Array(10_000) })
                )
                yield* channel.get(queue)
                yield* channel.queueDelete(queue)
              })
            )
          )
        }
        assert.deepStrictEqual(yield* listeners, before)
        assert.strictEqual((yield* AmqpPool.stats).created, 1)
      })
    )
  })

  describe("9. Business errors keep the channel; channel errors, defects in an operation and interrupted requests discard it.", () => {
    it.effect("a business error keeps it", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        for (let i = 0; i < 5; i++) {
          yield* Effect.exit(Effect.scoped(AmqpChannel.use(() => Effect.fail("no such customer"))))
        }
        assert.deepInclude(yield* AmqpPool.stats, { created: 1, discarded: 0, idle: 1 })
      })
    )

    it.effect("a channel error discards it, and affects no sibling", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        yield* Effect.scoped(
          Effect.gen(function* () {
            const sibling = yield* AmqpPool.get
            const { queue } = yield* sibling.queueDeclare("", { exclusive: true })
            for (let i = 0; i < 50; i++) {
              const reason = yield* tagOf(Effect.scoped(AmqpChannel.use((channel) => channel.get("missing"))))
              assert.strictEqual(reason, "NotFound")
            }
            yield* sibling.publish({ routingKey: queue, content: "alive" })
            assert.isTrue(Option.isSome(yield* sibling.get(queue)))
            assert.deepInclude(yield* AmqpPool.stats, { created: 51, discarded: 50, used: 1 })
            yield* awaitCensus({ connections: 1, channels: 1 })
          })
        ).pipe(withPool(url, { pool: { max: 2 } }))
      })
    )

    it.effect("a broker's error that no operation has reported is logged, since it may mean a lost message", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const warned = yield* Deferred.make<string>()
        const logger = Logger.make(({ fiber, logLevel }) => {
          if (logLevel !== "Warn") return
          Deferred.doneUnsafe(warned, Effect.succeed(String(fiber.getRef(References.CurrentLogAnnotations)["reason"])))
        })
        yield* Effect.gen(function* () {
          yield* Effect.scoped(
            AmqpChannel.use((channel) => channel.publish({ exchange: "missing", routingKey: "", content: "lost" }))
          )
          assert.include(yield* Deferred.await(warned), "no exchange 'missing'")
        }).pipe(withPool(url, { pool: { max: 1 } }), Effect.provide(Logger.layer([logger])))
      })
    )

    it.effect("an interrupted request discards it: its reply reaches no other caller", () =>
      onTestBroker({ pool: { max: 1 } }, function* ({ awaitCensus }) {
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("asked", { autoDelete: false })))
        const asking = yield* Effect.forkChild(
          Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("asked"))),
          { startImmediately: true }
        )
        yield* Fiber.interrupt(asking)
        const { queue } = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("another")))
        assert.strictEqual(queue, "another")
        assert.deepInclude(yield* AmqpPool.stats, { created: 2, discarded: 1 })
        yield* awaitCensus({ channels: 1 })
      })
    )

    it.effect("a defect inside an operation discards it", () =>
      onTestBroker({ pool: { max: 1 } }, function* ({ awaitCensus }) {
        const reason = yield* tagOf(
          Effect.scoped(
            AmqpChannel.use((channel) => {
              Object.assign(behind(channel).driver, {
                queueDeclare: () => {
                  throw new Error("a defect of the driver")
                }
              })
              return channel.queueDeclare("q")
            })
          )
        )
        assert.strictEqual(reason, "UnknownError")
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })))
        assert.deepInclude(yield* AmqpPool.stats, { created: 2, discarded: 1 })
        yield* awaitCensus({ channels: 1 })
      })
    )

    it.effect("a message that cannot be encoded is refused before anything is sent, and the channel is kept", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const reason = yield* tagOf(
          Effect.scoped(
            AmqpChannel.use((channel) =>
              channel.publish({ routingKey: "q", content: "", headers: { f: (() => 1) as never } })
            )
          )
        )
        assert.strictEqual(reason, "InvalidArgument")
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })))
        assert.deepInclude(yield* AmqpPool.stats, { created: 1, discarded: 0 })
      })
    )
  })

  describe("16. A handle used after its scope closed fails with `ChannelReleased`; it never touches the next borrower's channel.", () => {
    it.effect("and never touches the next borrower's channel", () =>
      onTestBroker({ pool: { max: 1 } }, function* () {
        const stale = yield* Effect.scoped(AmqpChannel.use((channel) => Effect.succeed(channel)))
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const { queue } = yield* channel.queueDeclare("", { exclusive: true })
              yield* channel.publish({ routingKey: queue, content: "mine" })
              const delivery = Option.getOrThrow(yield* channel.get(queue))
              for (const use of [
                stale.publish({ routingKey: queue, content: "stale" }),
                stale.get(queue),
                stale.ack(delivery),
                stale.nack(delivery),
                stale.queueDeclare("stale"),
                stale.exchangeDeclare("stale", "fanout"),
                stale.queueBind(queue, "amq.fanout", ""),
                stale.queuePurge(queue),
                stale.queueDelete(queue)
              ] as ReadonlyArray<Effect.Effect<unknown, AmqpError.AmqpError>>) {
                assert.strictEqual(yield* tagOf(use), "ChannelReleased")
              }
              yield* channel.ack(delivery)
              assert.isTrue(Option.isNone(yield* channel.get(queue)))
            })
          )
        )
      })
    )

    it.effect("an operation that runs when its scope closes ends, and its channel is not handed out again", () =>
      onTestBroker({ pool: { max: 1 } }, function* ({ awaitCensus }) {
        const started = yield* Deferred.make<Fiber.Fiber<unknown, unknown>>()
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const asking = yield* Effect.forkDetach(channel.queueDeclare("", { exclusive: true }), {
                startImmediately: true
              })
              yield* Deferred.succeed(started, asking)
            })
          )
        )
        const exit = yield* Fiber.await(yield* Deferred.await(started))
        assert.isTrue(Exit.isFailure(exit))
        if (Exit.isFailure(exit)) assert.include(Cause.pretty(exit.cause), "returned to its pool when its scope ended")
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })))
        assert.deepInclude(yield* AmqpPool.stats, { created: 2, discarded: 1 })
        yield* awaitCensus({ channels: 1 })
      })
    )
  })

  describe("without pooling", () => {
    it.effect("each borrow has its own channel, which is closed when its scope ends", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* Effect.all([AmqpPool.get, AmqpPool.get, AmqpChannel.use(() => Effect.void)])
              yield* awaitCensus({ channels: 3 })
              assert.deepInclude(yield* AmqpPool.stats, { used: 3, idle: 0, max: Infinity })
            })
          )
          yield* awaitCensus({ connections: 1, channels: 0 })
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, created: 3 })
        }).pipe(withPool(url, { pool: false }))
        yield* awaitCensus({ connections: 0 })
      })
    )
  })
})
