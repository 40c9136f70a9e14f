/**
 * The gateway when the broker is slow, refuses or is lost, when clients come and go, and with bodies that it forwards.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Amqp, type AmqpChannel, type AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpGateway } from "@effect-amqp/http"
import { Duration, Effect, Fiber, Layer, Logger, Option, Queue, References, Schedule } from "effect"
import { HttpRouter } from "effect/http"
import { gunzipSync, gzipSync } from "node:zlib"
import { configOf, type Overrides } from "../../core/test/support/amqp.ts"
import * as ScriptedBroker from "../../core/test/support/ScriptedBroker.ts"
import { ask, authorize, converse, limits, listen, post, withGateway } from "./support/gateway.ts"
import { quiet as unlogged, server } from "./support/server.ts"
import { untilFlow } from "./support/service.ts"

const quiet = Effect.provide(Logger.layer([]))

/** A gateway on a scripted broker. */
const onScript = (broker: ScriptedBroker.ScriptedBroker, overrides?: Overrides) =>
  Effect.provide(
    HttpRouter.serve(AmqpGateway.layer({ authorize, limits }), unlogged).pipe(
      Layer.provideMerge(server),
      Layer.provideMerge(Amqp.fromConfig(configOf(broker.url, overrides))),
      Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
    ),
    { local: true }
  )

const to = "/amqp/publish/logs/info"

describe("POST /publish/{exchange}/{routingKey}", () => {
  it.live("is answered after the broker has confirmed the message, with the broker's outcome", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      yield* Effect.gen(function* () {
        const outcome = Effect.fnUntraced(function* (nth: number, tell: Effect.Effect<void>) {
          const asking = yield* Effect.forkChild(post(to, "it"), { startImmediately: true })
          yield* broker.received("basic.publish", nth)
          // The gateway has everything that it needs for an answer, except the confirm.
          yield* Effect.sleep("50 millis")
          assert.isUndefined(asking.pollUnsafe())
          yield* tell
          const { headers, status } = yield* Fiber.join(asking)
          return [status, headers.get("retry-after")]
        })
        const tell = (channel: number, method: "basic.ack" | "basic.nack") =>
          Effect.sync(() => broker.send(channel, method, { deliveryTag: 1 }))
        // The first message to an exchange has a channel of its own.
        assert.deepStrictEqual(yield* outcome(1, tell(1, "basic.ack")), [200, null])
        assert.deepStrictEqual(yield* outcome(2, tell(2, "basic.nack")), [503, "1"])
        // It is unknown whether the message has arrived.
        const lost = Effect.sync(() => broker.destroy())
        assert.deepStrictEqual(yield* outcome(3, lost), [504, null])
      }).pipe(onScript(broker))
    })
  )

  it.live("is a 503 with Retry-After while the broker blocks publishers, and while it is unreachable", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* post(to, "it", { "amqp-mandatory": "false" })).status, 200)
        broker.block("low on memory")
        yield* untilFlow("Blocked")
        const blocked = yield* post(to, "it", { "amqp-mandatory": "false" })
        assert.deepStrictEqual([blocked.status, blocked.headers.get("retry-after")], [503, "10"])
        assert.notInclude(blocked.text, "memory")
        broker.unblock()
        yield* untilFlow("Flowing")
        yield* broker.down
        const away = yield* post(to, "it", { "amqp-mandatory": "false" })
        assert.deepStrictEqual([away.status, away.headers.get("retry-after")], [503, "10"])
      }).pipe(onScript(broker, { publishTimeout: Duration.millis(300) }))
    })
  )

  it.live("answers a batch line by line: confirmed lines before the others are known, and lost ones too", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      yield* Effect.gen(function* () {
        const lines = ["one", "two", "three"].map((content) => JSON.stringify({ content })).join("\n")
        const ack = (channel: number) => Effect.sync(() => broker.send(channel, "basic.ack", { deliveryTag: 1 }))
        // The first message to an exchange has a channel of its own.
        const isolated = yield* Effect.forkChild(post(to, "it"), { startImmediately: true })
        yield* broker.received("basic.publish", 1)
        yield* ack(1)
        yield* Fiber.join(isolated)
        const first = Effect.andThen(broker.received("basic.publish", 4), ack(2))
        const answering = yield* Effect.forkChild(
          Effect.andThen(
            first,
            Effect.andThen(
              Effect.sleep("50 millis"),
              Effect.sync(() => broker.destroy())
            )
          )
        )
        const answer = yield* post(to, lines, { "content-type": "application/x-ndjson" })
        yield* Fiber.join(answering)
        const results = answer.text
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line))
        assert.deepStrictEqual(
          results.map(({ problem, status }) => [status, problem?.status]),
          [
            ["confirmed", undefined],
            ["refused", 504],
            ["refused", 504]
          ]
        )
      }).pipe(onScript(broker))
    })
  )
})

