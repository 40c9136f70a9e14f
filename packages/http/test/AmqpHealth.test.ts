/** Health checks over a socket, as an orchestrator sends them, in all states of the connection. */
import { assert, describe, it } from "@effect/vitest"
import { Amqp, AmqpBroker, AmqpChannel, AmqpConnection, AmqpConsumer, AmqpPool } from "@effect-amqp/core"
import { AmqpHealth } from "@effect-amqp/http"
import { Deferred, Effect, Fiber, Layer, References } from "effect"
import { HttpRouter } from "effect/http"
import { closedByRefusals, configOf, untilState, untilStats } from "../../core/test/support/amqp.ts"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { until } from "../../core/test/support/polling.ts"
import * as ScriptedBroker from "../../core/test/support/ScriptedBroker.ts"
import { server, quiet } from "./support/server.ts"
import { get, untilFlow } from "./support/service.ts"

/** The health of a service on a scripted broker. */
const withHealth = (
  broker: Pick<ScriptedBroker.ScriptedBroker, "url">,
  {
    health,
    services = Layer.empty,
    ...overrides
  }: Parameters<typeof configOf>[1] & {
    readonly health?: AmqpHealth.Options
    /** The services that the health checks use in place of the application's own. */
    readonly services?: Layer.Layer<never, never, AmqpConnection.AmqpConnection | AmqpPool.AmqpPool>
  } = {}
) =>
  Effect.provide(
    HttpRouter.serve(Layer.provide(AmqpHealth.layer(health), services), quiet).pipe(
      Layer.provideMerge(server),
      Layer.provideMerge(Amqp.fromConfig(configOf(broker.url, overrides))),
      Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
    ),
    { local: true }
  )

const ask = Effect.fnUntraced(function* (name: "live" | "ready") {
  const { body, headers, status } = yield* get(`/health/${name}`)
  assert.strictEqual(headers["content-type"], "application/json")
  assert.strictEqual(headers["cache-control"], "no-store")
  return { status, body: JSON.parse(body) as AmqpHealth.Report & { readonly status: string } }
})

/** The status codes of both routes. */
const health = Effect.map(Effect.all([ask("live"), ask("ready")]), ([live, ready]) => [live.status, ready.status])

