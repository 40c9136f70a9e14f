/** Hundreds of requests over real sockets, which end in every way a request can end, leave no channel borrowed. */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConfig, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpHttp, AmqpHttpServer } from "@effect-amqp/http"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Schedule, Scope, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { request } from "node:http"
import { connect } from "node:net"
import { text } from "node:stream/consumers"
import { untilStats } from "../../core/test/support/amqp.ts"
import { address, echo, gracefulServer, quiet, upgradeRequest } from "./support/server.ts"
import { get, open } from "./support/service.ts"

// --- The service ---

const empty = "empty"

/** Makes a round trip to the broker, and returns the given text. */
const roundTripOn = Effect.fnUntraced(function* (channel: AmqpChannel.AmqpChannel, content: string) {
  const delivery = yield* channel.get(empty, { noAck: true })
  return Option.isNone(delivery) ? content : "a message"
})

const roundTrip = (content: string) => AmqpChannel.use((channel) => roundTripOn(channel, content))

const upload = Effect.gen(function* () {
  const { stream } = yield* HttpServerRequest.HttpServerRequest
  yield* roundTrip("before")
  const body = yield* Stream.mkString(Stream.decodeText(stream))
  return HttpServerResponse.text(yield* roundTrip(`${body.length} characters`))
})

const lines = AmqpChannel.use((channel) =>
  Effect.map(roundTripOn(channel, "before"), () =>
    HttpServerResponse.stream(
      Stream.range(1, 3).pipe(
        Stream.mapEffect((n) => roundTripOn(channel, `${n}`)),
        Stream.encodeText
      )
    )
  )
)

const endless = AmqpChannel.use((channel) =>
  Effect.map(roundTripOn(channel, "before"), () =>
    HttpServerResponse.stream(
      Stream.fromSchedule(Schedule.spaced("5 millis")).pipe(
        Stream.mapEffect((n) => roundTripOn(channel, `${n} `)),
        Stream.interruptWhen(AmqpHttpServer.stopping),
        Stream.encodeText
      )
    )
  )
)

const routes = Layer.mergeAll(
  HttpRouter.add("POST", "/upload", upload),
  HttpRouter.add("GET", "/lines", lines),
  HttpRouter.add("GET", "/endless", endless),
  HttpRouter.add("GET", "/echo", echo(roundTrip)),
  HttpRouter.add("GET", "/dying", Effect.andThen(roundTrip("before"), Effect.die("defect"))),
  HttpRouter.add("GET", "/short", Effect.map(roundTrip("short"), HttpServerResponse.text))
).pipe(Layer.provide(AmqpHttp.layer))

// The queue is declared before the routes are built, and the broker deletes it with the connection.
const queue = Layer.effectDiscard(
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(empty, { exclusive: true })))
)

const serve = (url: string) =>
  HttpRouter.serve(routes, quiet).pipe(
    Layer.provide(queue),
    Layer.provideMerge(gracefulServer()),
    Layer.provideMerge(Layer.unwrap(Effect.map(AmqpConfig.fromUrl(url, { pool: { max: 16 } }), Amqp.fromConfig)))
  )

// --- Clients ---

/** Sends a body in parts, or disconnects in the middle of it. */
const sendBody = (ending: "end" | "hang up") =>
  Effect.flatMap(address, (url) =>
    Effect.callback<string>((resume) => {
      const asking = request(`${url}/upload`, { method: "POST", agent: false }, (response) => {
        void text(response).then(
          (body) => resume(Effect.succeed(body)),
          () => resume(Effect.succeed("cut off"))
        )
      })
      asking.once("error", () => resume(Effect.succeed("hung up")))
      asking.write("x".repeat(1000))
      const rest = setTimeout(() => {
        if (ending === "hang up") asking.destroy()
        else asking.end("x".repeat(1000))
      }, 10)
      return Effect.sync(() => {
        clearTimeout(rest)
        asking.destroy()
      })
    })
  )

