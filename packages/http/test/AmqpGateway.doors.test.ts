/** The gateway's routes, upgrades, origins, and limits for clients that reconnect. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import type { AmqpGateway } from "@effect-amqp/http"
import { Effect, Exit, Fiber, Layer, Schedule } from "effect"
import { connect, type Socket } from "node:net"
import { quietly } from "../../core/test/support/amqp.ts"
import { ask, limits, listen, post, serveGateway, withGateway } from "./support/gateway.ts"
import { openRaw } from "./support/rawWebSocket.ts"
import { address, upgradeRequest } from "./support/server.ts"

const allow = () => Effect.succeed("allow" as const)

const makeQueue = (contents: ReadonlyArray<string> = []) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    pool.use((channel) =>
      Effect.gen(function* () {
        const { queue } = yield* channel.queueDeclare(`gateway-${crypto.randomUUID()}`, { durable: false })
        for (const content of contents) yield* channel.publish({ routingKey: queue, content })
        return queue
      })
    )
  )

const messagesIn = (queue: string) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    Effect.map(
      pool.use((channel) => channel.queueDeclarePassive(queue)),
      ({ messageCount }) => messageCount
    )
  )

/** Sends a raw request, keeps its half of the connection open, and reads the answer to its end. */
const raw = (text: string) =>
  Effect.gen(function* () {
    const { hostname, port } = new URL(yield* address)
    const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true })
    yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
    socket.on("error", () => {})
    const answer = yield* Effect.callback<string>((resume) => {
      let answer = ""
      socket.on("data", (data) => {
        answer += data.toString()
      })
      const done = () => resume(Effect.sync(() => answer))
      socket.once("end", done)
      socket.once("close", done)
      socket.write(text)
    }).pipe(Effect.timeout("10 seconds"))
    return { answer, socket, status: Number(answer.split(" ", 2)[1]) }
  })

const send = (method: string, path: string, headers = "", body = "") =>
  raw(
    `${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n${headers}\r\n${body}`
  )

