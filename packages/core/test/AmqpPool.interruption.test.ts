/**
 * A hundred thousand fibers, each interrupted at its own moment, and one fiber that is interrupted at each of its
 * operations. A seed makes a failure repeatable.
 */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Exit, Fiber, Option, Scheduler, Scope } from "effect"
import { untilStats, withPool } from "./support/amqp.ts"

const fibers = 100_000
const atOnce = 2_000
const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000)

/** A small generator with a seed (mulberry32), which makes the moments repeatable. */
const generator = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

/** Makes a fiber yield once, at the operation with this number, and interrupts it there. */
class InterruptAt extends Scheduler.MixedScheduler {
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  hasInterrupted = false
  #left: number

  constructor(operation: number) {
    super()
    this.#left = operation
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (fiber !== this.fiber || --this.#left !== 0) return false
    this.hasInterrupted = true
    fiber.interruptUnsafe()
    return true
  }
}

/** Lets other fibers run once, before this operation of one fiber. */
class YieldAt extends Scheduler.MixedScheduler {
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  hasYielded = false
  #left: number

  constructor(operation: number) {
    super()
    this.#left = operation
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (fiber !== this.fiber || --this.#left !== 0) return false
    return (this.hasYielded = true)
  }
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect(
    `${fibers} fibers interrupted while acquiring, using and releasing leave 0 channels and 0 borrowed (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        const { awaitCensus, census, url } = yield* TestBroker.TestBroker
        const random = generator(seed)
        yield* Effect.gen(function* () {
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.andThen(
                channel.queueDeclare("work"),
                Effect.forEach(Array.from({ length: 50 }), () => channel.publish({ routingKey: "work", content: "x" }))
              )
            )
          )
          // What borrowers do: nothing, publish, get without settling, get and settle, request, break the channel,
          // fail.
          const uses = [
            AmqpChannel.use(() => Effect.void),
            AmqpChannel.use((channel) => channel.publish({ routingKey: "work", content: "x" })),
            AmqpChannel.use((channel) => channel.get("work")),
            AmqpChannel.use((channel) =>
              Effect.flatMap(channel.get("work"), (taken) =>
                Option.isSome(taken) ? channel.ack(taken.value) : Effect.void
              )
            ),
            AmqpChannel.use((channel) => channel.queueDeclare("work")),
            AmqpChannel.use(() => Effect.fail("business")),
            AmqpChannel.use(() => Effect.yieldNow),
            AmqpPool.get
          ]
          const broken = AmqpChannel.use((channel) => channel.get("missing"))
          for (let wave = 0; wave < fibers / atOnce; wave++) {
            const running: Array<Fiber.Fiber<unknown, unknown>> = []
            for (let i = 0; i < atOnce; i++) {
              const use = random() < 0.002 ? broken : uses[Math.floor(random() * uses.length)]!
              const fiber = yield* Effect.forkChild(Effect.scoped(use), { startImmediately: true })
              running.push(fiber)
              // Some are interrupted at once, some later, some never: they end in every possible state.
              const moment = random()
              if (moment < 0.3) fiber.interruptUnsafe()
              else if (moment < 0.35) yield* Effect.yieldNow
              else if (moment < 0.4) running[Math.floor(random() * running.length)]!.interruptUnsafe()
            }
            for (let i = 0; i < running.length; i++) {
              if (random() < 0.3) running[Math.floor(random() * running.length)]!.interruptUnsafe()
              if (random() < 0.01) yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
            }
            yield* Fiber.awaitAll(running)
            assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 }, `after wave ${wave}`)
          }
          // A channel that is being discarded holds its place until the broker has closed it. Then the two counts
          // agree.
          yield* Effect.scoped(
            Effect.forEach(Array.from({ length: 8 }), () => AmqpPool.get, { concurrency: 8, discard: true })
          )
          const stats = yield* untilStats((now) => now.used === 0 && now.pending === 0)
          yield* awaitCensus({ connections: 1, channels: stats.idle, unacked: 0 })
          assert.isAtMost(stats.idle, 8)
          // Failures did occur.
          assert.isAbove(stats.discarded, 100)
        }).pipe(withPool(url, { pool: { max: 8, maxWaiting: fibers } }))
        yield* awaitCensus({ connections: 0, channels: 0 })
        assert.deepInclude(yield* census, { unacked: 0, consumers: 0 })
      }),
    120_000
  )

  it.effect("a scope whose fiber was interrupted at any operation returns its channel afterwards", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      yield* Effect.gen(function* () {
        const use = AmqpChannel.use(() => Effect.succeed("used"))
        // The channel is open, so the interrupted fiber does not wait.
        yield* Effect.scoped(use)
        for (let operation = 1, interrupted = true; interrupted; operation++) {
          const scope = yield* Scope.make()
          const ofScope = Effect.provideService(use, Scope.Scope, scope)
          const scheduler = new InterruptAt(operation)
          const fiber = yield* Effect.withFiber((current) => {
            scheduler.fiber = current
            return ofScope
          }).pipe(Effect.provideService(Scheduler.Scheduler, scheduler), Effect.forkChild)
          yield* Fiber.await(fiber)
          interrupted = scheduler.hasInterrupted
          assert.strictEqual(yield* ofScope, "used", `after operation ${operation}`)
          yield* Scope.close(scope, Exit.void)
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 }, `after operation ${operation}`)
          // The steps between borrowing and the end were covered.
          if (!interrupted) assert.isAbove(operation, 10)
        }
      }).pipe(withPool(url, { pool: { max: 1 } }))
    })
  )

  it.effect(
    "two fibers of a scope share one channel, whichever operation of the first the second interleaves with",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          const use = AmqpChannel.use(() => Effect.void)
          yield* Effect.scoped(use)
          for (let operation = 1, yielded = true; yielded; operation++) {
            const scope = yield* Scope.make()
            const ofScope = Effect.provideService(use, Scope.Scope, scope)
            const scheduler = new YieldAt(operation)
            const first = yield* Effect.withFiber((current) => {
              scheduler.fiber = current
              return ofScope
            }).pipe(Effect.provideService(Scheduler.Scheduler, scheduler), Effect.forkChild)
            const second = yield* Effect.forkChild(ofScope)
            yield* Fiber.joinAll([first, second])
            yielded = scheduler.hasYielded
            assert.deepInclude(yield* AmqpPool.stats, { used: 1, pending: 0 }, `at operation ${operation}`)
            yield* Scope.close(scope, Exit.void)
            assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 }, `after operation ${operation}`)
            if (!yielded) assert.isAbove(operation, 10)
          }
        }).pipe(withPool(url, { pool: { max: 2 } }))
      })
  )

  it.effect("a scope whose channel has died can be interrupted while it waits for another channel", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      yield* Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        const waiting = yield* Effect.gen(function* () {
          yield* Effect.ignore(AmqpChannel.use((channel) => channel.get("missing")))
          // This borrower takes the place that is given back.
          yield* Effect.forkIn(
            pool.use(() => Effect.never),
            yield* Scope.Scope
          )
          yield* untilStats((now) => now.pending === 1)
          yield* AmqpChannel.use(() => Effect.void)
        }).pipe(Effect.scoped, Effect.forkChild)
        // The first borrower has been served, and the scope is in the wait queue.
        yield* untilStats((now) => now.discarded === 1 && now.used === 1 && now.pending === 1)
        yield* Effect.timeout(Fiber.interrupt(waiting), "10 seconds")
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      }).pipe(withPool(url, { pool: { max: 1, acquireTimeout: Duration.minutes(1) } }))
    })
  )
})
