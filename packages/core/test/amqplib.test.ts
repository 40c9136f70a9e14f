/**
 * What the driver relies on in amqplib in addition to its declared API, and which hazards of amqplib the driver's
 * modules handle. Each title names the module. When an update of amqplib makes a test fail, read that module, and then
 * amqplib's own changes of `lib/connect.js`, `lib/connection.js`, `lib/channel.js`, `lib/channel_model.js`,
 * `lib/mux.js` and `lib/heartbeat.js`.
 */
import { assert, describe, it } from "@effect/vitest"
import { type Channel, type ChannelModel, connect } from "amqplib"
import { Effect } from "effect"
import { createRequire } from "node:module"
import { Socket } from "node:net"
import { setImmediate as nextTurn } from "node:timers/promises"
import { TLSSocket } from "node:tls"
import { classify } from "../src/internal/connection/classify.ts"
import { numberOf } from "../src/internal/driver/amqplib.ts"
import { encodeMessage } from "./support/frames.ts"
import { call, connected, nextEvent, openChannel, refusal } from "./support/amqplibClient.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import * as TlsProxy from "./support/TlsProxy.ts"

/** Passes everything that is read to amqplib, as the tap does with amqplib's part, and records the callers. */
const reading = () => {
  const sockets = new Set<unknown>()
  return {
    sockets,
    onread: {
      buffer: Buffer.alloc(65_536),
      callback(this: unknown, bytesRead: number, buffer: Uint8Array) {
        sockets.add(this)
        ;(this as Socket).push(Buffer.from(buffer.subarray(0, bytesRead)))
        return true
      }
    }
  }
}

/** A connection, and its socket. */
const tapped = Effect.fnUntraced(function* (broker: ScriptedBroker.ScriptedBroker) {
  const { onread, sockets } = reading()
  const model = yield* Effect.acquireRelease(
    call(() => connect(broker.url, { noDelay: true, onread } as object)),
    () => Effect.sync(() => socket?.destroy())
  )
  const [socket] = sockets as Set<Socket>
  model.on("error", () => {})
  return { model, socket: socket! }
})

const tagOf = (error: unknown, handshake = false) => classify(error, { operation: "connection", handshake })._tag

