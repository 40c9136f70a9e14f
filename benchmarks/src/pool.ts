/**
 * What a borrow costs, beside Effect's bare `Pool` in the same run, and whether waiting and borrowing leave memory behind.
 *
 * Run by `npm run bench -- pool`. The figures to quote are the ratios: both sides ran in one process, in turn.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpChannel, AmqpConfig, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Console, Effect, Fiber, Layer, Pool, Scope, Exit } from "effect"
import { median, spread, table } from "./report.ts"

const size = 16
const cycles = 100_000
const rounds = 7

/** Nanoseconds an iteration. */
const time = <R>(body: Effect.Effect<unknown, unknown, R>) =>
  Effect.gen(function* () {
    const start = process.hrtime.bigint()
    for (let i = 0; i < cycles; i++) yield* body
    return Number(process.hrtime.bigint() - start) / cycles
  })

const borrowing = Effect.gen(function* () {
  const pool = yield* AmqpPool.AmqpPool
  const bare = yield* Pool.make({ acquire: Effect.succeed({ channel: true }), size })
  const nothing = Effect.void
  const contenders: Record<string, Effect.Effect<unknown, unknown, AmqpPool.AmqpPool>> = {
    "Effect Pool.get, scoped": Effect.scoped(Pool.get(bare)),
    "Effect Pool.use": Pool.use(bare, () => nothing),
    "AmqpPool.get, scoped": Effect.scoped(pool.get),
    "AmqpPool.use": AmqpPool.use(pool, () => nothing),
    "AmqpChannel.use, scoped": Effect.scoped(AmqpChannel.use(() => nothing))
  }
  const results = new Map(Object.keys(contenders).map((name) => [name, [] as Array<number>]))
  for (let round = 0; round < rounds + 2; round++) {
    for (const [name, body] of Object.entries(contenders)) {
      const nanoseconds = yield* time(body)
      // The first two warm up.
      if (round >= 2) results.get(name)!.push(nanoseconds)
    }
  }
  const base = { get: median(results.get("Effect Pool.get, scoped")!), use: median(results.get("Effect Pool.use")!) }
  yield* Console.log(
    `\nBorrow and return of an idle channel, pool of ${size}: median of ${rounds} rounds of ${cycles}\n`
  )
  yield* Console.log(
    table(
      ["", "µs", "spread", "times the bare pool"],
      Array.from(results, ([name, values]) => [
        name,
        (median(values) / 1000).toFixed(2),
        spread(values),
        (median(values) / (name.endsWith(".use") ? base.use : base.get)).toFixed(2)
      ])
    )
  )
})

const heap = Effect.sync(() => {
  for (let i = 0; i < 4; i++) globalThis.gc?.()
  return process.memoryUsage().heapUsed / 1024 / 1024
})

const memory = Effect.gen(function* () {
  if (globalThis.gc === undefined) return yield* Console.log("\nMemory: run with --expose-gc")
  const pool = yield* AmqpPool.AmqpPool
  const cycle = Effect.scoped(AmqpChannel.use(() => Effect.void))
  for (let i = 0; i < 100_000; i++) yield* cycle
  const before = yield* heap
  for (let i = 0; i < 1_000_000; i++) yield* cycle
  const afterCycles = yield* heap

  const held = yield* Scope.make()
  yield* Scope.provide(
    Effect.forEach(Array.from({ length: size }), () => pool.get, { discard: true }),
    held
  )
  const waiting = yield* Effect.forEach(Array.from({ length: 10_000 }), () =>
    Effect.forkChild(cycle, { startImmediately: true })
  )
  const whileWaiting = yield* heap
  const { pending } = yield* AmqpPool.stats
  yield* Scope.close(held, Exit.void)
  yield* Fiber.awaitAll(waiting)
  waiting.length = 0
  const afterWaiting = yield* heap
  yield* Console.log(
    `\nMemory, MB of heap: ${before.toFixed(1)} before; ${afterCycles.toFixed(1)} after 1,000,000 borrows; ` +
      `${whileWaiting.toFixed(1)} while ${pending} wait; ${afterWaiting.toFixed(1)} after they were served`
  )
})

const config = Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
  AmqpConfig.fromUrl(url, { pool: { max: size, acquireTimeout: "1 minute", maxWaiting: 100_000 } })
)

const program = Effect.scoped(Effect.andThen(borrowing, memory)).pipe(
  Effect.provide(Layer.unwrap(Effect.map(config, Amqp.fromConfig)).pipe(Layer.provide(TestBroker.layer)))
)

NodeRuntime.runMain(program)
