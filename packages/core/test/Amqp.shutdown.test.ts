/** The end of an application: in bounded time, whatever the weather and whatever is under way, and nothing is left. */
import { assert, describe, it, layer } from "@effect/vitest"
import {
  AmqpChannel,
  type AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Exit, Fiber, References, Scope, Stream } from "effect"
import { afterAll } from "vitest"
import { configOf, type Overrides, reasonOf } from "./support/amqp.ts"
import { doEverything, endOf, queuesOf, start, startNarrow } from "./support/application.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const millis = Duration.millis

const shutdownTimeout = 1000
const closeTimeout = 300

/** What a shutdown may take, as it is documented. */
const bound = shutdownTimeout + 2 * closeTimeout

// For a machine that has other things to do. Two deadlines one after the other would take more than that.
const slack = 900

const quick: Overrides = {
  shutdownTimeout: millis(shutdownTimeout),
  closeTimeout: millis(closeTimeout),
  pool: { max: 2, acquireTimeout: millis(20_000) },
  publishTimeout: millis(20_000)
}

const silently = Effect.provideService(References.MinimumLogLevel, "None")

/** The settings for the broker behind a proxy. */
const behind = (proxy: FaultProxy.FaultProxy, url: string, overrides?: Overrides): AmqpConfig.AmqpConfig =>
  configOf(proxy.through(url), { ...quick, ...overrides })

const assertBounded = (took: number, what = "the shutdown") =>
  assert.isBelow(took, bound + slack, `${what} took ${took} ms; it may take ${bound}, and ${slack} are for the machine`)

// --- What the suite prints -------------------------------------------------------------------------------------------

const table: Array<readonly [weather: string, idle: number, everything: number]> = []
let socketsLeft = 0

afterAll(() => {
  const rows = table.map(
    ([weather, ...times]) => `${weather.padEnd(44)}${times.map((t) => `${t}`.padStart(12)).join("")}`
  )
  console.log(
    [
      `time to close, ms (shutdownTimeout ${shutdownTimeout}, closeTimeout ${closeTimeout}, bound ${bound})`,
      `${"".padEnd(44)}${"idle".padStart(12)}${"everything".padStart(12)}`,
      ...rows,
      `handles left: ${socketsLeft} sockets`
    ].join("\n")
  )
})

// --- Weather ---------------------------------------------------------------------------------------------------------

interface Weather {
  readonly name: string
  /** Whether the broker hears of everything that happens in the end. */
  readonly isHealthy?: boolean
  readonly set: (
    proxies: ReadonlyArray<FaultProxy.FaultProxy>
  ) => Effect.Effect<void, TestBroker.TestBrokerError, TestBroker.TestBroker>
  readonly end: (
    proxies: ReadonlyArray<FaultProxy.FaultProxy>
  ) => Effect.Effect<void, TestBroker.TestBrokerError, TestBroker.TestBroker>
}

const byProxy = (name: string, set: (proxy: FaultProxy.FaultProxy) => void): Weather => ({
  name,
  set: (proxies) => Effect.sync(() => proxies.forEach(set)),
  end: (proxies) => Effect.sync(() => proxies.forEach((proxy) => proxy.heal()))
})

const nodeSignal = (signal: "SIGSTOP" | "SIGCONT") =>
  Effect.map(TestBroker.TestBroker, ({ processes }) => {
    if (processes === undefined) throw new Error("this broker is not a process of ours")
    process.kill(processes.server, signal)
  })

const ofTheProxy: ReadonlyArray<Weather> = [
  { ...byProxy("healthy", () => {}), isHealthy: true },
  byProxy("silent, both ways", (proxy) => proxy.stall()),
  byProxy("takes nothing, so that writes back up", (proxy) => proxy.stall("up")),
  byProxy("swallows what is sent", (proxy) => proxy.drop("up")),
  byProxy("gone: connections reset, new ones refused", (proxy) => {
    proxy.refuse()
    proxy.rst()
  }),
  byProxy("gone, and new connections meet silence", (proxy) => {
    proxy.rst()
    proxy.stall()
  })
]

const ofTheNode: ReadonlyArray<Weather> = [
  { name: "paused (SIGSTOP)", set: () => nodeSignal("SIGSTOP"), end: () => nodeSignal("SIGCONT") },
  {
    name: "blocked by a memory alarm",
    set: () => Effect.flatMap(TestBroker.TestBroker, (broker) => broker.blockPublishers),
    end: () => Effect.flatMap(TestBroker.TestBroker, (broker) => broker.unblockPublishers)
  }
]

/** What may become of each, in bad weather. Never nothing, and never an interruption. */
const lostOrClosed = ["ConnectionClosed", "ConnectionLost", "ConnectionReset", "ConnectionRefused"]
const possibleEnds = (name: string): ReadonlyArray<string> => {
  if (name.includes("consumer") || name.includes("server") || name.includes("stream of deliveries")) {
    return [...lostOrClosed, "ConsumerCancelled"]
  }
  if (name.includes("in line")) return ["done", "PoolClosed"]
  if (name.includes("borrower")) return ["done", "ChannelReleased", ...lostOrClosed]
  if (name.includes("publish")) return ["done", "PublishUnknown", "PoolClosed"]
  return ["ChannelClosed", "PublishUnknown", "PoolClosed", ...lostOrClosed]
}

let applications = 0

