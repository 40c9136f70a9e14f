/**
 * Every way in which a request can end, each many times at once over real sockets, with more requests than channels.
 * Each request returns its channel, by the counts of the pool and of the broker.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, type AmqpChannel as Channel, AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpHttp, AmqpHttpApi, AmqpHttpServer, AmqpProblem } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Cause, Duration, Effect, Exit, Fiber, Layer, References, Schema, Scope, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiError, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import { Agent, createServer, type IncomingMessage, request } from "node:http"
import { connect, type Socket as NetSocket } from "node:net"
import { text } from "node:stream/consumers"
import { configOf } from "../../core/test/support/amqp.ts"
import { until } from "../../core/test/support/polling.ts"
import { echo, quiet, upgradeRequest } from "./support/server.ts"
import { Refused } from "./support/service.ts"

const channels = 8
const requests = 240
const clients = 32

// --- The service ---

const empty = "empty"

const askOn = (channel: Channel.AmqpChannel) => channel.get(empty, { noAck: true })

/** Makes a round trip to the broker on the request's channel. */
const touch = AmqpChannel.use(askOn)

/** Clients that wait until their request has its channel, by the request's name. */
const waiting = new Map<string, () => void>()

/** Makes a round trip, and notifies the client that waits for it. */
const begin = Effect.gen(function* () {
  yield* touch
  const { name = "" } = yield* HttpRouter.params
  waiting.get(name)?.()
})

const ok = HttpServerResponse.text("ok")

const upload = Effect.gen(function* () {
  const { stream } = yield* HttpServerRequest.HttpServerRequest
  yield* begin
  const body = yield* Stream.mkString(Stream.decodeText(stream))
  yield* touch
  return HttpServerResponse.text(`${body.length}`)
})

/** Lines that need the request's channel: three lines, or endless ones until the server stops. */
const lines = (many: number) =>
  Effect.andThen(
    begin,
    AmqpChannel.use((channel) =>
      Effect.succeed(
        HttpServerResponse.stream(
          Stream.range(1, many).pipe(
            Stream.mapEffect((n) => Effect.as(Effect.andThen(askOn(channel), Effect.sleep("1 millis")), `${n}\n`)),
            Stream.interruptWhen(AmqpHttpServer.stopping),
            Stream.encodeText
          )
        )
      )
    )
  )

const routes = Layer.mergeAll(
  HttpRouter.add("GET", "/ok/:name", Effect.as(begin, ok)),
  HttpRouter.add("GET", "/failing/:name", Effect.andThen(begin, Effect.fail(new Refused()))),
  HttpRouter.add(
    "GET",
    "/refused/:name",
    Effect.andThen(
      begin,
      AmqpChannel.use((it) => Effect.as(it.get("none"), ok))
    )
  ),
  HttpRouter.add("GET", "/dying/:name", Effect.andThen(begin, Effect.die(new Error("a defect")))),
  HttpRouter.add("GET", "/hanging/:name", Effect.andThen(begin, Effect.never)),
  HttpRouter.add("POST", "/upload/:name", upload),
  HttpRouter.add("GET", "/lines/:name", lines(3)),
  HttpRouter.add("GET", "/endless/:name", lines(Number.MAX_SAFE_INTEGER)),
  HttpRouter.add(
    "GET",
    "/echo/:name",
    echo((frame) => Effect.as(touch, frame), begin)
  )
).pipe(Layer.provide(AmqpHttp.layer))

class Declined extends HttpApiError.Problem<Declined>()("Declined", {
  type: "https://example.com/declined",
  status: 402,
  title: "Declined"
}) {}

const Api = HttpApi.make("api").add(
  HttpApiGroup.make("group")
    .add(
      HttpApiEndpoint.get("ok", "/api/ok/:name", { params: { name: Schema.String }, success: Schema.String }),
      HttpApiEndpoint.get("failing", "/api/failing/:name", { params: { name: Schema.String }, error: Declined }),
      HttpApiEndpoint.get("dying", "/api/dying/:name", { params: { name: Schema.String } }),
      HttpApiEndpoint.get("hanging", "/api/hanging/:name", { params: { name: Schema.String } }),
      HttpApiEndpoint.get("endless", "/api/endless/:name", {
        params: { name: Schema.String },
        success: HttpApiSchema.StreamUint8Array()
      })
    )
    .middleware(AmqpHttpApi.AmqpHttpApi)
)

