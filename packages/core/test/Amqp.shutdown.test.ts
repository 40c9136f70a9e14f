/**
 * The end of an application: it takes a bounded time under every condition of the broker and with any work under way,
 * and leaves nothing behind.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, type AmqpConfig, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Exit, Fiber, References, Schedule, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { configOf, type Overrides, reasonOf } from "./support/amqp.ts"
import { doEverything, endOf, queuesOf, start, startNarrow } from "./support/application.ts"
import { environment } from "./support/environment.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { untilFlow } from "./support/publisher.ts"
import { drain } from "./support/queues.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const millis = Duration.millis

const shutdownTimeout = 1000
const closeTimeout = 300

/** The documented bound of a shutdown. */
const bound = shutdownTimeout + 2 * closeTimeout

// Slack for a machine that runs other work too. Two consecutive deadlines would take longer than bound and slack.
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

const assertBounded = (took: number, what = "the shutdown", limits = { bound, slack }) =>
  assert.isBelow(
    took,
    limits.bound + limits.slack,
    `${what} took ${took} ms; it may take ${limits.bound}, and ${limits.slack} are for the machine`
  )

// A process shares its cores with the tests, so its deadline is longer, and so is the slack.
const processShutdownTimeout = 4000
const processLimits = { bound: processShutdownTimeout + 2 * closeTimeout, slack: 3600 }

// --- What the suite prints -------------------------------------------------------------------------------------------

const table: Array<readonly [condition: string, idle: number, everything: number]> = []
let socketsLeft = 0
const handles: Array<string> = []

afterAll(() => {
  const rows = table.map(
    ([condition, ...times]) => `${condition.padEnd(44)}${times.map((t) => `${t}`.padStart(12)).join("")}`
  )
  console.log(
    [
      `time to close, ms (shutdownTimeout ${shutdownTimeout}, closeTimeout ${closeTimeout}, bound ${bound})`,
      `${"".padEnd(44)}${"idle".padStart(12)}${"everything".padStart(12)}`,
      ...rows,
      `sockets left: ${socketsLeft}`,
      ...handles.map((line) => `handles left in a process, ${line}`)
    ].join("\n")
  )
})

// --- Conditions --------------------------------------------------------------------------------------------------------

interface Condition {
  readonly name: string
  /** Whether the broker learns of everything that happens at the end. */
  readonly isHealthy?: boolean
  readonly set: (
    proxies: ReadonlyArray<FaultProxy.FaultProxy>
  ) => Effect.Effect<void, TestBroker.TestBrokerError, TestBroker.TestBroker>
  readonly end: (
    proxies: ReadonlyArray<FaultProxy.FaultProxy>
  ) => Effect.Effect<void, TestBroker.TestBrokerError, TestBroker.TestBroker>
}

const byProxy = (name: string, set: (proxy: FaultProxy.FaultProxy) => void): Condition => ({
  name,
  set: (proxies) => Effect.sync(() => proxies.forEach(set)),
  end: (proxies) => Effect.sync(() => proxies.forEach((proxy) => proxy.heal()))
})

const nodeSignal = (signal: "SIGSTOP" | "SIGCONT") =>
  Effect.map(TestBroker.TestBroker, ({ processes }) => {
    if (processes === undefined) throw new Error("this broker is not a process of ours")
    process.kill(processes.server, signal)
  })