const isGone = (socket: Socket) =>
  Effect.repeat(
    Effect.andThen(
      Effect.sync(() => socket.write("x")),
      Effect.sleep("50 millis")
    ),
    { until: () => socket.destroyed }
  ).pipe(Effect.timeout("10 seconds"))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a route", () => {
    it.effect("has one spelling; others, which a proxy would not guard, are 404, and authorize does not run", () => {
      const asked: Array<AmqpGateway.Access> = []
      return Effect.gen(function* () {
        const queue = yield* makeQueue(["one"])
        const routes = [
          ["POST", `/amqp/publish/amq.default/${queue}`],
          ["POST", `/amqp/rpc/${queue}`],
          ["POST", `/amqp/consume/${queue}/x.1/ack`],
          ["GET", `/amqp/consume/${queue}`]
        ] as const
        for (const [method, path] of routes) {
          const [, , route = ""] = path.split("/")
          const others = [
            path.replace("/amqp/", "/AMQP/"),
            path.replace("/amqp/", "/Amqp/"),
            path.replace("/amqp/", "/%61mqp/"),
            path.replace(`/${route}/`, `/${route.toUpperCase()}/`),
            path.replace(`/${route}/`, `/%${route.charCodeAt(0).toString(16)}${route.slice(1)}/`),
            `/${path}`,
            path.replace("/amqp/", "/amqp//"),
            path.replace(`/${route}/`, `/${route}//`),
            path.replace(queue, `/${queue}`),
            path.replace(queue, `.`),
            path.replace(queue, `%2e%2E`),
            `/amqp/consume/../${route}/${path.split("/").slice(3).join("/")}`
          ]
          for (const other of others) {
            assert.strictEqual((yield* send(method, other)).status, 404, `${method} ${other}`)
          }
        }
        assert.isEmpty(asked)
        assert.strictEqual(yield* messagesIn(queue), 1)
        // The one spelling is found.
        assert.strictEqual((yield* send("POST", routes[0][1])).status, 200)
        assert.strictEqual(asked.length, 1)
      }).pipe(
        Effect.scoped,
        withGateway({
          authorize: (_request, access) =>
            Effect.sync(() => {
              asked.push(access)
              return "allow"
            })
        }),
        quietly
      )
    })

    it.effect("refuses a WebSocket by POST: nothing is published, and the connection is closed", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue()
        for (const path of [
          `/amqp/publish/amq.default/${queue}`,
          `/amqp/rpc/${queue}`,
          `/amqp/consume/${queue}/x.1/ack`
        ]) {
          for (const protocol of ["websocket", "WebSocket"]) {
            const text = upgradeRequest(path).replace("GET", "POST").replace("websocket", protocol)
            const { answer, socket, status } = yield* raw(text)
            assert.strictEqual(status, 400, answer)
            assert.include(answer, "application/problem+json")
            yield* isGone(socket)
          }
          // Without `Connection: Upgrade` Node does not treat it as an upgrade, and reads its body.
          assert.strictEqual((yield* send("POST", path, "Upgrade: websocket\r\n", "it")).status, 400)
        }
        assert.strictEqual(yield* messagesIn(queue), 0)
        yield* awaitCensus({ consumers: 0 })
      }).pipe(Effect.scoped, withGateway({ authorize: allow }), quietly)
    )

    it.effect("that refuses a WebSocket closes the connection of a client that keeps its half open", () =>
      Effect.gen(function* () {
        const { socket, status } = yield* raw(upgradeRequest("/amqp/consume/no-such-queue"))
        assert.strictEqual(status, 404)
        yield* isGone(socket)
      }).pipe(Effect.scoped, withGateway({ authorize: allow }), quietly)
    )
  })

  describe("a WebSocket of a page", () => {
    const open = (queue: string, origin: string | undefined, host = "shop.example.com") =>
      Effect.gen(function* () {
        const { hostname, port } = new URL(yield* address)
        const socket = connect(Number(port), hostname)
        yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
        const head = upgradeRequest(`/amqp/consume/${queue}`).replace("Host: x", `Host: ${host}`)
        const text = origin === undefined ? head : head.replace("\r\n\r\n", `\r\nOrigin: ${origin}\r\n\r\n`)
        return yield* Effect.callback<number>((resume) => {
          socket.once("data", (data) => resume(Effect.succeed(Number(data.toString().split(" ", 2)[1]))))
          socket.write(text)
        }).pipe(Effect.timeout("10 seconds"))
      }).pipe(Effect.scoped)

    it.effect("is opened for the host's own pages, and refused to other origins before authorize runs", () => {
      let asked = 0
      return Effect.gen(function* () {
        const queue = yield* makeQueue()
        for (const origin of [undefined, "https://shop.example.com", "http://SHOP.example.com"]) {
          assert.strictEqual(yield* open(queue, origin), 101, origin)
        }
        assert.strictEqual(yield* open(queue, "http://localhost:3000", "localhost:3000"), 101)
        const before = asked
        for (const origin of [
          "https://evil.example",
          "https://shop.example.com.evil.example",
          "https://shop.example.com:8443",
          "https://evil.example/shop.example.com",
          "null",
          "shop.example.com",
          "file://shop.example.com",
          ""
        ]) {
          assert.strictEqual(yield* open(queue, origin), 403, origin)
        }
        assert.strictEqual(asked, before)
      }).pipe(
        Effect.scoped,
        withGateway({
          authorize: () =>
            Effect.sync(() => {
              asked++
              return "allow"
            })
        }),
        quietly
      )
    })

    it.effect("is opened for the allowed origins only", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue()
        const codes = yield* Effect.forEach(
          [undefined, "https://app.example.com", "null", "https://shop.example.com", "http://app.example.com"],
          (origin) => open(queue, origin)
        )
        assert.deepStrictEqual(codes, [101, 101, 101, 403, 403])
      }).pipe(Effect.scoped, withGateway({ authorize: allow, origins: ["https://app.example.com", "null"] }), quietly)
    )

    it.effect("an allowed origin that no browser sends makes the layer die", () =>
      Effect.gen(function* () {
        for (const wrong of ["app.example.com", "https://app.example.com/", "https://app.example.com/path", "*"]) {
          const exit = yield* Effect.exit(Effect.scoped(Layer.build(serveGateway({ origins: [wrong] }))))
          assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("origins"), wrong)
        }
      }).pipe(quietly)
    )
  })

  describe("the limit of streams", () => {
    const path = (queue: string, id?: string) =>
      `/amqp/consume/${queue}?ack=delivery${id === undefined ? "" : `&lastEventId=${id}`}`

    it.effect("counts a stream once if it is resumed while its former connection is open", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue(["1", "2"])
        const first = yield* listen(path(queue))
        const { id } = yield* first.until("message")
        const second = yield* listen(path(queue, id))
        assert.deepInclude((yield* second.until("open")).data, { resumed: true })
        assert.deepStrictEqual((yield* first.until("end")).data, { reason: "resumed" })
        assert.strictEqual((yield* ask("GET", path(queue))).status, 503)
        yield* second.hangUp
        const other = yield* Effect.retry(listen(path(queue)), { schedule: Schedule.spaced("20 millis"), times: 200 })
        assert.deepInclude((yield* other.until("open")).data, { resumed: false })
      }).pipe(Effect.scoped, withGateway({ authorize: allow, limits: { ...limits, streams: 1 } }), quietly)
    )

    it.effect("lets a reconnecting client wait until its former connection is closed, which the gateway forces", () =>
      Effect.gen(function* () {
        // More bytes than the kernel's buffers hold.
        const queue = yield* makeQueue(Array.from({ length: 40 }, () => "x".repeat(1_000_000)))
        const first = yield* listen(path(queue))
        const { id } = yield* first.until("message")
        // The client stops reading, until the gateway can write no more.
        const look = Effect.andThen(Effect.sleep("300 millis"), messagesIn(queue))
        let before = -1
        yield* Effect.repeat(look, {
          until: (now) => {
            const isStuck = now === before
            before = now
            return isStuck
          }
        }).pipe(Effect.timeout("15 seconds"))
        assert.isAbove(before, 0)
        const since = performance.now()
        const second = yield* listen(path(queue, id))
        assert.deepInclude((yield* second.until("open")).data, { resumed: true })
        // The former client had one second to read that it is replaced.
        assert.isAtLeast(performance.now() - since, 800)
      }).pipe(Effect.scoped, withGateway({ authorize: allow, limits: { ...limits, streams: 1 } }), quietly)
    )

    it.effect("holds in a flood of clients that reconnect and do not read; the newest has the stream", () =>
      Effect.gen(function* () {
        const { awaitCensus, census } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue(["1"])
        const first = yield* listen(path(queue))
        const { id } = yield* first.until("message")
        yield* listen(path(queue))
        yield* awaitCensus({ consumers: 2 })
        const counts: Array<number> = []
        const watching = yield* Effect.forkChild(
          Effect.forever(Effect.map(census, ({ consumers }) => void counts.push(consumers)))
        )
        const flood = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 60 }),
            () => Effect.timeoutOption(openRaw(path(queue, id), { reads: false }), "10 seconds"),
            { concurrency: 20, discard: true }
          )
        )
        yield* Fiber.join(flood)
        // The client has its permit, and another one gets none.
        assert.strictEqual((yield* ask("GET", path(queue))).status, 503)
        const newest = yield* listen(path(queue, id))
        assert.deepInclude((yield* newest.until("open")).data, { resumed: true })
        yield* awaitCensus({ consumers: 2 })
        yield* Fiber.interrupt(watching)
        assert.isNotEmpty(counts)
        assert.isAtMost(Math.max(...counts), 2)
      }).pipe(
        Effect.scoped,
        withGateway({ authorize: allow, limits: { ...limits, streams: 2, heartbeatInterval: "5 seconds" } }),
        quietly
      )
    )

    it.effect("holds for streams that wait for their clients too; a stream that was dropped cannot be resumed", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue(["1", "2", "3"])
        const visit = Effect.gen(function* () {
          const events = yield* Effect.retry(listen(`${path(queue)}&prefetch=1`), {
            schedule: Schedule.spaced("20 millis"),
            times: 200
          })
          const { id } = yield* events.until("message")
          yield* awaitCensus({ unacked: 0, consumers: 1 })
          yield* events.hangUp
          yield* awaitCensus({ consumers: 0 })
          return id
        })
        // The last message is for the second stream.
        const first = yield* visit
        yield* makeQueue()
        const second = yield* post(`/amqp/publish/amq.default/${queue}`, "4").pipe(Effect.andThen(visit))
        const come = (id: string) =>
          Effect.gen(function* () {
            const events = yield* Effect.retry(listen(path(queue, id)), {
              schedule: Schedule.spaced("20 millis"),
              times: 200
            })
            const { data } = yield* events.until("open")
            yield* events.hangUp
            yield* awaitCensus({ consumers: 0 })
            return data.resumed
          })
        assert.strictEqual((yield* ask("POST", `/amqp/consume/${queue}/${first}/ack`)).status, 410)
        assert.isTrue(yield* come(second))
        assert.isFalse(yield* come(first))
      }).pipe(Effect.scoped, withGateway({ authorize: allow, limits: { ...limits, streams: 1 } }), quietly)
    )
  })

  describe("the limit of missed events", () => {
    for (const [missed, expected] of [
      ["1 MiB", ["1", "2", "3", "4"]],
      ["1500 B", ["4"]],
      [0, []]
    ] as const) {
      it.effect(`of ${missed} bounds the events that are kept for a reconnecting client, in bytes`, () =>
        Effect.gen(function* () {
          const { awaitCensus } = yield* TestBroker.TestBroker
          const queue = yield* makeQueue(["0", "1", "2", "3", "4"].map((digit) => digit + "x".repeat(200)))
          const events = yield* listen(`/amqp/consume/${queue}?ack=delivery`)
          const seen = yield* Effect.replicateEffect(events.until("message"), 5)
          yield* awaitCensus({ unacked: 0, consumers: 1 })
          yield* events.hangUp
          const again = yield* listen(`/amqp/consume/${queue}?ack=delivery`, { "last-event-id": seen[0]!.id })
          assert.deepInclude((yield* again.until("open")).data, { resumed: true })
          yield* post(`/amqp/publish/amq.default/${queue}`, "new")
          const contents: Array<string> = []
          for (;;) {
            const { data } = yield* again.until("message")
            if (data.content === "new") break
            contents.push(data.content[0])
          }
          assert.deepStrictEqual(contents, [...expected])
        }).pipe(Effect.scoped, withGateway({ limits: { ...limits, replayBuffer: missed } }), quietly)
      )
    }
  })
})