const handlers = HttpApiBuilder.group(Api, "group", (all) =>
  all
    .handle("ok", () => Effect.as(AmqpProblem.orProblem(begin), "ok"))
    .handle("failing", () => Effect.andThen(AmqpProblem.orProblem(begin), Effect.fail(new Declined())))
    .handle("dying", () => Effect.andThen(AmqpProblem.orProblem(begin), Effect.die(new Error("a defect"))))
    .handle("hanging", () => Effect.andThen(AmqpProblem.orProblem(begin), Effect.never))
    .handle("endless", () =>
      Effect.andThen(
        begin,
        AmqpChannel.use((channel) =>
          Effect.succeed(
            Stream.forever(Stream.fromEffect(Effect.orDie(askOn(channel)))).pipe(
              Stream.map(() => "x"),
              Stream.encodeText
            )
          )
        )
      ).pipe(AmqpProblem.orProblem)
    )
)

const api = HttpApiBuilder.layer(Api).pipe(Layer.provide(handlers), Layer.provide(AmqpHttpApi.layer))

const queue = Layer.effectDiscard(
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(empty, { exclusive: true })))
)

const serve = (url: string) =>
  HttpRouter.serve(Layer.merge(routes, api), quiet).pipe(
    Layer.provide(queue),
    Layer.provideMerge(
      NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: "10 seconds" }).pipe(
        AmqpHttpServer.graceful({ delay: 0 }),
        Layer.orDie
      )
    ),
    Layer.provideMerge(
      Amqp.fromConfig(configOf(url, { pool: { max: channels, acquireTimeout: Duration.seconds(60) } }))
    ),
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
  )

// --- Clients ---

interface Target {
  readonly url: string
  /** A name for this request only. */
  readonly name: string
  /** Completes when the request has its channel. */
  readonly begun: Promise<void>
}

type Client = (target: Target) => Promise<unknown>

const agent = new Agent({ keepAlive: true, maxSockets: clients })

const send = (url: string, method = "GET") =>
  new Promise<IncomingMessage>((resolve, reject) => {
    request(url, { method, agent }, resolve).once("error", reject).end()
  })

/** Sends a request on a keep-alive connection, as most clients do. */
const asks =
  (path: string, status: number, body?: string): Client =>
  async ({ name, url }) => {
    const response = await send(`${url}${path}/${name}`)
    const got = await text(response)
    assert.strictEqual(response.statusCode, status)
    if (body !== undefined) assert.strictEqual(got, body)
  }

/** Sends a request, and disconnects as soon as the request has a channel. */
const leaves =
  (path: string): Client =>
  async ({ begun, name, url }) => {
    const asking = request(`${url}${path}/${name}`, { agent: false })
    const gone = new Promise((resolve) => asking.once("close", resolve))
    asking.once("error", () => {})
    asking.end()
    await begun
    asking.destroy()
    await gone
  }

/** Disconnects after the first part of a body. */
const leavesAmidAnswer =
  (path: string): Client =>
  ({ name, url }) =>
    new Promise<void>((resolve, reject) => {
      const asking = request(`${url}${path}/${name}`, { agent: false }, (response) => {
        response.once("data", () => asking.destroy())
        response.once("error", () => {})
        response.once("close", resolve)
      })
      asking.once("error", reject)
      asking.end()
    })

/** Sends half a body, and disconnects. */
const leavesAmidBody: Client = async ({ begun, name, url }) => {
  const asking = request(`${url}/upload/${name}`, { method: "POST", agent: false })
  const gone = new Promise((resolve) => asking.once("close", resolve))
  asking.once("error", () => {})
  asking.write("x".repeat(1000))
  await begun
  asking.destroy()
  await gone
}

const uploads: Client = async ({ begun, name, url }) => {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const asking = request(`${url}/upload/${name}`, { method: "POST", agent: false }, resolve)
    asking.once("error", reject)
    asking.write("x".repeat(1000))
    void begun.then(() => asking.end("x".repeat(1000)))
  })
  assert.strictEqual(await text(answer), "2000")
}

/** Sends a text on a WebSocket, receives it again, and closes in order, or waits until the server closes. */
const converses =
  (closing: "client" | "server"): Client =>
  ({ name, url }) =>
    new Promise<void>((resolve, reject) => {
      const socket = new WebSocket(`${url.replace("http", "ws")}/echo/${name}`)
      let heard = ""
      socket.addEventListener("open", () => socket.send("hello"))
      socket.addEventListener("message", ({ data }) => {
        heard = String(data)
        if (closing === "client") socket.close(1000)
      })
      socket.addEventListener("close", () => (heard === "hello" ? resolve() : reject(new Error(`heard "${heard}"`))))
    })

/** Opens a WebSocket, and disconnects without a close frame. */
const tearsOff: Client = async ({ begun, name, url }) => {
  const { hostname, port } = new URL(url)
  const socket: NetSocket = connect(Number(port), hostname, () => {
    socket.write(upgradeRequest(`/echo/${name}`))
  })
  const gone = new Promise((resolve) => socket.once("close", resolve))
  socket.on("error", () => {})
  await begun
  socket.resetAndDestroy()
  await gone
}

let named = 0