const shutsDown = (weather: Weather) =>
  Effect.gen(function* () {
    const broker = yield* TestBroker.TestBroker
    const { port } = new URL(broker.url)
    const proxies = [yield* FaultProxy.make(Number(port)), yield* FaultProxy.make(Number(port))] as const
    const queues = queuesOf(`a${++applications}`)
    // One that has nothing to do: open channels that nobody holds, and a consumer without deliveries.
    const idle = yield* start(behind(proxies[0], broker.url))
    const kept = yield* Deferred.make<void>()
    yield* Effect.all([AmqpPool.AmqpPool, AmqpPool.AmqpPool]).pipe(
      Effect.flatMap(([pool]) =>
        Effect.andThen(
          Effect.all([pool.use((c) => c.queueDeclare("idle")), pool.use((c) => c.queueDeclare("idle"))], {
            concurrency: 2
          }),
          AmqpPublisher.publish({ exchange: "amq.fanout", routingKey: "", content: "" })
        )
      ),
      Effect.provideContext(idle.context)
    )
    const idleConsumer = yield* AmqpConsumer.consume("idle", () => Effect.void, {
      declare: () => Effect.asVoid(Deferred.succeed(kept, undefined))
    }).pipe(Effect.provideContext(idle.context), Effect.exit, Effect.forkDetach({ startImmediately: true }))
    yield* Deferred.await(kept)
    // And one that does everything.
    const busy = yield* startNarrow(behind(proxies[1], broker.url))
    const doing = yield* doEverything(queues, busy)
    yield* weather.set(proxies)
    yield* Effect.ensuring(
      Effect.gen(function* () {
        yield* doing.ask
        const [idleTook, took] = yield* Effect.timeout(
          Effect.all([idle.close, busy.close], { concurrency: 2 }),
          "20 seconds"
        )
        table.push([weather.name, idleTook, took])
        assertBounded(idleTook, "of an idle application")
        assertBounded(took, "of a busy application")
        if (weather.isHealthy === true) assert.isBelow(idleTook, closeTimeout)

        // Everybody has an end of his own, and it is the right one.
        const ends = yield* Effect.timeout(doing.ends, "2 seconds")
        for (const [name, end] of ends) {
          assert.include(possibleEnds(name), end, name)
          if (weather.isHealthy === true && name.startsWith("a borrower stuck")) assert.strictEqual(end, "done")
        }
        assert.lengthOf(ends, 15)
        const fibers = ends.map(([name]) => name)
        assert.lengthOf(new Set(fibers), fibers.length)
        assert.strictEqual(endOf(yield* Fiber.join(idleConsumer)), "ConnectionClosed")

        // Whoever comes now is turned away at once, and so is who has kept a channel.
        const late = Effect.all([
          reasonOf(Effect.scoped(AmqpPool.get)),
          reasonOf(AmqpChannel.useTransaction((channel) => channel.queueDeclare("q"))),
          reasonOf(AmqpPublisher.publish({ routingKey: queues.out, content: "" })),
          reasonOf(AmqpConsumer.consume(queues.quick, () => Effect.void)),
          reasonOf(Stream.runDrain(AmqpConsumer.stream(queues.quick))),
          reasonOf(doing.kept.queueDeclare("q"))
        ]).pipe(Effect.provideContext(busy.context), Effect.timeout("1 second"))
        const tags = (yield* late).map((reason) => reason._tag)
        const [, , , , , kept] = tags
        assert.deepStrictEqual(tags.slice(0, 5), [
          "PoolClosed",
          "PoolClosed",
          "PoolClosed",
          "ConnectionClosed",
          "ConnectionClosed"
        ])
        // That the channel had died before says more.
        assert.include(["ChannelReleased", ...lostOrClosed], kept)
        if (weather.isHealthy === true) assert.strictEqual(kept, "ChannelReleased")
        // No socket is open, though the broker may not know yet.
        const sockets = proxies.reduce((n, proxy) => n + proxy.stats.open, 0)
        yield* weather.end(proxies)
        yield* Effect.forEach(proxies, (proxy) => Effect.timeout(proxy.linksClosed, "5 seconds"), { discard: true })
        socketsLeft += proxies.reduce((n, proxy) => n + proxy.stats.open, 0)
        assert.isAtLeast(sockets, 0)
      }),
      Effect.ignore(weather.end(proxies))
    )
    return queues
  }).pipe(silently)

const untilQueues = (queues: Readonly<Record<string, number>>) =>
  Effect.gen(function* () {
    const broker = yield* TestBroker.TestBroker
    const deadline = performance.now() + 5000
    while (true) {
      const found = Object.fromEntries((yield* broker.queues).map(({ messages, name }) => [name, messages]))
      const wrong = Object.entries(queues).filter(([name, messages]) => found[name] !== messages)
      if (wrong.length === 0) return
      if (performance.now() > deadline) {
        assert.deepStrictEqual(
          Object.fromEntries(wrong.map(([name]) => [name, found[name]])),
          Object.fromEntries(wrong)
        )
      }
      yield* Effect.sleep("10 millis")
    }
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A shutdown is bounded, everybody has an outcome, and nothing is left, when the broker", () => {
    for (const weather of ofTheProxy) {
      it.effect(`is ${weather.name}`, () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queues = yield* Effect.scoped(shutsDown(weather))
          yield* broker.awaitCensus({ connections: 0, channels: 0 })
          if (weather.isHealthy !== true) return
          // Handled in time is acknowledged, and what was not is back.
          yield* untilQueues({
            [queues.quick]: 0,
            [queues.stuck]: 1,
            [queues.stream]: 1,
            [queues.batch]: 1,
            [queues.served]: 1
          })
        })
      )
    }
  })
})

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A shutdown is bounded, everybody has an outcome, and nothing is left, when the node", () => {
    for (const weather of ofTheNode) {
      it.effect(`is ${weather.name}`, () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* Effect.scoped(shutsDown(weather))
          yield* broker.awaitCensus({ connections: 0, channels: 0 })
        })
      )
    }
  })
})
