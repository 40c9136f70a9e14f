/** Mistakes of one client of the gateway do not affect the others. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpConfig, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpGateway } from "@effect-amqp/http"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { HttpRouter } from "effect/http"
import { quietly } from "../../core/test/support/amqp.ts"
import * as Users from "../../core/test/support/users.ts"
import { limitBodies } from "../../core/test/support/versions.ts"
import { type Answer, authorize, limits, post, withGateway } from "./support/gateway.ts"
import { gracefulServer, quiet } from "./support/server.ts"

const ndjson = { "content-type": "application/x-ndjson" }

/** Declares a queue for one test, and a topic exchange that routes to it. */
const makeWays = Effect.gen(function* () {
  const pool = yield* AmqpPool.AmqpPool
  const name = `strangers-${crypto.randomUUID()}`
  yield* pool.use((channel) =>
    Effect.gen(function* () {
      yield* channel.queueDeclare(name, { durable: false })
      yield* channel.exchangeDeclare(name, "topic", { durable: false })
      yield* channel.queueBind(name, name, "#")
    })
  )
  const publisher = yield* AmqpPublisher.AmqpPublisher
  return { name, byQueue: `/amqp/publish/amq.default/${name}`, byExchange: `/amqp/publish/${name}`, pool, publisher }
})

const statuses = ({ text }: Answer): ReadonlyArray<unknown> =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
    .map(({ problem, status }) => problem?.status ?? status)

/**
 * Publishes many messages at once, as well-behaved clients do, until the hostile one is done. Returns every status
 * except 200.
 */
