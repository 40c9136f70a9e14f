import { assert, describe, it } from "@effect/vitest"
import type { ChannelModel } from "amqplib"
import { connect } from "amqplib"
import { Effect } from "effect"
import type { AddressInfo, Socket } from "node:net"
import { connect as connectSocket, createServer } from "node:net"
import * as FaultProxy from "./support/FaultProxy.ts"
import { call, connected, nextEvent, refusal } from "./support/amqplibClient.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const proxiedBroker = Effect.fnUntraced(function* (options?: ScriptedBroker.Options) {
  const broker = yield* ScriptedBroker.make(options)
  const proxy = yield* FaultProxy.make(broker.port)
  return { broker, proxy, url: proxy.through(broker.url) }
})

const nextError = (connection: ChannelModel) => nextEvent(connection, "error").pipe(Effect.map(String))

/** A round trip past the proxy: enough time for bytes to pass it, if any do. */
const meanwhile = (broker: ScriptedBroker.ScriptedBroker) =>
  Effect.scoped(connected(broker.url).pipe(Effect.flatMap((direct) => call(() => direct.createChannel()))))

/** A server that echoes what it gets, and ends when its client does. */
const echoServer = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket.on("error", () => {}))
      socket.pipe(socket)
    })
    const close = () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    }
    server.listen(0, "127.0.0.1", () => {
      resume(Effect.succeed({ port: (server.address() as AddressInfo).port, close }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

/** Sends bytes and ends. Returns what came back until the other side ended, or the error's code. */
const echoed = (port: number, bytes: Buffer) =>
  Effect.callback<{ readonly bytes: Buffer; readonly chunks: number; readonly error: string | undefined }>((resume) => {
    const chunks: Array<Buffer> = []
    let error: string | undefined
    const socket = connectSocket({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true })
    socket.on("data", (chunk) => chunks.push(chunk))
    socket.on("error", (e: NodeJS.ErrnoException) => {
      error = e.code
    })
    socket.on("close", () => resume(Effect.succeed({ bytes: Buffer.concat(chunks), chunks: chunks.length, error })))
    socket.end(bytes)
    return Effect.sync(() => void socket.destroy())
  })

const pattern = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) % 251))

describe("a fault proxy", () => {
  it.live("passes bytes unchanged, and the end after them", () =>
    Effect.gen(function* () {
      const { port } = yield* echoServer
      const proxy = yield* FaultProxy.make(port)
      const sent = pattern(3_000_000)
      const { bytes, error } = yield* echoed(proxy.port, sent)
      assert.isUndefined(error)
      assert.isTrue(bytes.equals(sent))
      yield* proxy.linksClosed
      assert.deepInclude(proxy.stats.up, { bytes: sent.length, dropped: 0, corrupted: 0 })
      assert.deepInclude(proxy.stats.down, { bytes: sent.length, dropped: 0, corrupted: 0 })
      assert.strictEqual(proxy.stats.reset, 0)
    })
  )

  it.live("chops: the same bytes, in small pieces", () =>
    Effect.gen(function* () {
      const { port } = yield* echoServer
      const proxy = yield* FaultProxy.make(port)
      proxy.chop(7)
      const sent = pattern(20_000)
      const { bytes, chunks } = yield* echoed(proxy.port, sent)
      assert.isTrue(bytes.equals(sent))
      assert.isAbove(chunks, 1000)
    })
  )

  it.live("lets an AMQP client work byte by byte", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      proxy.chop(1)
      const connection = yield* connected(url)
      const channel = yield* call(() => connection.createConfirmChannel())
      channel.sendToQueue("q", Buffer.from("hello"))
      yield* call(() => channel.waitForConfirms())
      assert.strictEqual((yield* broker.received("basic.publish")).content?.body.toString(), "hello")
      yield* proxy.accepted(1)
    })
  )

  it.live("stalls open links and new ones until it heals", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      proxy.stall()
      const opening = connection.createChannel()
      const connecting = connect(url)
      yield* proxy.accepted(2)
      yield* meanwhile(broker)
      assert.strictEqual(broker.connection(1).openChannels, 0)
      assert.strictEqual(broker.count("protocol-header"), 2) // ours and the one past the proxy
      proxy.heal()
      yield* call(() => opening)
      const second = yield* call(() => connecting)
      yield* call(() => second.close())
    })
  )

  it.live("stalls only one direction", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      proxy.stall("down")
      const opening = connection.createChannel()
      yield* broker.until(() => broker.openChannels === 1)
      let answered = false
      void opening.then(() => (answered = true))
      yield* meanwhile(broker)
      assert.isFalse(answered)
      proxy.heal()
      yield* call(() => opening)
    })
  )

  it.live("hides the far side's reset while it stalls", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      let died = false
      const error = nextError(connection)
      connection.on("error", () => (died = true))
      proxy.stall()
      broker.destroy()
      yield* broker.socketsClosed
      yield* meanwhile(broker)
      assert.isFalse(died)
      proxy.heal()
      assert.include(yield* error, "ECONNRESET")
    })
  )

  it.live("applies back-pressure to the sender while it stalls", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      const channel = yield* call(() => connection.createChannel())
      proxy.stall("up")
      let published = 1
      const body = Buffer.alloc(64 * 1024)
      while (channel.publish("", "sink", body)) published++
      const { bytes } = proxy.stats.up
      yield* meanwhile(broker)
      assert.strictEqual(proxy.stats.up.bytes, bytes)
      assert.strictEqual(broker.count("basic.publish"), 0)
      proxy.heal()
      yield* broker.received("basic.publish", published)
    })
  )

  it.live("holds at most a mebibyte of what it cannot pass on", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      const channel = yield* call(() => connection.createChannel())
      proxy.rate(1000, "up")
      channel.publish("", "sink", Buffer.alloc(8 * 1024 * 1024))
      const mebibyte = 1024 * 1024
      yield* proxy.until(({ up }) => up.held >= mebibyte)
      yield* Effect.repeat(meanwhile(broker), { times: 5 })
      assert.isBelow(proxy.stats.up.held, mebibyte + 128 * 1024)
      proxy.rst()
      assert.strictEqual(proxy.stats.up.held, 0)
    })
  )

  it.live("drops bytes without the sender noticing", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      const channel = yield* call(() => connection.createChannel())
      proxy.drop("up")
      channel.publish("", "q", Buffer.alloc(1000))
      yield* proxy.until(({ up }) => up.dropped > 1000)
      proxy.heal()
      channel.publish("", "q", Buffer.from("second"))
      assert.strictEqual((yield* broker.received("basic.publish")).content?.body.toString(), "second")
    })
  )

  it.live("resets both sides", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      const error = nextError(connection)
      proxy.rst()
      assert.include(yield* error, "ECONNRESET")
      yield* broker.socketsClosed
      assert.strictEqual(proxy.stats.reset, 1)
      assert.strictEqual(broker.count("end"), 0)
    })
  )

  it.live("ends only the client's half", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      const error = nextError(connection)
      proxy.fin()
      assert.include(yield* error, "Unexpected close")
      yield* broker.received("end") // the client's own end, passed on
      yield* proxy.linksClosed
      assert.strictEqual(proxy.stats.reset, 0)
    })
  )

  it.live("refuses new connections and keeps open ones", () =>
    Effect.gen(function* () {
      const { broker, proxy, url } = yield* proxiedBroker()
      const connection = yield* connected(url)
      proxy.refuse()
      assert.match(String(yield* refusal(() => connect(url))), /ECONNRESET|closed abruptly/)
      yield* call(() => connection.createChannel())
      proxy.heal()
      yield* connected(url)
      assert.strictEqual(broker.count("accept"), 2)
      assert.strictEqual(proxy.stats.refused, 1)
    })
  )

  it.live("resets a new connection if there is nothing upstream", () =>
    Effect.gen(function* () {
      const { broker, url } = yield* proxiedBroker()
      yield* broker.down
      assert.match(String(yield* refusal(() => connect(url))), /ECONNRESET|closed abruptly/)
    })
  )

  for (const direction of ["up", "down"] as const) {
    it.live(`cuts a link after exactly so many bytes ${direction}`, () =>
      Effect.gen(function* () {
        const { port } = yield* echoServer
        const proxy = yield* FaultProxy.make(port)
        for (const bytes of [0, 1, 8, 4321, 10_000]) {
          const before = proxy.stats[direction].bytes
          proxy.cutAfter(bytes, direction)
          const result = yield* echoed(proxy.port, pattern(10_000))
          assert.strictEqual(result.error, "ECONNRESET")
          assert.strictEqual(proxy.stats[direction].bytes - before, bytes)
          if (direction === "down") assert.isTrue(result.bytes.equals(pattern(10_000).subarray(0, bytes)))
        }
        assert.isUndefined((yield* echoed(proxy.port, pattern(10_000))).error)
        proxy.cutAfter(4321, direction, "fin")
        const ended = yield* echoed(proxy.port, pattern(10_000))
        assert.isUndefined(ended.error)
        assert.isAtMost(ended.bytes.length, 4321)
        assert.isTrue(ended.bytes.equals(pattern(10_000).subarray(0, ended.bytes.length)))
      })
    )
  }

  it.live("delays each way, and slows to a rate", () =>
    Effect.gen(function* () {
      const { port } = yield* echoServer
      const proxy = yield* FaultProxy.make(port)
      const timed = (bytes: number) =>
        Effect.gen(function* () {
          const start = performance.now()
          assert.isTrue((yield* echoed(proxy.port, pattern(bytes))).bytes.equals(pattern(bytes)))
          return performance.now() - start
        })
      proxy.delay(60)
      assert.isAtLeast(yield* timed(10), 118)
      proxy.heal()
      proxy.rate(50_000, "up")
      assert.isAtLeast(yield* timed(10_000), 195)
    })
  )

  it.live("corrupts one bit of every nth byte", () =>
    Effect.gen(function* () {
      const { port } = yield* echoServer
      const proxy = yield* FaultProxy.make(port)
      proxy.corrupt(1000)
      const sent = pattern(10_500)
      const { bytes } = yield* echoed(proxy.port, sent)
      const changed = [...sent].flatMap((byte, at) => (byte === bytes[at] ? [] : [at]))
      assert.deepStrictEqual(
        changed,
        Array.from({ length: 10 }, (_, n) => n * 1000 + 999)
      )
      assert.strictEqual(proxy.stats.down.corrupted, 10)
      assert.strictEqual(proxy.stats.up.corrupted, 0)
    })
  )
})
