/** The gateway's routes, as HTTP clients use them. */
import { assert, describe, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpMessage, AmqpPool, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Schedule, Schema, Scope } from "effect"
import { connect } from "node:net"
import { major } from "../../core/test/support/versions.ts"
import { quietly } from "../../core/test/support/amqp.ts"
import { ask, converse, listen, post, serveGateway, withGateway } from "./support/gateway.ts"
import { address } from "./support/server.ts"

/** Declares a queue for one test. It is deleted when the scope closes. */
const makeQueue = Effect.acquireRelease(
  Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    Effect.map(
      pool.use((channel) => channel.queueDeclare(`gateway-${crypto.randomUUID()}`)),
      ({ queue }) => ({ queue, pool })
    )
  ),
  ({ pool, queue }) => Effect.ignore(pool.use((channel) => channel.queueDelete(queue)))
).pipe(Effect.map(({ queue }) => queue))

const channel = <A, E, R>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use(f))

const take = (queue: string) => channel((it) => Effect.map(it.get(queue, { noAck: true }), Option.getOrThrow))

/** Waits until so many messages are ready in a queue. */
const untilReady = (queue: string, count: number) =>
  Effect.repeat(
    Effect.andThen(
      Effect.sleep("5 millis"),
      channel((it) => it.queueDeclarePassive(queue))
    ),
    { until: ({ messageCount }) => messageCount === count }
  ).pipe(Effect.timeout("10 seconds"))

