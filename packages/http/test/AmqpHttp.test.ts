/** Routes with AMQP over a socket: which request holds a channel, and until when. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, type AmqpConfig, AmqpConnection, AmqpError, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpHttpError } from "@effect-amqp/http"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Option, Scope, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import {
  atEnd,
  get,
  type Handler,
  ok,
  open,
  Refused,
  serve,
  type Service,
  touch,
  withService
} from "./support/service.ts"
import { until } from "../../core/test/support/polling.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("every handler gets AMQP by one Layer.provide", () => {
    it.effect("the same pool and the same connection in all", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const seen = new Set<unknown>()
        const look = Effect.gen(function* () {
          seen.add(yield* AmqpPool.AmqpPool)
          seen.add(yield* AmqpConnection.AmqpConnection)
          return ok
        })
        yield* Effect.gen(function* () {
          yield* Effect.forEach(["/a", "/b", "/a"], get)
          assert.deepStrictEqual(seen, new Set([yield* AmqpPool.AmqpPool, yield* AmqpConnection.AmqpConnection]))
        }).pipe(withService(url, { "/a": look, "/b": look }))
      })
    )

    it.effect("and one that does not use AMQP borrows no channel", () =>
      Effect.gen(function* () {
        const { census, url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          const answers = yield* Effect.forEach(Array.from({ length: 100 }), () => get("/"), { concurrency: 20 })
          assert.isTrue(answers.every(({ body, status }) => status === 200 && body === "ok"))
          assert.deepInclude(yield* AmqpPool.stats, { created: 0, used: 0, idle: 0 })
          assert.deepInclude(yield* census, { connections: 1, channels: 0 })
        }).pipe(withService(url, { "/": Effect.succeed(ok) }))
      })
    )
  })

  describe("a request holds one channel", () => {
    it.effect("for all uses in its handler, also in a pool of one", () =>
      Effect.gen(function* () {
        const { census, url } = yield* TestBroker.TestBroker
        const handler = Effect.gen(function* () {
          for (let i = 0; i < 5; i++) yield* touch
          yield* Effect.all(
            Array.from({ length: 5 }, () => touch),
            { concurrency: "unbounded" }
          )
          const { used } = yield* AmqpPool.stats
          const { channels } = yield* Effect.orDie(census)
          return HttpServerResponse.jsonUnsafe({ used, channels })
        })
        yield* Effect.gen(function* () {
          assert.deepStrictEqual(JSON.parse((yield* get("/")).body), { used: 1, channels: 1 })
          assert.deepInclude(yield* AmqpPool.stats, { created: 1, timedOut: 0 })
        }).pipe(withService(url, { "/": handler }, { amqp: { pool: { max: 1 } } }))
      })
    )

    it.effect("of its own; two concurrent requests have two", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        let present = 0
        const both = yield* Deferred.make<void>()
        const letGo = yield* Deferred.make<void>()
        const handler = Effect.gen(function* () {
          yield* touch
          if (++present === 2) yield* Deferred.succeed(both, undefined)
          yield* Deferred.await(letGo)
          return ok
        })
        yield* Effect.gen(function* () {
          const asking = yield* Effect.forkChild(Effect.all([get("/"), get("/")], { concurrency: 2 }))
          yield* Deferred.await(both)
          assert.deepInclude(yield* AmqpPool.stats, { used: 2 })
          yield* Deferred.succeed(letGo, undefined)
          yield* Fiber.join(asking)
          assert.deepInclude(yield* AmqpPool.stats, { created: 2 })
        }).pipe(withService(url, { "/": handler }))
      })
    )
  })

  describe("the channel returns to the pool at the end of the response", () => {
    /** Serves a handler that borrows a channel, and checks that the channel returns with the end of the request. */
    const returns = <A>(handler: Handler, client: Effect.Effect<A, unknown, Service>) =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const ended = yield* Deferred.make<void>()
        const route = Effect.andThen(Effect.andThen(atEnd(ended), touch), handler)
        return yield* Effect.gen(function* () {
          const result = yield* client
          yield* Deferred.await(ended)
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, idle: 1, discarded: 0 })
          yield* awaitCensus({ connections: 1, channels: 1 })
          return result
        }).pipe(withService(url, { "/": route }, { amqp: { pool: { max: 1 } } }))
      })

    it.effect("after success", () =>
      Effect.gen(function* () {
        const answer = yield* returns(Effect.succeed(ok), get("/"))
        assert.strictEqual(answer.status, 200)
      })
    )

    it.effect("after a failure", () =>
      Effect.gen(function* () {
        const answer = yield* returns(Effect.fail(new Refused()), get("/"))
        assert.deepInclude(answer, { status: 402, body: "refused" })
      })
    )

    it.effect("after a defect", () =>
      Effect.gen(function* () {
        const answer = yield* returns(Effect.die(new Error("secret")), get("/"))
        assert.deepInclude(answer, { status: 500, body: "" })
      })
    )

    it.effect("when the client disconnects before the answer", () =>
      Effect.gen(function* () {
        const reached = yield* Deferred.make<void>()
        const handler = Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
        const client = Effect.gen(function* () {
          const asking = yield* Effect.forkChild(get("/"))
          yield* Deferred.await(reached)
          yield* Fiber.interrupt(asking)
        })
        yield* returns(handler, client)
      })
    )

    it.effect("after the end of a streamed body, and not before", () =>
      Effect.gen(function* () {
        const finish = yield* Deferred.make<void>()
        const body = Stream.concat(
          Stream.make("first "),
          Stream.fromEffect(Effect.as(Deferred.await(finish), "last"))
        ).pipe(Stream.encodeText)
        const client = Effect.gen(function* () {
          const answer = yield* open("/")
          assert.strictEqual(answer.first, "first ")
          assert.deepInclude(yield* AmqpPool.stats, { used: 1, idle: 0 })
          yield* Deferred.succeed(finish, undefined)
          assert.strictEqual(yield* answer.read, "last")
        })
        yield* returns(Effect.succeed(HttpServerResponse.stream(body)), client)
      })
    )

    it.effect("when the client disconnects during a streamed body", () =>
      Effect.gen(function* () {
        const body = Stream.concat(Stream.make("first "), Stream.never).pipe(Stream.encodeText)
        const client = Effect.gen(function* () {
          const answer = yield* open("/")
          assert.deepInclude(yield* AmqpPool.stats, { used: 1, idle: 0 })
          yield* answer.hangUp
        })
        yield* returns(Effect.succeed(HttpServerResponse.stream(body)), client)
      })
    )

    it.effect("when a streamed body fails midway", () =>
      Effect.gen(function* () {
        const fail = yield* Deferred.make<never, string>()
        const body = Stream.concat(Stream.make("first "), Stream.fromEffect(Effect.orDie(Deferred.await(fail)))).pipe(
          Stream.encodeText
        )
        const client = Effect.gen(function* () {
          const answer = yield* open("/")
          yield* Deferred.fail(fail, "the source is gone")
          assert.isTrue(Exit.isFailure(yield* Effect.exit(answer.read)))
        })
        yield* returns(Effect.succeed(HttpServerResponse.stream(body)), client)
      })
    )
  })

  it.effect("a streamed body can use the channel of its request", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      // The queue's messages, one per line, until there are none.
      const lines = AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          const { queue } = yield* channel.queueDeclare("")
          for (const content of ["one", "two", "three"]) yield* channel.publish({ routingKey: queue, content })
          const take = Effect.flatMap(channel.get(queue), (delivery) =>
            Option.isNone(delivery)
              ? Effect.as(channel.queueDelete(queue), Option.none())
              : Effect.as(
                  channel.ack(delivery.value),
                  Option.some([`${new TextDecoder().decode(delivery.value.content)}\n`, 0] as const)
                )
          )
          return HttpServerResponse.stream(
            Stream.unfold(0, () => Effect.map(take, Option.getOrUndefined)).pipe(Stream.encodeText)
          )
        })
      )
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* get("/")).body, "one\ntwo\nthree\n")
        yield* awaitCensus({ channels: 1, queues: 0, unacked: 0 })
      }).pipe(withService(url, { "/": lines }))
    })
  )

  describe("an AMQP error", () => {
    const missing = AmqpChannel.use((channel) => Effect.as(channel.get("a-secret-queue"), ok))

    it.effect("of a channel is a 500 without internals, and the channel is replaced", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          const answer = yield* get("/missing")
          assert.strictEqual(answer.status, 500)
          assert.strictEqual(answer.headers["content-type"], "application/problem+json")
          assert.isUndefined(answer.headers["retry-after"])
          assert.deepStrictEqual(JSON.parse(answer.body), {
            type: "about:blank",
            title: "Internal Server Error",
            status: 500
          })
          assert.strictEqual((yield* get("/")).status, 200)
          assert.deepInclude(yield* AmqpPool.stats, { created: 2, discarded: 1, used: 0 })
          yield* awaitCensus({ channels: 1 })
        }).pipe(withService(url, { "/missing": missing, "/": Effect.as(touch, ok) }))
      })
    )

    it.effect("is logged once, with its reason and the route, without the request's own URL", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const lines: Array<string> = []
        const collect = Logger.layer([Logger.map(Logger.formatJson, (line) => lines.push(line))])
        yield* get("/missing/17?token=secret").pipe(
          withService(url, { "/missing/:id": missing }),
          Effect.provide(collect)
        )
        const about = lines.map((line) => JSON.parse(line)).filter(({ message }) => String(message).includes("HTTP"))
        assert.strictEqual(about.length, 1)
        assert.deepInclude(about[0].annotations, {
          "http.method": "GET",
          "http.route": "/missing/:id",
          "http.status": 500,
          error: "NotFound"
        })
        assert.strictEqual(about[0].level, "ERROR")
        assert.match(about[0].annotations.reason, /a-secret-queue/)
        assert.notInclude(JSON.stringify(about), "token")
      })
    )

    it.effect("can be handled by the handler first", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const handled = Effect.catchReason(missing, "AmqpError", "NotFound", () =>
          Effect.succeed(HttpServerResponse.text("nothing there", { status: 404 }))
        )
        const answer = yield* get("/").pipe(withService(url, { "/": handled }))
        assert.deepInclude(answer, { status: 404, body: "nothing there" })
      })
    )

    it.effect("can be answered differently by the whole application, with the default as fallback", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const toResponse = (error: AmqpError.AmqpError) =>
          error.reason._tag === "NotFound" ? HttpServerResponse.text("gone", { status: 410 }) : undefined
        const invalid = AmqpChannel.use((channel) =>
          Effect.as(channel.publish({ routingKey: "k".repeat(256), content: "" }), ok)
        )
        yield* Effect.gen(function* () {
          assert.deepInclude(yield* get("/missing"), { status: 410, body: "gone" })
          assert.strictEqual((yield* get("/invalid")).status, 500)
        }).pipe(withService(url, { "/missing": missing, "/invalid": invalid }, { http: { toResponse } }))
      })
    )

    it.effect("is distinguished from the application's own failures, which are unchanged", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const answer = yield* get("/").pipe(
          withService(
            url,
            { "/": Effect.andThen(touch, Effect.fail(new Refused())) },
            {
              http: { toResponse: () => HttpServerResponse.text("wrong", { status: 599 }) }
            }
          )
        )
        assert.strictEqual(answer.status, 402)
      })
    )
  })

  describe("an exhausted pool", () => {
    /** Two routes on a pool of one. `/hold` keeps the channel until the test releases it. */
    const held = <A, E>(amqp: AmqpConfig.Options["pool"], then: Effect.Effect<A, E, Service>) =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const holding = yield* Deferred.make<void>()
        const letGo = yield* Deferred.make<void>()
        const hold = Effect.andThen(touch, Deferred.succeed(holding, undefined)).pipe(
          Effect.andThen(Deferred.await(letGo)),
          Effect.as(ok)
        )
        yield* Effect.gen(function* () {
          const holder = yield* Effect.forkChild(get("/hold"))
          yield* Deferred.await(holding)
          yield* Effect.ensuring(then, Deferred.succeed(letGo, undefined))
          assert.strictEqual((yield* Fiber.join(holder)).status, 200)
          assert.strictEqual((yield* get("/")).status, 200)
        }).pipe(withService(url, { "/hold": hold, "/": Effect.as(touch, ok) }, { amqp: { pool: { max: 1, ...amqp } } }))
      })

    const isTurnedAway = (detail: string) =>
      Effect.map(get("/"), ({ body, headers, status }) => {
        assert.strictEqual(status, 503)
        assert.strictEqual(headers["retry-after"], "1")
        assert.strictEqual(headers["content-type"], "application/problem+json")
        assert.deepStrictEqual(JSON.parse(body), {
          type: "about:blank",
          title: "Service Unavailable",
          status: 503,
          detail
        })
      })

    it.effect("is a 503 with Retry-After, after the acquire timeout", () =>
      held(
        { acquireTimeout: "1 second" },
        isTurnedAway("The service did not reach its message broker in time. Try again in a moment.")
      )
    )

    it.effect("is a 503 with Retry-After, immediately when the wait queue is full", () =>
      held({ maxWaiting: 0 }, isTurnedAway("The service is at capacity. Try again in a moment."))
    )

    it.effect("makes others wait, and one that disconnects leaves the wait queue", () =>
      held(
        {},
        Effect.gen(function* () {
          const waiting = yield* Effect.forkChild(get("/"))
          const pool = yield* AmqpPool.AmqpPool
          const pending = (n: number) => until(pool.stats, (stats) => stats.pending === n)
          yield* pending(1)
          yield* Fiber.interrupt(waiting)
          yield* pending(0)
        })
      )
    )
  })

  describe("at shutdown", () => {
    it.effect("requests are finished before channels and connection are closed", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const reached = yield* Deferred.make<void>()
        const finish = yield* Deferred.make<void>()
        const handler = Effect.gen(function* () {
          yield* touch
          yield* Deferred.succeed(reached, undefined)
          yield* Deferred.await(finish)
          yield* touch
          return ok
        })
        const scope = yield* Scope.make()
        const service = yield* Layer.buildWithScope(serve(url, { "/": handler }), scope)
        const asking = yield* Effect.forkChild(Effect.provide(get("/"), service))
        yield* Deferred.await(reached)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        // The server no longer listens, but accepted requests continue.
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.provide(get("/"), service))))
        yield* awaitCensus({ connections: 1, channels: 1 })
        yield* Deferred.succeed(finish, undefined)
        assert.strictEqual((yield* Fiber.join(asking)).status, 200)
        yield* Fiber.join(closing)
        yield* awaitCensus({ connections: 0, channels: 0 })
        assert.deepInclude(yield* Effect.provide(AmqpPool.stats, service), { used: 0, idle: 0, discarded: 0 })
      })
    )
  })

  it.effect("many concurrent requests that end in every way leave no channel borrowed", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const forever = Stream.concat(Stream.make("first "), Stream.never).pipe(Stream.encodeText)
      const routes = {
        "/ok": Effect.as(touch, ok),
        "/failing": Effect.andThen(touch, Effect.fail(new Refused())),
        "/dying": Effect.andThen(touch, Effect.die("defect")),
        "/missing": AmqpChannel.use((channel) => Effect.as(channel.get("missing"), ok)),
        "/hanging": Effect.andThen(touch, Effect.never),
        "/streaming": Effect.as(touch, HttpServerResponse.stream(forever))
      }
      const clients = [
        Effect.map(get("/ok"), ({ status }) => assert.strictEqual(status, 200)),
        get("/failing"),
        get("/dying"),
        get("/missing"),
        Effect.timeoutOption(get("/hanging"), "20 millis"),
        Effect.flatMap(open("/streaming"), ({ hangUp }) => hangUp)
      ]
      yield* Effect.gen(function* () {
        yield* Effect.forEach(
          Array.from({ length: 600 }, (_, i) => clients[i % clients.length]!),
          (client) => Effect.asVoid(client),
          { concurrency: 30, discard: true }
        )
        const pool = yield* AmqpPool.AmqpPool
        const stats = yield* until(pool.stats, ({ idle, pending, used }) => used === 0 && pending === 0 && idle > 0)
        assert.isAtMost(stats.idle, 4)
        yield* awaitCensus({ channels: stats.idle, unacked: 0 })
        assert.strictEqual((yield* get("/ok")).status, 200)
      }).pipe(withService(url, routes, { amqp: { pool: { max: 4 } } }))
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )

  it.effect("AmqpHttpError answers an error that a handler deals with itself", () =>
    Effect.sync(() => {
      const error = AmqpError.fromReason(new AmqpError.PoolExhausted({ message: "10000 borrowers wait already" }))
      const response = AmqpHttpError.toResponse(error)
      assert.deepInclude(response, { status: 503 })
      assert.strictEqual(response.headers["retry-after"], "1")
    })
  )
})