const channel = <A, E, R>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use(f))

/** Declares a queue for one test, with these messages. */
const makeQueue = (contents: ReadonlyArray<string> = []) =>
  channel((it) =>
    Effect.gen(function* () {
      const { queue } = yield* it.queueDeclare(`gateway-${crypto.randomUUID()}`, { durable: false })
      for (const content of contents) yield* it.publish({ routingKey: queue, content })
      return queue
    })
  )

/** Gets two messages as an `EventSource` does: it reconnects until it is accepted, and whenever its stream ends. */
const comeBack = (queue: string) =>
  Effect.gen(function* () {
    const events = yield* listen(`/amqp/consume/${queue}`)
    const [one, two] = [yield* events.until("message"), yield* events.until("message")]
    return [one.data.content, two.data.content]
  }).pipe(
    Effect.scoped,
    Effect.catchDefect((defect) => Effect.fail(defect)),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("POST /publish/{exchange}/{routingKey}", () => {
    it.effect("a compressed body is forwarded unchanged, with its content encoding", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue()
        const body = gzipSync("it")
        const headers = { "content-type": "text/plain", "content-encoding": "gzip" }
        assert.strictEqual((yield* post(`/amqp/publish/amq.default/${queue}`, body, headers)).status, 200)
        const { content, properties } = yield* channel((it) =>
          Effect.map(it.get(queue, { noAck: true }), Option.getOrThrow)
        )
        assert.strictEqual(gunzipSync(content).toString(), "it")
        assert.deepInclude(properties, { contentType: "text/plain", contentEncoding: "gzip" })
      }).pipe(withGateway())
    )
  })

  describe("POST /rpc/{queue}", () => {
    it.effect("body and reply are forwarded unchanged, for any kind of server", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue()
        const answers: ReadonlyArray<Omit<AmqpMessage.Message, "routingKey" | "exchange">> = [
          { content: Uint8Array.of(0, 0xff) },
          { content: "<p>", contentType: "text/html; charset=utf-8" },
          { content: gzipSync("it"), contentType: "text/plain", contentEncoding: "gzip" },
          { content: '"it"', contentType: "application/json", contentEncoding: "utf-8" },
          { content: "no", contentType: "text/plain", type: "failure" },
          { content: "odd", contentType: "a\r\nset-cookie: b" }
        ]
        const asked: Array<AmqpMessage.Delivery> = []
        yield* channel((it) =>
          Effect.gen(function* () {
            const { deliveries } = yield* it.consume(queue, { noAck: true })
            const server = Effect.gen(function* () {
              const request = yield* Queue.take(deliveries)
              const { correlationId, replyTo } = request.properties
              const answer = answers[asked.length]!
              asked.push(request)
              yield* it.publish({ ...answer, routingKey: replyTo!, correlationId })
            })
            yield* Effect.forkChild(Effect.forever(server))
            const call = (body: NonNullable<RequestInit["body"]>, headers: Record<string, string> = {}) =>
              post(`/amqp/rpc/${queue}`, body, headers)

            const bytes = Uint8Array.of(0xfe, 0, 1)
            const plain = yield* call(bytes, {
              "content-type": "image/png",
              "amqp-type": "turn",
              "amqp-priority": "7",
              "amqp-headers": '{"tenant":"a"}'
            })
            assert.deepStrictEqual([plain.status, plain.headers.get("content-type")], [200, "application/octet-stream"])
            const [request] = asked
            assert.deepStrictEqual([...request!.content], [...bytes])
            assert.deepInclude(request!.properties, { contentType: "image/png", type: "turn", priority: 7 })
            assert.strictEqual(request!.properties.headers["tenant"], "a")

            const page = yield* call("it")
            assert.deepStrictEqual([page.text, page.headers.get("content-type")], ["<p>", "text/html; charset=utf-8"])
            assert.strictEqual(page.headers.get("x-content-type-options"), "nosniff")
            const compressed = yield* call("it")
            assert.deepStrictEqual([compressed.text, compressed.headers.get("content-encoding")], ["it", "gzip"])
            const json = yield* call("", {})
            assert.deepStrictEqual([json.json, json.headers.get("content-encoding")], ["it", null])
            const failure = yield* call("it")
            assert.deepStrictEqual([failure.status, failure.text], [422, "no"])
            const odd = yield* call("it")
            assert.deepStrictEqual(
              [odd.status, odd.headers.get("content-type"), odd.headers.get("set-cookie")],
              [200, "application/octet-stream", null]
            )
            // A body that is declared as JSON must be valid.
            const wrong = yield* call("{", { "content-type": "application/json; charset=utf-8" })
            assert.strictEqual(wrong.status, 400)
            assert.strictEqual(asked.length, answers.length)
          })
        )
      }).pipe(Effect.scoped, withGateway(), quiet)
    )
  })

  describe("GET /consume/{queue}", () => {
    it.effect(
      "ends with a reason when the broker is lost; a client that reconnects gets the unsettled deliveries",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, killConnections } = yield* TestBroker.TestBroker
          const queue = yield* makeQueue(["one", "two"])
          const events = yield* listen(`/amqp/consume/${queue}`)
          const { id } = yield* events.until("message")
          const socket = yield* converse(`/amqp/consume/${yield* makeQueue()}`)
          yield* socket.until("open")
          yield* awaitCensus({ consumers: 2 })
          yield* killConnections
          const { data } = yield* events.until("end")
          assert.deepInclude(data, { reason: "failed" })
          assert.deepInclude(data.problem, { status: 503, title: "Service Unavailable" })
          assert.deepInclude(yield* socket.until("end"), { reason: "failed" })
          assert.strictEqual(yield* socket.closed, 1011)
          assert.strictEqual((yield* ask("POST", `/amqp/consume/${queue}/${id}/ack`)).status, 410)
          assert.deepStrictEqual(yield* comeBack(queue), ["one", "two"])
        }).pipe(Effect.scoped, withGateway({ authorize: () => Effect.succeed("allow") }), quiet)
    )

    it.effect("as a WebSocket it acknowledges on delivery, resumes, sends heartbeats, and ends when it is idle", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue(["1", "2", "3"])
        const path = `/amqp/consume/${queue}?ack=delivery`
        const first = yield* converse(path)
        const seen = yield* Effect.replicateEffect(first.until("message"), 3)
        yield* awaitCensus({ unacked: 0, consumers: 1 })
        yield* first.close
        const second = yield* converse(`${path}&lastEventId=${seen[0]!.id}`)
        assert.deepInclude(yield* second.until("open"), { resumed: true })
        const missed = yield* Effect.replicateEffect(second.until("message"), 2)
        assert.deepStrictEqual(
          missed.map(({ content, id }) => [content, id]),
          seen.slice(1).map(({ content, id }) => [content, id])
        )
        yield* second.until("heartbeat")
        assert.deepInclude(yield* second.until("end"), { reason: "idle" })
        assert.strictEqual(yield* second.closed, 1001)
        yield* awaitCensus({ consumers: 0 })
      }).pipe(
        Effect.scoped,
        withGateway({
          authorize: () => Effect.succeed("allow"),
          limits: { ...limits, idleTimeout: "1 second", heartbeatInterval: "100 millis" }
        })
      )
    )

    it.effect("clients of both kinds that come and go settle each message once, and leave no message behind", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const contents = Array.from({ length: 120 }, (_, i) => `${i}`)
        const queue = yield* makeQueue(contents)
        const settled: Array<string> = []
        const path = `/amqp/consume/${queue}?prefetch=5`
        const bySse = Effect.gen(function* () {
          const events = yield* listen(path)
          const { data, id } = yield* events.until("message")
          if ((yield* ask("POST", `/amqp/consume/${queue}/${id}/ack`)).status === 204) settled.push(data.content)
          yield* events.hangUp
        })
        const bySocket = Effect.gen(function* () {
          const socket = yield* converse(path)
          const { content, id } = yield* socket.until("message")
          yield* socket.send({ ack: id })
          // Answers come in order, so everything sent before is settled when this is.
          yield* socket.send({ ack: "of no stream" })
          yield* socket.until("error")
          settled.push(content)
          yield* socket.close
        })
        const one = (i: number) => Effect.scoped(i % 2 === 0 ? bySse : bySocket)
        yield* Effect.forEach(contents, (_, i) => one(i), { concurrency: 8, discard: true })
        yield* awaitCensus({ consumers: 0, unacked: 0 })
        const left = yield* channel((it) => it.queueDelete(queue))
        assert.strictEqual(left, 0)
        assert.deepStrictEqual(
          settled.toSorted((a, b) => Number(a) - Number(b)),
          contents
        )
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      }).pipe(withGateway({ authorize: () => Effect.succeed("allow"), limits: { ...limits, streams: 20 } }))
    )
  })
})
