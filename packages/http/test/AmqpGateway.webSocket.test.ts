/** The gateway's WebSockets, for clients that do not read, and for those that send invalid messages. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpConfig, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpGateway } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Deferred, Effect, Layer, Schedule } from "effect"
import { HttpRouter } from "effect/http"
import { createServer } from "node:http"
import { connect } from "node:net"
import { FrameHeaders } from "../src/internal/gateway/frames.ts"
import { converse, limits, withGateway } from "./support/gateway.ts"
import { frame, openRaw, readFrames } from "./support/rawWebSocket.ts"
import { address, quiet, upgradeRequest } from "./support/server.ts"

const allow = () => Effect.succeed("allow" as const)

/** Declares a queue for one test, with so many messages of this length. */
const makeQueue = (count = 0, length = 1) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
    pool.use((channel) =>
      Effect.gen(function* () {
        const { queue } = yield* channel.queueDeclare(`gateway-${crypto.randomUUID()}`, { durable: false })
        for (let i = 0; i < count; i++) yield* channel.publish({ routingKey: queue, content: "x".repeat(length) })
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

const untilHas = (queue: string, count: number) =>
  Effect.repeat(messagesIn(queue), { until: (n) => n === count, schedule: Schedule.spaced("20 millis") }).pipe(
    Effect.timeout("20 seconds")
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a client that does not read", () => {
    // By Linux's defaults, the kernel's buffers hold at most 4 MiB on this side and 6 MiB on the client's.
    const count = 300
    const length = 100_000
    const mostLost = 150

    for (const kind of ["WebSocket", "stream of events"] as const) {
      it.effect(`has no delivery acknowledged that has not left the process, and is disconnected: a ${kind}`, () =>
        Effect.gen(function* () {
          const { awaitCensus } = yield* TestBroker.TestBroker
          const queue = yield* makeQueue(count, length)
          const path = `/amqp/consume/${queue}?ack=delivery`
          const { hostname, port } = new URL(yield* address)
          const socket = connect(Number(port), hostname)
          yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
          const closed = yield* Deferred.make<void>()
          socket.on("error", () => {})
          socket.once("close", () => Deferred.doneUnsafe(closed, Effect.void))
          socket.write(kind === "WebSocket" ? upgradeRequest(path) : `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
          yield* awaitCensus({ consumers: 1 })
          yield* awaitCensus({ consumers: 0, unacked: 0 }, { timeout: "20 seconds" })
          assert.isAtLeast(yield* messagesIn(queue), count - mostLost)
          socket.resume()
          yield* Effect.timeout(Deferred.await(closed), "10 seconds")
        }).pipe(
          Effect.scoped,
          withGateway({
            authorize: allow,
            limits: { ...limits, idleTimeout: "700 millis", heartbeatInterval: "300 millis" }
          })
        )
      )
    }

    it.effect("is not read from while it does not read its answers, and is disconnected", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const client = yield* openRaw(`/amqp/consume/${yield* makeQueue()}`, { reads: false })
        yield* awaitCensus({ consumers: 1 })
        const many = Buffer.concat(Array.from({ length: 2000 }, () => frame('{"ack":"of no stream"}')))
        let taken = 0
        const flood = () => {
          while (!client.socket.destroyed && client.socket.write(many)) taken += many.length
        }
        client.socket.on("drain", flood)
        flood()
        yield* awaitCensus({ consumers: 0 }, { timeout: "20 seconds" })
        yield* client.gone
        // The answers would be four times as long. The kernel buffers some megabytes of both.
        assert.isBelow(taken, 32_000_000)
      }).pipe(
        Effect.scoped,
        withGateway({
          authorize: allow,
          limits: { ...limits, idleTimeout: "700 millis", heartbeatInterval: "300 millis" }
        })
      )
    )
  })

  describe("a client that sends", () => {
    const giant = 99 * 1024 * 1024
    const cases: ReadonlyArray<readonly [what: string, bytes: Uint8Array, code: number]> = [
      ["a message that announces too many bytes", frame("x", { announced: giant }), 1009],
      ["a message that is one byte too long", frame("x".repeat(1025)), 1009],
      [
        "fragments that are too long in total",
        Buffer.concat([
          frame("x".repeat(600), { first: 0x01 }),
          frame("", { first: 0x89 }),
          frame("x".repeat(600), { first: 0x00 })
        ]),
        1009
      ],
      [
        "fragments without end",
        Buffer.concat([frame("x", { first: 0x01 }), ...Array.from({ length: 20 }, () => frame("", { first: 0x00 }))]),
        1008
      ],
      ["a text that is not JSON", frame("nonsense"), 1008],
      ["an empty message", frame(""), 1008],
      ["JSON that is not a settlement", frame('{"ack":7}'), 1008],
      ["two settlements in one message", frame('{"ack":"a","reject":"b"}'), 1008],
      ["many messages that are not settlements", Buffer.concat(Array.from({ length: 1000 }, () => frame("[1]"))), 1008]
    ]
    for (const [what, bytes, code] of cases) {
      it.effect(`${what} gets one error, is closed with ${code}, and loses its connection`, () =>
        Effect.gen(function* () {
          const { awaitCensus } = yield* TestBroker.TestBroker
          const queue = yield* makeQueue(1)
          const client = yield* openRaw(`/amqp/consume/${queue}`)
          yield* awaitCensus({ unacked: 1 })
          client.socket.write(bytes)
          const { code: closed, texts } = yield* client.ended
          assert.strictEqual(closed, code)
          const errors = texts.map((text) => JSON.parse(text)).filter(({ event }) => event === "error")
          assert.strictEqual(errors.length, 1)
          assert.property(errors[0], "detail")
          yield* awaitCensus({ consumers: 0, unacked: 0 })
          yield* untilHas(queue, 1)
          // The client keeps its half open.
          yield* client.gone
        }).pipe(Effect.scoped, withGateway({ authorize: allow }))
      )
    }

    it.effect("invalid UTF-8 is closed with 1007", () =>
      Effect.gen(function* () {
        const client = yield* openRaw(`/amqp/consume/${yield* makeQueue()}`)
        client.socket.write(frame(Uint8Array.of(0xff, 0xfe)))
        assert.strictEqual((yield* client.ended).code, 1007)
        yield* client.gone
      }).pipe(Effect.scoped, withGateway({ authorize: allow }))
    )

    it.effect("a settlement of an unknown delivery gets an error, and the stream continues", () =>
      Effect.gen(function* () {
        const queue = yield* makeQueue(1)
        const socket = yield* converse(`/amqp/consume/${queue}`)
        const { id } = yield* socket.until("message")
        for (const wrong of [`${id.slice(0, -1)}9`, `${crypto.randomUUID()}.1`, "x", "x".repeat(900)]) {
          yield* socket.send({ ack: wrong })
          assert.deepInclude(yield* socket.until("error"), { id: wrong })
        }
        yield* socket.send({ ack: id })
        yield* socket.send({ ack: id })
        assert.deepInclude(yield* socket.until("error"), { id })
        yield* socket.close
        yield* untilHas(queue, 0)
      }).pipe(Effect.scoped, withGateway({ authorize: allow }))
    )

    it.effect("many settlements at once is answered in steps, and other fibers run in between", () =>
      Effect.gen(function* () {
        const client = yield* openRaw(`/amqp/consume/${yield* makeQueue()}`)
        const count = 2000
        const each = "x".repeat(15)
        let answered = 0
        let turn = 0
        let most = 0
        const all = yield* Deferred.make<void>()
        const endTurn = () => {
          most = Math.max(most, turn)
          turn = 0
          if (answered >= count) Deferred.doneUnsafe(all, Effect.void)
        }
        client.socket.on("data", (bytes: Buffer) => {
          // The gateway runs in this process. Its writes of one turn of the event loop are read in the next turn.
          if (turn === 0) setImmediate(endTurn)
          const here = bytes.toString("latin1").split('"event":"error"').length - 1
          answered += here
          turn += here
        })
        const many = Buffer.concat(Array.from({ length: count }, () => frame(`{"ack":"${each}"}`)))
        // One read of the gateway takes all of them.
        assert.isBelow(many.length, 65_536)
        client.socket.write(many)
        yield* Effect.timeout(Deferred.await(all), "20 seconds")
        assert.isBelow(most, count / 10)
      }).pipe(Effect.scoped, withGateway({ authorize: allow }))
    )

    it.effect("a settlement immediately before it closes is effective", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        const queue = yield* makeQueue(2)
        const client = yield* openRaw(`/amqp/consume/${queue}`)
        yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => client.received().texts.length === 3 })
        const { id } = JSON.parse(client.received().texts[1]!)
        const close = frame(Uint8Array.of(0x03, 0xe8), { first: 0x88 })
        client.socket.write(Buffer.concat([frame(JSON.stringify({ ack: id })), close]))
        yield* client.ended
        client.socket.end()
        yield* awaitCensus({ consumers: 0, unacked: 0 })
        yield* untilHas(queue, 1)
      }).pipe(Effect.scoped, withGateway({ authorize: allow }))
    )
  })

  it.effect("nothing is compressed, even if the server compresses elsewhere: short messages would become long", () => {
    const server = Layer.orDie(
      NodeHttpServer.layerServer(createServer, {
        host: "127.0.0.1",
        port: 0,
        websocket: { perMessageDeflate: true }
      })
    )
    const broker = Layer.unwrap(
      Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig))
    )
    const gateway = HttpRouter.serve(AmqpGateway.layer({ authorize: allow, limits }), quiet).pipe(
      Layer.provideMerge(server),
      Layer.provideMerge(broker)
    )
    return Effect.gen(function* () {
      const queue = yield* makeQueue(1)
      const { hostname, port } = new URL(yield* address)
      const socket = connect(Number(port), hostname)
      yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
      const answer = yield* Effect.callback<Buffer>((resume) => {
        let bytes = Buffer.alloc(0)
        socket.on("data", (data) => {
          bytes = Buffer.concat([bytes, data])
          if (readFrames(bytes).texts.length === 2) resume(Effect.succeed(bytes))
        })
        socket.write(
          upgradeRequest(`/amqp/consume/${queue}`).replace(
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
          )
        )
      }).pipe(Effect.timeout("10 seconds"))
      assert.notInclude(answer.toString("latin1"), "permessage-deflate")
      assert.deepInclude(JSON.parse(readFrames(answer).texts[1]!), { event: "message", content: "x" })
    }).pipe(Effect.scoped, Effect.provide(gateway, { local: true }))
  })

  it.effect("the limits of frames hold for any division into chunks", () =>
    Effect.sync(() => {
      const fine = Buffer.concat([
        frame("x".repeat(1024)),
        frame("x".repeat(125)),
        frame("x".repeat(500), { first: 0x01 }),
        frame("ping", { first: 0x89 }),
        frame("x".repeat(524), { first: 0x80 })
      ])
      for (const [bytes, expected] of [
        [fine, undefined],
        [Buffer.concat([fine, frame("x".repeat(1025))]), "tooLong"],
        [Buffer.concat([fine, frame("", { announced: 2 ** 32 })]), "tooLong"]
      ] as const) {
        for (const size of [1, 2, 3, 7, 1000, bytes.length]) {
          const headers = new FrameHeaders()
          let seen: string | undefined = undefined
          for (let at = 0; at < bytes.length && seen === undefined; at += size) {
            seen = headers.read(bytes.subarray(at, at + size))
          }
          assert.strictEqual(seen, expected, `chunks of ${size}`)
        }
      }
    })
  )
})
