// Requests of every kind over a real socket: each returns its channel, however it ends.
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpMiddleware,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { AmqpChannel, AmqpError, AmqpHealth, AmqpPool, AmqpPublisher } from "@effect-amqp/platform"
import { AmqpHttp } from "@effect-amqp/platform/http"
import { assert, describe, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Logger, LogLevel, Schema, Scope, Stream } from "effect"
import { Agent, createServer, get, type IncomingMessage, request as requestOf, type RequestOptions } from "node:http"
import { text as textOf } from "node:stream/consumers"
import * as Application from "./support/application.ts"
import { until } from "./support/polling.ts"

const used = Effect.map(
  Effect.all([AmqpPool.stats, Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.confirm.stats)]),
  (all) => all.reduce((sum, { used }) => sum + used, 0)
)

const untilUsed = (count: number) =>
  Effect.repeat(
    Effect.zipLeft(
      used,
      Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    ),
    {
      until: (used) => used === count
    }
  )

const server = <E, R>(router: HttpRouter.HttpRouter<E, R>) =>
  router.pipe(
    HttpServer.serve(),
    Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
  )

const origin = Effect.map(HttpServer.HttpServer, ({ address }) => {
  assert(address._tag === "TcpAddress")
  return `http://127.0.0.1:${address.port}`
})

const request = (path: string) =>
  Effect.flatMap(origin, (origin) =>
    Effect.promise(async () => {
      const response = await fetch(origin + path)
      return { status: response.status, headers: response.headers, text: await response.text() }
    })
  )

/** Begins a request, and has the response as soon as its headers are there. */
const open = (path: string) =>
  Effect.flatMap(origin, (origin) =>
    Effect.async<IncomingMessage>((resume) => {
      get(origin + path, (response) => {
        response.on("error", () => {})
        resume(Effect.succeed(response))
      }).on("error", () => {})
    })
  )

/** Sends a request, and has the response as soon as its headers are there. Its body is still to be read. */
const send = (path: string, options?: RequestOptions) =>
  Effect.flatMap(origin, (origin) =>
    Effect.async<IncomingMessage>((resume) => {
      requestOf(origin + path, { agent: false, ...options }, (response) => {
        response.on("error", () => {})
        resume(Effect.succeed(response))
      })
        .on("error", (error) => resume(Effect.die(error)))
        .end()
    })
  )

const bodyOf = (response: IncomingMessage) => Effect.promise(() => textOf(response))

/** The counts of the pool of regular channels that say whether a channel was returned or discarded. */
const counts = Effect.map(AmqpPool.stats, ({ created, discarded, used }) => ({ created, discarded, used }))

/** Keeps the log lines of a server and of its requests. */
const logs = () => {
  const defects: Array<unknown> = []
  const warnings: Array<string> = []
  const logger = Logger.make(({ cause, logLevel, message }) => {
    defects.push(...Cause.defects(cause))
    if (LogLevel.greaterThanEqual(logLevel, LogLevel.Warning)) warnings.push(String(message))
  })
  return {
    /** The defects of all lines, and the lines at the level of warnings and above. */
    lines: { defects, warnings },
    layer: Logger.replace(Logger.defaultLogger, logger)
  }
}

const quiet = { defects: [], warnings: [] }

/** A server that logs each request, as applications have it. */
const logging = <E, R>(router: HttpRouter.HttpRouter<E, R>, node = createServer()) =>
  router.pipe(
    HttpServer.serve(HttpMiddleware.logger),
    Layer.provideMerge(NodeHttpServer.layer(() => node, { port: 0, host: "127.0.0.1" }))
  )

