/** Requests that the gateway refuses: those that are not authorized, and those beyond its limits. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpGateway } from "@effect-amqp/http"
import { Context, Effect, Exit, Layer, Schedule } from "effect"
import { request } from "node:http"
import { connect } from "node:net"
import { quietly } from "../../core/test/support/amqp.ts"
import { ask, converse, limits, listen, post, serveGateway, withGateway } from "./support/gateway.ts"
import { address, upgradeRequest } from "./support/server.ts"

const queue = "refusals"

const declare = Effect.acquireRelease(
  Effect.tap(AmqpPool.AmqpPool, (pool) => pool.use((channel) => channel.queueDeclare(queue))),
  (pool) => Effect.ignore(pool.use((channel) => channel.queueDelete(queue)))
)

const countOf = Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
  Effect.map(
    pool.use((channel) => channel.queueDeclarePassive(queue)),
    ({ messageCount }) => messageCount
  )
)

/** Sends a raw request that Node's client would not send. Returns the answer with its headers. */
const raw = (text: string) =>
  Effect.flatMap(address, (url) =>
    Effect.callback<string>((resume) => {
      const { hostname, port } = new URL(url)
      let answer = ""
      const socket = connect(Number(port), hostname, () => socket.write(text))
      socket.on("data", (data) => {
        answer += data.toString()
      })
      socket.once("error", () => {})
      socket.once("close", () => resume(Effect.succeed(answer)))
      return Effect.sync(() => socket.destroy())
    })
  )