const proxyConditions: ReadonlyArray<Condition> = [
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

const nodeConditions: ReadonlyArray<Condition> = [
  { name: "paused (SIGSTOP)", set: () => nodeSignal("SIGSTOP"), end: () => nodeSignal("SIGCONT") },
  {
    name: "blocked by a memory alarm",
    set: () => Effect.flatMap(TestBroker.TestBroker, (broker) => broker.blockPublishers),
    end: () => Effect.flatMap(TestBroker.TestBroker, (broker) => broker.unblockPublishers)
  }
]

/** The outcomes that each fiber may have under a bad condition. No outcome and an interruption are not among them. */
const possibleEnds = (name: string): ReadonlyArray<string> => {
  if (name.includes("consumer") || name.includes("server") || name.includes("stream of deliveries")) {
    return ["ConnectionClosed", "ConsumerCancelled"]
  }
  if (name.includes("in the wait queue")) return ["done", "PoolClosed"]
  if (name.includes("borrower")) return ["done", "ChannelReleased", "ConnectionClosed"]
  if (name.includes("publish")) return ["done", "PublishUnknown", "PoolClosed"]
  return ["ChannelClosed", "PublishUnknown", "PoolClosed", "ConnectionClosed"]
}

let applications = 0

const shutsDown = (condition: Condition) =>
  Effect.gen(function* () {
    const broker = yield* TestBroker.TestBroker
    const proxies = [yield* FaultProxy.make(broker.url), yield* FaultProxy.make(broker.url)] as const
    const queues = queuesOf(`a${++applications}`)
    // An idle application: open channels that are not borrowed, and a consumer without deliveries.
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
    // A busy application, which uses every part of the library.
    const busy = yield* startNarrow(behind(proxies[1], broker.url))
    const doing = yield* doEverything(queues, busy)
    yield* condition.set(proxies)
    yield* Effect.ensuring(
      Effect.gen(function* () {
        yield* doing.ask
        const [idleTook, took] = yield* Effect.timeout(
          Effect.all([idle.close, busy.close], { concurrency: 2 }),
          "20 seconds"
        )
        table.push([condition.name, idleTook, took])
        assertBounded(idleTook, "of an idle application")
        assertBounded(took, "of a busy application")
        if (condition.isHealthy === true) assert.isBelow(idleTook, shutdownTimeout)

        // Each fiber has its own outcome, and it is a right one.
        const ends = yield* Effect.timeout(doing.ends, "2 seconds")
        for (const [name, end] of ends) {
          assert.include(possibleEnds(name), end, name)
          if (condition.isHealthy === true && name.startsWith("a borrower stuck")) assert.strictEqual(end, "done")
        }
        assert.lengthOf(ends, 15)
        const fibers = ends.map(([name]) => name)
        assert.lengthOf(new Set(fibers), fibers.length)
        assert.strictEqual(endOf(yield* Fiber.join(idleConsumer)), "ConnectionClosed")

        // New callers are refused at once, and so is a caller that still holds a channel.
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
        // The channel's earlier end is the more informative reason.
        assert.include(["ChannelReleased", "ConnectionClosed"], kept)
        if (condition.isHealthy === true) assert.strictEqual(kept, "ChannelReleased")
        // A socket that our side had left open would still be open after the condition has ended.
        yield* condition.end(proxies)
        yield* Effect.forEach(proxies, (proxy) => Effect.timeout(proxy.linksClosed, "5 seconds"), { discard: true })
        socketsLeft += proxies.reduce((n, proxy) => n + proxy.stats.open, 0)
      }),
      Effect.ignore(condition.end(proxies))
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
  describe("A shutdown is bounded, every caller has an outcome, and nothing is left, when the broker", () => {
    for (const condition of proxyConditions) {
      it.effect(`is ${condition.name}`, () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queues = yield* Effect.scoped(shutsDown(condition))
          yield* broker.awaitCensus({ connections: 0, channels: 0 })
          if (condition.isHealthy !== true) return
          // Handled deliveries are acknowledged, and all others are back in their queues.
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
  describe("A shutdown is bounded, every caller has an outcome, and nothing is left, when the node", () => {
    for (const condition of nodeConditions) {
      it.effect(`is ${condition.name}`, () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* Effect.scoped(shutsDown(condition))
          yield* broker.awaitCensus({ connections: 0, channels: 0 })
        })
      )
    }
  })
})

// --- One deadline ----------------------------------------------------------------------------------------------------

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("All parts share one deadline.", () => {
    it.effect("consumers that stop one after the other, borrowers, confirms and replies share one deadline", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const app = yield* start(configOf(broker.url, quick))
        const above = yield* Scope.make()
        yield* Effect.gen(function* () {
          const names = ["one.a", "one.b", "one.c"]
          const begun = yield* Effect.forEach(names, () => Deferred.make<void>())
          const pool = yield* AmqpPool.AmqpPool
          for (const [i, queue] of names.entries()) {
            yield* pool.use((channel) => channel.queueDeclare(queue))
            yield* AmqpPublisher.publish({ routingKey: queue, content: "" }, { mandatory: true })
            // They are in one scope, which stops them one after the other.
            yield* AmqpConsumer.consume(queue, () =>
              Effect.andThen(Deferred.succeed(begun[i]!, undefined), Effect.never)
            ).pipe(Effect.forkScoped, Scope.provide(above))
          }
          yield* Effect.forEach(begun, Deferred.await)
          const kept = yield* Scope.make()
          yield* Scope.provide(pool.get, kept)
        }).pipe(Effect.provideContext(app.context))
        const begun = performance.now()
        yield* Scope.close(above, Exit.void)
        yield* app.close
        const took = performance.now() - begun
        assertBounded(took)
        assert.isAtLeast(took, shutdownTimeout - 50)
        yield* broker.awaitCensus({ connections: 0, channels: 0 })
        yield* untilQueues({ "one.a": 1, "one.b": 1, "one.c": 1 })
      }).pipe(silently, Effect.scoped)
    )

    it.effect("running handlers may borrow, publish and call until they finish", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const app = yield* start(configOf(broker.url, quick))
        const begun = yield* Deferred.make<void>()
        const handled = yield* Deferred.make<string>()
        yield* Effect.gen(function* () {
          const pool = yield* AmqpPool.AmqpPool
          yield* pool.use((channel) => channel.queueDeclare("works"))
          yield* pool.use((channel) => channel.queueDeclare("works.out"))
          yield* AmqpPublisher.publish({ routingKey: "works", content: "" }, { mandatory: true })
          const handler = Effect.gen(function* () {
            yield* Deferred.succeed(begun, undefined)
            yield* Effect.sleep("200 millis")
            const found = yield* AmqpChannel.use((channel) => channel.queueDeclarePassive("works.out"))
            yield* AmqpPublisher.publish({ routingKey: "works.out", content: "" }, { mandatory: true })
            yield* Deferred.succeed(handled, found.queue)
          })
          // The fiber is detached: the layer stops the consumer.
          yield* Effect.forkDetach(AmqpConsumer.consume("works", () => handler))
        }).pipe(Effect.provideContext(app.context))
        yield* Deferred.await(begun)
        const took = yield* app.close
        assert.isBelow(took, shutdownTimeout)
        assert.strictEqual(yield* Effect.timeout(Deferred.await(handled), "1 second"), "works.out")
        yield* untilQueues({ works: 0, "works.out": 1 })
      }).pipe(silently, Effect.scoped)
    )

    it.effect("a caller that arrives during the shutdown is refused at once", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const app = yield* start(configOf(broker.url, quick))
        const borrower = yield* Scope.make()
        const pool = yield* Effect.provideContext(AmqpPool.AmqpPool, app.context)
        const channel = yield* Scope.provide(pool.get, borrower)
        const closing = yield* Effect.forkChild(app.close, { startImmediately: true })
        const late = Effect.all([
          reasonOf(Effect.scoped(AmqpPool.get)),
          reasonOf(AmqpPublisher.publish({ routingKey: "late", content: "" })),
          reasonOf(AmqpConsumer.consume("late", () => Effect.void))
        ]).pipe(Effect.provideContext(app.context), Effect.timeout("500 millis"))
        // The consumers' part has nothing to wait for and ends one turn later.
        yield* Effect.sleep("20 millis")
        assert.deepStrictEqual(
          (yield* late).map((reason) => reason._tag),
          ["PoolClosed", "PoolClosed", "ConnectionClosed"]
        )
        assert.isUndefined(closing.pollUnsafe())
        // The borrower can still use its channel, and the shutdown ends as soon as the borrower returns it.
        yield* channel.queueDeclare("late")
        yield* Scope.close(borrower, Exit.void)
        assert.isBelow(yield* Fiber.join(closing), shutdownTimeout - 100)
      }).pipe(silently, Effect.scoped)
    )

    it.effect("a shutdown whose caller is interrupted ends as it would have without the interruption", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(broker.url)
        const app = yield* startNarrow(behind(proxy, broker.url))
        const queues = queuesOf("interrupted")
        const doing = yield* doEverything(queues, app)
        yield* doing.ask
        const closing = yield* Effect.forkChild(Effect.timeout(app.close, "100 millis"), { startImmediately: true })
        const begun = performance.now()
        yield* Fiber.await(closing)
        assertBounded(performance.now() - begun)
        for (const [name, end] of yield* Effect.timeout(doing.ends, "2 seconds")) {
          assert.include(possibleEnds(name), end, name)
        }
        yield* Effect.timeout(proxy.linksClosed, "2 seconds")
        yield* untilQueues({ [queues.quick]: 0, [queues.stuck]: 1, [queues.stream]: 1, [queues.batch]: 1 })
      }).pipe(silently, Effect.scoped)
    )

    it.effect("a shutdown by a fiber with another clock takes the time of the connection's clock", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const app = yield* start(configOf(url, { ...quick, shutdownTimeout: millis(200) }))
        const borrowed = yield* Deferred.make<void>()
        const borrower = yield* AmqpChannel.use(() =>
          Effect.andThen(Deferred.succeed(borrowed, undefined), Effect.never)
        ).pipe(Effect.provideContext(app.context), Effect.forkDetach)
        yield* Deferred.await(borrowed)
        const took = yield* app.close.pipe(Effect.provide(TestClock.layer()), Effect.timeout("20 seconds"))
        assertBounded(took)
        yield* Fiber.interrupt(borrower)
      }).pipe(silently, Effect.scoped)
    )

    it.effect("a connection that is reset at any moment of the shutdown does not change its end", () =>
      Effect.forEach(
        [0, 2, 10, 50, 200, 990, 1010, 1290, 1310],
        (moment) =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const proxy = yield* FaultProxy.make(broker.url)
            const app = yield* startNarrow(behind(proxy, broker.url))
            const doing = yield* doEverything(queuesOf(`reset.${moment}`), app)
            yield* doing.ask
            const closing = yield* Effect.forkChild(app.close, { startImmediately: true })
            yield* Effect.sleep(moment)
            proxy.rst()
            assertBounded(yield* Fiber.join(closing), `the shutdown with a reset after ${moment} ms`)
            for (const [name, end] of yield* Effect.timeout(doing.ends, "2 seconds")) {
              assert.include(possibleEnds(name), end, `${name}, with a reset after ${moment} ms`)
            }
            yield* Effect.timeout(proxy.linksClosed, "2 seconds")
          }).pipe(silently, Effect.scoped),
        { concurrency: 5, discard: true }
      )
    )
  })
})

