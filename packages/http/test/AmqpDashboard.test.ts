/** The dashboard's routes over sockets: authorization, the page, the events and the shutdown. */
import { assert, describe, it } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { AmqpDashboard } from "@effect-amqp/http"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Metric, Redacted, References, Scope } from "effect"
import { HttpRouter } from "effect/http"
import { TestClock } from "effect/testing"
import { createHash } from "node:crypto"
import { closedByRefusals, configOf, quietly, untilState, untilStats } from "../../core/test/support/amqp.ts"
import * as ScriptedBroker from "../../core/test/support/ScriptedBroker.ts"
import { type Options, serve, serveDashboard } from "./support/dashboard.ts"
import { ask, type Events, listen } from "./support/gateway.ts"
import { get, open, untilFlow } from "./support/service.ts"

const path = "/amqp/dashboard"
const events = `${path}/events`
const known = { authorization: "Bearer open" }

const withDashboard = (broker: ScriptedBroker.ScriptedBroker, options?: Options) =>
  Effect.provide(serveDashboard(broker.url, options), { local: true })

/** A metric in the place of the delivery counter that counts how often it is read. */
const lookedAt = (registry: Metric.MetricRegistry, looked = (_times: number) => {}) => {
  let times = 0
  registry.set("looked at", {
    id: "messaging.client.consumed.messages",
    type: "Counter",
    description: undefined,
    attributes: undefined,
    hooks: {
      get: () => {
        looked(++times)
        return { count: 0, incremental: true }
      },
      update: () => {},
      modify: () => {}
    }
  })
  return () => times
}

const reconnect = {
  minDelay: Duration.millis(10),
  maxDelay: Duration.millis(50),
  healthyAfter: Duration.seconds(1),
  schedule: undefined,
  onRefused: "retry" as const
}

/** Reads events until one of this name. A stream that sends everything at once has sent it already. */
const names = Effect.fnUntraced(function* (stream: Events, last: string) {
  const seen: Array<string> = []
  while (seen.at(-1) !== last) seen.push((yield* stream.next)?.event ?? "end")
  return seen
})