const upgrade = (path: string) => raw(upgradeRequest(path))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("the authorizer", () => {
    const everything: ReadonlyArray<{
      readonly access: AmqpGateway.Access
      readonly does: Effect.Effect<
        { readonly status: number; readonly headers: Headers },
        never,
        Effect.Services<ReturnType<typeof ask>>
      >
    }> = [
      {
        access: { action: "publish", exchange: "", routingKey: queue },
        does: post(`/amqp/publish/amq.default/${queue}`, "it")
      },
      {
        access: { action: "publish", exchange: "logs", routingKey: "a/b" },
        does: post("/amqp/publish/logs/a%2Fb?x=y", '{"content":"it"}', { "content-type": "application/x-ndjson" })
      },
      { access: { action: "consume", queue }, does: ask("GET", `/amqp/consume/${queue}?ack=delivery`) },
      { access: { action: "settle", queue }, does: ask("POST", `/amqp/consume/${queue}/x.1/ack`) },
      { access: { action: "request", queue }, does: post(`/amqp/rpc/${queue}`, "1") }
    ]

    for (const decision of ["deny", "authenticate"] as const) {
      it.effect(`that returns "${decision}" is obeyed by every route, before anything is sent to the broker`, () => {
        const asked: Array<AmqpGateway.Access> = []
        return Effect.gen(function* () {
          yield* declare
          const { created } = yield* AmqpPool.stats
          for (const { access, does } of everything) {
            const { headers, status } = yield* does
            assert.strictEqual(status, decision === "deny" ? 403 : 401)
            assert.strictEqual(headers.get("www-authenticate"), decision === "deny" ? null : 'Basic realm="amqp"')
            assert.strictEqual(headers.get("content-type"), "application/problem+json")
            assert.deepStrictEqual(asked.pop(), access)
            assert.isEmpty(asked)
          }
          const answer = yield* upgrade(`/amqp/consume/${queue}`)
          assert.match(answer, decision === "deny" ? /^HTTP\/1\.1 403 / : /^HTTP\/1\.1 401 /)
          assert.strictEqual(yield* countOf, 0)
          assert.deepInclude(yield* AmqpPool.stats, { created })
          const { census } = yield* TestBroker.TestBroker
          assert.deepInclude(yield* census, { consumers: 0 })
        }).pipe(
          Effect.scoped,
          withGateway({
            challenge: 'Basic realm="amqp"',
            authorize: (_request, access) =>
              Effect.sync(() => {
                asked.push(access)
                return decision
              })
          })
        )
      })
    }

    it.effect("can require services and read the request; one that dies allows nothing", () =>
      Effect.gen(function* () {
        class Users extends Context.Service<Users, ReadonlyMap<string, string>>()("test/Users") {}
        const authorize = ({ headers }: { readonly headers: Readonly<Record<string, string | undefined>> }) =>
          Effect.map(Users, (users): AmqpGateway.Decision => {
            const name = users.get(headers["authorization"] ?? "")
            if (name === "broken") throw new Error("a secret")
            return name === undefined ? "authenticate" : "allow"
          })
        const users = Context.make(
          Users,
          new Map([
            ["Bearer 1", "alice"],
            ["Bearer 2", "broken"]
          ])
        )
        yield* Effect.gen(function* () {
          yield* declare
          const status = (authorization: string) =>
            Effect.map(post(`/amqp/publish/amq.default/${queue}`, "it", { authorization }), (answer) => {
              assert.notInclude(answer.text, "secret")
              return answer.status
            })
          assert.deepStrictEqual(yield* Effect.forEach(["Bearer 1", "Bearer 2", "Bearer 3"], status), [200, 500, 401])
          assert.strictEqual(yield* countOf, 1)
        }).pipe(
          Effect.scoped,
          withGateway({ authorize: (request) => Effect.provideContext(authorize(request), users) })
        )
      }).pipe(quietly)
    )

    it.effect("and limits are required; a limit out of bounds makes the layer die", () =>
      Effect.gen(function* () {
        const senseless: ReadonlyArray<Partial<AmqpGateway.Limits>> = [
          { prefetch: 0 },
          { prefetch: 65_536 },
          { streams: 0.5 },
          { body: 0 },
          { idleTimeout: 0 },
          { idleTimeout: "30 days" },
          { heartbeatInterval: 0 },
          { replayBuffer: -1 },
          { linse: 10 } as {}
        ]
        for (const wrong of senseless) {
          const built = Effect.scoped(Layer.build(serveGateway({ limits: { ...limits, ...wrong } })))
          const exit = yield* Effect.exit(built)
          assert.isTrue(
            Exit.isFailure(exit) && String(exit.cause).includes(Object.keys(wrong)[0]!),
            JSON.stringify(wrong)
          )
        }
        // @ts-expect-error -- an authorizer is required
        AmqpGateway.layer({ limits })
        // @ts-expect-error -- limits are required
        AmqpGateway.layer({ authorize: () => Effect.succeed("allow") })
      }).pipe(quietly)
    )
  })

  describe("the limit of", () => {
    it.effect("a body holds with and without an announced length; nothing is published", () =>
      Effect.gen(function* () {
        yield* declare
        const to = `/amqp/publish/amq.default/${queue}`
        assert.strictEqual((yield* post(to, "x".repeat(100))).status, 200)
        for (const path of [to, `/amqp/rpc/${queue}`]) {
          const answer = yield* post(path, "x".repeat(101))
          assert.strictEqual(answer.status, 413)
          assert.deepInclude(answer.json, { title: "Content Too Large", status: 413 })
        }
        const batch = yield* post(to, `{"content":"${"x".repeat(100)}"}`, { "content-type": "application/x-ndjson" })
        assert.strictEqual(batch.status, 413)
        // A chunked body does not announce its length.
        const chunked = yield* Effect.flatMap(address, (url) =>
          Effect.callback<number>((resume) => {
            const asking = request(
              url + to,
              { method: "POST", agent: false, headers: { authorization: "Bearer open" } },
              (response) => {
                response.resume()
                resume(Effect.succeed(response.statusCode ?? 0))
              }
            )
            asking.once("error", () => {})
            for (let i = 0; i < 20; i++) asking.write("x".repeat(10))
            asking.end()
            return Effect.sync(() => asking.destroy())
          })
        )
        assert.strictEqual(chunked, 413)
        assert.strictEqual(yield* countOf, 1)
      }).pipe(Effect.scoped, withGateway({ limits: { ...limits, body: 100 } }), quietly)
    )

    it.effect("time ends a request whose body does not arrive", () =>
      Effect.gen(function* () {
        yield* declare
        const answer = yield* raw(
          `POST /amqp/publish/amq.default/${queue} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open\r\n` +
            "Content-Length: 10\r\n\r\nhalf"
        )
        assert.match(answer, /^HTTP\/1\.1 408 /)
        assert.match(answer, /connection: close/i)
        assert.strictEqual(yield* countOf, 0)
      }).pipe(Effect.scoped, withGateway({ limits: { ...limits, idleTimeout: "300 millis" } }), quietly)
    )

    it.effect("prefetch refuses a request for more", () =>
      Effect.gen(function* () {
        yield* declare
        for (const prefetch of ["11", "0", "-1", "1.5", "many", ""]) {
          const { status } = yield* ask("GET", `/amqp/consume/${queue}?prefetch=${prefetch}`)
          assert.strictEqual(status, 400, prefetch)
        }
        assert.strictEqual((yield* ask("GET", `/amqp/consume/${queue}?ack=never`)).status, 400)
        const events = yield* listen(`/amqp/consume/${queue}?prefetch=10`)
        yield* events.until("open")
      }).pipe(Effect.scoped, withGateway({ limits: { ...limits, prefetch: 10 } }), quietly)
    )

    it.effect("streams counts the open ones of both kinds, and frees their permits when they end", () =>
      Effect.gen(function* () {
        yield* declare
        const path = `/amqp/consume/${queue}`
        const events = yield* listen(path)
        yield* events.until("open")
        const socket = yield* converse(path)
        yield* socket.until("open")
        const refused = yield* ask("GET", path)
        assert.strictEqual(refused.status, 503)
        assert.strictEqual(refused.headers.get("retry-after"), "5")
        assert.match(yield* upgrade(path), /^HTTP\/1\.1 503 /)
        const again = Effect.retry(listen(path), { schedule: Schedule.spaced("20 millis"), times: 200 })
        yield* socket.close
        const third = yield* again
        yield* third.until("open")
        yield* events.hangUp
        const fourth = yield* again
        yield* fourth.until("open")
        assert.strictEqual((yield* ask("GET", path)).status, 503)
      }).pipe(
        Effect.scoped,
        withGateway({ authorize: () => Effect.succeed("allow"), limits: { ...limits, streams: 2 } }),
        quietly
      )
    )
  })
})
