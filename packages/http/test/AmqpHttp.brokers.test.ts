/** Several brokers behind one HTTP application, and when it connects to them. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpBroker, AmqpChannel, AmqpConfig, AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpHealth, AmqpHttp, AmqpHttpApi, AmqpProblem } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Config, ConfigProvider, Duration, Effect, Exit, Layer, References, Schema } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiClient, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { createServer, type Server } from "node:http"
import { configOf, untilState } from "../../core/test/support/amqp.ts"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { anotherVhost } from "../../core/test/support/vhosts.ts"
import { server, fullServer, quiet } from "./support/server.ts"
import { get, ok, touch } from "./support/service.ts"

class Orders extends AmqpBroker.Service<Orders>()("test/Orders") {}
class Audit extends AmqpBroker.Service<Audit>()("test/Audit") {}

const used = Effect.map(AmqpPool.stats, (stats) => stats.used)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const twoBrokers = Effect.gen(function* () {
    const { url } = yield* TestBroker.TestBroker
    return Layer.merge(
      Orders.fromConfig(yield* AmqpConfig.fromUrl(url)),
      Audit.fromConfig(yield* AmqpConfig.fromUrl(yield* anotherVhost))
    )
  })

  describe("with several brokers", () => {
    it.effect(
      "handlers choose by key, with one channel per request and broker, and AMQP errors of each are answered",
      () =>
        Effect.gen(function* () {
          const both = Effect.gen(function* () {
            const names: Array<string> = []
            for (let i = 0; i < 2; i++) {
              yield* Orders.provide(touch)
              yield* Audit.provide(touch)
            }
            names.push(`${yield* Orders.provide(used)} ${yield* Audit.provide(used)}`)
            return HttpServerResponse.text(names.join())
          })
          const missing = Audit.provide(AmqpChannel.use((channel) => Effect.as(channel.get("missing"), ok)))
          const routes = Layer.merge(HttpRouter.add("GET", "/both", both), HttpRouter.add("GET", "/missing", missing))
          yield* Effect.gen(function* () {
            assert.strictEqual((yield* get("/both")).body, "1 1")
            assert.strictEqual((yield* get("/both")).body, "1 1")
            assert.strictEqual((yield* get("/missing")).status, 500)
            for (const { provide } of [Orders, Audit] as const) {
              const stats = yield* provide(AmqpPool.stats) as Effect.Effect<AmqpPool.Stats, never, Orders | Audit>
              assert.deepInclude(stats, { used: 0, created: 1 })
            }
          }).pipe(
            Effect.provide(
              HttpRouter.serve(routes.pipe(Layer.provide(AmqpHttp.layerKeyed([Orders, Audit]))), quiet).pipe(
                Layer.provideMerge(server),
                Layer.provideMerge(yield* twoBrokers)
              ),
              { local: true }
            )
          )
        }).pipe(Effect.scoped)
    )

    it.effect("typed endpoints choose by key too, and have the problems of both", () =>
      Effect.gen(function* () {
        class Brokers extends AmqpHttpApi.Keyed<Brokers>()("test/Brokers", [Orders, Audit]) {}
        const Group = HttpApiGroup.make("queues").add(
          HttpApiEndpoint.get("first", "/first", { success: Schema.String }),
          HttpApiEndpoint.get("missing", "/missing")
        )
        const Api = HttpApi.make("api").add(Group.middleware(Brokers))
        const taken = AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            yield* channel.publish({ routingKey: queue, content: "first" })
            const delivery = yield* channel.get(queue, { noAck: true })
            return delivery._tag === "Some" ? AmqpMessage.text(delivery.value) : "none"
          })
        )
        const handlers = HttpApiBuilder.group(Api, "queues", (handlers) =>
          handlers
            .handle("first", () =>
              Effect.zipWith(Orders.provide(taken), Audit.provide(taken), (a, b) => `${a} ${b}`).pipe(
                AmqpProblem.orProblem
              )
            )
            .handle("missing", () =>
              AmqpChannel.use((channel) => channel.queueDelete("a".repeat(256))).pipe(
                Audit.provide,
                Effect.asVoid,
                AmqpProblem.orProblem
              )
            )
        )
        yield* Effect.gen(function* () {
          const { address } = yield* HttpServer.HttpServer
          const client = yield* HttpApiClient.make(Api, { baseUrl: HttpServer.formatAddress(address) })
          assert.strictEqual(yield* client.queues.first(), "first first")
          assert.strictEqual((yield* Effect.flip(client.queues.missing()))._tag, "InternalServerErrorProblem")
        }).pipe(
          Effect.provide(
            HttpRouter.serve(HttpApiBuilder.layer(Api), quiet).pipe(
              Layer.provide(handlers),
              Layer.provide(Brokers.layer),
              Layer.provideMerge(fullServer),
              Layer.provideMerge(yield* twoBrokers),
              Layer.provideMerge(FetchHttpClient.layer)
            ),
            { local: true }
          )
        )
      }).pipe(Effect.scoped)
    )

    it.effect("a group of routes can have its own broker", () =>
      Effect.gen(function* () {
        const vhost = Effect.map(
          AmqpChannel.use(() => AmqpPool.stats),
          ({ created }) => HttpServerResponse.text(`${created}`)
        )
        const routes = Layer.merge(
          HttpRouter.add("GET", "/orders", vhost).pipe(Layer.provide(AmqpHttp.layer), Layer.provide(Orders.services)),
          HttpRouter.add("GET", "/audit", vhost).pipe(Layer.provide(AmqpHttp.layer), Layer.provide(Audit.services))
        )
        yield* Effect.gen(function* () {
          for (const path of ["/orders", "/orders", "/audit"]) assert.strictEqual((yield* get(path)).body, "1")
          assert.deepInclude(yield* Orders.provide(AmqpPool.stats), { created: 1 })
          assert.deepInclude(yield* Audit.provide(AmqpPool.stats), { created: 1 })
        }).pipe(
          Effect.provide(
            HttpRouter.serve(routes, quiet).pipe(Layer.provideMerge(server), Layer.provideMerge(yield* twoBrokers)),
            { local: true }
          )
        )
      }).pipe(Effect.scoped)
    )
  })

  describe("the application connects", () => {
    const routes = HttpRouter.add("GET", "/", Effect.as(touch, ok)).pipe(Layer.provide(AmqpHttp.layer))

    it.effect("when it is built, not when routes are defined, and reads its configuration then", () =>
      Effect.gen(function* () {
        const { awaitCensus, census, url } = yield* TestBroker.TestBroker
        let reads = 0
        const config = Config.map(AmqpConfig.config, (settings) => {
          reads++
          return settings
        })
        const app = HttpRouter.serve(routes, quiet).pipe(
          Layer.provideMerge(server),
          Layer.provide(Amqp.layerConfig(config)),
          Layer.provide(Orders.layerConfig(config)),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({ AMQP_URL: url })))
        )
        assert.strictEqual(reads, 0)
        assert.deepInclude(yield* census, { connections: 0 })
        yield* Effect.provide(
          Effect.gen(function* () {
            assert.strictEqual(reads, 2)
            assert.deepInclude(yield* census, { connections: 2 })
            assert.strictEqual((yield* get("/")).status, 200)
          }),
          app,
          { local: true }
        )
        yield* awaitCensus({ connections: 0 })
        // It connects again each time it is built.
        yield* Effect.provide(get("/"), app, { local: true })
        assert.strictEqual(reads, 4)
      })
    )

    it.effect("before the server listens; if it cannot connect, the server never listens", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(url)
        proxy.refuse()
        const servers: Array<Server> = []
        let listened = 0
        const watched = NodeHttpServer.layerServer(
          () => {
            const made = createServer()
            made.on("listening", () => listened++)
            servers.push(made)
            return made
          },
          { host: "127.0.0.1", port: 0 }
        )
        const app = HttpRouter.serve(routes, quiet).pipe(
          Layer.provideMerge(watched),
          Layer.provide(Amqp.fromConfig(configOf(proxy.through(url))))
        )
        const exit = yield* Effect.exit(Effect.provide(Effect.void, app, { local: true }))
        assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("AmqpError"))
        assert.deepStrictEqual({ servers: servers.length, listened }, { servers: 0, listened: 0 })
        proxy.heal()
        yield* Effect.provide(Effect.void, app, { local: true })
        assert.strictEqual(listened, 1)
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
    )

    it.effect("or in the background: it serves, is not ready, and answers 503 until the broker is reachable", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(url)
        proxy.refuse()
        const config = configOf(proxy.through(url), {
          lazyConnect: true,
          pool: { acquireTimeout: Duration.millis(300) }
        })
        yield* Effect.gen(function* () {
          assert.strictEqual((yield* get("/health/live")).status, 200)
          assert.strictEqual((yield* get("/health/ready")).status, 503)
          const early = yield* get("/")
          assert.strictEqual(early.status, 503)
          assert.strictEqual(early.headers["retry-after"], "1")
          proxy.heal()
          yield* untilState(({ _tag }) => _tag === "Open")
          assert.strictEqual((yield* get("/")).status, 200)
          assert.strictEqual((yield* get("/health/ready")).status, 200)
        }).pipe(
          Effect.provide(
            HttpRouter.serve(Layer.merge(routes, AmqpHealth.layer()), quiet).pipe(
              Layer.provideMerge(server),
              Layer.provideMerge(Amqp.fromConfig(config))
            ),
            { local: true }
          )
        )
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
    )
  })
})