// --- Between a question and its answer -------------------------------------------------------------------------------

describe("A shutdown is bounded, and leaves no socket, when the connection dies or the broker falls silent", () => {
  const faults = {
    dies: (context: { readonly destroy: () => void }) => context.destroy(),
    ends: (context: { readonly end: () => void }) => context.end(),
    "falls silent": () => {}
  }
  for (const method of ["basic.cancel", "channel.close", "connection.close"] as const) {
    for (const [name, fault] of Object.entries(faults)) {
      it.live(`between ${method} and its answer: it ${name}`, () =>
        Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make({ on: { [method]: fault } })
          const app = yield* start(configOf(broker.url, quick))
          yield* Effect.gen(function* () {
            const pool = yield* AmqpPool.AmqpPool
            yield* pool.use((channel) => channel.queueDeclare("q"))
            yield* AmqpPublisher.publish({ routingKey: "q", content: "" })
            yield* Effect.forkDetach(Effect.exit(AmqpConsumer.consume("q", () => Effect.void)))
          }).pipe(Effect.provideContext(app.context))
          yield* broker.received("basic.ack")
          const took = yield* app.close
          assert.isAtLeast(broker.count(method), 1)
          // There is nothing to wait for but the closes themselves.
          assert.isBelow(took, 2 * closeTimeout + slack)
          yield* Effect.timeout(broker.socketsClosed, "2 seconds")
          assert.strictEqual(broker.connections, 0)
        }).pipe(silently, Effect.scoped)
      )
    }
  }

  it.live("during the first connect, and during a reconnect", () =>
    Effect.gen(function* () {
      const silent = yield* ScriptedBroker.make({ on: { "protocol-header": () => {} } })
      const first = yield* Effect.forkChild(Effect.scoped(start(configOf(silent.url, quick))))
      yield* silent.received("protocol-header")
      const [took] = yield* Effect.timed(Fiber.interrupt(first))
      assert.isBelow(Duration.toMillis(took), slack)
      yield* Effect.timeout(silent.socketsClosed, "2 seconds")

      const lazy = yield* start(configOf(silent.url, { ...quick, lazyConnect: true }))
      const waiting = yield* Effect.provideContext(
        AmqpPublisher.publish({ routingKey: "q", content: "" }),
        lazy.context
      ).pipe(reasonOf, Effect.forkChild)
      yield* silent.received("protocol-header", 2)
      assert.isBelow(yield* lazy.close, slack)
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "PoolClosed")
      yield* Effect.timeout(silent.socketsClosed, "2 seconds")

      const broker = yield* ScriptedBroker.make()
      const app = yield* start(configOf(broker.url, quick))
      broker.on("protocol-header", () => {})
      broker.destroy()
      yield* broker.received("protocol-header", 2)
      assert.isBelow(yield* app.close, slack)
      yield* Effect.timeout(broker.socketsClosed, "2 seconds")
    }).pipe(silently, Effect.scoped)
  )

  it.live("while consumers connect for the first time: they end with it and do not delay it", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const app = yield* start(configOf(broker.url, quick))
      broker.on("protocol-header", () => {})
      const consumer = yield* AmqpConsumer.consume("q", () => Effect.void).pipe(
        Effect.provideContext(app.context),
        Effect.forkChild
      )
      yield* broker.received("protocol-header", 2)
      assert.isBelow(yield* app.close, slack)
      assert.strictEqual(yield* reasonOf(Fiber.join(consumer)).pipe(Effect.map(({ _tag }) => _tag)), "ConnectionClosed")
      yield* Effect.timeout(broker.socketsClosed, "2 seconds")
    }).pipe(silently, Effect.scoped)
  )

  it.live("while its peer reads nothing any more and its write buffer is full", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const app = yield* start(configOf(broker.url, { ...quick, writeBufferSize: 65_536 }))
      const content = Buffer.alloc(65_536)
      yield* Effect.gen(function* () {
        yield* AmqpPublisher.publish({ routingKey: "q", content })
        broker.pause()
        const endless = Stream.forever(Stream.make({ routingKey: "q", content }))
        const publishing = yield* Effect.forkDetach(Stream.runDrain(AmqpPublisher.publishAll(endless)), {
          startImmediately: true
        })
        yield* untilFlow("Buffering")
        assertBounded(yield* app.close)
        assert.include(["PublishUnknown", "PoolClosed"], (yield* reasonOf(Fiber.join(publishing)))._tag)
      }).pipe(Effect.provideContext(app.context))
      broker.resume()
      yield* Effect.timeout(broker.socketsClosed, "2 seconds")
    }).pipe(silently, Effect.scoped)
  )
})