describe("requests", () => {
  layer(Application.layer({ pool: { max: 3, acquireTimeout: "200 millis" } }), {
    excludeTestServices: true,
    timeout: "2 minutes"
  })((it) => {
    it.scoped("a handler publishes without more than AmqpChannel.use, and the channel is back after the response", () =>
      Effect.gen(function* () {
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/",
            Effect.gen(function* () {
              yield* AmqpChannel.use((channel) => channel.queueDeclare("http"))
              yield* AmqpChannel.useConfirm((channel) => channel.publish({ routingKey: "http", content: "x" }))
              yield* AmqpPublisher.publish({ routingKey: "http", content: "y" })
              return yield* HttpServerResponse.json({ used: yield* used })
            })
          ),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const { status, text } = yield* request("/")
          assert.deepStrictEqual([status, text], [200, '{"used":2}'])
          yield* untilUsed(0)
        }).pipe(Effect.provide(server(router)))
      })
    )

    it.scoped("a streamed response holds the channel until its end, and no longer when the client hangs up", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const body = (last: Effect.Effect<unknown>) =>
          AmqpChannel.use((channel) =>
            Effect.succeed(
              HttpServerResponse.stream(
                Stream.make("first").pipe(
                  Stream.concat(Stream.drain(Stream.fromEffect(last))),
                  Stream.concat(
                    Stream.fromEffect(
                      Effect.map(channel.queueDeclare("streamed"), ({ messageCount }) => ` ${messageCount}`)
                    )
                  ),
                  Stream.orDie,
                  Stream.encodeText
                )
              )
            )
          )
        const router = HttpRouter.empty.pipe(
          HttpRouter.get("/ends", body(Deferred.await(gate))),
          HttpRouter.get("/hangs", body(Effect.never)),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const response = yield* open("/ends")
          const text = Effect.promise(async () => {
            let all = ""
            for await (const chunk of response) all += String(chunk)
            return all
          })
          assert.strictEqual(yield* used, 1)
          yield* Deferred.succeed(gate, undefined)
          assert.strictEqual(yield* text, "first 0")
          yield* untilUsed(0)

          const hanging = yield* open("/hangs")
          assert.strictEqual(yield* used, 1)
          hanging.destroy()
          yield* untilUsed(0)
        }).pipe(Effect.provide(server(router)))
      })
    )

    const endings: Record<string, readonly [number, Effect.Effect<HttpServerResponse.HttpServerResponse, string>]> = {
      fails: [500, Effect.fail("no")],
      dies: [500, Effect.die(new Error("bug"))],
      "is interrupted": [503, Effect.interrupt]
    }
    for (const [name, [status, ending]] of Object.entries(endings)) {
      it.scoped(`a handler that ${name} gives its channel back`, () =>
        Effect.gen(function* () {
          const router = HttpRouter.empty.pipe(
            HttpRouter.get(
              "/",
              AmqpChannel.use(() => ending)
            ),
            HttpRouter.use(AmqpHttp.middleware)
          )
          yield* Effect.gen(function* () {
            assert.strictEqual((yield* request("/")).status, status)
            yield* untilUsed(0)
          }).pipe(Effect.provide(server(router)))
        })
      )
    }

    it.scoped("a client that hangs up while its handler runs interrupts the handler", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/",
            AmqpChannel.use(() => Effect.zipRight(Deferred.succeed(started, undefined), Effect.never))
          ),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const client = get(yield* origin).on("error", () => {})
          yield* Deferred.await(started)
          assert.strictEqual(yield* used, 1)
          client.destroy()
          yield* untilUsed(0)
        }).pipe(Effect.provide(server(router)))
      })
    )

    it.scoped("a HEAD request returns its channel, and runs no body", () => {
      const { layer, lines } = logs()
      return Effect.gen(function* () {
        const ran: Array<string> = []
        const body = Stream.fromEffect(Effect.sync(() => (ran.push("body"), "x")))
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/plain",
            AmqpChannel.use((channel) => Effect.as(channel.queueDeclare("head"), HttpServerResponse.text("plain")))
          ),
          HttpRouter.get(
            "/streamed",
            AmqpChannel.use((channel) =>
              Effect.as(channel.queueDeclare("head"), HttpServerResponse.stream(Stream.encodeText(body)))
            )
          ),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const { discarded } = yield* counts
          for (const path of ["/plain", "/streamed"]) {
            const response = yield* send(path, { method: "HEAD" })
            assert.deepStrictEqual([response.statusCode, yield* bodyOf(response)], [200, ""])
            yield* untilUsed(0)
          }
          assert.strictEqual((yield* counts).discarded, discarded)
          assert.deepStrictEqual(ran, [])
        }).pipe(Effect.provide(logging(router)))
        assert.deepStrictEqual(lines, quiet)
      }).pipe(Effect.provide(layer))
    })

    it.scoped("a handler that has timed out gives its channel back before its client has the answer", () => {
      const { layer, lines } = logs()
      return Effect.gen(function* () {
        const late = AmqpChannel.use(() => Effect.never).pipe(
          Effect.scoped,
          Effect.timeout("20 millis"),
          Effect.catchTag("TimeoutException", () => Effect.succeed(HttpServerResponse.empty({ status: 504 })))
        )
        const inRequest = AmqpChannel.use(() => Effect.never).pipe(Effect.timeout("20 millis"))
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/answered",
            Effect.flatMap(late, (response) =>
              Effect.map(used, (used) => HttpServerResponse.setStatus(response, 504 + used))
            )
          ),
          HttpRouter.get("/failed", inRequest),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const { discarded } = yield* counts
          for (const [path, status] of [
            ["/answered", 504],
            ["/failed", 500]
          ] as const) {
            assert.strictEqual((yield* send(path)).statusCode, status)
            yield* untilUsed(0)
          }
          assert.strictEqual((yield* counts).discarded, discarded)
        }).pipe(Effect.provide(logging(router)))
        assert.deepStrictEqual(lines, quiet)
      }).pipe(Effect.provide(layer))
    })

    it.scoped("requests of one connection borrow one after the other, and none holds a channel between them", () => {
      const { layer, lines } = logs()
      return Effect.gen(function* () {
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/",
            AmqpChannel.use((channel) =>
              Effect.zipRight(
                channel.queueDeclare("kept"),
                Effect.map(used, (used) => HttpServerResponse.text(String(used)))
              )
            )
          ),
          HttpRouter.use(AmqpHttp.middleware)
        )
        const agent = yield* Effect.acquireRelease(
          Effect.sync(() => new Agent({ keepAlive: true, maxSockets: 1 })),
          (agent) => Effect.sync(() => agent.destroy())
        )
        yield* Effect.gen(function* () {
          yield* send("/").pipe(Effect.flatMap(bodyOf), Effect.zipRight(untilUsed(0)))
          const before = yield* counts
          const sockets = new Set<unknown>()
          for (let i = 0; i < 3; i++) {
            const response = yield* send("/", { agent })
            const { socket } = response
            sockets.add(socket)
            assert.strictEqual(yield* bodyOf(response), "1")
            yield* untilUsed(0)
            assert.isFalse(socket.destroyed)
          }
          assert.strictEqual(sockets.size, 1)
          assert.deepStrictEqual(yield* counts, before)
          agent.destroy()
        }).pipe(Effect.provide(logging(router)))
        assert.deepStrictEqual(lines, quiet)
      }).pipe(Effect.provide(layer))
    })

    it.scoped(
      "a body that fails after its first part returns the channel, or discards one that the error closed",
      () => {
        const { layer, lines } = logs()
        return Effect.gen(function* () {
          const body = (rest: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<string, unknown>) =>
            AmqpChannel.use((channel) =>
              Effect.succeed(
                HttpServerResponse.stream(
                  Stream.make("first").pipe(Stream.concat(Stream.fromEffect(rest(channel))), Stream.encodeText)
                )
              )
            )
          const router = HttpRouter.empty.pipe(
            HttpRouter.get(
              "/fails",
              body(() => Effect.fail("no"))
            ),
            HttpRouter.get(
              "/closes",
              body((channel) => Effect.as(channel.queueDeclarePassive("absent"), ""))
            ),
            HttpRouter.use(AmqpHttp.middleware)
          )
          yield* Effect.gen(function* () {
            const { discarded } = yield* counts
            for (const [path, lost] of [
              ["/fails", 0],
              ["/closes", 1]
            ] as const) {
              const response = yield* send(path)
              assert.deepStrictEqual([response.statusCode, yield* bodyOf(response)], [200, "first"])
              yield* untilUsed(0)
              assert.strictEqual((yield* counts).discarded, discarded + lost)
            }
          }).pipe(Effect.provide(logging(router)))
          // The status is sent, so @effect/platform makes each failure of a body a defect, and logs it once.
          assert.deepStrictEqual(
            lines.defects.map((defect) => (defect instanceof AmqpError.AmqpError ? defect.reason._tag : defect)),
            ["no", "NotFound"]
          )
        }).pipe(Effect.provide(layer))
      }
    )

    it.scoped("a client that hangs up before it has sent its body leaves no channel behind", () => {
      const { layer, lines } = logs()
      return Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const router = HttpRouter.empty.pipe(
          HttpRouter.post(
            "/",
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                const request = yield* HttpServerRequest.HttpServerRequest
                yield* Deferred.succeed(started, undefined)
                yield* channel.publish({ routingKey: "http", content: yield* request.text })
                return HttpServerResponse.empty()
              })
            )
          ),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const { discarded } = yield* counts
          const headers = { "content-length": "1000" }
          const client = requestOf(yield* origin, { method: "POST", agent: false, headers }).on("error", () => {})
          client.flushHeaders()
          yield* Deferred.await(started)
          assert.strictEqual(yield* used, 1)
          client.destroy()
          yield* untilUsed(0)
          assert.strictEqual((yield* counts).discarded, discarded)
        }).pipe(Effect.provide(logging(router)))
        assert.deepStrictEqual(lines, quiet)
      }).pipe(Effect.provide(layer))
    })

    it.scoped("a server that stops while it sends a body waits for its end, which returns the channel", () => {
      const { layer, lines } = logs()
      return Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/",
            AmqpChannel.use((channel) =>
              Effect.succeed(
                HttpServerResponse.stream(
                  Stream.make("first").pipe(
                    Stream.concat(Stream.drain(Stream.fromEffect(Deferred.await(gate)))),
                    Stream.concat(Stream.fromEffect(Effect.as(channel.queueDeclare("stopping"), " last"))),
                    Stream.encodeText
                  )
                )
              )
            )
          ),
          HttpRouter.use(AmqpHttp.middleware)
        )
        const scope = yield* Scope.make()
        const node = createServer()
        const context = yield* Layer.buildWithScope(logging(router, node), scope)
        const { discarded } = yield* counts
        const response = yield* Effect.provide(send("/"), context)
        const stopping = yield* Effect.forkDaemon(Scope.close(scope, Exit.void))
        yield* until(
          Effect.sync(() => node.listening),
          (listening) => !listening
        )
        assert.strictEqual(yield* used, 1)
        assert.isNull(stopping.unsafePoll())
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual(yield* bodyOf(response), "first last")
        yield* Fiber.join(stopping)
        yield* untilUsed(0)
        assert.strictEqual((yield* counts).discarded, discarded)
        assert.deepStrictEqual(lines, quiet)
      }).pipe(Effect.provide(layer))
    })

    it.scoped("AMQP errors are problem details, and say nothing about their cause", () =>
      Effect.gen(function* () {
        const router = HttpRouter.empty.pipe(
          HttpRouter.get(
            "/unroutable",
            Effect.as(
              AmqpPublisher.publish({ routingKey: "nowhere", content: "x" }, { mandatory: true }),
              HttpServerResponse.empty()
            )
          ),
          HttpRouter.get(
            "/missing",
            Effect.as(
              AmqpChannel.use((channel) => channel.queueDeclarePassive("s3cret")),
              HttpServerResponse.empty()
            )
          ),
          HttpRouter.get(
            "/busy",
            Effect.as(
              AmqpChannel.use(() => Effect.void),
              HttpServerResponse.empty()
            )
          ),
          HttpRouter.get("/health", AmqpHttp.ready),
          HttpRouter.use(AmqpHttp.middleware)
        )
        yield* Effect.gen(function* () {
          const unroutable = yield* request("/unroutable")
          assert.strictEqual(unroutable.status, 422)
          assert.strictEqual(unroutable.headers.get("content-type"), "application/problem+json")
          assert.strictEqual(JSON.parse(unroutable.text).title, "Unprocessable Content")
          const missing = yield* request("/missing")
          assert.strictEqual(missing.status, 500)
          assert.notInclude(missing.text, "s3cret")
          const pool = yield* AmqpPool.AmqpPool
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* Effect.all([pool.get, pool.get, pool.get])
              const busy = yield* request("/busy")
              assert.strictEqual(busy.status, 503)
              assert.strictEqual(busy.headers.get("retry-after"), "1")
            })
          )
          const health = yield* request("/health")
          assert.strictEqual(health.status, 200)
          const report: AmqpHealth.Report = JSON.parse(health.text)
          assert.deepStrictEqual(report.reasons, [])
          assert.strictEqual(report.connection.state, "Open")
          assert.isTrue((yield* AmqpHealth.check()).live)
        }).pipe(Effect.provide(server(router)))
      })
    )

    it.scoped("handlers of an HttpApi use channels of their request, and answer AMQP errors", () =>
      Effect.gen(function* () {
        const api = HttpApi.make("api").add(
          HttpApiGroup.make("orders")
            .add(HttpApiEndpoint.get("count", "/count").addSuccess(Schema.Struct({ messages: Schema.Number })))
            .add(HttpApiEndpoint.get("missing", "/missing").addSuccess(Schema.Struct({ messages: Schema.Number })))
        )
        const count = (queue: string) =>
          AmqpChannel.use((channel) =>
            Effect.map(channel.queueDeclarePassive(queue), ({ messageCount }) => ({ messages: messageCount }))
          ).pipe(AmqpHttp.orResponse)
        const Orders = HttpApiBuilder.group(api, "orders", (handlers) =>
          handlers.handle("count", () => count("http")).handle("missing", () => count("absent"))
        )
        const Server = HttpApiBuilder.serve().pipe(
          Layer.provide(HttpApiBuilder.api(api)),
          Layer.provide(Orders),
          Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
        )
        yield* Effect.gen(function* () {
          const { status, text } = yield* request("/count")
          assert.deepStrictEqual([status, text], [200, '{"messages":2}'])
          yield* untilUsed(0)
          assert.strictEqual((yield* request("/missing")).status, 500)
          yield* untilUsed(0)
        }).pipe(Effect.provide(Server))
      })
    )
  })
})
