/** The telemetry of an HTTP application with AMQP: in Prometheus, at an OpenTelemetry collector, and in the log. */
import { assert, describe, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpBaggage,
  AmqpBroker,
  AmqpChannel,
  AmqpConsumer,
  AmqpMetrics,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpGateway, AmqpHttp, AmqpHttpApi, AmqpProblem } from "@effect-amqp/http"
import { Deferred, Duration, Effect, Fiber, Layer, Logger, Metric, Option, References, Schema, Tracer } from "effect"
import { FetchHttpClient, HttpRouter, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { Otlp, PrometheusMetrics } from "effect/observability"
import { configOf, untilState } from "../../core/test/support/amqp.ts"
import { collector, type OtlpSpan } from "../../core/test/support/otlpCollector.ts"
import { anotherVhost } from "../../core/test/support/vhosts.ts"
import { ask, limits } from "./support/gateway.ts"
import { address, fullServer, quiet } from "./support/server.ts"
import { get, untilFlow } from "./support/service.ts"

const ok = HttpServerResponse.empty({ status: 202 })

const silent = Effect.provideService(References.MinimumLogLevel, "None")

/** Polls until the condition holds, for at most 10 seconds. */
const until = <A, E, R>(look: Effect.Effect<A, E, R>, isSo: (found: A) => boolean): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    for (let i = 0; i < 2000; i++) {
      const found = yield* look
      if (isSo(found)) return found
      yield* Effect.sleep("5 millis")
    }
    return yield* Effect.die(new Error(`it stayed at ${JSON.stringify(yield* look)}`))
  })

const declare = (queue: string) => Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))

// --- Prometheus's format ---

type Attributes = Readonly<Record<string, string>>

const underscored = (name: string) => name.replace(/\./g, "_")

const keyOf = (name: string, attributes: Attributes) =>
  JSON.stringify([name, Object.entries(attributes).toSorted(([a], [b]) => (a < b ? -1 : 1))])

/**
 * The samples of an exposition, by name and labels. It checks the grammar: each family appears once, its type comes
 * before its samples, and no sample appears twice (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */
const samplesIn = (text: string): ReadonlyMap<string, number> => {
  assert.isTrue(text.endsWith("\n"))
  const samples = new Map<string, number>()
  const types = new Map<string, string>()
  for (const line of text.trimEnd().split("\n")) {
    if (/^# HELP [a-zA-Z_:][\w:]* \S/.test(line)) continue
    const type = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)$/.exec(line)
    if (type !== null) {
      assert.isFalse(types.has(type[1]!), `${type[1]} is typed twice`)
      types.set(type[1]!, type[2]!)
      continue
    }
    const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    assert.isNotNull(sample, line)
    const [, name = "", labels = "", value] = sample!
    assert.isTrue(types.has(name) || types.get(name.replace(/_(?:bucket|sum|count)$/, "")) === "histogram", line)
    const attributes = Object.fromEntries(
      Array.from(labels.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/g), ([, label, text]) => [
        label,
        text
      ])
    ) as Attributes
    const key = keyOf(name, attributes)
    assert.isFalse(samples.has(key), `${line} is there twice`)
    samples.set(key, value === "+Inf" ? Infinity : Number(value))
  }
  return samples
}

// --- Expected metrics ---

interface Wanted {
  readonly metric: Metric.Metric<never, unknown>
  readonly attributes?: Attributes
  /** The value, or the count of a histogram. */
  readonly value: number | ((value: number) => boolean)
}

const regular = { "amqp.channel.kind": "regular" }
const operation = (name: string, outcome: string) => ({
  "messaging.system": "rabbitmq",
  "messaging.operation.name": name,
  "amqp.outcome": outcome
})

const consumers = { "amqp.connection.name": "shop consumers" }

