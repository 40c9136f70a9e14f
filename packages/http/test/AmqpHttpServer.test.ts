/** The shutdown of a server, as its clients see it. */
import { assert, describe, it } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { AmqpHealth, AmqpHttp, AmqpHttpServer } from "@effect-amqp/http"
import { Context, Deferred, Effect, Exit, Fiber, Layer, References, Scope, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { Agent, request } from "node:http"
import { connect, type Socket } from "node:net"
import { text } from "node:stream/consumers"
import { configOf } from "../../core/test/support/amqp.ts"
import * as ScriptedBroker from "../../core/test/support/ScriptedBroker.ts"
import { gracefulServer, quiet } from "./support/server.ts"
import { get, ok, open } from "./support/service.ts"

/** Starts a service that the test stops itself. */
const start = Effect.fnUntraced(function* (
  routes: Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp>,
  options: AmqpHttpServer.Options = {}
) {
  const broker = yield* ScriptedBroker.make()
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const services = yield* HttpRouter.serve(Layer.merge(routes, AmqpHealth.layer()), quiet).pipe(
    Layer.provideMerge(gracefulServer(options)),
    Layer.provideMerge(Amqp.fromConfig(configOf(broker.url))),
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "None")),
    Layer.buildWithScope(scope)
  )
  const stop = Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
  return { services, stop }
})

/** A client with one keep-alive connection. */
const keeping = Effect.gen(function* () {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  yield* Effect.addFinalizer(() => Effect.sync(() => agent.destroy()))
  return (path: string) =>
    Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
      Effect.tryPromise(
        () =>
          new Promise<{
            readonly status: number | undefined
            readonly connection: string | undefined
            readonly reused: boolean
          }>((resolve, reject) => {
            const asking = request(HttpServer.formatAddress(address) + path, { agent }, (response) => {
              text(response).then(
                () =>
                  resolve({
                    status: response.statusCode,
                    connection: response.headers.connection,
                    reused: asking.reusedSocket
                  }),
                reject
              )
            })
            asking.once("error", reject)
            asking.end()
          })
      )
    )
})

const plain = HttpRouter.add("GET", "/", ok)