const run = (client: Client) =>
  Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
    Effect.promise(async () => {
      const name = `${++named}`
      const begun = new Promise<void>((resolve) => waiting.set(name, resolve))
      await client({ url: HttpServer.formatAddress(address), name, begun })
      waiting.delete(name)
    })
  )

// --- Leftovers ---

/** Waits, because a request ends a moment after its client has the answer. */
const untilReturned = until(AmqpPool.stats, ({ pending, used }) => used === 0 && pending === 0, "the pool")

const endings: ReadonlyArray<{
  readonly title: string
  readonly clients: ReadonlyArray<Client>
  /** Whether its channels cannot be reused afterwards. */
  readonly discards?: boolean
}> = [
  { title: "success", clients: [asks("/ok", 200, "ok"), asks("/api/ok", 200, '"ok"'), uploads] },
  { title: "failure", clients: [asks("/failing", 402, "refused"), asks("/api/failing", 402)] },
  { title: "an AMQP error that closes the channel", clients: [asks("/refused", 500)], discards: true },
  { title: "a defect", clients: [asks("/dying", 500, ""), asks("/api/dying", 500)] },
  { title: "a disconnect of the client", clients: [leaves("/hanging"), leaves("/api/hanging")] },
  { title: "a disconnect during the request's body", clients: [leavesAmidBody] },
  { title: "the end of a streamed response", clients: [asks("/lines", 200, "1\n2\n3\n")] },
  {
    title: "a disconnect during a streamed response",
    clients: [leavesAmidAnswer("/endless"), leavesAmidAnswer("/api/endless")]
  },
  { title: "a WebSocket that is closed", clients: [converses("client")] },
  { title: "a WebSocket that is disconnected", clients: [tearsOff] }
]

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe(`${requests} requests of ${clients} clients on ${channels} channels leave nothing borrowed after`, () => {
    for (const { clients: kinds, discards = false, title } of endings) {
      it.effect(title, () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          yield* Effect.gen(function* () {
            yield* Effect.forEach(
              Array.from({ length: requests }, (_, i) => kinds[i % kinds.length]!),
              run,
              { concurrency: clients, discard: true }
            )
            const { created, discarded, idle, timedOut } = yield* untilReturned
            assert.isAtMost(idle, channels)
            assert.strictEqual(timedOut, 0)
            if (!discards) assert.isAtMost(created - discarded, channels)
            else assert.strictEqual(discarded, requests)
            yield* awaitCensus({ connections: 1, channels: idle, unacked: 0, consumers: 0 })
            // The service still works.
            yield* run(asks("/ok", 200, "ok"))
          }).pipe(Effect.provide(serve(url), { local: true }))
          yield* awaitCensus({ connections: 0, channels: 0 })
        })
      )
    }

    it.effect("the server's shutdown while they run", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(serve(url), scope)
        yield* Effect.gen(function* () {
          // Some requests hold their channel until the server stops. The others share the remaining channels.
          const counts = { held: 0, served: 0 }
          const holding =
            (client: Client): Client =>
            (target) => {
              void target.begun.then(() => counts.held++)
              return client(target)
            }
          const holders = yield* Effect.forEach(
            [asks("/endless", 200), asks("/endless", 200), converses("server"), converses("server")],
            (client) => Effect.forkChild(run(holding(client)))
          )
          while (counts.held < holders.length) yield* Effect.sleep("1 millis")
          const loads = yield* Effect.forEach(Array.from({ length: clients }), (_, i) => {
            const client = [asks("/ok", 200, "ok"), uploads, asks("/lines", 200), asks("/api/ok", 200)][i % 4]!
            return Effect.forkChild(
              Effect.gen(function* () {
                for (;;) {
                  const exit = yield* Effect.exit(run(client))
                  if (Exit.isFailure(exit)) {
                    const { code } = Object(Cause.squash(exit.cause)) as { readonly code?: string }
                    // The server no longer listens, or is closing a keep-alive connection.
                    assert.include(["ECONNREFUSED", "ECONNRESET"], code, Cause.pretty(exit.cause))
                    return
                  }
                  counts.served++
                }
              })
            )
          })
          while (counts.served < requests) yield* Effect.sleep("1 millis")
          const since = performance.now()
          yield* Scope.close(scope, Exit.void)
          assert.isBelow(performance.now() - since, 9000, "expected an end before the shutdown timeout")
          // Every client that got a first byte got the last one, and no client waits.
          for (const holder of holders) yield* Fiber.join(holder)
          for (const load of loads) yield* Fiber.join(load)
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, idle: 0 })
          yield* awaitCensus({ connections: 0, channels: 0, unacked: 0 })
        }).pipe(Effect.provideContext(services), Effect.ensuring(Scope.close(scope, Exit.void)))
      })
    )
  })
})