// --- Processes -------------------------------------------------------------------------------------------------------

const processTimeout = 150_000

const traffic = Effect.fnUntraced(function* (mode: "main" | "plain", url: string) {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-shutdown-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )
  const file = join(folder, "traffic")
  const lines = () => (existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [])
  const stderr = openSync(join(folder, "stderr"), "w+")
  const program = join(import.meta.dirname, "support", "programs", "traffic.ts")
  const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", program, mode, file], {
    // A file, because a pipe would be a handle of its own.
    stdio: ["ignore", "ignore", stderr],
    env: {
      ...environment(),
      AMQP_URL: url,
      AMQP_SHUTDOWN_TIMEOUT: `${processShutdownTimeout} millis`,
      AMQP_CLOSE_TIMEOUT: `${closeTimeout} millis`
    }
  })
  closeSync(stderr)
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      Effect.sync(() => child.kill("SIGKILL")),
      Effect.promise(() => ended)
    )
  )
  const until = (condition: (lines: ReadonlyArray<string>) => boolean) =>
    Effect.suspend(() => (condition(lines()) ? Effect.void : Effect.fail("not yet"))).pipe(
      Effect.retry({ schedule: Schedule.spaced("10 millis") }),
      // A process can take seconds to start on a busy machine.
      inTime("to get so far", "1 minute")
    )
  // The program's output and its last steps, to diagnose a failure.
  const inTime = (what: string, duration: Duration.Input) =>
    Effect.timeoutOrElse({
      duration,
      orElse: () => {
        const said = readFileSync(join(folder, "stderr"), "utf8")
        const state = existsSync(`/proc/${child.pid}/wchan`) ? "runs" : `has ended (${child.exitCode})`
        return Effect.die(
          new Error(
            `the program ${state}, and had ${Duration.format(Duration.fromInputUnsafe(duration))} ${what}: ${JSON.stringify(lines().slice(-3))} ${said}`
          )
        )
      }
    })
  /** Sends SIGTERM: the exit code, and how long the process took to end. */
  const stop = Effect.gen(function* () {
    const begun = performance.now()
    child.kill("SIGTERM")
    const code = yield* inTime("to end", "15 seconds")(Effect.promise(() => ended))
    return { code, took: Math.round(performance.now() - begun) }
  })
  const numbers = (kind: string) => lines().flatMap((line) => (line.startsWith(`${kind} `) ? [line.slice(2)] : []))
  return { lines, numbers, until, stop }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A process", () => {
    it.effect(
      "that gets SIGTERM during traffic ends in time: nothing confirmed is lost, nothing handled is delivered again",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const observer = yield* start(configOf(broker.url, quick))
          const pool = yield* Effect.provideContext(AmqpPool.AmqpPool, observer.context)
          yield* pool.use((channel) => channel.queueDeclare("work"))
          const program = yield* traffic("main", broker.url)
          // Publishing is ahead of handling, so that some messages have to go back.
          const { numbers } = program
          yield* program.until(() => numbers("h").length >= 10 && numbers("p").length >= numbers("h").length + 50)
          const { code, took } = yield* program.stop
          assert.strictEqual(code, 130)
          // The handlers are quick, so the process ends quickly.
          assert.isBelow(took, processShutdownTimeout)
          yield* broker.awaitCensus({ connections: 1 })
          const left = yield* pool.use((channel) => drain(channel, "work"))
          const [confirmed, handled] = [program.numbers("p"), program.numbers("h")]
          const lost = confirmed.filter((n) => !handled.includes(n) && !left.includes(n))
          const again = handled.filter((n) => left.includes(n))
          console.log(
            `SIGTERM amid traffic: ended after ${took} ms; confirmed ${confirmed.length}, handled ${handled.length}, left in the queue ${left.length}, lost ${lost.length}, handled and left ${again.length}`
          )
          assert.deepStrictEqual({ lost, again }, { lost: [], again: [] })
          assert.lengthOf(new Set(handled), handled.length)
          // All messages that went back are ready in the queue: none is left unsettled.
          assert.isAbove(left.length, 0)
          yield* untilQueues({ work: 0 })
        }).pipe(silently, Effect.scoped),
      processTimeout
    )

    it.effect(
      "exits automatically when its application has ended, under every condition: no socket and no timer is left",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const observer = yield* start(configOf(broker.url, quick))
          const pool = yield* Effect.provideContext(AmqpPool.AmqpPool, observer.context)
          yield* pool.use((channel) => channel.queueDeclare("work"))
          yield* Effect.forEach(
            proxyConditions.filter(({ name }) => /^(?:healthy|silent|gone, and)/.test(name)),
            (condition) =>
              Effect.gen(function* () {
                const proxy = yield* FaultProxy.make(broker.url)
                const program = yield* traffic("plain", proxy.through(broker.url))
                yield* program.until((lines) => lines.some((line) => line.startsWith("h ")))
                yield* condition.set([proxy])
                const { code, took } = yield* program.stop
                assert.strictEqual(code, 0, condition.name)
                // What the process's event loop holds a moment after the end.
                const left = program.numbers("r").flatMap((line) => line.split(" ").filter((name) => name !== ""))
                handles.push(`${condition.name}: ${left.length} (ended after ${took} ms)`)
                assert.deepStrictEqual(left, [], condition.name)
                assertBounded(took, `the end of the process, ${condition.name},`, processLimits)
                yield* condition.end([proxy])
              }),
            { concurrency: 2, discard: true }
          )
        }).pipe(silently, Effect.scoped),
      processTimeout
    )
  })
})