const fill = (queue: string, contents: ReadonlyArray<string>) =>
  channel((it) => Effect.forEach(contents, (content) => it.publish({ routingKey: queue, content }), { discard: true }))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("POST /publish/{exchange}/{routingKey}", () => {
    it.effect("publishes the body unchanged, with properties from headers, and answers when it is confirmed", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        const content = Uint8Array.from({ length: 256 }, (_, i) => i)
        const answer = yield* post(`/amqp/publish/amq.default/${queue}`, content, {
          "content-type": "image/png",
          "amqp-content-encoding": "identity",
          "amqp-message-id": "m-1",
          "amqp-correlation-id": "c-1",
          "amqp-reply-to": "answers",
          "amqp-type": "picture",
          "amqp-app-id": "camera",
          "amqp-persistent": "false",
          "amqp-priority": "7",
          "amqp-expiration": "60000",
          "amqp-timestamp": "2026-01-02T03:04:05Z",
          "amqp-headers": '{"Size":256,"tags":["a",true,null],"status":200,"__proto__":"kept"}'
        })
        assert.strictEqual(answer.status, 200)
        assert.deepStrictEqual(answer.json, { status: "confirmed" })
        const delivery = yield* take(queue)
        assert.deepStrictEqual([...delivery.content], [...content])
        const { headers, ...properties } = delivery.properties
        assert.deepInclude(properties, {
          contentType: "image/png",
          contentEncoding: "identity",
          messageId: "m-1",
          correlationId: "c-1",
          replyTo: "answers",
          type: "picture",
          appId: "camera",
          persistent: false,
          priority: 7,
          expiration: 60_000,
          timestamp: new Date("2026-01-02T03:04:05Z")
        })
        assert.sameDeepMembers(Object.entries(headers), [
          ["Size", 256],
          ["tags", ["a", true, null]],
          ["status", 200],
          ["__proto__", "kept"]
        ])
        // RabbitMQ 4 sorts headers by name.
        const names =
          (yield* major) < 4 ? ["Size", "tags", "status", "__proto__"] : ["Size", "__proto__", "status", "tags"]
        assert.deepStrictEqual(Object.keys(headers), names)
      }).pipe(Effect.scoped, withGateway())
    )

    it.effect("accepts exchanges and keys with any characters, and an empty key", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        const exchange = "a/b ü"
        yield* channel((it) =>
          Effect.gen(function* () {
            yield* it.exchangeDeclare(exchange, "direct", { durable: false, autoDelete: true })
            for (const routingKey of ["", "k/ey", "x".repeat(255)]) yield* it.queueBind(queue, exchange, routingKey)
          })
        )
        for (const key of ["", "/", "/k%2Fey", `/${"x".repeat(255)}`]) {
          assert.strictEqual(
            (yield* post(`/amqp/publish/${encodeURIComponent(exchange)}${key}`, "it")).status,
            200,
            key
          )
        }
        const keys = yield* Effect.replicateEffect(
          Effect.map(take(queue), ({ routingKey }) => routingKey),
          4
        )
        assert.deepStrictEqual(keys, ["", "", "k/ey", "x".repeat(255)])
        yield* channel((it) => it.exchangeDelete(exchange))
      }).pipe(Effect.scoped, withGateway())
    )

    it.effect("reports a message that reaches no queue, and one that cannot be sent", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        const to = `/amqp/publish/amq.default/${queue}`
        const status = (path: string, headers?: Record<string, string>) =>
          Effect.map(post(path, "it", headers), (answer) => {
            if (answer.status !== 200) {
              assert.strictEqual(answer.headers.get("content-type"), "application/problem+json", path)
              assert.deepInclude(answer.json, { type: "about:blank", status: answer.status })
              assert.notInclude(answer.text, queue)
            }
            return answer.status
          })
        assert.strictEqual(yield* status("/amqp/publish/amq.default/nowhere"), 422)
        assert.strictEqual(yield* status("/amqp/publish/amq.default/nowhere", { "amqp-mandatory": "false" }), 200)
        assert.strictEqual(yield* status("/amqp/publish/no-such-exchange/x"), 404)
        assert.strictEqual(yield* status(`/amqp/publish/${"x".repeat(256)}/x`), 400)
        // The router has no route for this path.
        assert.strictEqual((yield* post("/amqp/publish/%ff/x", "it")).status, 404)
        assert.strictEqual(yield* status("/amqp/publish/a/b/c"), 404)
        const wrong: ReadonlyArray<Record<string, string>> = [
          { "amqp-priority": "256" },
          { "amqp-priority": "high" },
          { "amqp-persistent": "yes" },
          { "amqp-expiration": "soon" },
          { "amqp-timestamp": "today" },
          { "amqp-mandatory": "1" },
          { "amqp-headers": "no JSON" },
          { "amqp-headers": "[]" },
          // They would send copies to queues that authorize has not seen.
          { "amqp-headers": '{"CC":["elsewhere"]}' },
          { "amqp-headers": '{"BCC":["elsewhere"]}' },
          { "amqp-user-id": "another-user" },
          { "amqp-message-id": "x".repeat(256) }
        ]
        for (const headers of wrong) assert.strictEqual(yield* status(to, headers), 400, JSON.stringify(headers))
        yield* untilReady(queue, 0)
      }).pipe(Effect.scoped, withGateway(), quietly)
    )

    it.effect("accepts a batch as NDJSON, and answers one result per line, in order", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        const lines = [
          '{"content":"text"}',
          '{"base64":"AP8=","properties":{"messageId":"m-2","headers":{"n":1}}}',
          '{"json":{"a":1}}',
          "no JSON",
          '{"content":"a","json":1}',
          '{"content":"a","routingKey":"elsewhere"}',
          '{"content":"a","properties":{"headers":{"CC":["elsewhere"]}}}',
          '{"content":"a","properties":{"priority":256}}',
          '{"content":"last"}'
        ]
        const answer = yield* post(`/amqp/publish/amq.default/${queue}`, `${lines.join("\n")}\n`, {
          "content-type": "application/x-ndjson"
        })
        assert.strictEqual(answer.status, 200)
        assert.strictEqual(answer.headers.get("content-type"), "application/x-ndjson")
        const results = answer.text
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line))
        assert.deepStrictEqual(
          results.map(({ problem, status }) => problem?.status ?? status),
          ["confirmed", "confirmed", "confirmed", 400, 400, 400, 400, 400, "confirmed"]
        )
        const deliveries = yield* Effect.replicateEffect(take(queue), 4)
        assert.deepStrictEqual(
          deliveries.map(({ content, properties }) => [
            Buffer.from(content).toString("latin1"),
            properties.contentType,
            properties.messageId
          ]),
          [
            ["text", undefined, undefined],
            ["\0\xff", undefined, "m-2"],
            ['{"a":1}', "application/json", undefined],
            ["last", undefined, undefined]
          ]
        )
        // Many lines keep their order, and so do their results.
        const many = Array.from({ length: 500 }, (_, i) => (i % 7 === 3 ? "no JSON" : `{"json":${i}}`))
        const ordered = yield* post(`/amqp/publish/amq.default/${queue}`, many.join("\n"), {
          "content-type": "application/x-ndjson"
        })
        assert.deepStrictEqual(
          ordered.text
            .trimEnd()
            .split("\n")
            .map((line) => JSON.parse(line).status),
          many.map((line) => (line === "no JSON" ? "refused" : "confirmed"))
        )
        const valid = many.flatMap((line, i) => (line === "no JSON" ? [] : [String(i)]))
        const arrived = yield* Effect.replicateEffect(Effect.map(take(queue), AmqpMessage.text), valid.length)
        assert.deepStrictEqual(arrived, valid)
        // No queue receives these messages, and each line says so.
        const lost = yield* post("/amqp/publish/amq.default/nowhere", '{"content":"a"}\n{"content":"b"}', {
          "content-type": "application/x-ndjson; charset=utf-8"
        })
        assert.deepStrictEqual(
          lost.text
            .trimEnd()
            .split("\n")
            .map((line) => JSON.parse(line).problem.status),
          [422, 422]
        )
      }).pipe(Effect.scoped, withGateway())
    )
  })

  describe("GET /consume/{queue}", () => {
    it.effect("streams deliveries; a POST settles each once, and at most prefetch are unsettled", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        yield* fill(queue, ["one", "two", "three", "four"])
        const events = yield* listen(`/amqp/consume/${queue}?prefetch=2`)
        const open = yield* events.until("open")
        assert.deepInclude(open.data, { resumed: false })
        const [one, two] = [yield* events.until("message"), yield* events.until("message")]
        assert.deepInclude(one.data, {
          id: one.id,
          content: "one",
          exchange: "",
          routingKey: queue,
          redelivered: false
        })
        const third = yield* Effect.forkChild(events.until("message"))
        const settle = (id: string, how: string) =>
          Effect.map(ask("POST", `/amqp/consume/${queue}/${id}/${how}`), ({ status }) => status)
        yield* untilReady(queue, 2)
        assert.isUndefined(third.pollUnsafe())
        assert.strictEqual(yield* settle(one.id, "ack"), 204)
        const three = yield* Fiber.join(third)
        assert.strictEqual(three.data.content, "three")
        assert.strictEqual(yield* settle(one.id, "ack"), 410)
        assert.strictEqual(yield* settle(two.id, "requeue"), 204)
        // The delivery is back in its position in the queue, before the fourth.
        const again = yield* events.until("message")
        assert.deepInclude(again.data, { content: "two", redelivered: true })
        assert.strictEqual(yield* settle(again.id, "reject"), 204)
        const four = yield* events.until("message")
        assert.strictEqual(four.data.content, "four")
        for (const { id } of [three, four]) assert.strictEqual(yield* settle(id, "ack"), 204)
        assert.strictEqual(yield* settle(`${crypto.randomUUID()}.1`, "ack"), 410)
        assert.strictEqual(yield* settle("x", "ack"), 410)
        assert.strictEqual(yield* settle(four.id, "purge"), 404)
        yield* events.hangUp
        yield* untilReady(queue, 0)
      }).pipe(Effect.scoped, withGateway())
    )

    it.effect("returns unsettled deliveries and its channel when the client leaves", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue
        yield* fill(queue, ["one", "two", "three"])
        const events = yield* listen(`/amqp/consume/${queue}`)
        const { id } = yield* events.until("message")
        yield* awaitCensus({ unacked: 3, consumers: 1 })
        yield* events.hangUp
        yield* awaitCensus({ unacked: 0, consumers: 0 })
        yield* untilReady(queue, 3)
        // The delivery of an ended stream is in the queue again.
        assert.strictEqual((yield* ask("POST", `/amqp/consume/${queue}/${id}/ack`)).status, 410)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0 })
      }).pipe(Effect.scoped, withGateway())
    )

    it.effect("acknowledges on delivery; a reconnecting client gets the events it missed, and none twice", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue
        yield* fill(queue, ["1", "2", "3", "4", "5"])
        const path = `/amqp/consume/${queue}?ack=delivery`
        const first = yield* listen(path)
        const seen = yield* Effect.replicateEffect(first.until("message"), 5)
        yield* awaitCensus({ unacked: 0, consumers: 1 })
        yield* first.hangUp
        yield* awaitCensus({ consumers: 0 })
        yield* fill(queue, ["6"])
        // The client has received the second event, and none after it.
        const second = yield* listen(path, { "last-event-id": seen[1]!.id })
        assert.deepInclude((yield* second.until("open")).data, { resumed: true })
        const missed = yield* Effect.replicateEffect(second.until("message"), 4)
        assert.deepStrictEqual(
          missed.map(({ data }) => data.content),
          ["3", "4", "5", "6"]
        )
        assert.deepStrictEqual(
          missed.slice(0, 3).map(({ id }) => id),
          seen.slice(2).map(({ id }) => id)
        )
        yield* awaitCensus({ unacked: 0, consumers: 1 })
        // The client reconnects before the gateway notices that it has left.
        const third = yield* listen(`${path}&lastEventId=${missed[2]!.id}`)
        assert.deepInclude((yield* third.until("open")).data, { resumed: true })
        assert.strictEqual((yield* third.until("message")).data.content, "6")
        assert.deepStrictEqual((yield* second.until("end")).data, { reason: "resumed" })
        yield* awaitCensus({ consumers: 1 })
        const stranger = yield* listen(path, { "last-event-id": `${crypto.randomUUID()}.3` })
        assert.deepInclude((yield* stranger.until("open")).data, { resumed: false })
      }).pipe(Effect.scoped, withGateway())
    )

    it.effect("sends heartbeats, and ends after the idle timeout", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue
        const events = yield* listen(`/amqp/consume/${queue}`)
        assert.deepStrictEqual((yield* events.until("end")).data, { reason: "idle" })
        assert.isUndefined(yield* events.next)
        assert.isAtLeast(events.heartbeats(), 3)
        yield* awaitCensus({ consumers: 0 })
      }).pipe(
        Effect.scoped,
        withGateway({
          limits: { body: 1, prefetch: 1, streams: 1, idleTimeout: "1 second", heartbeatInterval: "100 millis" }
        })
      )
    )

    it.effect("returns the deliveries of a client that does not read, and disconnects it", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue
        // More bytes than the sockets' buffers hold.
        yield* fill(
          queue,
          Array.from({ length: 20 }, () => "x".repeat(1_000_000))
        )
        const url = new URL(yield* address)
        const closed = yield* Deferred.make<void>()
        const socket = connect(Number(url.port), url.hostname, () => {
          socket.write(`GET /amqp/consume/${queue} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open\r\n\r\n`)
          socket.pause()
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
        socket.on("error", () => {})
        socket.once("close", () => Deferred.doneUnsafe(closed, Effect.void))
        yield* awaitCensus({ consumers: 1, unacked: 10 })
        // The deliveries return immediately, not only when the client is disconnected.
        yield* awaitCensus({ consumers: 0, unacked: 0 }, { timeout: "4 seconds" })
        yield* untilReady(queue, 20)
        // Its permit is free again, although it has not read a byte.
        const other = yield* Effect.retry(listen(`/amqp/consume/${queue}`), {
          schedule: Schedule.spaced("50 millis"),
          times: 300
        })
        assert.strictEqual((yield* other.until("message")).data.content.length, 1_000_000)
        socket.resume()
        yield* Effect.timeout(Deferred.await(closed), "10 seconds")
      }).pipe(
        Effect.scoped,
        withGateway({
          limits: { body: 1, prefetch: 10, streams: 1, idleTimeout: "500 millis", heartbeatInterval: "5 seconds" }
        })
      )
    )

    it.effect("does not start without a queue, and ends with a reason when the queue is deleted", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        assert.strictEqual((yield* ask("GET", "/amqp/consume/no-such-queue")).status, 404)
        assert.strictEqual((yield* ask("HEAD", `/amqp/consume/${queue}`)).status, 404)
        const events = yield* listen(`/amqp/consume/${queue}`)
        yield* events.until("open")
        const { awaitCensus } = yield* TestBroker.TestBroker
        yield* awaitCensus({ consumers: 1 })
        yield* channel((it) => it.queueDelete(queue))
        const { data } = yield* events.until("end")
        assert.deepInclude(data, { reason: "failed" })
        assert.deepInclude(data.problem, { status: 503 })
        assert.notInclude(JSON.stringify(data), queue)
        assert.isUndefined(yield* events.next)
      }).pipe(Effect.scoped, withGateway(), quietly)
    )

    it.effect("ends when the server stops, so the shutdown does not wait for its client", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(serveGateway({ authorize: () => Effect.succeed("allow") }), scope)
        yield* Effect.gen(function* () {
          const { queue } = yield* channel((it) => it.queueDeclare("stopping"))
          yield* fill(queue, ["one"])
          const events = yield* listen(`/amqp/consume/${queue}`)
          yield* events.until("message")
          const socket = yield* converse(`/amqp/consume/${queue}`)
          yield* awaitCensus({ consumers: 2 })
          const stopping = yield* Effect.forkChild(Scope.close(scope, Exit.void))
          assert.deepStrictEqual((yield* events.until("end")).data, { reason: "stopping" })
          assert.isUndefined(yield* events.next)
          assert.deepInclude(yield* socket.until("end"), { reason: "stopping" })
          assert.strictEqual(yield* socket.closed, 1001)
          yield* Effect.timeout(Fiber.join(stopping), "9 seconds")
          yield* awaitCensus({ connections: 0, unacked: 0 })
        }).pipe(Effect.scoped, Effect.provideContext(services), Effect.ensuring(Scope.close(scope, Exit.void)))
      })
    )
  })

  describe("GET /consume/{queue} as a WebSocket", () => {
    it.effect("sends deliveries, accepts settlements on the same socket, and returns the rest when it closes", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue
        yield* fill(queue, ["one", "two", "three"])
        const socket = yield* converse(`/amqp/consume/${queue}?prefetch=3`)
        assert.deepInclude(yield* socket.until("open"), { resumed: false })
        const [one, two, three] = yield* Effect.replicateEffect(socket.until("message"), 3)
        assert.deepInclude(one, { event: "message", content: "one" })
        yield* socket.send({ ack: one.id })
        yield* socket.send({ requeue: two.id })
        const again = yield* socket.until("message")
        assert.deepInclude(again, { content: "two", redelivered: true })
        yield* socket.send({ reject: again.id })
        yield* socket.send({ ack: one.id })
        assert.deepInclude(yield* socket.until("error"), { id: one.id })
        yield* socket.close
        yield* awaitCensus({ consumers: 0, unacked: 0 })
        yield* untilReady(queue, 1)
        assert.strictEqual(AmqpMessage.text(yield* take(queue)), three.content)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0 })
      }).pipe(Effect.scoped, withGateway({ authorize: () => Effect.succeed("allow") }))
    )
  })

  describe("POST /rpc/{queue}", () => {
    it.effect("answers with the reply, the procedure's failure, or the reason why there is no reply", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue
        class Divided extends Schema.TaggedError<Divided>()("Divided", { by: Schema.Int }) {}
        const Divide = AmqpRpc.make("divide", {
          payload: { a: Schema.Int, b: Schema.Int },
          success: Schema.Finite,
          error: Divided,
          queue
        })
        yield* Effect.forkChild(
          AmqpRpc.serve(
            Divide,
            ({ a, b }) =>
              b === 0
                ? Effect.fail(new Divided({ by: b }))
                : b === 13
                  ? Effect.die(new Error("a secret"))
                  : b === 99
                    ? Effect.never
                    : Effect.succeed(a / b),
            { shutdownTimeout: 0 }
          )
        )
        const call = (body: string, headers: Record<string, string> = {}) =>
          post(`/amqp/rpc/${queue}`, body, { "content-type": "application/json", "amqp-type": "divide", ...headers })
        const reply = yield* call('{"a":6,"b":3}')
        assert.deepInclude(reply, { status: 200, json: 2 })
        const failure = yield* call('{"a":6,"b":0}')
        assert.deepInclude(failure, { status: 422, json: { _tag: "Divided", by: 0 } })
        assert.strictEqual(failure.headers.get("content-type"), "application/json")
        const defect = yield* call('{"a":6,"b":13}')
        assert.strictEqual(defect.status, 502)
        assert.notInclude(defect.text, "secret")
        assert.strictEqual((yield* call('{"a":6,"b":99}', { "amqp-timeout": "300" })).status, 504)
        assert.strictEqual((yield* call('{"a":"six"}')).status, 502)
        assert.strictEqual((yield* call("no JSON")).status, 400)
        assert.strictEqual((yield* call("1", { "amqp-timeout": "soon" })).status, 400)
        assert.strictEqual((yield* post("/amqp/rpc/no-such-queue", "1")).status, 404)
        assert.strictEqual((yield* AmqpRpc.stats).inFlight, 0)
      }).pipe(Effect.scoped, withGateway(), quietly)
    )
  })
})
