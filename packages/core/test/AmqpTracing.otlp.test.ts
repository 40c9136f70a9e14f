/** What an OpenTelemetry collector receives from an application, over OTLP/HTTP. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, References, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { Otlp } from "effect/observability"
import { createServer } from "node:http"
import { configOf } from "./support/amqp.ts"
import { collector, type OtlpSpan } from "./support/otlpCollector.ts"

/** Numbers of the protocol (https://opentelemetry.io/docs/specs/otlp/). */
const kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"]

const Order = Schema.Struct({ id: Schema.Int })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a collector", () => {
    it.effect("sees an HTTP request, its publish, the consumer and its database call as one trace", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const { paths, spans, url } = yield* collector
        const telemetry = Otlp.layerJson({
          baseUrl: url,
          resource: { serviceName: "orders" },
          tracerExportInterval: "20 millis",
          loggerExportInterval: "20 millis",
          metricsExportInterval: "20 millis"
        }).pipe(Layer.provide(FetchHttpClient.layer))
        const routes = HttpRouter.add(
          "POST",
          "/orders",
          AmqpPublisher.publish({ routingKey: "orders", content: '{"id":7}', messageId: "o7" }).pipe(
            Effect.as(HttpServerResponse.empty({ status: 202 }))
          )
        )
        const application = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
          Layer.provideMerge(NodeHttpServer.layerServer(createServer, { host: "127.0.0.1", port: 0 })),
          Layer.provideMerge(FetchHttpClient.layer),
          Layer.provideMerge(Amqp.fromConfig(configOf(broker.url, { connectionName: "orders" }))),
          Layer.provideMerge(telemetry)
        )
        const untilExported = (many: number) =>
          Effect.gen(function* () {
            for (let i = 0; i < 2000 && spans.length < many; i++) yield* Effect.sleep("5 millis")
            assert.strictEqual(spans.length, many, spans.map(({ name }) => name).join(", "))
          })
        yield* Effect.gen(function* () {
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("orders")))
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              "orders",
              ({ id }) => Effect.withSpan(Effect.succeed(id), "INSERT orders", { kind: "client" }),
              {
                schema: Order
              }
            )
          )
          const { address } = yield* HttpServer.HttpServer
          const port = "port" in address ? address.port : 0
          // The caller's own span, as given by its traceparent.
          const post = HttpClientRequest.post(`http://127.0.0.1:${port}/orders`)
          const { status } = yield* Effect.withSpan(HttpClient.execute(post), "checkout")
          assert.strictEqual(status, 202)
          yield* untilExported(6)
        }).pipe(
          Effect.scoped,
          Effect.provide(application, { local: true }),
          Effect.provideService(References.MinimumLogLevel, "None")
        )
        const line = [
          ["checkout", "internal"],
          ["POST", "client"],
          ["POST", "server"],
          ["publish orders", "producer"],
          ["process orders", "consumer"],
          ["INSERT orders", "client"]
        ] as const
        let parent: OtlpSpan | undefined
        for (const [name, kind] of line) {
          const span = spans.find((span) => span.name.startsWith(name) && kinds[span.kind] === kind)
          assert.isDefined(span, `${name} among ${spans.map(({ name }) => name).join(", ")}`)
          assert.deepStrictEqual([name, span!.traceId, span!.parentSpanId], [name, spans[0]!.traceId, parent?.spanId])
          parent = span
        }
        const publish = spans.find(({ name }) => name === "publish orders")!
        const value = (key: string) => publish.attributes.find((attribute) => attribute.key === key)?.value
        assert.strictEqual(value("messaging.system")?.stringValue, "rabbitmq")
        assert.strictEqual(value("messaging.message.id")?.stringValue, "o7")
        assert.strictEqual(Number(value("messaging.message.body.size")?.intValue), 8)
        assert.isTrue(paths.has("/v1/metrics"))
      }).pipe(Effect.scoped)
    )
  })
})