describe("a server that stops", () => {
  it.live("finishes its request, and asks the client to close its keep-alive connection", () =>
    Effect.gen(function* () {
      const reached = yield* Deferred.make<void>()
      const finish = yield* Deferred.make<void>()
      const slow = HttpRouter.add(
        "GET",
        "/slow",
        Effect.gen(function* () {
          yield* AmqpChannel.use((channel) => channel.queueDeclare("q"))
          yield* Deferred.succeed(reached, undefined)
          yield* Deferred.await(finish)
          yield* AmqpChannel.use((channel) => channel.queueDeclare("q"))
          return ok
        })
      ).pipe(Layer.provide(AmqpHttp.layer))
      const { services, stop } = yield* start(Layer.merge(plain, slow), { delay: 0 })
      yield* Effect.gen(function* () {
        const ask = yield* keeping
        assert.deepInclude(yield* ask("/"), { status: 200, connection: "keep-alive" })
        const asking = yield* Effect.forkChild(ask("/slow"))
        yield* Deferred.await(reached)
        const stopping = yield* stop
        assert.isTrue(Exit.isFailure(yield* Effect.exit(get("/"))))
        yield* Deferred.succeed(finish, undefined)
        assert.deepStrictEqual(yield* Fiber.join(asking), { status: 200, connection: "close", reused: true })
        yield* Effect.timeout(Fiber.join(stopping), "10 seconds")
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 0, discarded: 0 })
      }).pipe(Effect.provideContext(services))
    }).pipe(Effect.scoped)
  )

  it.live("continues to serve while load balancers notice that it is not ready, and asks every client to close", () =>
    Effect.gen(function* () {
      const { services, stop } = yield* start(plain, { delay: "1 second" })
      yield* Effect.gen(function* () {
        const ask = yield* keeping
        assert.deepInclude(yield* ask("/"), { connection: "keep-alive" })
        assert.strictEqual((yield* get("/health/ready")).status, 200)
        const stopping = yield* stop
        const ready = yield* get("/health/ready")
        assert.strictEqual(ready.status, 503)
        assert.deepInclude(JSON.parse(ready.body), {
          status: "fail",
          live: true,
          ready: false,
          reasons: ["Stopping"],
          stopping: true
        })
        assert.strictEqual((yield* get("/health/live")).status, 200)
        assert.deepInclude(yield* ask("/"), { status: 200, connection: "close", reused: true })
        // The client uses a new connection, and is asked to close again.
        assert.deepInclude(yield* ask("/"), { status: 200, connection: "close", reused: false })
        yield* Effect.timeout(Fiber.join(stopping), "10 seconds")
        assert.isTrue(Exit.isFailure(yield* Effect.exit(ask("/"))))
      }).pipe(Effect.provideContext(services))
    }).pipe(Effect.scoped)
  )

  it.live("notifies endless responses, so that it does not wait for them", () =>
    Effect.gen(function* () {
      const endless = HttpRouter.add(
        "GET",
        "/endless",
        Effect.as(
          AmqpChannel.use((channel) => channel.queueDeclare("q")),
          HttpServerResponse.stream(
            Stream.concat(Stream.make("first "), Stream.never).pipe(
              Stream.interruptWhen(AmqpHttpServer.stopping),
              Stream.concat(Stream.make("last")),
              Stream.encodeText
            )
          )
        )
      ).pipe(Layer.provide(AmqpHttp.layer))
      const { services, stop } = yield* start(endless)
      yield* Effect.gen(function* () {
        const answer = yield* open("/endless")
        assert.strictEqual(answer.first, "first ")
        const stopping = yield* stop
        assert.strictEqual(yield* answer.read, "last")
        assert.strictEqual(yield* answer.read, "")
        yield* Effect.timeout(Fiber.join(stopping), "10 seconds")
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 0, discarded: 0 })
      }).pipe(Effect.provideContext(services))
    }).pipe(Effect.scoped)
  )

  it.live("does not wait for silent connections, and still accepts a request on one that is about to send it", () =>
    Effect.gen(function* () {
      const { services, stop } = yield* start(plain, { delay: 0 })
      yield* Effect.gen(function* () {
        const url = new URL(HttpServer.formatAddress((yield* HttpServer.HttpServer).address))
        const connected = Effect.acquireRelease(
          Effect.callback<Socket>((resume) => {
            const socket = connect(Number(url.port), url.hostname, () => resume(Effect.succeed(socket)))
            socket.on("error", () => {})
          }),
          (socket) => Effect.sync(() => socket.destroy())
        )
        const untilClosed = (socket: Socket) => Effect.promise(() => text(socket).catch(() => "reset"))
        const silent = yield* connected
        const begun = yield* connected
        begun.write("GET / HTTP/1.1\r\n")
        // The server has accepted both connections.
        yield* get("/")
        yield* Effect.sleep("600 millis")
        const late = yield* connected
        yield* get("/")
        const stopping = yield* stop
        while (Exit.isSuccess(yield* Effect.exit(get("/")))) yield* Effect.sleep("1 millis")
        late.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert.match(yield* untilClosed(late), /^HTTP\/1\.1 200 OK[^]*\r\nconnection: close\r\n/i)
        assert.strictEqual(yield* untilClosed(silent), "")
        // The server waits for a client that has begun a request.
        begun.write("Host: x\r\n\r\n")
        assert.match(yield* untilClosed(begun), /^HTTP\/1\.1 200 OK/)
        yield* Effect.timeout(Fiber.join(stopping), "10 seconds")
      }).pipe(Effect.provideContext(services))
    }).pipe(Effect.scoped)
  )

  it.live("without graceful, the reference describes a server that never stops", () =>
    Effect.gen(function* () {
      const shutdown = Context.get(Context.empty(), AmqpHttpServer.Shutdown)
      assert.isFalse(shutdown.isStopping)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.timeout(AmqpHttpServer.stopping, "10 millis"))))
    })
  )
})