describe("dashboard: authorization", () => {
  it.live("only authorized requests get the page and the events, and no request of others causes a sample", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const registry: Metric.MetricRegistry = new Map()
      const looks = lookedAt(registry)
      yield* Effect.gen(function* () {
        for (const route of [path, events]) {
          const unknown = yield* ask("GET", route, { headers: {} })
          assert.strictEqual(unknown.status, 401)
          assert.strictEqual(unknown.headers.get("www-authenticate"), 'Basic realm="AMQP"')
          assert.strictEqual(unknown.headers.get("content-type"), "application/problem+json")
          const stranger = yield* ask("GET", route, { headers: { authorization: "Bearer shut" } })
          assert.strictEqual(stranger.status, 403)
          for (const answer of [unknown, stranger]) {
            assert.strictEqual(answer.headers.get("cache-control"), "no-store")
            assert.notInclude(answer.text, "127.0.0.1")
          }
        }
        // The sample that is taken every ten seconds, whether or not there are viewers.
        assert.strictEqual(looks(), 1)
        assert.strictEqual((yield* ask("GET", path)).status, 200)
        yield* Effect.scoped(Effect.flatMap(listen(events), (stream) => stream.until("sample")))
        assert.isAtLeast(looks(), 2)
      }).pipe(
        withDashboard(broker, {
          registry,
          authorize: ({ headers: { authorization } }) =>
            Effect.succeed(
              authorization === "Bearer open" ? "allow" : authorization === undefined ? "authenticate" : "deny"
            )
        })
      )
    })
  )

  it.live("authorize gets the services that the layer was built with", () =>
    Effect.gen(function* () {
      class Guests extends Context.Service<Guests, { readonly names: ReadonlyArray<string> }>()("Guests") {}
      const broker = yield* ScriptedBroker.make()
      const dashboard = AmqpDashboard.layer({
        authorize: ({ headers }) =>
          Effect.map(Guests, ({ names }) => (names.includes(headers["x-name"] ?? "") ? "allow" : "deny"))
      }).pipe(Layer.provide(Layer.succeed(Guests, { names: ["ann"] })))
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* ask("GET", path, { headers: { "x-name": "ann" } })).status, 200)
        assert.strictEqual((yield* ask("GET", path, { headers: { "x-name": "bob" } })).status, 403)
      }).pipe(Effect.provide(serve(broker.url, dashboard), { local: true }))
    })
  )

  it.live(
    "only the dashboard's own page gets events; another site cannot open streams with its visitors' cookies",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          for (const site of ["cross-site", "same-site"]) {
            const answer = yield* ask("GET", events, {
              headers: { authorization: "Bearer open", "sec-fetch-site": site }
            })
            assert.strictEqual(answer.status, 403, site)
          }
          yield* Effect.scoped(
            Effect.flatMap(listen(events, { "sec-fetch-site": "same-origin" }), (stream) => stream.until("hello"))
          )
          assert.strictEqual((yield* ask("HEAD", events)).status, 404)
          assert.strictEqual((yield* ask("HEAD", path)).status, 200)
        }).pipe(withDashboard(broker, { limits: { viewers: 1 } }))
      })
  )

  it.live("viewers are limited; a viewer that leaves frees its permit", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const [one, two] = [yield* open(events), yield* open(events)]
        const refused = yield* get(events)
        assert.strictEqual(refused.status, 503)
        assert.strictEqual(refused.headers["retry-after"], "10")
        yield* one.hangUp
        // The server notices a moment later that a viewer has left.
        let three = yield* open(events)
        while (!three.first.includes("event: hello")) three = yield* open(events)
        yield* two.hangUp
        yield* three.hangUp
      }).pipe(withDashboard(broker, { authorize: () => Effect.succeed("allow"), limits: { viewers: 2 } }))
    })
  )

  it.live("a limit out of bounds makes the layer die while it is built", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const limits of [
        { viewers: 0 },
        { viewers: 1.5 },
        { heartbeatInterval: 0 },
        { heartbeatInterval: "30 days" }
      ] as const) {
        const exit = yield* Effect.exit(Effect.void.pipe(withDashboard(broker, { limits })))
        assert.isTrue(Exit.hasDies(exit), JSON.stringify(limits))
      }
      for (const queueCounts of [
        { interval: "1 second" },
        { interval: "2 hours" },
        { queues: Array.from({ length: 101 }, (_, i) => `queue-${i}`) }
      ] as const) {
        const exit = yield* Effect.exit(Effect.void.pipe(withDashboard(broker, { queueCounts })))
        assert.isTrue(Exit.hasDies(exit), JSON.stringify(queueCounts))
      }
    })
  )
})

describe("dashboard: the page", () => {
  it.live("is one small response that can load only its own events", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const { headers, text } = yield* ask("GET", "/ops")
        assert.strictEqual(headers.get("content-type"), "text/html; charset=utf-8")
        assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
        assert.isBelow(Buffer.byteLength(text), 60_000)
        assert.strictEqual(headers.get("vary"), "accept-encoding")
        const policy = Object.fromEntries(
          headers
            .get("content-security-policy")!
            .split("; ")
            .map((directive) => [
              directive.slice(0, directive.indexOf(" ")),
              directive.slice(directive.indexOf(" ") + 1)
            ])
        )
        const hashOf = (tag: string) => {
          const [, content = ""] = new RegExp(`<${tag}>(.*?)</${tag}>`, "s").exec(text)!
          return `'sha256-${createHash("sha256").update(content).digest("base64")}'`
        }
        assert.deepStrictEqual(policy, {
          "default-src": "'none'",
          "script-src": hashOf("script"),
          "style-src": hashOf("style"),
          "connect-src": "'self'",
          "img-src": "data:",
          "base-uri": "'none'",
          "form-action": "'none'",
          "frame-ancestors": "'none'"
        })
        assert.lengthOf([...text.matchAll(/<script|<style|style=|<link/g)], 3)
        assert.deepStrictEqual(
          [...text.matchAll(/https?:[^"'\s]*/g)].map(([url]) => url),
          ["http://www.w3.org/2000/svg"]
        )
        // oxlint-disable-next-line typescript/no-implied-eval, no-new
        new Function(/<script>(.*?)<\/script>/s.exec(text)![1]!)
        assert.strictEqual((yield* ask("GET", path)).status, 404)
        yield* Effect.scoped(Effect.flatMap(listen("/ops/events"), (stream) => stream.until("hello")))
      }).pipe(withDashboard(broker, { path: "/ops/" }))
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* ask("GET", "/")).status, 200)
        yield* Effect.scoped(Effect.flatMap(listen("/events"), (stream) => stream.until("hello")))
      }).pipe(withDashboard(broker, { path: "/" }))
    })
  )
})