describe("amqplib", () => {
  it("has the version that the driver was written for: 2.3.1", () => {
    const require = createRequire(import.meta.url)
    const { version } = createRequire(require.resolve("amqplib"))("./package.json") as { readonly version: string }
    assert.strictEqual(version, "2.3.1")
  })

  // --- Channels ------------------------------------------------------------------------------------------------------

  it.live(
    "hands out a channel with its number, ch, whichever of several is answered first (amqplib.ts, channel.ts)",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ on: { "channel.open": (received) => received.hold() } })
        const model = yield* connected(broker.url)
        const numbers: Array<number> = []
        const open = () => model.createChannel().then((channel) => void numbers.push(numberOf(channel)))
        const opening = Promise.all([open(), open(), open()])
        yield* broker.received("channel.open", 3)
        for (const channel of [3, 1, 2]) broker.send(channel, "channel.open-ok")
        yield* call(() => opening)
        assert.deepStrictEqual(numbers, [3, 1, 2])
      }).pipe(Effect.scoped)
  )

  it("of another shape, whose channels have no number, is refused with its name and version (amqplib.ts)", () => {
    for (const ch of [undefined, 0, -1, 1.5, "1", null]) {
      assert.throws(
        () => numberOf({ ch } as unknown as Channel),
        /amqplib: expected version 2\.3\.1.*have no number \(ch\)/
      )
    }
    assert.throws(() => numberOf({} as Channel), /amqplib: expected version 2\.3\.1/)
  })

  it.live("gives a channel the lowest free number, and a closing channel keeps its own until close-ok (tap.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const model = yield* connected(broker.url)
      const open = Effect.map(openChannel(model), (channel) => ({ channel, number: numberOf(channel) }))
      const [first, second, third] = [yield* open, yield* open, yield* open]
      assert.deepStrictEqual([first.number, second.number, third.number], [1, 2, 3])
      broker.once("channel.close", (received) => received.hold())
      const closing = second.channel.close()
      yield* broker.received("channel.close")
      assert.strictEqual((yield* open).number, 4)
      broker.release("channel.close")
      yield* call(() => closing)
      assert.strictEqual((yield* open).number, 2)
    }).pipe(Effect.scoped)
  )

  it.live("refuses a channel beyond channel-max, sends nothing for it, and continues (connection.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ tune: { channelMax: 2 } })
      const model = yield* connected(broker.url)
      const first = yield* openChannel(model)
      yield* openChannel(model)
      yield* refusal(() => model.createChannel())
      assert.strictEqual(broker.count("channel.open"), 2)
      yield* call(() => first.close())
      yield* openChannel(model)
    }).pipe(Effect.scoped)
  )

  it.live("sends channel.open in a later turn than it is called in, so that a close overtakes it (channel.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { model } = yield* tapped(broker)
      const opening = refusal(() => model.createChannel())
      const [refused] = yield* Effect.all([opening, call(() => model.close())], { concurrency: "unbounded" })
      assert.match(refused.message, /Connection clos/)
      assert.strictEqual(broker.count("channel.open"), 0)
      assert.strictEqual(broker.count("connection.close"), 1)
    }).pipe(Effect.scoped)
  )

  const ends = {
    "it is closed": (channel: Channel) => call(() => channel.close()),
    "the broker closes it": (_: Channel, broker: ScriptedBroker.ScriptedBroker) =>
      Effect.sync(() => broker.closeChannels(404)),
    "its connection is closed": (_: Channel, __: unknown, model: ChannelModel) => call(() => model.close()),
    "its connection is lost": (_: Channel, broker: ScriptedBroker.ScriptedBroker) => Effect.sync(() => broker.destroy())
  }
  for (const [when, end] of Object.entries(ends)) {
    it.live(`emits close on a channel that is gone when ${when} (channel.ts)`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const model = yield* connected(broker.url)
        const channel = yield* openChannel(model)
        const closed = nextEvent(channel, "close")
        yield* end(channel, broker, model)
        yield* closed
        // amqplib's connection.close overtakes the answer that it has to send.
        if (when === "the broker closes it") yield* broker.received("channel.close-ok")
      }).pipe(Effect.scoped)
    )
  }

  // --- When it writes ------------------------------------------------------------------------------------------------

  /** In bytes: the frame's overhead, class and method, and the fields of basic.qos. */
  const sizeOfQos = 8 + 4 + 7

  /** The phases of the event loop in which methods are sent. */
  const phases: Record<string, (run: () => void) => void> = {
    "a microtask": (run) => queueMicrotask(run),
    "process.nextTick": (run) => process.nextTick(run),
    setImmediate: (run) => setImmediate(run),
    "a timer": (run) => setTimeout(run, 1)
  }
  for (const [phase, from] of Object.entries(phases)) {
    it.live(
      `has written methods of many channels two turns later when they are sent from ${phase} (connectionOutput.ts)`,
      () =>
        Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make({ on: { "basic.qos": () => {} } })
          const { model, socket } = yield* tapped(broker)
          const channels = yield* Effect.forEach(Array.from({ length: 50 }), () => openChannel(model))
          const before = socket.bytesWritten
          const written = yield* Effect.promise(
            () =>
              new Promise<number>((resolve) => {
                from(() => {
                  for (const channel of channels) channel.prefetch(1).catch(() => {})
                  // `whenAmqplibHasWritten` checks in the same way.
                  setImmediate(() => setImmediate(() => resolve(socket.bytesWritten - before)))
                })
              })
          )
          assert.strictEqual(written, channels.length * sizeOfQos)
        }).pipe(Effect.scoped)
    )
  }

  it.live(
    "writes one method to a socket that is full, and the next within two turns of its drain (connectionOutput.ts)",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ on: { "basic.qos": () => {} } })
        const { model, socket } = yield* tapped(broker)
        const [first, second, third] = [yield* openChannel(model), yield* openChannel(model), yield* openChannel(model)]
        const message = encodeMessage(numberOf(third), "basic.publish", {}, { body: Buffer.alloc(1 << 20) }, 131_072)
        broker.pause()
        // The driver fills the socket in the same way.
        while (!socket.writableNeedDrain) {
          socket.write(message)
          yield* Effect.promise(() => nextTurn())
        }
        const full = socket.bytesWritten
        const turns = Effect.repeat(
          Effect.promise(() => nextTurn()),
          { times: 5 }
        )
        first.prefetch(1).catch(() => {})
        yield* turns
        assert.strictEqual(socket.bytesWritten, full + sizeOfQos)
        second.prefetch(1).catch(() => {})
        yield* turns
        assert.strictEqual(socket.bytesWritten, full + sizeOfQos)
        const drained = new Promise<number>((resolve) => {
          socket.once("drain", () => setImmediate(() => setImmediate(() => resolve(socket.bytesWritten))))
        })
        broker.resume()
        assert.strictEqual(yield* Effect.promise(() => drained), full + 2 * sizeOfQos)
      }).pipe(Effect.scoped)
  )

  it.live("writes connection.close before what its channels hold (connection.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
      const { model } = yield* tapped(broker)
      const channel = yield* openChannel(model)
      const lost = refusal(() => channel.assertQueue("q"))
      yield* Effect.all([lost, call(() => model.close())], { concurrency: "unbounded" })
      yield* broker.socketsClosed
      const methods = broker.methods({ connection: 1 })
      assert.strictEqual(methods[methods.indexOf("channel.open") + 1], "connection.close")
    }).pipe(Effect.scoped)
  )

  // --- How a connection opens ------------------------------------------------------------------------------------------

  it.live("requests the credentials' response once, when it begins to connect (open.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      let asked = 0
      const credentials = { mechanism: "PLAIN", response: () => Buffer.from(`\0guest\0guest${++asked}`) }
      const connecting = connect(broker.url, { credentials })
      assert.strictEqual(asked, 1)
      const model = yield* call(() => connecting)
      const { args } = yield* broker.received("connection.start-ok")
      assert.strictEqual(String(args.response), "\0guest\0guest1")
      yield* call(() => model.close())
      assert.strictEqual(asked, 1)
    }).pipe(Effect.scoped)
  )

  it.live("decodes a virtual host's percent signs a second time (open.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { host: hostname, port } = broker
      const vhost = "100%2F a/b"
      const model = yield* call(() => connect({ hostname, port, vhost: encodeURIComponent(vhost) }))
      assert.strictEqual((yield* broker.received("connection.open")).args.virtualHost, vhost)
      yield* call(() => model.close())
    }).pipe(Effect.scoped)
  )

  it.live("passes onread to its socket (tap.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { onread, sockets } = reading()
      const model = yield* call(() => connect(broker.url, { onread } as object))
      assert.lengthOf(sockets, 1)
      assert.instanceOf(Array.from(sockets)[0], Socket)
      yield* call(() => model.close())
    }).pipe(Effect.scoped)
  )

  it.live("passes onread to its socket with TLS, and gets what is decrypted (tap.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { port } = yield* TlsProxy.make(broker)
      const { onread, sockets } = reading()
      const url = { protocol: "amqps", hostname: "127.0.0.1", port }
      const model = yield* call(() => connect(url, { onread, rejectUnauthorized: false } as object))
      assert.lengthOf(sockets, 1)
      assert.instanceOf(Array.from(sockets)[0], TLSSocket)
      yield* call(() => model.close())
    }).pipe(Effect.scoped)
  )

  it.live("passes a signal on to its socket, which it destroys, with and without TLS (open.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.start-ok": () => {} } })
      const { port } = yield* TlsProxy.make(broker)
      const ways = [
        ["amqp", broker.port],
        ["amqps", port]
      ] as const
      for (const [nth, [protocol, port]] of ways.entries()) {
        const aborting = new AbortController()
        const { signal } = aborting
        const url = { protocol, hostname: "127.0.0.1", port }
        const failing = connect(url, { signal, rejectUnauthorized: false } as object)
        yield* broker.received("connection.start-ok", nth + 1)
        aborting.abort()
        yield* refusal(() => failing)
        yield* broker.socketsClosed
      }
    }).pipe(Effect.scoped)
  )

  // --- How a connection ends -----------------------------------------------------------------------------------------

  it.live("reports Socket closed abruptly for a socket that ends while it opens (classify.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.start-ok": (received) => received.end() } })
      const error = yield* refusal(() => connect(broker.url))
      assert.match(error.message, /^Socket closed abruptly/)
      assert.strictEqual(tagOf(error, true), "ConnectionClosed")
    }).pipe(Effect.scoped)
  )

  /** What it reports, by `error` and then by `close`. */
  const reported = Effect.fnUntraced(function* (model: ChannelModel) {
    const events: Array<readonly [name: string, cause: unknown]> = []
    for (const name of ["error", "close"]) model.on(name, (cause) => events.push([name, cause]))
    return { events, closed: nextEvent(model, "close") }
  })

  it.live("reports Unexpected close for a socket that ends, by error and close (classify.ts, connection.ts)", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { model } = yield* tapped(broker)
      const { closed, events } = yield* reported(model)
      broker.end()
      yield* closed
      const [[, cause]] = events as [readonly [string, Error]]
      assert.deepStrictEqual(events, [
        ["error", cause],
        ["close", cause]
      ])
      assert.match(cause.message, /^Unexpected close/)
      assert.strictEqual(tagOf(cause), "ConnectionClosed")
    }).pipe(Effect.scoped)
  )

  it.live(
    "reports Heartbeat timeout for a silent peer, by error and close, and leaves its socket open (classify.ts, connection.ts)",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ tune: { heartbeat: 1 }, heartbeats: false })
        const { model, socket } = yield* tapped(broker)
        const { closed, events } = yield* reported(model)
        yield* closed
        const [[, cause]] = events as [readonly [string, Error]]
        assert.deepStrictEqual(events, [
          ["error", cause],
          ["close", cause]
        ])
        assert.match(cause.message, /^Heartbeat timeout/)
        assert.strictEqual(tagOf(cause), "ConnectionClosed")
        assert.isFalse(socket.destroyed)
      }).pipe(Effect.scoped)
  )
})