describe("health", () => {
  it.live("is live and ready while the connection is open, and reports its state", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        yield* Effect.scoped(AmqpChannel.use(() => Effect.void))
        const { body, status } = yield* ask("ready")
        assert.strictEqual(status, 200)
        assert.deepStrictEqual(body, {
          status: "pass",
          live: true,
          ready: true,
          reasons: [],
          stopping: false,
          connection: { state: "Open", generation: 1 },
          conditions: [],
          flow: "Flowing",
          pool: { idle: 1, used: 0, pending: 0, max: 4 }
        })
        assert.strictEqual((yield* ask("live")).status, 200)
      }).pipe(withHealth(broker))
    })
  )

  it.live("is live and not ready while the connection is lost, and ready again when it is restored", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        yield* broker.down
        yield* untilState(({ _tag }) => _tag === "Reconnecting")
        assert.deepStrictEqual(yield* health, [200, 503])
        const { body } = yield* ask("ready")
        assert.deepInclude(body.connection, { state: "Reconnecting" })
        assert.deepStrictEqual(body.reasons, ["NotConnected"])
        assert.include(["ConnectionClosed", "ConnectFailed"], body.connection.reason)
        assert.strictEqual((yield* get("/health/ready")).headers["retry-after"], "5")
        yield* broker.up
        yield* untilState(({ _tag }) => _tag === "Open")
        assert.deepStrictEqual(yield* health, [200, 200])
      }).pipe(withHealth(broker))
    })
  )

  it.live("is not ready before a lazy connection has connected", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      // A proxy refuses the connection. The port of a broker that does not listen may be reused by another program.
      const proxy = yield* FaultProxy.make(broker.url)
      proxy.refuse()
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* health, [200, 503])
        assert.strictEqual((yield* ask("ready")).body.connection.state, "Connecting")
      }).pipe(withHealth({ url: proxy.through(broker.url) }, { lazyConnect: true }))
    })
  )

  it.live("is neither when the connection is closed permanently, and names only the reason", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.destroy()
        yield* untilState(({ _tag }) => _tag === "Closed")
        assert.deepStrictEqual(yield* health, [503, 503])
        const { body } = yield* get("/health/live")
        assert.deepInclude(JSON.parse(body), { connection: { state: "Closed", reason: "AuthenticationFailed" } })
        assert.notInclude(body, "127.0.0.1")
        assert.notInclude(body, "guest")
      }).pipe(withHealth(broker, closedByRefusals))
    })
  )

  it.live("is live and not ready while a broker that was reached before refuses the login, and names the reason", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.destroy()
        yield* untilState((now) => now._tag === "Reconnecting" && now.reason._tag === "AuthenticationFailed")
        assert.deepStrictEqual(yield* health, [200, 503])
        const { body } = yield* ask("ready")
        assert.deepInclude(body.connection, { state: "Reconnecting", reason: "AuthenticationFailed" })
        assert.deepStrictEqual(body.reasons, ["NotConnected"])
        broker.off("connection.start-ok")
        yield* untilState(({ _tag }) => _tag === "Open")
        assert.deepStrictEqual(yield* health, [200, 200])
      }).pipe(withHealth(broker))
    })
  )

  it.live("is not ready while the broker blocks publishers, unless the options say otherwise", () =>
    Effect.gen(function* () {
      for (const [blocked, expected] of [
        [undefined, 503],
        ["ready", 200]
      ] as const) {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          broker.block("low on memory")
          yield* untilFlow("Blocked")
          assert.deepStrictEqual(yield* health, [200, expected])
          const { body } = yield* ask("ready")
          assert.deepStrictEqual([body.flow, body.reasons], ["Blocked", expected === 200 ? [] : ["Blocked"]])
          broker.unblock()
          yield* untilFlow("Flowing")
          assert.deepStrictEqual(yield* health, [200, 200])
        }).pipe(withHealth(broker, { health: { blocked } }))
      }
    })
  )

  it.live("is live and not ready when a consumer has ended unexpectedly, and names the kind, not the queue", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const consumer = yield* Effect.forkChild(AmqpConsumer.consume("secret-queue", () => Effect.void))
        const consume = yield* broker.received("basic.consume")
        assert.deepStrictEqual(yield* health, [200, 200])
        broker.once("basic.consume", (context) => context.closeChannel(404, "NOT_FOUND - no queue 'secret-queue'"))
        consume.connection.send(consume.channel, "basic.cancel", { consumerTag: consume.args.consumerTag })
        yield* Fiber.await(consumer)
        assert.deepStrictEqual(yield* health, [200, 503])
        const { body } = yield* ask("ready")
        assert.deepStrictEqual(body.reasons, ["ConsumerEnded"])
        assert.deepStrictEqual(
          body.conditions.map(({ count, kind, notReady }) => [kind, count, notReady]),
          [["ConsumerEnded", 1, true]]
        )
        assert.notInclude(JSON.stringify(body), "secret-queue")
        yield* Effect.forkChild(AmqpConsumer.consume("secret-queue", () => Effect.void))
        yield* broker.received("basic.consume", 3)
        yield* until(health, ([, ready]) => ready === 200, "health")
      }).pipe(withHealth(broker))
    })
  )

  it.live("of copies of the services is the same as of the originals", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const copies = Layer.mergeAll(
        Layer.effect(
          AmqpConnection.AmqpConnection,
          Effect.map(AmqpConnection.AmqpConnection, (connection) => ({ ...connection }))
        ),
        Layer.effect(
          AmqpPool.AmqpPool,
          Effect.map(AmqpPool.AmqpPool, (pool) => ({ ...pool }))
        )
      )
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* health, [200, 200])
        broker.once("basic.consume", (context) => context.closeChannel(404, "NOT_FOUND - no queue 'q'"))
        const consumer = yield* AmqpConsumer.AmqpConsumer
        yield* AmqpConsumer.consume("q", () => Effect.void).pipe(
          Effect.provideService(AmqpConsumer.AmqpConsumer, { ...consumer, publisher: { ...consumer.publisher } }),
          Effect.ignore
        )
        assert.deepStrictEqual(yield* health, [200, 503])
        assert.deepStrictEqual((yield* ask("ready")).body.reasons, ["ConsumerEnded"])
      }).pipe(withHealth(broker, { services: copies }))
    })
  )

  it.live("is not ready while the pool's wait queue is full", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const letGo = yield* Deferred.make<void>()
        const borrowers = yield* Effect.forEach([1, 2], () =>
          Effect.forkChild(Effect.scoped(AmqpChannel.use(() => Deferred.await(letGo))))
        )
        yield* untilStats(({ pending, used }) => used === 1 && pending === 1)
        assert.deepStrictEqual(yield* health, [200, 503])
        assert.deepStrictEqual((yield* ask("ready")).body.reasons, ["PoolFull"])
        yield* Deferred.succeed(letGo, undefined)
        yield* Fiber.joinAll(borrowers)
        assert.deepStrictEqual(yield* health, [200, 200])
        assert.strictEqual((yield* AmqpPool.stats).timedOut, 0)
      }).pipe(withHealth(broker, { pool: { max: 1, maxWaiting: 1 } }))
    })
  )

  it.live("has the configured paths", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* get("/livez")).status, 200)
        assert.strictEqual((yield* get("/readyz")).status, 200)
        assert.strictEqual((yield* get("/health/live")).status, 404)
      }).pipe(withHealth(broker, { health: { livePath: "/livez", readyPath: "/readyz" } }))
    })
  )

  it.live("of several brokers is reported for each, at its own paths", () =>
    Effect.gen(function* () {
      class Orders extends AmqpBroker.Service<Orders>()("test/Orders") {}
      class Audit extends AmqpBroker.Service<Audit>()("test/Audit") {}
      const [one, other] = [yield* ScriptedBroker.make(), yield* ScriptedBroker.make()]
      const checks = Layer.merge(
        AmqpHealth.layer({ readyPath: "/orders/ready", livePath: "/orders/live" }).pipe(Layer.provide(Orders.services)),
        AmqpHealth.layer({ readyPath: "/audit/ready", livePath: "/audit/live" }).pipe(Layer.provide(Audit.services))
      )
      yield* Effect.gen(function* () {
        yield* other.down
        yield* Audit.provide(untilState(({ _tag }) => _tag === "Reconnecting"))
        const answers = yield* Effect.forEach(["/orders/ready", "/audit/ready", "/audit/live"], get)
        assert.deepStrictEqual(
          answers.map(({ status }) => status),
          [200, 503, 200]
        )
      }).pipe(
        Effect.provide(
          HttpRouter.serve(checks, { disableLogger: true, disableListenLog: true }).pipe(
            Layer.provideMerge(server),
            Layer.provideMerge(
              Layer.merge(Orders.fromConfig(configOf(one.url)), Audit.fromConfig(configOf(other.url)))
            ),
            Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
          ),
          { local: true }
        )
      )
    })
  )
})
