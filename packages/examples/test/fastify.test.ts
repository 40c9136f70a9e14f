/** The order service on Fastify, over real sockets: how a request may end, and what is left behind then. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Layer, ManagedRuntime } from "effect"
import { connect } from "node:net"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { until } from "../../core/test/support/polling.ts"
import { makeServer, OrdersQueue } from "../src/fastify.ts"
import { drain } from "./support/broker.ts"
import { run } from "./support/program.ts"

const queue = "fastify-orders"

const order = (quantity = 2) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ product: "tea", quantity })
})

/** A client that hangs up when it is interrupted. */
const ask = (url: string, init?: RequestInit) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { ...init, signal })
    const text = await response.text()
    const body: unknown = text === "" ? undefined : JSON.parse(text)
    return { status: response.status, headers: response.headers, body }
  })

interface Service {
  readonly url: string
  /** Runs an effect on the service's own runtime. */
  readonly inside: <A, E>(effect: Effect.Effect<A, E, Amqp.Amqp>) => Effect.Effect<A>
}

/** The service with a broker behind a proxy. Nothing consumes the queue, so that what is published stays. */
const start = (proxy: FaultProxy.FaultProxy, declared: boolean = true) =>
  Effect.gen(function* () {
    const { url: broker } = yield* TestBroker.TestBroker
    const amqp = Amqp.layer({
      url: proxy.through(broker),
      publishTimeout: "2 seconds",
      pool: { acquireTimeout: "500 millis" },
      reconnect: { minDelay: "50 millis", maxDelay: "50 millis" }
    })
    const { app, runtime } = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const runtime = ManagedRuntime.make(declared ? Layer.provideMerge(OrdersQueue, amqp) : amqp)
        return { runtime, app: makeServer(runtime) }
      }),
      ({ app, runtime }) => Effect.promise(() => app.close().then(() => runtime.dispose()))
    )
    yield* Effect.promise(() => runtime.context())
    const url = yield* Effect.promise(() => app.listen({ host: "127.0.0.1", port: 0 }))
    const service: Service = { url, inside: (effect) => Effect.promise(() => runtime.runPromise(effect)) }
    return service
  })

const proxied = Effect.flatMap(TestBroker.TestBroker, ({ url }) => FaultProxy.make(url))

/** Cuts the service off from its broker. */
const cutOff = (proxy: FaultProxy.FaultProxy, { inside }: Service) =>
  Effect.gen(function* () {
    proxy.refuse()
    proxy.rst()
    yield* until(inside(state), (tag) => tag !== "Open", "the connection")
  })

const healed = (proxy: FaultProxy.FaultProxy, { inside }: Service) =>
  Effect.gen(function* () {
    proxy.refuse(false)
    yield* until(inside(state), (tag) => tag === "Open", "the connection")
  })

const state = Effect.map(AmqpConnection.AmqpConnection, ({ state }) => state.value._tag)