describe("dashboard: the page's encodings", () => {
  it.live("it is compressed as the request accepts, always the same page", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const plain = yield* ask("GET", path, { headers: { ...known, "accept-encoding": "identity" } })
        for (const [accepted, encoding] of [
          ["gzip, deflate, br", "br"],
          ["gzip", "gzip"],
          ["br;q=0.5, gzip;q=1", "gzip"],
          ["br;q=0, *", "gzip"],
          ["identity, br;q=0, gzip;q=0", null]
        ] as const) {
          // `fetch` decodes the body.
          const { headers, text } = yield* ask("GET", path, { headers: { ...known, "accept-encoding": accepted } })
          assert.strictEqual(headers.get("content-encoding"), encoding, accepted)
          assert.strictEqual(text, plain.text, accepted)
          if (encoding !== null) assert.isBelow(Number(headers.get("content-length")), 16_000)
        }
      }).pipe(withDashboard(broker, { authorize: () => Effect.succeed("allow") }))
    })
  )
})

describe("dashboard: its events", () => {
  it.effect("a viewer gets the settings, the last five minutes, and then one sample per second", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const first = yield* listen(events)
        const hello = yield* first.until("hello")
        const { name, interval, max, phases, window } = hello.data
        assert.deepInclude({ name, interval, max, window }, { name: "orders", interval: 1000, max: 4, window: 300_000 })
        assert.lengthOf(phases, 1)
        assert.deepInclude(phases[0], { name: "open", generation: 1, peer: `127.0.0.1:${broker.port}` })
        const sample = yield* first.until("sample")
        assert.deepInclude(sample.data, {
          at: 0,
          pools: [
            [0, 0, 0],
            [0, 0, 0],
            [0, 0, 0]
          ],
          publisher: [0, 0],
          published: null,
          consumed: null,
          confirming: null
        })
        assert.strictEqual((yield* first.next)?.event, "totals")
        for (let second = 1; second <= 3; second++) {
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* first.until("sample")).data.at, second * 1000)
        }
        yield* TestClock.adjust("10 minutes")
        const second = yield* listen(events)
        const seen = yield* names(second, "totals")
        assert.strictEqual(seen[0], "hello")
        const count = seen.filter((event) => event === "sample").length
        assert.isAtLeast(count, 295)
        assert.isAtMost(count, 301)
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* second.until("sample")).data.at, 604_000)
      }).pipe(Effect.scoped, withDashboard(broker, { amqp: { connectionName: "orders" } }))
    })
  )

  it.effect("a sample has what stands in the outboxes whose relays of @effect-amqp/sql run in this process", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const registry: Metric.MetricRegistry = new Map()
      yield* Effect.gen(function* () {
        const viewer = yield* listen(events)
        assert.isNull((yield* viewer.until("sample")).data.outbox)
        // As a relay sets them: packages/sql/test/AmqpOutbox.faults.test.ts.
        const set = (table: string, name: string, value: number) =>
          Effect.provideService(
            Metric.update(Metric.gauge(name, { attributes: { "db.collection.name": table } }), value),
            Metric.MetricRegistry,
            registry
          )
        yield* set("amqp_outbox", "amqp.outbox.waiting", 12)
        yield* set("amqp_outbox", "amqp.outbox.oldest_age", 3.5)
        yield* set("amqp_outbox", "amqp.outbox.set_aside", 1)
        yield* set("other_outbox", "amqp.outbox.waiting", 5)
        yield* set("other_outbox", "amqp.outbox.oldest_age", 2)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual((yield* viewer.until("sample")).data.outbox, [17, 3.5, 1])
      }).pipe(Effect.scoped, withDashboard(broker, { registry }))
    })
  )

  it.effect("one fiber takes a sample per second for all viewers, and one per ten seconds is always taken", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const registry: Metric.MetricRegistry = new Map()
      const looks = lookedAt(registry)
      yield* Effect.gen(function* () {
        yield* TestClock.adjust("55 seconds")
        assert.strictEqual(looks(), 6)
        yield* Effect.gen(function* () {
          const viewers = yield* Effect.forEach([1, 2, 3], () => listen(events))
          for (const viewer of viewers) yield* viewer.until("sample")
          assert.strictEqual(looks(), 7)
          for (let second = 1; second <= 4; second++) {
            yield* TestClock.adjust("1 second")
            for (const viewer of viewers) yield* viewer.until("sample")
          }
          assert.strictEqual(looks(), 11)
        }).pipe(Effect.scoped)
        // The server notices a moment later that a viewer has left.
        let before = -1
        while (before !== looks()) {
          before = looks()
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
          yield* TestClock.adjust("10 seconds")
          before++
        }
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(looks(), before + 6)
        const again = yield* listen(events)
        yield* again.until("sample")
        assert.strictEqual(looks(), before + 7)
      }).pipe(Effect.scoped, withDashboard(broker, { registry, limits: { viewers: 3 } }))
    })
  )

  it.effect("a first viewer gets the last hour, however long the service runs", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        yield* TestClock.adjust("2 hours")
        const { data } = yield* (yield* listen(events)).until("history")
        assert.lengthOf(data, 360)
        assert.deepStrictEqual([data.at(0).at, data.at(-1).at], [7_200_000 - 3_590_000, 7_200_000])
        assert.isAtMost(JSON.stringify(data).length, 250_000)
      }).pipe(Effect.scoped, withDashboard(broker))
    })
  )

  it.effect("each run of the service has a name, a start, a process and a version", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const read = (version?: string) =>
        Effect.flatMap(listen(events), (viewer) => viewer.until("hello")).pipe(
          Effect.scoped,
          withDashboard(broker, { version }),
          Effect.map(({ data }) => data.instance)
        )
      const [one, two] = [yield* read(), yield* read("1.2.3")]
      assert.notStrictEqual(one.id, two.id)
      assert.deepInclude(one, { startedAt: 0, pid: process.pid, version: null })
      assert.deepInclude(two, { version: "1.2.3" })
    })
  )

  it.effect("a metric that dies loses one sample, and the dashboard continues", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const registry: Metric.MetricRegistry = new Map()
      lookedAt(registry, (times) => {
        if (times === 3) throw new Error("not now")
      })
      yield* Effect.gen(function* () {
        const viewer = yield* listen(events)
        yield* viewer.until("sample")
        yield* TestClock.adjust("1 second")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* viewer.until("sample")).data.at, 2000)
      }).pipe(Effect.scoped, withDashboard(broker, { registry }))
    })
  )

  it.effect("rates and percentiles cover the last second of this connection only", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const registry: Metric.MetricRegistry = new Map()
      yield* Effect.gen(function* () {
        const boundaries = [0.001, 0.01, 0.1]
        const own = { "amqp.connection.name": "orders" }
        const publish = { ...own, "messaging.operation.name": "publish", "amqp.outcome": "confirmed" }
        const duration = Metric.histogram("messaging.client.operation.duration", { boundaries })
        const confirming = Metric.withAttributes(duration, publish)
        const refusing = Metric.withAttributes(duration, { ...publish, "amqp.outcome": "nacked" })
        const asking = Metric.withAttributes(duration, { ...publish, "messaging.operation.name": "call" })
        const elsewhere = Metric.withAttributes(duration, { ...publish, "amqp.connection.name": "audit" })
        const handling = Metric.withAttributes(Metric.histogram("messaging.process.duration", { boundaries }), own)
        const counter = (name: string, attributes = {}) =>
          Metric.withAttributes(Metric.counter(name, { incremental: true }), { ...own, ...attributes })
        const delivered = counter("messaging.client.consumed.messages")
        const settled = (how: string) => counter("amqp.client.consumer.settled", { "amqp.settlement": how })
        const repeat = <A, R>(times: number, effect: Effect.Effect<A, never, R>) =>
          Effect.repeat(effect, { times: times - 1 })
        const send = AmqpPublisher.publish({ exchange: "", routingKey: "orders", content: "one" })

        yield* AmqpChannel.use((channel) => channel.queueDeclare("orders"))
        yield* Metric.update(confirming, 0.5)
        yield* Metric.update(settled("acked"), 1)
        const viewer = yield* listen(events)
        yield* viewer.until("sample")

        yield* repeat(20, Effect.orDie(send))
        const refused = AmqpPublisher.publish({ exchange: "", routingKey: "x".repeat(300), content: "" })
        yield* repeat(10, Effect.ignore(refused))
        // One hundred durations, evenly in two buckets: 1 to 10 ms, and 10 to 100 ms.
        yield* repeat(50, Metric.update(confirming, 0.005))
        yield* repeat(50, Metric.update(confirming, 0.05))
        for (const other of [asking, elsewhere, refusing]) yield* repeat(50, Metric.update(other, 1))
        yield* repeat(10, Metric.update(handling, 5))
        yield* Metric.update(delivered, 40)
        yield* Metric.update(settled("acked"), 30)
        yield* Metric.update(settled("requeued"), 2)
        yield* Metric.update(settled("dead_lettered"), 3)
        yield* TestClock.adjust("1 second")
        const { data } = yield* viewer.until("sample")
        assert.deepStrictEqual(data.published, [20, 10])
        assert.deepStrictEqual(data.consumed, [40, 30, 5])
        assert.deepStrictEqual(data.confirming, [10, 91, 98.2])
        // A duration above the last bucket counts as the boundary of that bucket.
        assert.deepStrictEqual(data.handling, [100, 100, 100])

        yield* TestClock.adjust("1 second")
        const idle = (yield* viewer.until("sample")).data
        assert.deepStrictEqual(idle.published, [0, 0])
        assert.deepStrictEqual(idle.consumed, [0, 0, 0])
        assert.isNull(idle.confirming)
        const totals = (yield* viewer.until("totals")).data
        assert.deepInclude(totals, { settled: { acked: 31, requeued: 2, dead_lettered: 3 }, flow: "Flowing" })
        assert.deepInclude(totals.published, { confirmed: 20, refused: 10 })
      }).pipe(
        Effect.scoped,
        // The layer does not get this registry, because the library's own measurements belong elsewhere.
        Effect.provideService(Metric.MetricRegistry, registry),
        withDashboard(broker, { registry, amqp: { connectionName: "orders" } })
      )
    })
  )

  it.effect("the start and the end of an outage are sent immediately, not with the next sample", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const viewer = yield* listen(events)
        yield* viewer.until("totals")
        yield* broker.down
        const { data: lost } = yield* viewer.until("phase")
        assert.deepInclude(lost, { number: 2, at: 0, name: "reconnecting", reason: "ConnectionClosed" })
        yield* broker.up
        const open = yield* Effect.forkChild(
          Effect.gen(function* () {
            for (;;) {
              const { data } = yield* viewer.until("phase")
              if (data.name === "open") return data
            }
          })
        )
        while (open.pollUnsafe() === undefined) {
          yield* TestClock.adjust("100 millis")
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
        }
        assert.deepInclude(yield* Fiber.join(open), { number: 3, generation: 2 })
      }).pipe(Effect.scoped, withDashboard(broker))
    })
  )

  it.live("the connection's history is recorded without viewers, each phase once", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        yield* broker.down
        yield* untilState((state) => state._tag === "Reconnecting" && state.attempt >= 2)
        yield* broker.up
        yield* untilState(({ _tag }) => _tag === "Open")
        broker.block("low on memory")
        yield* untilFlow("Blocked")
        // The connection is lost while it is blocked, so there is no phase `open` in between.
        broker.destroy()
        yield* untilState((state) => state._tag === "Open" && state.generation === 3)
        const viewer = yield* listen(events)
        const { phases } = (yield* viewer.until("hello")).data
        assert.deepStrictEqual(
          phases.map(({ name, number, reason }: Record<string, unknown>) => [number, name, reason]),
          [
            [1, "open", undefined],
            [2, "reconnecting", "ConnectFailed"],
            [3, "open", undefined],
            [4, "blocked", "low on memory"],
            [5, "reconnecting", "ConnectionClosed"],
            [6, "open", undefined]
          ]
        )
        assert.isAtLeast(phases[1].attempt, 2)
      }).pipe(Effect.scoped, withDashboard(broker, { amqp: { reconnect } }))
    })
  )

  it.live("the history of the consumers' own connection is sent too, starting without a connection", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const viewer = yield* listen(events)
        const { consumers, phases } = (yield* viewer.until("hello")).data
        assert.deepStrictEqual(
          consumers.map(({ name, number }: Record<string, unknown>) => [number, name]),
          [[1, "none"]]
        )
        assert.strictEqual(phases.at(-1).name, "open")
        const consumer = yield* Effect.forkChild(Effect.exit(AmqpConsumer.consume("work", () => Effect.void)))
        const untilPhase = (name: string, generation?: number) =>
          Effect.gen(function* () {
            for (;;) {
              const { data } = yield* viewer.until("consumers")
              if (data.name === name && data.generation === generation) return data
            }
          })
        assert.deepInclude(yield* untilPhase("open", 1), { peer: `127.0.0.1:${broker.port}` })
        yield* broker.received("basic.consume")
        broker.destroy()
        assert.deepInclude(yield* untilPhase("reconnecting"), { reason: "ConnectionClosed" })
        yield* untilPhase("open", 2)
        // A later viewer gets the whole history.
        const later = (yield* (yield* listen(events)).until("hello")).data.consumers
        const named = later.map(({ name }: Record<string, unknown>) => name)
        assert.deepStrictEqual(
          named.filter((name: unknown) => name !== "connecting"),
          ["none", "open", "reconnecting", "open"]
        )
        yield* Fiber.interrupt(consumer)
      }).pipe(Effect.scoped, withDashboard(broker, { amqp: { reconnect } }))
    })
  )

  it.live("borrowers are counted while they have their channels and while they wait", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const letGo = yield* Deferred.make<void>()
        const borrowers = yield* Effect.forEach([1, 2, 3], () =>
          Effect.forkChild(Effect.scoped(AmqpChannel.use(() => Deferred.await(letGo))))
        )
        yield* untilStats(({ created, pending, used }) => created === 2 && used === 2 && pending === 1)
        const viewer = yield* listen(events)
        assert.deepStrictEqual((yield* viewer.until("sample")).data.pools, [
          [2, 0, 1],
          [0, 0, 0],
          [0, 0, 0]
        ])
        assert.deepStrictEqual((yield* viewer.until("totals")).data.pools[0], [2, 0, 0, 0])
        yield* Deferred.succeed(letGo, undefined)
        yield* Fiber.joinAll(borrowers)
        assert.deepStrictEqual((yield* viewer.until("sample")).data.pools[0], [0, 2, 0])
      }).pipe(Effect.scoped, withDashboard(broker, { amqp: { pool: { max: 2 } } }))
    })
  )

  it.effect("a stream is never silent for longer than its heartbeat", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const viewer = yield* listen(events)
        yield* viewer.until("totals")
        for (let i = 0; i < 10; i++) {
          yield* TestClock.adjust("100 millis")
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
        }
        yield* viewer.until("sample")
        assert.isAtLeast(viewer.heartbeats(), 2)
      }).pipe(Effect.scoped, withDashboard(broker, { limits: { heartbeatInterval: "300 millis" } }))
    })
  )

  it.live("an ended consumer is in the table and among what is wrong, until one of its name runs again", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const viewer = yield* listen(events)
        const first = (yield* viewer.until("totals")).data
        assert.deepStrictEqual(first.findings, [])
        assert.isNumber(first.calmSince)
        assert.deepStrictEqual((yield* viewer.until("table")).data, { rows: [], more: 0, queues: [] })
        yield* Effect.ignore(AmqpConsumer.consume("orders", () => Effect.void, { prefetch: -1 }))
        let totals = first
        while (totals.findings.length === 0) totals = (yield* viewer.until("totals")).data
        assert.isNull(totals.calmSince)
        const [{ since, ...finding }] = totals.findings
        assert.deepStrictEqual(finding, {
          rule: "ConsumerEnded",
          subject: "orders",
          what: "ended, one of its options is invalid",
          todo: "Correct the option that the log names. Then start the consumer again, for example by a restart.",
          notReady: true
        })
        assert.isAtMost(since, Date.now())
        const [row] = (yield* viewer.until("table")).data.rows
        assert.deepInclude(row, { queue: "orders", state: "ended", running: 0, wanted: 1, rate: null })
        assert.deepStrictEqual(row.end.slice(0, 2), ["failed", "one of its options is invalid (InvalidArgument)"])

        const consumer = yield* Effect.forkChild(Effect.exit(AmqpConsumer.consume("orders", () => Effect.void)))
        while (totals.findings.length > 0) totals = (yield* viewer.until("totals")).data
        const [again] = (yield* viewer.until("table")).data.rows
        assert.deepInclude(again, { state: "running", running: 1, wanted: 1, end: row.end })
        yield* Fiber.interrupt(consumer)
      }).pipe(Effect.scoped, withDashboard(broker), quietly)
    })
  )

  it.live("viewers get no user, no password and no text of an error", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.destroy()
        yield* untilState(({ _tag }) => _tag === "Closed")
        const viewer = yield* listen(events)
        const hello = yield* viewer.until("hello")
        assert.deepInclude(hello.data.phases.at(-1), { name: "closed", reason: "AuthenticationFailed" })
        const received = JSON.stringify([
          hello.data,
          (yield* viewer.until("sample")).data,
          (yield* viewer.until("totals")).data
        ])
        for (const secret of ["operator-user", "operator-word", "ACCESS_REFUSED"]) assert.notInclude(received, secret)
      }).pipe(
        Effect.scoped,
        withDashboard(broker, {
          amqp: {
            ...closedByRefusals,
            credentials: { _tag: "Plain", username: "operator-user", password: Redacted.make("operator-word") }
          }
        })
      )
    })
  )
})

