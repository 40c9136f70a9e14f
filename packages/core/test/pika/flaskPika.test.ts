/** What Flask-Pika offers, with the means of this library. Rows of `docs/pika.md` name these tests. */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConfig, AmqpLive, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { ConfigProvider, Deferred, Effect, Exit, Fiber, Layer, ManagedRuntime, References } from "effect"
import * as FaultProxy from "../support/FaultProxy.ts"
import { untilStats } from "../support/amqp.ts"
import { until } from "../support/polling.ts"
import { connected, connectedTo, ownQueue, parameters, provided, reasonOf } from "./broker.ts"

/** Runs a program with a configuration. */
const configured = (config: AmqpConfig.AmqpConfig) => provided(Amqp.fromConfig(config))

const quiet = Layer.succeed(References.MinimumLogLevel, "Warn")

const declareOne = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("Flask-Pika's two records are read unchanged, and connect to the broker", () =>
    Effect.gen(function* () {
      const { host, password, port, username, virtual_host } = yield* parameters
      const config = yield* AmqpConfig.fromFlaskPika(
        { host, port, username, password, virtual_host },
        { pool_size: 8, pool_recycle: 600 }
      )
      yield* declareOne.pipe(configured(config))
      // The same settings, with the names of this library.
      const same = yield* AmqpConfig.make({
        host,
        port,
        username,
        password,
        vhost: virtual_host,
        pool: { max: 8, recycle: "10 minutes" }
      })
      assert.deepStrictEqual(config, same)
    })
  )

  it.effect("a ready configuration is used unchanged", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const config = yield* AmqpConfig.fromUrl(url, { connectionName: "shop" })
      yield* declareOne.pipe(provided(Amqp.fromConfig(config)))
    })
  )

  it.effect("mistakes in the records are reported together, before connecting", () =>
    Effect.gen(function* () {
      const mistaken = { host: "localhost", vhost: "shop", username: "alice" }
      const reason = yield* reasonOf(AmqpConfig.fromFlaskPika(mistaken as never, { pool_size: 0, pool_recycle: 600 }))
      assert.deepStrictEqual(reason._tag === "InvalidConfig" && reason.issues.map(({ setting }) => setting).sort(), [
        "password",
        "pool_size",
        "vhost"
      ])
    })
  )

  it.effect("a layer reads its configuration and connects when it is built, not when it is described", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const Environment = ConfigProvider.layer(ConfigProvider.fromUnknown({ AMQP_URL: url }))
      const App = AmqpLive.pipe(Layer.provide(Environment))
      yield* awaitCensus({ connections: 0 })
      yield* Effect.gen(function* () {
        yield* declareOne
        yield* awaitCensus({ connections: 1 })
      }).pipe(Effect.provide(App, { local: true }))
      yield* awaitCensus({ connections: 0 })
    }).pipe(Effect.provideService(References.MinimumLogLevel, "Warn"))
  )

  it.effect("outside Effect, a runtime builds the layer for the application, and disposes it", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const application = async () => {
        const runtime = ManagedRuntime.make(AmqpLive.pipe(Layer.provide(quiet)))
        const handler = () => runtime.runPromise(declareOne)
        await Promise.all([handler(), handler(), handler()])
        await runtime.dispose()
      }
      // The setting is in the environment of the process.
      yield* Effect.acquireUseRelease(
        Effect.sync(() => {
          const before = process.env["AMQP_URL"]
          process.env["AMQP_URL"] = url
          return before
        }),
        () => Effect.promise(application),
        (before) =>
          Effect.sync(() => {
            if (before === undefined) delete process.env["AMQP_URL"]
            else process.env["AMQP_URL"] = before
          })
      )
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )

  it.effect("without pool settings each borrower gets its own channel, which is closed afterwards", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      const config = yield* AmqpConfig.fromFlaskPika(yield* parameters)
      assert.deepInclude(config, { pool: false })
      yield* Effect.gen(function* () {
        for (let created = 1; created <= 3; created++) {
          yield* Effect.scoped(AmqpChannel.use(() => awaitCensus({ connections: 1, channels: 1 })))
          yield* awaitCensus({ connections: 1, channels: 0 })
          assert.deepInclude(yield* AmqpPool.stats, { created, max: Number.POSITIVE_INFINITY })
        }
      }).pipe(configured(config))
    })
  )

  it.effect("at most pool_size channels are open, opened on first use, all on one connection", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      const config = yield* AmqpConfig.fromFlaskPika(yield* parameters, { pool_size: 2, pool_recycle: 600 })
      assert.deepStrictEqual(config.pool, (yield* AmqpConfig.make({ pool: { max: 2, recycle: "10 minutes" } })).pool)
      yield* Effect.gen(function* () {
        yield* awaitCensus({ connections: 1, channels: 0 })
        yield* Effect.forEach(Array.from({ length: 20 }), () => declareOne, { concurrency: "unbounded" })
        yield* awaitCensus({ connections: 1, channels: 2 })
        assert.deepInclude(yield* AmqpPool.stats, { max: 2, created: 2, idle: 2, used: 0 })
      }).pipe(configured(config))
    })
  )

  it.effect("a channel is replaced when it is older than pool_recycle, however often it is borrowed", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromFlaskPika(yield* parameters, { pool_size: 1, pool_recycle: 0.1 })
      assert.deepStrictEqual(config.pool, (yield* AmqpConfig.make({ pool: { max: 1, recycle: "100 millis" } })).pool)
      yield* until(
        Effect.andThen(declareOne, AmqpPool.stats),
        ({ created, recycled }) => recycled >= 2 && created >= 3
      ).pipe(configured(config))
    })
  )

  it.effect("a channel that is too old is also replaced while idle, but never while it is borrowed", () =>
    Effect.gen(function* () {
      yield* Effect.gen(function* () {
        yield* declareOne
        yield* untilStats(({ idle, recycled }) => recycled === 1 && idle === 0)
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const openedAt = Date.now()
            while (Date.now() - openedAt < 200) yield* channel.queueDeclare("", { exclusive: true })
          })
        ).pipe(Effect.scoped)
        yield* untilStats(({ recycled }) => recycled === 2)
      }).pipe(connected({ pool: { max: 1, recycle: "50 millis" } }))
    })
  )

  it.effect("pool_recycle: -1 keeps the pool, and no channel grows too old", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromFlaskPika(yield* parameters, { pool_size: 1, pool_recycle: -1 })
      assert.deepInclude(config.pool, { max: 1, recycle: undefined })
      yield* Effect.gen(function* () {
        yield* declareOne
        yield* declareOne
        assert.deepInclude(yield* AmqpPool.stats, { created: 1, recycled: 0 })
      }).pipe(configured(config))
    })
  )

  it.effect("one layer is one pool on one connection, shared by all fibers of the process", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      yield* Effect.gen(function* () {
        const requests = Array.from({ length: 100 }, () => declareOne)
        yield* Effect.all(requests, { concurrency: "unbounded" })
        yield* awaitCensus({ connections: 1, channels: 4 })
      }).pipe(connected({ pool: { max: 4 } }))
    })
  )

  it.effect("a channel is borrowed for a scope, such as that of a request, and returns when the scope closes", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const handler = Effect.gen(function* () {
        yield* AmqpChannel.use((channel) => channel.publish({ routingKey: queue, content: "hello" }))
        assert.deepInclude(yield* AmqpPool.stats, { used: 1 })
      })
      yield* Effect.scoped(handler)
      assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 1 })
    }).pipe(connected())
  )

  it.effect("a second use in the same scope gets the same channel, so a handler cannot deadlock", () =>
    Effect.gen(function* () {
      const one = yield* AmqpChannel.use(Effect.succeed)
      const two = yield* AmqpChannel.use(Effect.succeed)
      assert.strictEqual(two, one)
    }).pipe(connected({ pool: { max: 1 } }))
  )

  it.effect("without a scope a channel is borrowed for one effect", () =>
    Effect.gen(function* () {
      const pool = yield* AmqpPool.AmqpPool
      const { queue } = yield* AmqpPool.use(pool, (channel) => channel.queueDeclare("", { exclusive: true }))
      assert.notStrictEqual(queue, "")
      assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 1 })
    }).pipe(connected())
  )

  it.effect("the scope returns the channel on success, failure, defect and interruption", () =>
    Effect.gen(function* () {
      for (const end of [Effect.void, Effect.fail("failure"), Effect.die("defect"), Effect.interrupt]) {
        yield* Effect.exit(Effect.scoped(AmqpChannel.use(() => end)))
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 1, created: 1 })
      }
    }).pipe(connected())
  )

  it.effect("a broken channel is discarded automatically, and the next borrower gets another", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(
        Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("missing")))
      )
      assert.deepInclude(reason, { _tag: "NotFound", replyCode: 404 })
      assert.deepInclude(yield* untilStats(({ used }) => used === 0), { idle: 0, discarded: 1 })
      yield* declareOne
      assert.deepInclude(yield* AmqpPool.stats, { created: 2 })
    }).pipe(connected({ pool: { max: 1 } }))
  )

  it.effect("an exhausted pool makes borrowers wait for acquireTimeout, or refuses them", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const second = Effect.gen(function* () {
        yield* AmqpPool.get
        return yield* reasonOf(AmqpPool.get)
      })
      const waited = yield* second.pipe(connectedTo(url, { pool: { max: 1, acquireTimeout: "50 millis" } }))
      assert.strictEqual(waited._tag, "AcquireTimeout")
      const turnedAway = yield* second.pipe(connectedTo(url, { pool: { max: 1, maxWaiting: 0 } }))
      assert.strictEqual(turnedAway._tag, "PoolExhausted")
    })
  )

  it.effect("a returned channel answers its former holder with ChannelReleased, and sends nothing", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const kept = yield* Effect.scoped(AmqpChannel.use(Effect.succeed))
      yield* Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(kept.publish({ routingKey: queue, content: "too late" }))
            assert.strictEqual(reason._tag, "ChannelReleased")
            assert.deepInclude(yield* channel.queueDeclarePassive(queue), { messageCount: 0 })
          })
        )
      )
    }).pipe(connected({ pool: { max: 1 } }))
  )

  it.effect("no place is lost when the broker is down at checkout: borrowers get channels when it is back", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      yield* Effect.gen(function* () {
        yield* declareOne
        proxy.refuse()
        proxy.rst()
        for (let i = 0; i < 5; i++) {
          const { _tag } = yield* reasonOf(declareOne)
          assert.include(["AcquireTimeout", "ConnectionClosed"], _tag)
        }
        proxy.heal()
        const both = Effect.all([AmqpPool.get, AmqpPool.get])
        yield* Effect.scoped(both).pipe(Effect.retry({ while: (error) => error.isRetryable }))
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 2 })
      }).pipe(connectedTo(url, { pool: { max: 2, acquireTimeout: "50 millis" } }))
    })
  )

  it.effect("a hundred handlers that return nothing leak neither channel nor connection", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      yield* Effect.gen(function* () {
        for (let i = 0; i < 25; i++) {
          const started = yield* Deferred.make<void>()
          const ends = [Effect.void, Effect.fail("failure"), Effect.die("defect")]
          for (const end of ends) yield* Effect.exit(Effect.scoped(AmqpChannel.use(() => end)))
          const hanging = yield* Effect.forkChild(
            Effect.scoped(AmqpChannel.use(() => Effect.andThen(Deferred.succeed(started, undefined), Effect.never)))
          )
          yield* Deferred.await(started)
          yield* Fiber.interrupt(hanging)
          assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(hanging)))
        }
        yield* awaitCensus({ connections: 1, channels: 1 })
      }).pipe(connected({ pool: { max: 2 } }))
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )
})