const honestly = <A, R>(paths: ReadonlyArray<string>, hostile: Effect.Effect<A, never, R>) =>
  Effect.gen(function* () {
    const leaving = yield* Deferred.make<void>()
    let confirmed = 0
    const others: Array<number> = []
    const one = (path: string) =>
      Effect.gen(function* () {
        while (!Deferred.isDoneUnsafe(leaving)) {
          const { status } = yield* post(path, "honest")
          if (status === 200) confirmed++
          else others.push(status)
        }
      })
    const honest = yield* Effect.forkChild(
      Effect.forEach(
        Array.from({ length: 16 }, (_, i) => paths[i % paths.length]!),
        one,
        { concurrency: "unbounded", discard: true }
      )
    )
    const result = yield* hostile
    yield* Deferred.succeed(leaving, undefined)
    yield* Fiber.join(honest)
    return { result, confirmed, others }
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "3 minutes" })((it) => {
  describe("a client that", () => {
    const cases: Record<string, (ways: Effect.Success<typeof makeWays>, nth: number) => ReturnType<typeof post>> = {
      "names another user": ({ byQueue }) => post(byQueue, "it", { "amqp-user-id": "another-user" }),
      "names another user in a batch": ({ byQueue }) =>
        post(byQueue, '{"content":"it","properties":{"userId":"another-user"}}', ndjson),
      "expects replies on its own channel": ({ byQueue }) =>
        post(byQueue, "it", { "amqp-reply-to": "amq.rabbitmq.reply-to" }),
      "expects replies on its own channel, by the name that LavinMQ has for it": ({ byQueue }) =>
        post(byQueue, "it", { "amqp-reply-to": "amq.direct.reply-to" }),
      "expects replies at an address of LavinMQ, in a batch": ({ byQueue }) =>
        post(byQueue, '{"content":"it","properties":{"replyTo":"amq.direct.reply-to.ctag-0b1c"}}', ndjson),
      "expects replies at a malformed address, in a batch": ({ byQueue }) =>
        post(byQueue, '{"content":"it","properties":{"replyTo":"amq.rabbitmq.reply-to.a.b"}}', ndjson),
      "publishes to a missing exchange": () => post("/amqp/publish/missing/it", "it"),
      "publishes to one missing exchange after another": (_, nth) => post(`/amqp/publish/missing-${nth}/it`, "it"),
      "publishes to a missing exchange in batches": (_, nth) =>
        post(`/amqp/publish/missing-${nth}/it`, '{"content":"it"}\n'.repeat(20), ndjson)
    }
    for (const [what, misbehave] of Object.entries(cases)) {
      it.effect(
        `${what}, in a loop, is refused, and fails no publish of others and closes no channel of the publisher`,
        () =>
          Effect.gen(function* () {
            const ways = yield* makeWays
            const { confirmed, others, result } = yield* honestly(
              [ways.byQueue, `${ways.byExchange}/a.topic`],
              Effect.forEach(
                Array.from({ length: 120 }, (_, i) => i),
                (nth) => misbehave(ways, nth),
                { concurrency: 4 }
              )
            )
            const wanted = what.includes("exchange") ? 404 : 400
            for (const answer of result) {
              const received = answer.status === 200 ? statuses(answer) : [answer.status]
              assert.isTrue(
                received.every((status) => status === wanted),
                answer.text
              )
            }
            assert.deepStrictEqual(others, [])
            assert.isAbove(confirmed, 0)
            const { refused, timedOut, unknown } = yield* ways.publisher.stats
            assert.deepStrictEqual({ refused, timedOut, unknown }, { refused: 0, timedOut: 0, unknown: 0 })
          }).pipe(Effect.scoped, withGateway(), quietly)
      )
    }

    it.effect("publishes larger messages than the broker accepts fails no publish of others", () =>
      Effect.gen(function* () {
        const ways = yield* makeWays
        yield* limitBodies(100_000)
        const { others, result } = yield* honestly(
          [ways.byQueue],
          Effect.forEach(
            Array.from({ length: 20 }, (_, i) => i),
            () => Effect.map(post(ways.byQueue, "x".repeat(150_000)), ({ status }) => status)
          )
        )
        assert.deepStrictEqual(new Set(result), new Set([413]))
        assert.deepStrictEqual(others, [])
        assert.deepInclude(yield* ways.publisher.stats, { unknown: 0, refused: 0 })
        // Messages of an accepted size share channels afterwards.
        const { confirmed } = yield* ways.publisher.stats
        for (const _ of [1, 2]) assert.strictEqual((yield* post(ways.byQueue, "x".repeat(90_000))).status, 200)
        assert.deepInclude(yield* ways.publisher.stats, { confirmed: confirmed + 1 })
      }).pipe(Effect.scoped, withGateway({ limits: { ...limits, body: "1 MiB" } }), quietly)
    )

    it.effect("publishes where the service's user has no permission fails no publish of others", () =>
      Effect.gen(function* () {
        const user = yield* Users.make("secret")
        const { url } = yield* TestBroker.TestBroker
        const as = new URL(url)
        as.username = user.name
        as.password = "secret"
        const broker = Layer.unwrap(Effect.map(AmqpConfig.fromUrl(as.href), Amqp.fromConfig))
        const gateway = HttpRouter.serve(AmqpGateway.layer({ authorize, limits }), quiet).pipe(
          Layer.provideMerge(gracefulServer()),
          Layer.provideMerge(broker)
        )
        yield* Effect.gen(function* () {
          const ways = yield* makeWays
          yield* user.permit(".*", "^strangers-.*|^amq\\.default$", ".*")
          const { others, result } = yield* honestly(
            [ways.byQueue, `${ways.byExchange}/a.topic`],
            Effect.forEach(
              Array.from({ length: 100 }, (_, i) => ["amq.topic", "amq.direct", "amq.fanout"][i % 3]!),
              (exchange) => Effect.map(post(`/amqp/publish/${exchange}/it`, "it"), ({ status }) => status)
            )
          )
          assert.deepStrictEqual(new Set(result), new Set([403]))
          assert.deepStrictEqual(others, [])
          assert.deepInclude(yield* ways.publisher.stats, { unknown: 0, refused: 0 })
        }).pipe(Effect.provide(gateway, { local: true }))
      }).pipe(Effect.scoped, quietly)
    )
  })

  describe("an exchange", () => {
    it.effect("that is declared can be published to one second after it was missing", () =>
      Effect.gen(function* () {
        const { name, pool } = yield* makeWays
        const exchange = `${name}-late`
        const publish = post(`/amqp/publish/${exchange}/it`, "it", { "amqp-mandatory": "false" })
        assert.strictEqual((yield* publish).status, 404)
        yield* pool.use((channel) => channel.exchangeDeclare(exchange, "fanout", { durable: false, autoDelete: true }))
        const { status } = yield* Effect.repeat(Effect.andThen(Effect.sleep("50 millis"), publish), {
          until: (answer) => answer.status !== 404
        }).pipe(Effect.timeout("10 seconds"))
        assert.strictEqual(status, 200)
        yield* pool.use((channel) => channel.exchangeDelete(exchange))
      }).pipe(Effect.scoped, withGateway(), quietly)
    )

    it.effect(
      "that is deleted after it has accepted messages gets isolated ones again, once some have an unknown outcome",
      () =>
        Effect.gen(function* () {
          const { name, pool, publisher } = yield* makeWays
          const exchange = `${name}-gone`
          yield* pool.use((channel) => channel.exchangeDeclare(exchange, "fanout", { durable: false }))
          const path = `/amqp/publish/${exchange}/it`
          const batch = post(path, '{"content":"it"}\n'.repeat(50), { ...ndjson, "amqp-mandatory": "false" })
          // By then each channel of the publisher has met the missing exchange.
          for (let i = 0; i < 4; i++) assert.deepStrictEqual(new Set(statuses(yield* batch)), new Set(["confirmed"]))
          yield* pool.use((channel) => channel.exchangeDelete(exchange))
          const first = statuses(yield* batch)
          for (const status of first) assert.include([404, 504], status)
          const { unknown } = yield* publisher.stats
          assert.deepStrictEqual(new Set(statuses(yield* batch)), new Set([404]))
          assert.deepInclude(yield* publisher.stats, { unknown })
        }).pipe(Effect.scoped, withGateway(), quietly)
    )
  })

  describe("a batch", () => {
    it.effect("with lines that are nested too deep loses these lines only", () =>
      Effect.gen(function* () {
        const { byQueue } = yield* makeWays
        const nested = (levels: number) => `{"json":${"[".repeat(levels)}${"]".repeat(levels)}}`
        const deepText = JSON.stringify({ content: '["'.repeat(5000) })
        const headers = `{"content":"it","properties":{"headers":{"h":${"[".repeat(5000)}${"]".repeat(5000)}}}}`
        const lines = [nested(63), nested(64), nested(5000), headers, deepText, '{"content":"last"}']
        const answer = yield* post(byQueue, lines.join("\n"), ndjson)
        assert.deepStrictEqual(statuses(answer), ["confirmed", 400, 400, 400, "confirmed", "confirmed"])
        const deep = `{"h":${"[".repeat(3000)}${"]".repeat(3000)}}`
        assert.strictEqual((yield* post(byQueue, "it", { "amqp-headers": deep })).status, 400)
      }).pipe(Effect.scoped, withGateway(), quietly)
    )

    it.effect("with too many lines is refused before anything is published", () =>
      Effect.gen(function* () {
        const { byQueue, name, pool } = yield* makeWays
        const line = '{"content":"it"}\n'
        assert.strictEqual((yield* post(byQueue, line.repeat(101), ndjson)).status, 413)
        assert.strictEqual((yield* post(byQueue, `${line.repeat(100)}x`, ndjson)).status, 413)
        assert.deepInclude(yield* pool.use((channel) => channel.queueDeclarePassive(name)), { messageCount: 0 })
        const answer = yield* post(byQueue, line.repeat(100), ndjson)
        assert.deepStrictEqual(new Set(statuses(answer)), new Set(["confirmed"]))
        assert.deepInclude(yield* pool.use((channel) => channel.queueDeclarePassive(name)), { messageCount: 100 })
      }).pipe(Effect.scoped, withGateway({ limits: { ...limits, batchLines: 100 } }), quietly)
    )

    it.effect("of any lines lets other requests run while it is read", () =>
      Effect.gen(function* () {
        const { byQueue } = yield* makeWays
        yield* post(byQueue, "it")
        let longest = 0
        const timed = Effect.gen(function* () {
          const before = performance.now()
          const { status } = yield* post(byQueue, "it")
          longest = Math.max(longest, performance.now() - before)
          assert.strictEqual(status, 200)
        })
        const others = yield* Effect.forkChild(Effect.forever(timed))
        const lines = 300_000
        const before = performance.now()
        const answer = yield* post(byQueue, "x\n".repeat(lines), ndjson)
        const took = performance.now() - before
        yield* Fiber.interrupt(others)
        assert.strictEqual(answer.text.split("\n").length, lines + 1)
        assert.isAbove(longest, 0)
        assert.isBelow(longest, took / 4)
      }).pipe(Effect.scoped, withGateway({ limits: { ...limits, body: "1 MiB", batchLines: 1_000_000 } }), quietly)
    )
  })
})