describe("dashboard: shutdown", () => {
  it.live("streams end with the layer, with any server", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { dispose, handler } = HttpRouter.toWebHandler(
        AmqpDashboard.layer({ authorize: () => Effect.succeed("allow") }).pipe(
          Layer.provide(Amqp.fromConfig(configOf(broker.url))),
          Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
        ),
        { disableLogger: true }
      )
      const response = yield* Effect.promise(() => handler(new Request(`http://dashboard${events}`)))
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
      const read = Effect.promise(() => reader.read())
      assert.include((yield* read).value, "event: hello")
      const disposed = yield* Effect.forkChild(Effect.promise(dispose), { startImmediately: true })
      while (!(yield* read).done) {
        // Samples that were sent before the end.
      }
      yield* Fiber.join(disposed)
    })
  )

  it.live("streams end when the server stops, so the shutdown does not wait for viewers", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(serveDashboard(broker.url), scope)
      yield* Effect.gen(function* () {
        const viewers = yield* Effect.forEach([1, 2], () => listen(events))
        for (const viewer of viewers) yield* viewer.until("totals")
        const stopping = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        const ended = Effect.forEach(viewers, (viewer) =>
          Effect.repeat(viewer.next, { while: (event) => event !== undefined })
        )
        // The server's graceful shutdown timeout is 20 seconds.
        yield* Effect.timeout(Effect.andThen(ended, Fiber.join(stopping)), "10 seconds")
      }).pipe(Effect.scoped, Effect.provideContext(services))
    })
  )
})
