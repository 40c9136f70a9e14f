// Metrics as plain data and for Prometheus, of a connection with a name: other tests of this process have none of them.
import { HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { AmqpChannel, AmqpConsumer, AmqpMetrics, AmqpPublisher, AmqpRpc, AmqpTopology } from "@effect-amqp/platform"
import { AmqpHttp } from "@effect-amqp/platform/http"
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Layer } from "effect"
import { createServer } from "node:http"
import * as Application from "./support/application.ts"

const connectionName = "shop"

/** The metric of that name and with these attributes, of the connection under test or of all. */
const find = (name: string, attributes: Record<string, string> = { "amqp.connection.name": connectionName }) =>
  Effect.map(AmqpMetrics.snapshot, (metrics) =>
    metrics.find(
      (metric) =>
        metric.name === name && Object.entries(attributes).every(([key, value]) => metric.attributes[key] === value)
    )
  )

const valueOf = (name: string, attributes?: Record<string, string>) =>
  Effect.map(find(name, attributes), (metric) => (metric?.type === "histogram" ? metric.count : metric?.value))

const outcome = (name: string, key: string, value: string) =>
  valueOf(name, { "amqp.connection.name": connectionName, [key]: value })

const declare = (name: string) => AmqpTopology.declare(AmqpTopology.make(AmqpTopology.queue(name)))

describe("AmqpMetrics", () => {
  layer(Application.layer({ connectionName }), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("counts the publisher's messages by outcome, and what consumers do", () =>
      Effect.gen(function* () {
        yield* declare("metrics")
        const handled = yield* Deferred.make<void>()
        yield* Effect.forkScoped(AmqpConsumer.consume("metrics", () => Deferred.succeed(handled, undefined)))
        yield* AmqpPublisher.publish({ routingKey: "metrics", content: "x" })
        yield* Effect.flip(AmqpPublisher.publish({ routingKey: "nowhere", content: "x" }, { mandatory: true }))
        yield* Deferred.await(handled)
        yield* Effect.repeat(outcome("amqp.client.consumer.settled", "amqp.settlement", "acked"), {
          until: (count) => count === 1
        })
        const sent = "messaging.client.sent.messages"
        assert.strictEqual(yield* outcome(sent, "amqp.outcome", "confirmed"), 1)
        assert.strictEqual(yield* outcome(sent, "amqp.outcome", "returned"), 1)
        assert.strictEqual(yield* outcome("amqp.client.connection.state", "amqp.connection.state", "open"), 1)
        const duration = yield* find("messaging.client.operation.duration", { "amqp.outcome": "confirmed" })
        assert(duration?.type === "histogram")
        assert.strictEqual(duration.unit, "s")
        assert.notProperty(duration.attributes, "unit")
        assert.strictEqual(duration.count, 1)
        assert.strictEqual(duration.min, duration.sum)
        assert.strictEqual(duration.buckets.at(-1)?.count, 1)
        const none = yield* find("messaging.client.operation.duration", { "amqp.outcome": "nacked" })
        assert(none?.type === "histogram")
        assert.isUndefined(none.min)
        // Plain data: it can be sent as JSON.
        const metrics = yield* AmqpMetrics.snapshot
        assert.deepEqual(JSON.parse(JSON.stringify(metrics)).length, metrics.length)
      })
    )

    it.scoped("counts calls, replies, and requests whose reply queue is refused", () =>
      Effect.gen(function* () {
        yield* declare("metrics.rpc")
        const procedure = AmqpRpc.make("metrics.rpc")
        yield* Effect.forkScoped(AmqpRpc.serve(procedure, () => Effect.void))
        yield* AmqpRpc.client(procedure)()
        assert.strictEqual(yield* outcome("amqp.rpc.client.calls", "amqp.outcome", "replied"), 1)
        assert.strictEqual(yield* outcome("amqp.rpc.server.replies", "amqp.rpc.reply", "success"), 1)
        assert.isUndefined(yield* valueOf("amqp.rpc.refused_replies", {}))
        yield* AmqpPublisher.publish({
          routingKey: "metrics.rpc",
          content: "null",
          type: "metrics.rpc",
          replyTo: "someone.else",
          correlationId: "1"
        })
        yield* Effect.repeat(valueOf("amqp.rpc.refused_replies", {}), { until: (count) => count === 1 })
      })
    )

    it.scoped("AmqpRpc.layer is a client of its own", () =>
      Effect.gen(function* () {
        yield* declare("metrics.layer")
        const procedure = AmqpRpc.make("metrics.layer")
        yield* Effect.forkScoped(AmqpRpc.serve(procedure, () => Effect.void))
        const before = yield* AmqpRpc.stats
        const own = yield* Effect.provide(Effect.zipRight(AmqpRpc.client(procedure)(), AmqpRpc.stats), AmqpRpc.layer)
        assert.strictEqual(own.replied, 1)
        assert.deepStrictEqual(yield* AmqpRpc.stats, before)
      })
    )

    it.scoped("AmqpHttp.metrics serves them to Prometheus", () =>
      Effect.gen(function* () {
        yield* Effect.scoped(AmqpChannel.use(() => Effect.void))
        const server = HttpRouter.empty.pipe(
          HttpRouter.get("/metrics", AmqpHttp.metrics),
          HttpServer.serve(),
          Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
        )
        const { type, text } = yield* Effect.gen(function* () {
          const { address } = yield* HttpServer.HttpServer
          assert(address._tag === "TcpAddress")
          const url = `http://127.0.0.1:${address.port}/metrics`
          return yield* Effect.promise(async () => {
            const response = await fetch(url)
            return { type: response.headers.get("content-type"), text: await response.text() }
          })
        }).pipe(Effect.provide(server))
        assert.strictEqual(type, "text/plain; version=0.0.4; charset=utf-8")
        assert.strictEqual(text, yield* AmqpMetrics.format)
        const of = `amqp_connection_name="${connectionName}"`
        assert.include(text, "# TYPE amqp_client_channel_created counter")
        assert.include(text, `amqp_client_channel_created{${of},amqp_channel_kind="regular"} 1`)
        assert.match(text, /^amqp_client_channel_use_time_bucket\{.*le="\+Inf"\} \d+$/m)
      })
    )
  })
})