/** Every metric that the library must have, with its value after the test's actions. */
const wanted: ReadonlyArray<Wanted> = [
  { metric: AmqpMetrics.connectionState, attributes: { "amqp.connection.state": "open" }, value: 1 },
  { metric: AmqpMetrics.connectionState, attributes: { "amqp.connection.state": "closed" }, value: 0 },
  { metric: AmqpMetrics.reconnects, value: 1 },
  // Consumers have their own connection, which is opened later.
  { metric: AmqpMetrics.connectionState, attributes: { ...consumers, "amqp.connection.state": "open" }, value: 1 },
  {
    metric: AmqpMetrics.connectionState,
    attributes: { ...consumers, "amqp.connection.state": "reconnecting" },
    value: 0
  },
  { metric: AmqpMetrics.reconnects, attributes: consumers, value: 0 },
  { metric: AmqpMetrics.connectAttempts, value: 0 },
  { metric: AmqpMetrics.conditions, attributes: { "amqp.condition.kind": "ConsumerEnded" }, value: 0 },
  { metric: AmqpMetrics.undecodableMessages, attributes: {}, value: 0 },
  { metric: AmqpMetrics.blockedTime, value: (seconds) => seconds > 0 && seconds < 60 },
  { metric: AmqpMetrics.channelCount, attributes: { ...regular, state: "idle" }, value: 0 },
  { metric: AmqpMetrics.channelCount, attributes: { ...regular, state: "used" }, value: 1 },
  { metric: AmqpMetrics.channelMax, attributes: regular, value: 1 },
  { metric: AmqpMetrics.pendingRequests, attributes: regular, value: 0 },
  { metric: AmqpMetrics.acquireTimeouts, attributes: regular, value: 1 },
  { metric: AmqpMetrics.channelsCreated, attributes: regular, value: (count) => count >= 3 },
  { metric: AmqpMetrics.channelsClosed, attributes: { ...regular, reason: "discarded" }, value: (count) => count >= 2 },
  { metric: AmqpMetrics.channelsDiscarded, attributes: { ...regular, reason: "channel_error" }, value: 1 },
  { metric: AmqpMetrics.channelsDiscarded, attributes: { ...regular, reason: "connection_lost" }, value: 1 },
  { metric: AmqpMetrics.channelsDiscarded, attributes: { ...regular, reason: "interrupted" }, value: 0 },
  { metric: AmqpMetrics.waitTime, attributes: regular, value: (count) => count >= 4 },
  { metric: AmqpMetrics.useTime, attributes: regular, value: (count) => count >= 3 },
  // Four messages and the reply to a request.
  { metric: AmqpMetrics.sentMessages, attributes: { "amqp.outcome": "confirmed" }, value: 5 },
  { metric: AmqpMetrics.sentMessages, attributes: { "amqp.outcome": "returned" }, value: 1 },
  { metric: AmqpMetrics.sentMessages, attributes: { "amqp.outcome": "nacked" }, value: 0 },
  { metric: AmqpMetrics.operationDuration, attributes: operation("publish", "confirmed"), value: 5 },
  { metric: AmqpMetrics.operationDuration, attributes: operation("call", "replied"), value: 1 },
  { metric: AmqpMetrics.inFlight, value: 0 },
  { metric: AmqpMetrics.waiting, value: 0 },
  { metric: AmqpMetrics.publisherChannels, value: (count) => count >= 1 },
  // Four messages and a request; one of them is delivered twice.
  { metric: AmqpMetrics.consumedMessages, value: 6 },
  { metric: AmqpMetrics.redeliveries, value: 1 },
  { metric: AmqpMetrics.settledMessages, attributes: { "amqp.settlement": "acked" }, value: 4 },
  { metric: AmqpMetrics.settledMessages, attributes: { "amqp.settlement": "requeued" }, value: 1 },
  { metric: AmqpMetrics.settledMessages, attributes: { "amqp.settlement": "dead_lettered" }, value: 1 },
  { metric: AmqpMetrics.processDuration, attributes: operation("process", "succeeded"), value: 4 },
  { metric: AmqpMetrics.processDuration, attributes: operation("process", "failed"), value: 2 },
  { metric: AmqpMetrics.calls, attributes: { "amqp.outcome": "replied" }, value: 1 },
  { metric: AmqpMetrics.calls, attributes: { "amqp.outcome": "timed_out" }, value: 1 },
  { metric: AmqpMetrics.unclaimedReplies, value: 0 },
  { metric: AmqpMetrics.serverReplies, attributes: { "amqp.rpc.reply": "success" }, value: 1 }
]

const isAsWanted = ({ value }: Wanted, found: number | undefined) =>
  found !== undefined && (typeof value === "number" ? found === value : value(found))