/** Sends a text on a WebSocket, receives it again, and reports it when the socket is closed. */
const converse = (whenHeard: (socket: WebSocket) => void) =>
  Effect.flatMap(address, (url) =>
    Effect.callback<string>((resume) => {
      const socket = new WebSocket(`${url.replace("http", "ws")}/echo`)
      let heard = ""
      socket.addEventListener("open", () => socket.send("hello"))
      socket.addEventListener("message", ({ data }) => {
        heard = String(data)
        whenHeard(socket)
      })
      socket.addEventListener("close", () => resume(Effect.succeed(`${heard}, closed`)))
      return Effect.sync(() => socket.close())
    })
  )

/** Opens a WebSocket, sends a text, and disconnects before the answer. */
const tearOff = Effect.flatMap(address, (url) =>
  Effect.callback<void>((resume) => {
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname, () => {
      socket.write(upgradeRequest("/echo"))
    })
    socket.once("data", () => {
      // A masked text frame of one letter; the mask is zero.
      socket.write(Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0x61]), () => socket.resetAndDestroy())
    })
    socket.once("error", () => {})
    socket.once("close", () => resume(Effect.void))
    return Effect.sync(() => socket.destroy())
  })
)

const clients = [
  Effect.map(get("/short"), ({ body }) => assert.strictEqual(body, "short")),
  Effect.map(sendBody("end"), (body) => assert.strictEqual(body, "2000 characters")),
  Effect.map(sendBody("hang up"), (body) => assert.strictEqual(body, "hung up")),
  Effect.map(get("/lines"), ({ body }) => assert.strictEqual(body, "123")),
  Effect.flatMap(open("/lines"), ({ hangUp }) => hangUp),
  Effect.flatMap(open("/endless"), ({ hangUp }) => hangUp),
  Effect.map(
    converse((socket) => socket.close(1000)),
    (heard) => assert.strictEqual(heard, "hello, closed")
  ),
  tearOff,
  Effect.map(get("/dying"), ({ status }) => assert.strictEqual(status, 500)),
  Effect.timeoutOption(get("/endless"), "20 millis")
]

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("uploads, streams and WebSockets, complete and broken off, leave nothing borrowed and nothing open", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      yield* Effect.gen(function* () {
        const total = 400
        yield* Effect.forEach(
          Array.from({ length: total }, (_, i) => clients[i % clients.length]!),
          (client) => Effect.asVoid(client),
          { concurrency: 25, discard: true }
        )
        const stats = yield* untilStats(({ pending, used }) => used === 0 && pending === 0)
        assert.isAtMost(stats.idle, 16)
        yield* awaitCensus({ connections: 1, channels: stats.idle, unacked: 0 })
        assert.strictEqual((yield* get("/short")).body, "short")
        const { created, discarded, timedOut } = yield* AmqpPool.stats
        console.log(
          `${total} requests on 16 channels: ${created} opened, ${discarded} discarded, ${timedOut} timed out`
        )
      }).pipe(Effect.provide(serve(url), { local: true }))
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )

  it.effect("a server that stops during uploads, streams and WebSockets returns all channels", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(serve(url), scope)
      yield* Effect.gen(function* () {
        const endless = yield* Effect.forEach(Array.from({ length: 4 }), () => open("/endless"))
        const talking = yield* Effect.forEach(Array.from({ length: 3 }), () =>
          Effect.gen(function* () {
            const heard = yield* Deferred.make<void>()
            const fiber = yield* Effect.forkChild(converse(() => Deferred.doneUnsafe(heard, Effect.void)))
            yield* Deferred.await(heard)
            return fiber
          })
        )
        assert.deepInclude(yield* AmqpPool.stats, { used: 7 })
        const uploading = yield* Effect.forkChild(sendBody("end"))
        yield* untilStats(({ used }) => used === 8)
        const since = performance.now()
        yield* Scope.close(scope, Exit.void)
        assert.isBelow(performance.now() - since, 9000, "expected an end before the shutdown timeout")
        // Requests that had begun were finished. Endless responses were ended, and not cut off.
        assert.strictEqual(yield* Fiber.join(uploading), "2000 characters")
        for (const { read } of endless) {
          while ((yield* read) !== "");
        }
        for (const fiber of talking) assert.strictEqual(yield* Fiber.join(fiber), "hello, closed")
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, idle: 0 })
        yield* awaitCensus({ connections: 0, channels: 0 })
      }).pipe(Effect.provideContext(services), Effect.ensuring(Scope.close(scope, Exit.void)))
    })
  )
})
