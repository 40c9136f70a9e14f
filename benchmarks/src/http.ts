/**
 * Requests a second of the example's `POST /orders`, beside the same route without AMQP, in one run: what the channel pool
 * and the publish cost a request.
 *
 * Run by `npm run bench -- http`. Server and client are two processes; the two routes take turns.
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpChannel, AmqpConfig, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Console, Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { spawn } from "node:child_process"
import { createServer } from "node:http"
import { Order, OrdersRoutes } from "../../packages/examples/src/orders.ts"
import { median, spread, table } from "./report.ts"

const connections = 64
const requests = 20_000
const rounds = 5

/** The same work without AMQP: the body is checked, an id is made, the answer is 202. */
const plain = HttpRouter.add(
  "POST",
  "/plain",
  Effect.gen(function* () {
    const order = yield* HttpServerRequest.schemaBodyJson(Order, { errors: "all", onExcessProperty: "error" })
    const id = crypto.randomUUID()
    JSON.stringify({ id, ...order })
    return HttpServerResponse.jsonUnsafe({ id }, { status: 202 })
  }).pipe(Effect.orDie)
)

const Load = Schema.fromJsonString(Schema.Struct({ perSecond: Schema.Number }))

const load = (url: string) =>
  Effect.callback<string, Error>((resume) => {
    const client = spawn(
      process.execPath,
      [new URL("./load.ts", import.meta.url).pathname, url, String(connections), String(requests)],
      { stdio: ["ignore", "pipe", "inherit"] }
    )
    let output = ""
    client.stdout.on("data", (chunk) => (output += String(chunk)))
    client.on("error", (error) => resume(Effect.fail(error)))
    client.on("close", (code) =>
      resume(code === 0 ? Effect.succeed(output) : Effect.fail(new Error(`the client ended with ${code}`)))
    )
    return Effect.sync(() => client.kill())
  }).pipe(Effect.flatMap(Schema.decodeUnknownEffect(Load)))

/** Requests a second, and the server's CPU a request in microseconds. */
const measure = Effect.fnUntraced(function* (url: string) {
  const before = process.cpuUsage()
  const { perSecond } = yield* load(url)
  const { system, user } = process.cpuUsage(before)
  return { perSecond, cpu: (system + user) / requests }
})

const program = Effect.gen(function* () {
  const { address } = yield* HttpServer.HttpServer
  const base = HttpServer.formatAddress(address)
  yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("orders")))
  const routes = { "POST without AMQP": "/plain", "POST /orders": "/orders" }
  const results = new Map(Object.keys(routes).map((name) => [name, [] as Array<{ perSecond: number; cpu: number }>]))
  for (let round = 0; round < rounds + 1; round++) {
    for (const [name, path] of Object.entries(routes)) {
      const result = yield* measure(base + path)
      // The first warms up.
      if (round > 0) results.get(name)!.push(result)
      yield* Effect.scoped(AmqpChannel.use((channel) => channel.queuePurge("orders")))
    }
  }
  const perSecond = (name: string) => results.get(name)!.map((result) => result.perSecond)
  const base_ = median(perSecond("POST without AMQP"))
  yield* Console.log(
    `\nHTTP, ${connections} connections: median of ${rounds} rounds of ${requests} requests, server and client on this machine\n`
  )
  yield* Console.log(
    table(
      ["", "requests/s", "spread", "of plain", "server CPU µs/request"],
      Array.from(results, ([name, values]) => [
        name,
        median(perSecond(name)).toFixed(0),
        spread(perSecond(name)),
        `${((median(perSecond(name)) / base_) * 100).toFixed(0)} %`,
        median(values.map((value) => value.cpu)).toFixed(0)
      ])
    )
  )
  yield* Console.log(`\nPool afterwards: ${JSON.stringify(yield* AmqpPool.stats)}`)
})

const config = Effect.flatMap(TestBroker.TestBroker, ({ url }) => AmqpConfig.fromUrl(url))
const AmqpTest = Layer.unwrap(Effect.map(config, Amqp.fromConfig)).pipe(Layer.provide(TestBroker.layer))

const Server = HttpRouter.serve(Layer.mergeAll(OrdersRoutes, plain), { disableLogger: true }).pipe(
  Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
  Layer.provideMerge(AmqpTest)
)

program.pipe(Effect.provide(Server), NodeRuntime.runMain)