const named = { "amqp.connection.name": "shop" }

const route = <E, R>(path: `/${string}`, effect: Effect.Effect<unknown, E, R>) =>
  HttpRouter.add("GET", path, Effect.as(effect, ok))

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("metrics", () => {
    it.effect("are all on /metrics in Prometheus's format, and at a collector by OTLP, with the same values", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const taken = yield* collector
        const Ask = AmqpRpc.make("ask", { payload: Schema.Int, success: Schema.Int })
        const Silent = AmqpRpc.make("silent")
        const holding = yield* Deferred.make<void>()
        const letGo = yield* Deferred.make<void>()
        const routes = Layer.mergeAll(
          route(
            "/publish/:type",
            Effect.flatMap(HttpRouter.params, ({ type = "" }) =>
              AmqpPublisher.publish({ routingKey: "work", content: "it", type })
            )
          ),
          route("/nowhere", AmqpPublisher.publish({ routingKey: "nowhere", content: "it" }, { mandatory: true })),
          route("/ask", Effect.orDie(AmqpRpc.client(Ask)(7))),
          route("/silent", Effect.orDie(AmqpRpc.client(Silent, { timeout: "100 millis" })(undefined))),
          route(
            "/missing",
            AmqpChannel.use((channel) => channel.queueDeclarePassive("missing"))
          ),
          route(
            "/touch",
            AmqpChannel.use((channel) => channel.queueDeclare("work"))
          ),
          route(
            "/hold",
            AmqpChannel.use(() => Effect.andThen(Deferred.succeed(holding, undefined), Deferred.await(letGo)))
          )
        ).pipe(Layer.provide(AmqpHttp.layer))
        const telemetry = Otlp.layerJson({
          baseUrl: taken.url,
          resource: { serviceName: "shop" },
          metricsExportInterval: "50 millis"
        }).pipe(Layer.provide(FetchHttpClient.layer))
        const application = HttpRouter.serve(Layer.merge(routes, PrometheusMetrics.layerHttp()), quiet).pipe(
          Layer.provideMerge(fullServer),
          Layer.provideMerge(
            Amqp.fromConfig(
              configOf(broker.url, {
                connectionName: "shop",
                pool: { max: 1, acquireTimeout: Duration.millis(200) }
              })
            )
          ),
          Layer.provideMerge(telemetry)
        )
        const settled = Metric.withAttributes(AmqpMetrics.settledMessages, { ...named, "amqp.settlement": "acked" })

        yield* Effect.gen(function* () {
          for (const queue of ["work", Ask.queue, Silent.queue]) yield* declare(queue)
          // The connection is lost with a channel in the pool, before there are consumers.
          yield* broker.closeConnections()
          yield* untilState((state) => state._tag === "Open" && state.generation === 2)
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              "work",
              ({ properties: { type }, redelivered }) =>
                type === "well" || redelivered ? Effect.void : Effect.fail(type === "again" ? "again" : "never"),
              { onFailure: (how) => (how === "again" ? AmqpConsumer.requeue : AmqpConsumer.deadLetter) }
            )
          )
          yield* Effect.forkScoped(AmqpRpc.serve(Ask, (n) => Effect.succeed(n)))
          for (const type of ["well", "again", "never"]) yield* get(`/publish/${type}`)
          for (const path of ["/ask", "/silent", "/nowhere", "/missing"] as const) yield* get(path)
          // The broker blocks publishers for a moment, and sends connection.blocked to a client that publishes.
          yield* broker.blockPublishers
          const late = yield* Effect.forkChild(get("/publish/well"))
          yield* untilFlow("Blocked")
          yield* Effect.sleep("20 millis")
          yield* broker.unblockPublishers
          assert.strictEqual((yield* Fiber.join(late)).status, 202)
          yield* until(Metric.value(settled), ({ count }) => count === 4)
          // The only channel is held, so another request times out.
          const held = yield* Effect.forkChild(get("/hold"))
          yield* Deferred.await(holding)
          assert.strictEqual((yield* get("/touch")).status, 503)

          const answer = yield* get("/metrics")
          assert.strictEqual(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
          const samples = samplesIn(answer.body)
          const { exports } = taken
          const before = exports()
          yield* until(Effect.sync(exports), (now) => now >= before + 2)
          const exported = new Map(
            taken.series().map(({ attributes, kind, name, value }) => [keyOf(name, attributes), { kind, value }])
          )
          const wrong = wanted.flatMap((want) => {
            const attributes = { ...named, ...want.attributes }
            const labels = Object.fromEntries(
              Object.entries(attributes).map(([name, value]) => [underscored(name), value])
            )
            const suffix = want.metric.type === "Histogram" ? "_count" : ""
            const found = [
              samples.get(keyOf(underscored(want.metric.id) + suffix, labels)),
              exported.get(keyOf(want.metric.id, attributes))?.value
            ]
            return found.every((value) => isAsWanted(want, value))
              ? []
              : [`${want.metric.id} ${JSON.stringify(want.attributes)}: ${found.join(" by Prometheus, ")} by OTLP`]
          })
          assert.deepStrictEqual(wrong, [])
          // Durations have their unit.
          assert.deepStrictEqual(
            new Set(
              taken
                .series()
                .flatMap(({ kind, name, unit }) => (kind === "histogram" || name.endsWith("_time") ? [unit] : []))
            ),
            new Set(["s"])
          )
          // Every metric of the library is in the table above.
          const all = Object.values(AmqpMetrics).flatMap((one) => (Metric.isMetric(one) ? [one.id] : []))
          assert.deepStrictEqual([...new Set(wanted.map(({ metric }) => metric.id))].toSorted(), all.toSorted())
          yield* Deferred.succeed(letGo, undefined)
          yield* Fiber.join(held)
        }).pipe(Effect.scoped, Effect.provide(application, { local: true }))
      }).pipe(Effect.scoped, silent)
    )

    it.effect(
      "of two brokers are separate, each by the name of its connection, which is the broker's key by default",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          class Orders extends AmqpBroker.Service<Orders>()("app/Orders") {}
          class Audit extends AmqpBroker.Service<Audit>()("app/Audit") {}
          const routes = Layer.merge(
            route("/orders", Orders.provide(AmqpChannel.use((channel) => channel.queueDeclare("work")))),
            route("/missing", Audit.provide(AmqpChannel.use((channel) => channel.queueDeclarePassive("missing"))))
          ).pipe(Layer.provide(AmqpHttp.layerKeyed([Orders, Audit])))
          const brokers = Layer.merge(
            Orders.fromConfig(configOf(url)),
            Audit.fromConfig(configOf(yield* anotherVhost, { connectionName: "audit" }))
          )
          const registry: Metric.MetricRegistry = new Map()
          yield* Effect.gen(function* () {
            yield* get("/orders")
            yield* get("/missing")
            const samples = samplesIn((yield* get("/metrics")).body)
            const count = (name: string, amqp_connection_name: string, state: string) =>
              samples.get(keyOf(name, { amqp_connection_name, amqp_channel_kind: "regular", state }))
            const open = ["app/Orders", "audit"].map((name) => count("amqp_client_channel_count", name, "idle"))
            assert.deepStrictEqual(open, [1, 0])
          }).pipe(
            Effect.provide(
              HttpRouter.serve(Layer.merge(routes, PrometheusMetrics.layerHttp()), quiet).pipe(
                Layer.provideMerge(fullServer),
                Layer.provideMerge(brokers),
                Layer.provide(Layer.succeed(Metric.MetricRegistry, registry))
              ),
              { local: true }
            )
          )
        }).pipe(Effect.scoped, silent)
    )
  })

  describe("traces", () => {
    it.effect(
      "a batch of messages from several requests links to the trace of each request, at a collector by OTLP",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const { spans, url } = yield* collector
          const routes = route("/publish", AmqpPublisher.publish({ routingKey: "batched", content: "it" })).pipe(
            Layer.provide(AmqpHttp.layer)
          )
          const telemetry = Otlp.layerJson({
            baseUrl: url,
            resource: { serviceName: "shop" },
            tracerExportInterval: "20 millis"
          }).pipe(Layer.provide(FetchHttpClient.layer))
          yield* Effect.gen(function* () {
            yield* declare("batched")
            for (let i = 0; i < 3; i++) assert.strictEqual((yield* get("/publish")).status, 202)
            yield* Effect.forkScoped(
              AmqpConsumer.consumeBatch("batched", () => Effect.withSpan(Effect.void, "INSERT", { kind: "client" }), {
                size: 3,
                within: "10 seconds"
              })
            )
            yield* until(
              Effect.sync(() => spans.length),
              (many) => many === 8
            )
          }).pipe(
            Effect.scoped,
            Effect.provide(
              HttpRouter.serve(routes, quiet).pipe(
                Layer.provideMerge(fullServer),
                Layer.provideMerge(Amqp.fromConfig(configOf(broker.url))),
                Layer.provideMerge(telemetry)
              ),
              { local: true }
            )
          )
          const of = (start: string) => spans.filter(({ name }) => name.startsWith(start))
          const [requests, published, [batch], [insert]] = [of("GET"), of("publish"), of("process"), of("INSERT")]
          // Each request forms one trace with its publish.
          assert.strictEqual(
            new Set(requests.map(({ traceId }) => traceId)).size,
            3,
            spans.map(({ name }) => name).join()
          )
          const parents = (all: ReadonlyArray<OtlpSpan>) => all.map(({ parentSpanId }) => parentSpanId).toSorted()
          assert.deepStrictEqual(parents(published), requests.map(({ spanId }) => spanId).toSorted())
          // The batch forms another trace with its handler's spans, and links to those traces.
          assert.isUndefined(batch!.parentSpanId)
          const ids = (all: ReadonlyArray<Pick<OtlpSpan, "spanId" | "traceId">>) =>
            all.map(({ spanId, traceId }) => `${traceId} ${spanId}`).toSorted()
          assert.deepStrictEqual(ids(batch!.links), ids(published))
          assert.deepStrictEqual([insert!.traceId, insert!.parentSpanId], [batch!.traceId, batch!.spanId])
          assert.notInclude(
            requests.map(({ traceId }) => traceId),
            batch!.traceId
          )
        }).pipe(Effect.scoped, silent)
    )
  })

  describe("baggage", () => {
    it.effect("of a request is the baggage of its handler and of its messages; without it there is none", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const publish = Effect.andThen(
          AmqpBaggage.get("tenant"),
          AmqpPublisher.publish({ routingKey: "carried", content: "it" }).pipe(AmqpBaggage.add({ step: "1" }))
        )
        const routes = route("/publish", publish).pipe(Layer.provide(AmqpHttp.layer))
        yield* Effect.gen(function* () {
          yield* declare("carried")
          const origin = yield* address
          const headersOf = (headers: Record<string, string>) =>
            Effect.gen(function* () {
              const response = yield* Effect.promise(() => fetch(`${origin}/publish`, { headers }))
              assert.strictEqual(response.status, 202)
              return yield* Effect.scoped(
                AmqpChannel.use((channel) =>
                  Effect.map(
                    channel.get("carried", { noAck: true }),
                    (delivery) => Option.getOrThrow(delivery).properties.headers["baggage"]
                  )
                )
              )
            })
          assert.strictEqual(
            yield* headersOf({ baggage: "tenant=gr%C3%B6%C3%9Fer;internal , no" }),
            "tenant=gr%C3%B6%C3%9Fer;internal,step=1"
          )
          assert.strictEqual(yield* headersOf({}), "step=1")
        }).pipe(
          Effect.scoped,
          Effect.provide(
            HttpRouter.serve(routes, quiet).pipe(
              Layer.provideMerge(fullServer),
              Layer.provideMerge(Amqp.fromConfig(configOf(url)))
            ),
            { local: true }
          ),
          // Any tracer except Effect's own.
          Effect.provideService(Tracer.Tracer, Tracer.make({ span: (options) => new Tracer.NativeSpan(options) }))
        )
      }).pipe(Effect.scoped, silent)
    )
  })

  describe("the log", () => {
    it.effect(
      "names the connection of a request that failed with an AMQP error, in a router, an API and the gateway",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const missing = AmqpChannel.use((channel) => channel.queueDeclarePassive("missing"))
          const Group = HttpApiGroup.make("group").add(HttpApiEndpoint.get("missing", "/api"))
          const Api = HttpApi.make("api").add(Group.middleware(AmqpHttpApi.AmqpHttpApi))
          const handlers = HttpApiBuilder.group(Api, "group", (all) =>
            all.handle("missing", () => AmqpProblem.orProblem(Effect.asVoid(missing)))
          )
          const routes = Layer.mergeAll(
            route("/router", missing).pipe(Layer.provide(AmqpHttp.layer)),
            HttpApiBuilder.layer(Api).pipe(Layer.provide(handlers), Layer.provide(AmqpHttpApi.layer)),
            AmqpGateway.layer({ authorize: () => Effect.succeed("allow"), limits })
          )
          for (const connectionName of ["shop", undefined]) {
            const lines: Array<Record<string, unknown>> = []
            const logger = Logger.make(({ fiber, logLevel, message }) => {
              if (!String(message).startsWith("HTTP request failed")) return
              lines.push({ level: logLevel, ...fiber.getRef(References.CurrentLogAnnotations) })
            })
            yield* Effect.gen(function* () {
              for (const path of ["/router", "/api"]) assert.strictEqual((yield* ask("GET", path)).status, 500)
              assert.strictEqual((yield* ask("GET", "/amqp/consume/missing")).status, 404)
            }).pipe(
              Effect.provide(
                HttpRouter.serve(routes, quiet).pipe(
                  Layer.provideMerge(fullServer),
                  Layer.provideMerge(Amqp.fromConfig(configOf(url, { connectionName }))),
                  Layer.provide(Logger.layer([logger]))
                ),
                { local: true }
              )
            )
            assert.deepStrictEqual(
              lines.map((line) => [line["http.route"], line["level"], line["error"], line["amqp.connection"]]),
              [
                ["/router", "Error", "NotFound", connectionName ?? new URL(url).host],
                ["/api", "Error", "NotFound", connectionName ?? new URL(url).host],
                ["/amqp/consume/*", "Info", "NotFound", connectionName ?? new URL(url).host]
              ]
            )
          }
        })
    )

    it.effect(
      "has no line about successful requests, at any level, and one line about a channel that is held for long",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const lines: Array<readonly [string, Readonly<Record<string, unknown>>]> = []
          const logger = Logger.make(({ fiber, message }) => {
            lines.push([String(message), fiber.getRef(References.CurrentLogAnnotations)])
          })
          const letGo = yield* Deferred.make<void>()
          const hold = Effect.fn("checkout")(function* () {
            yield* AmqpChannel.use(() => Deferred.await(letGo))
          })
          const routes = Layer.merge(
            route("/ok", Effect.andThen(declare("work"), AmqpPublisher.publish({ routingKey: "work", content: "it" }))),
            route("/hold", Effect.suspend(hold))
          ).pipe(Layer.provide(AmqpHttp.layer))
          yield* Effect.gen(function* () {
            yield* get("/ok")
            const before = lines.length
            for (let i = 0; i < 200; i++) assert.strictEqual((yield* get("/ok")).status, 202)
            assert.deepStrictEqual(lines.slice(before), [])
            const held = yield* Effect.forkChild(get("/hold"))
            yield* until(
              Effect.sync(() => lines.length),
              (many) => many > before
            )
            yield* Effect.sleep("500 millis")
            yield* Deferred.succeed(letGo, undefined)
            yield* Fiber.join(held)
            const [warning, ...more] = lines.slice(before)
            assert.deepStrictEqual(more, [])
            assert.match(warning![0], /^AMQP channel borrowed for long/)
            assert.match(String(warning![1]["borrowedIn"]), /^checkout\b/)
            assert.deepInclude(warning![1], { "amqp.connection": "shop", "amqp.connection.generation": 1 })
            assert.isAtLeast(Number(warning![1]["amqp.channel"]), 1)
          }).pipe(
            Effect.provide(
              HttpRouter.serve(routes, quiet).pipe(
                Layer.provideMerge(fullServer),
                Layer.provideMerge(
                  Amqp.fromConfig(
                    configOf(url, { connectionName: "shop", pool: { max: 2, longBorrow: Duration.seconds(1) } })
                  )
                ),
                Layer.provide(Logger.layer([logger])),
                Layer.provide(Layer.succeed(References.MinimumLogLevel, "All"))
              ),
              { local: true }
            )
          )
        })
    )
  })
})