const publisher = Effect.flatMap(AmqpPublisher.AmqpPublisher, ({ stats }) => stats)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a request to fastify.ts", () => {
    it.effect("is answered 202 when a queue has the order, and leaves no channel in use", () =>
      Effect.gen(function* () {
        const service = yield* start(yield* proxied)
        const { body, status } = yield* ask(`${service.url}/orders`, order())
        assert.strictEqual(status, 202)
        assert.deepStrictEqual((yield* ask(`${service.url}/orders`)).body, { waiting: 1 })
        assert.deepInclude(yield* service.inside(AmqpPool.stats), { used: 0, created: 1 })
        const { id } = body as { readonly id: string }
        assert.deepStrictEqual(
          (yield* drain(queue)).map((content) => JSON.parse(content)),
          [{ id, product: "tea", quantity: 2 }]
        )
      })
    )

    it.effect("is answered 400 by Fastify if it is no order, and nothing is published", () =>
      Effect.gen(function* () {
        const service = yield* start(yield* proxied)
        assert.strictEqual((yield* ask(`${service.url}/orders`, order(0))).status, 400)
        assert.deepStrictEqual((yield* ask(`${service.url}/orders`)).body, { waiting: 0 })
        assert.deepInclude(yield* service.inside(publisher), { confirmed: 0 })
      })
    )

    it.effect("is answered 422 if no queue receives the order", () =>
      Effect.gen(function* () {
        const service = yield* start(yield* proxied, false)
        yield* service.inside(Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete(queue))))
        const { body, headers, status } = yield* ask(`${service.url}/orders`, order())
        assert.strictEqual(status, 422)
        assert.strictEqual(headers.get("content-type"), "application/problem+json")
        assert.deepInclude(body, { title: "Unprocessable Content", status: 422 })
      })
    )

    it.effect("is answered 503 with Retry-After while the broker is away, and health follows", () =>
      Effect.gen(function* () {
        const proxy = yield* proxied
        const service = yield* start(proxy)
        const { url } = service
        assert.strictEqual((yield* ask(`${url}/health/ready`)).status, 200)
        yield* cutOff(proxy, service)
        for (const request of [order(), { method: "GET" }]) {
          const { body, headers, status } = yield* ask(`${url}/orders`, request)
          assert.strictEqual(status, 503)
          assert.strictEqual(headers.get("content-type"), "application/problem+json")
          assert.include(["1", "5", "10"], headers.get("retry-after"))
          assert.deepInclude(body, { title: "Service Unavailable", status: 503 })
        }
        const ready = yield* ask(`${url}/health/ready`)
        assert.strictEqual(ready.status, 503)
        assert.deepInclude(ready.body, { ready: false, reasons: ["NotConnected"] })
        assert.strictEqual((yield* ask(`${url}/health/live`)).status, 200)
        assert.deepInclude(yield* service.inside(AmqpPool.stats), { used: 0, pending: 0 })
        yield* healed(proxy, service)
        assert.strictEqual((yield* ask(`${url}/orders`, order())).status, 202)
        assert.strictEqual((yield* ask(`${url}/health/ready`)).status, 200)
        yield* drain(queue)
      })
    )

    it.effect("publishes nothing if its client hangs up while the order waits for the broker", () =>
      Effect.gen(function* () {
        const proxy = yield* proxied
        const service = yield* start(proxy)
        yield* cutOff(proxy, service)
        const client = yield* Effect.forkChild(ask(`${service.url}/orders`, order()))
        yield* until(service.inside(publisher), ({ waiting }) => waiting === 1, "the publisher")
        yield* Fiber.interrupt(client)
        yield* until(service.inside(publisher), ({ waiting }) => waiting === 0, "the publisher", 1)
        yield* healed(proxy, service)
        // The next order finds the queue empty.
        assert.strictEqual((yield* ask(`${service.url}/orders`, order(7))).status, 202)
        assert.deepStrictEqual(
          (yield* drain(queue)).map((content) => JSON.parse(content).quantity),
          [7]
        )
      })
    )

    it.effect("returns its channel if its client hangs up while the broker is silent", () =>
      Effect.gen(function* () {
        const proxy = yield* proxied
        const service = yield* start(proxy)
        assert.strictEqual((yield* ask(`${service.url}/orders`)).status, 200)
        const sent = proxy.stats.up.bytes
        proxy.stall("down")
        const client = yield* Effect.forkChild(ask(`${service.url}/orders`))
        yield* proxy.until(({ up }) => up.bytes > sent)
        assert.deepInclude(yield* service.inside(AmqpPool.stats), { used: 1 })
        yield* Fiber.interrupt(client)
        yield* until(service.inside(AmqpPool.stats), ({ discarded }) => discarded === 1, "the pool", 1)
        proxy.heal()
        yield* until(service.inside(AmqpPool.stats), ({ used }) => used === 0, "the pool", 1)
        assert.strictEqual((yield* ask(`${service.url}/orders`)).status, 200)
        assert.deepInclude(yield* service.inside(AmqpPool.stats), { used: 0, created: 2 })
      })
    )
  })

  describe("npm start -- fastify", () => {
    const startProgram = (env: Record<string, string>) =>
      Effect.gen(function* () {
        const program = yield* run("fastify.ts", { PORT: "0", ...env })
        const [, url = ""] = yield* program.until(/listens on (http:\S+)\.\n[^]*Ctrl-C stops it/)
        return { program, url }
      })

    it.effect(
      "ships what is posted, as printed, and ends at SIGINT though its client keeps its connection",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url: broker } = yield* TestBroker.TestBroker
          const { program, url } = yield* startProgram({ AMQP_URL: broker })
          const [, posted = "", body = ""] = yield* program.until(/curl -i (\S+) --json '(.*)'/)
          const answer = yield* ask(posted, { ...order(), body })
          assert.strictEqual(answer.status, 202)
          yield* program.until(new RegExp(`Order ${(answer.body as { readonly id: string }).id}: shipping 2 of tea`))
          assert.deepInclude((yield* ask(`${url}/health/ready`)).body, { ready: true })
          const [took] = yield* Effect.timed(Effect.andThen(program.kill("SIGINT"), program.ended))
          assert.isBelow(Duration.toMillis(took), 4000)
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          assert.notMatch(program.output(), /WARN|ERROR|"level":[45]0/)
          yield* awaitCensus({ connections: 0, channels: 0, messages: 0 })
        }),
      120_000
    )

    it.effect(
      "at SIGTERM, answers the request in flight, closes its connections and exits with 0",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url: broker } = yield* TestBroker.TestBroker
          const proxy = yield* proxied
          const { program, url } = yield* startProgram({ AMQP_URL: proxy.through(broker) })
          // The first order opens the publisher's channel.
          assert.strictEqual((yield* ask(`${url}/orders`, order())).status, 202)
          yield* program.until(/shipping/)
          yield* awaitCensus({ messages: 0, unacked: 0 })
          const sent = proxy.stats.up.bytes
          proxy.stall("down")
          const client = yield* Effect.forkChild(ask(`${url}/orders`, order(7)))
          // The message is on its way to the broker, and its confirm will not arrive.
          yield* proxy.until(({ up }) => up.bytes > sent)
          yield* program.kill("SIGTERM")
          yield* program.until(/Stopping/)
          proxy.heal()
          assert.strictEqual((yield* Fiber.join(client)).status, 202)
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          assert.match(program.output(), /Stopped\.\n$/)
          yield* awaitCensus({ connections: 0, channels: 0 })
          yield* drain(queue)
        }),
      120_000
    )

    it.effect(
      "at SIGTERM, waits five seconds for a client that never finishes its request, and exits with 0",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url: broker } = yield* TestBroker.TestBroker
          const { program, url } = yield* startProgram({ AMQP_URL: broker })
          const { hostname, port } = new URL(url)
          const client = yield* Effect.acquireRelease(
            Effect.sync(() => connect(Number(port), hostname)),
            (socket) => Effect.sync(() => socket.destroy())
          )
          client.on("error", () => {})
          // "100 Continue" means that the server waits for the body.
          yield* Effect.callback<void>((resume) => {
            client.once("data", () => resume(Effect.void))
            client.write(
              "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
            )
          })
          const [took] = yield* Effect.timed(Effect.andThen(program.kill("SIGTERM"), program.ended))
          assert.isAbove(Duration.toMillis(took), 4000)
          assert.isBelow(Duration.toMillis(took), 9000)
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          yield* awaitCensus({ connections: 0, channels: 0 })
        }),
      120_000
    )

    it.effect(
      "says so, and ends, if the broker of AMQP_URL is not there",
      () =>
        Effect.gen(function* () {
          const program = yield* run("fastify.ts", { AMQP_URL: "amqp://alice:s3cret@127.0.0.1:1", PORT: "0" })
          assert.deepStrictEqual(yield* program.ended, { code: 1, signal: null })
          assert.match(program.output(), /cannot reach 127\.0\.0\.1:1\b/)
          assert.notMatch(program.output(), /s3cret|^ {4}at /m)
        }),
      120_000
    )
  })
})
