/**
 * npm run bench -- memory [--quick]: messages per second through the memory broker, in the same process and over a socket,
 * beside RabbitMQ on this machine, in turns; and how long `AmqpTest.layer` takes to build.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { AmqpTest, MemoryBroker, TestBroker } from "@effect-amqp/core/testing"
import { Console, type Context, Deferred, Effect, Fiber, Layer, References, Stream } from "effect"

const quick = process.argv.includes("--quick")
const rounds = quick ? 2 : 4
const messages = quick ? 5000 : 20_000
const builds = quick ? 100 : 500
const content = "x".repeat(100)
const queue = "bench.memory"

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const rate = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.gen(function* () {
    const startedAt = performance.now()
    yield* effect
    return (messages / (performance.now() - startedAt)) * 1000
  })

const publish = Stream.runDrain(
  AmqpPublisher.publishAll(
    Stream.map(Stream.range(1, messages), () => ({ routingKey: queue, content })),
    { mandatory: true }
  )
)

const consume = Effect.gen(function* () {
  const done = yield* Deferred.make<void>()
  let left = messages
  const handler = () => Effect.suspend(() => (--left === 0 ? Deferred.succeed(done, undefined) : Effect.void))
  const fiber = yield* Effect.forkChild(AmqpConsumer.consume(queue, handler, { prefetch: 500, concurrency: 50 }))
  yield* Deferred.await(done)
  yield* Fiber.interrupt(fiber)
})

const overSocket = Layer.unwrap(
  Effect.gen(function* () {
    const broker = yield* MemoryBroker.MemoryBroker
    return Amqp.layer({ url: yield* broker.listen() })
  })
).pipe(Layer.provide(MemoryBroker.layer()))

const run = Effect.gen(function* () {
  const times: Array<number> = []
  for (let i = 0; i <= builds; i++) {
    const startedAt = performance.now()
    yield* Effect.scoped(
      Effect.andThen(
        Layer.build(AmqpTest.layer()),
        Effect.sync(() => times.push(performance.now() - startedAt))
      )
    )
  }
  const [first = 0, ...others] = times
  yield* Console.log(`AmqpTest.layer: ${median(others).toFixed(1)} ms, the first one ${first.toFixed(0)} ms`)

  const brokers: ReadonlyArray<readonly [string, Context.Context<Amqp.Amqp>]> = [
    ["in the same process", yield* Layer.build(AmqpTest.layer())],
    ["over a socket, in the same process", yield* Layer.build(overSocket)],
    ["RabbitMQ, durable queue", yield* Layer.build(TestBroker.layerAmqp({ broker: TestBroker.layerPrivate() }))]
  ]
  const best = new Map<string, { published: number; consumed: number }>()
  for (let round = 0; round <= rounds; round++) {
    for (const [name, services] of brokers) {
      const { consumed, published } = yield* Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        yield* pool.use((channel) => Effect.andThen(channel.queueDeclare(queue), channel.queuePurge(queue)))
        return { published: yield* rate(publish), consumed: yield* rate(consume) }
      }).pipe(Effect.provideContext(services))
      const before = best.get(name) ?? { published: 0, consumed: 0 }
      // The first round warms up.
      if (round > 0) {
        best.set(name, {
          published: Math.max(before.published, published),
          consumed: Math.max(before.consumed, consumed)
        })
      }
    }
  }
  yield* Console.log(`Messages of 100 bytes per second, the best of ${rounds} rounds of ${messages}:`)
  for (const [name, { consumed, published }] of best) {
    yield* Console.log(`${name.padEnd(36)} published ${Math.round(published)}, consumed ${Math.round(consumed)}`)
  }
})

NodeRuntime.runMain(Effect.scoped(run).pipe(Effect.provideService(References.MinimumLogLevel, "None")))
