/** What a client that breaks the rules of a handshake or of a close gets, from the memory broker and from RabbitMQ. */
import { MemoryBroker, TestBroker } from "@effect-amqp/core/testing"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { connect } from "node:net"
import { versionOf } from "../chaos/differential/differential.ts"
import { decodeMethod, encodeMethod } from "../src/testing/internal/memory/codec/methodCodec.ts"
import { type Args, type ClientMethod, specs } from "../src/testing/internal/memory/codec/methods.ts"
import {
  encodeFrame,
  encodeMessage,
  FRAME_END,
  FRAME_METHOD,
  FRAME_OVERHEAD,
  PROTOCOL_HEADER
} from "./support/frames.ts"

/**
 * What is sent when the broker sends the method of this name, or at the beginning. With `silent`, a `connection.close` is
 * not answered; with `lingers`, the socket stays open after a `connection.close-ok`.
 */
type Script = Readonly<Record<string, ReadonlyArray<Buffer>>>

const client = <M extends ClientMethod>(method: M, args: Partial<Args<M>> = {}, channel = 0) =>
  encodeMessage(channel, method, args)

const startOk = (args: Partial<Args<"connection.start-ok">> = {}) =>
  client("connection.start-ok", {
    mechanism: "PLAIN",
    response: "\0guest\0guest",
    locale: "en_US",
    clientProperties: { capabilities: { authentication_failure_close: true } },
    ...args
  })
const tuneOk = (args: Partial<Args<"connection.tune-ok">> = {}) =>
  client("connection.tune-ok", { channelMax: 100, frameMax: 8192, heartbeat: 0, ...args })
const open = (virtualHost = "/") => client("connection.open", { virtualHost })
const close = client("connection.close", { replyCode: 200 })
const closeOk = client("connection.close-ok")
const channelOpen = client("channel.open", {}, 1)

const usual: Script = {
  begin: [PROTOCOL_HEADER],
  "connection.start": [startOk()],
  "connection.tune": [tuneOk(), open()]
}

/** A content header for a body of 4 bytes. */
const header = encodeMessage(1, "basic.publish", {}, { body: Buffer.alloc(4) }).subarray(
  encodeMessage(1, "basic.publish").length,
  -(4 + FRAME_OVERHEAD)
)
const frame = (type: number, channel: number, size: number, end = FRAME_END) => {
  const bytes = encodeFrame(type, channel, Buffer.alloc(size))
  bytes[bytes.length - 1] = end
  return bytes
}
/** A method frame without the last bytes of its payload. */
const halfOf = (bytes: Buffer) => encodeFrame(1, bytes.readUInt16BE(1), bytes.subarray(7, 7 + 4 + 3))
const publish = client("basic.publish", { exchange: "", routingKey: "nowhere" }, 1)

/** Sends what is given once the connection, or its channel 1, is open. */
const afterOpen = (...sent: ReadonlyArray<Buffer>): Script => ({ ...usual, "connection.open-ok": sent })
const onChannel = (...sent: ReadonlyArray<Buffer>): Script => ({
  ...afterOpen(channelOpen),
  "channel.open-ok": [...sent, close]
})
const tuned = (fields: Partial<Args<"connection.tune-ok">>): Script => ({
  ...usual,
  "connection.tune": [tuneOk(fields), open()],
  "connection.open-ok": [close]
})

const scripts: Readonly<Record<string, Script>> = {
  "is silent from the start": {},
  "is silent after the protocol header": { begin: [PROTOCOL_HEADER] },
  "is silent after connection.tune": { begin: [PROTOCOL_HEADER], "connection.start": [startOk()] },
  "does not open the virtual host": { ...usual, "connection.tune": [tuneOk()] },
  "sends half of the protocol header": { begin: [PROTOCOL_HEADER.subarray(0, 4)] },
  "sends another protocol": { begin: [Buffer.from("GET / HTTP/1.1\r\n")] },
  "sends AMQP 1.1": { begin: [Buffer.from("AMQP\u0000\u0001\u0001\u0000", "latin1")] },
  "answers connection.start with another method": { ...usual, "connection.start": [tuneOk()] },
  "answers connection.start with connection.close": { ...usual, "connection.start": [close] },
  "answers connection.tune with another method": { ...usual, "connection.tune": [channelOpen] },
  "answers connection.tune with connection.close": { ...usual, "connection.tune": [close] },
  "answers connection.start with a frame that is too large": { ...usual, "connection.start": [frame(1, 0, 200_000)] },
  "answers connection.start with a frame of no type": { ...usual, "connection.start": [frame(4, 0, 4)] },
  "answers connection.start with a frame without its end": { ...usual, "connection.start": [frame(1, 0, 4, 0)] },
  "answers connection.start with a body": { ...usual, "connection.start": [frame(3, 0, 4)] },
  "answers connection.start with no method": { ...usual, "connection.start": [frame(1, 0, 4)] },
  "logs in by a mechanism that is not offered": { ...usual, "connection.start": [startOk({ mechanism: "PLAINER" })] },
  "logs in with half of a response": { ...usual, "connection.start": [startOk({ response: "guest" })] },
  "logs in with a wrong password": { ...usual, "connection.start": [startOk({ response: "\0guest\0no" })] },
  "logs in with a wrong password, and reads no connection.close then": {
    ...usual,
    "connection.start": [startOk({ response: "\0guest\0no", clientProperties: {} })]
  },
  "tunes no limit of channels": tuned({ channelMax: 0 }),
  "tunes more channels than there are": tuned({ channelMax: 3000 }),
  "tunes no limit of frames": tuned({ frameMax: 0 }),
  "tunes frames that are too small": tuned({ frameMax: 100 }),
  "tunes frames that are too large": tuned({ frameMax: 200_000 }),
  "opens a virtual host that does not exist": { ...usual, "connection.tune": [tuneOk(), open("none")] },
  "opens the connection twice": afterOpen(open(), close),
  "sends connection.start-ok again": afterOpen(startOk(), close),
  "never answers connection.close": { ...afterOpen(open()), silent: [] },
  "opens a virtual host that does not exist, and never answers": {
    ...usual,
    "connection.tune": [tuneOk(), open("none")],
    silent: []
  },
  "logs in with a wrong password, and never answers": {
    ...usual,
    "connection.start": [startOk({ response: "\0guest\0no" })],
    silent: []
  },
  "never ends its socket": { ...afterOpen(close), lingers: [] },
  "sends a method of a channel on channel 0": afterOpen(client("channel.open", {}, 0), close),
  "sends a method of a connection on channel 1": onChannel(client("connection.close", { replyCode: 200 }, 1)),
  "opens a channel twice": onChannel(channelOpen),
  "opens a channel above its limit": {
    ...tuned({ channelMax: 1 }),
    "connection.open-ok": [client("channel.open", {}, 3)],
    "channel.open-ok": [client("channel.open", {}, 2), close]
  },
  "opens a channel with a number above its limit": afterOpen(client("channel.open", {}, 101), close),
  "begins a message on a channel that is not open": afterOpen(publish, close),
  "publishes on a channel that is not open": afterOpen(
    encodeMessage(1, "basic.publish", {}, { body: Buffer.alloc(4) }),
    close
  ),
  "declares on a channel that is not open": afterOpen(client("queue.declare", { queue: "q" }, 1), close),
  "closes a channel that is not open": afterOpen(client("channel.close", { replyCode: 200 }, 1), close),
  "sends a content header of another class": onChannel(publish, Buffer.from(header).fill(61, 8, 9)),
  "sends a frame that is as large as agreed": onChannel(frame(4, 1, 8184)),
  "sends a frame with a payload as large as agreed": onChannel(frame(4, 1, 8192)),
  "sends text as a frame": onChannel(encodeFrame(4, 1, Buffer.from("text"))),
  "sends a frame that is too large": onChannel(frame(1, 1, 9000)),
  "sends a frame of no type": onChannel(frame(4, 1, 4)),
  "sends a frame without its end": onChannel(frame(1, 1, 4, 0)),
  "sends no method": onChannel(frame(1, 1, 4)),
  "sends half of a method": onChannel(frame(1, 1, 2)),
  "sends half of the fields of a method": onChannel(halfOf(client("queue.declare", { queue: "q" }, 1))),
  "sends half of the fields of a method of the connection": afterOpen(
    halfOf(client("connection.update-secret", { reason: "renewed" })),
    close
  ),
  "sends more than the fields of a method": onChannel(
    encodeFrame(1, 1, Buffer.concat([encodeMethod("queue.purge", { queue: "q" }), Buffer.from("more")]))
  ),
  "sends half of a header": onChannel(publish, encodeFrame(2, 1, Buffer.alloc(6))),
  "sends a body on channel 0": afterOpen(frame(3, 0, 4), close),
  "sends a method of the broker on channel 0": afterOpen(encodeMessage(0, "connection.tune"), close),
  "sends connection.close-ok by itself": afterOpen(closeOk, close),
  "tunes twice": { ...usual, "connection.tune": [tuneOk(), tuneOk()] },
  "opens the connection with half of its fields": {
    ...usual,
    "connection.tune": [tuneOk(), halfOf(open("a-long-name"))]
  },
  "closes the connection instead of opening it": { ...usual, "connection.tune": [tuneOk(), close] },
  "sends a body instead of opening the connection": { ...usual, "connection.tune": [tuneOk(), frame(3, 0, 4)] },
  "sends a frame of no type instead of opening the connection": {
    ...usual,
    "connection.tune": [tuneOk(), frame(4, 0, 4)]
  },
  "sends no method instead of opening the connection": { ...usual, "connection.tune": [tuneOk(), frame(1, 0, 4)] },
  "answers connection.tune with a channel": { ...usual, "connection.tune": [tuneOk(), channelOpen] },
  "answers connection.start with half of its fields": { ...usual, "connection.start": [halfOf(startOk())] },
  "sends channel.close-ok by itself": onChannel(client("channel.close-ok", {}, 1)),
  "sends channel.flow-ok by itself": onChannel(client("channel.flow-ok", { active: true }, 1)),
  "sends a body without a method": onChannel(frame(3, 1, 4)),
  "sends a header without a method": onChannel(header),
  "sends a body instead of a header": onChannel(publish, frame(3, 1, 4)),
  "sends a method instead of a header": onChannel(publish, publish),
  "sends more body than announced": onChannel(publish, header, frame(3, 1, 6)),
  "sends more body than announced, and a message": onChannel(publish, header, frame(3, 1, 6), publish),
  "sends an empty body": onChannel(publish, header, frame(3, 1, 0), frame(3, 1, 4)),
  "sends a method in a body": onChannel(publish, header, publish),
  "sends a heartbeat on channel 1": onChannel(frame(8, 1, 0)),
  "sends a heartbeat with a payload": onChannel(frame(8, 0, 4)),
  "sends a method of the broker": onChannel(
    encodeMessage(1, "queue.declare-ok", { queue: "q", messageCount: 0, consumerCount: 0 })
  ),
  "closes the channel in the middle of a message": onChannel(
    publish,
    header,
    client("channel.close", { replyCode: 200 }, 1)
  ),
  "closes the connection in the middle of a message": onChannel(publish, header)
}

const names = new Map(Object.entries(specs).map(([name, { id }]) => [id, name]))

const closing = (payload: Buffer) => {
  const { classId, methodId, replyCode, replyText } = decodeMethod(payload).args
  return `${String(replyCode)} ${String(replyText)} (${String(classId)}.${String(methodId)})`
}

/** What a client gets that sends what its script has for each method of the broker, and how long it waits for the end. */
const played = (url: string, script: Script) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    const seen: Array<string> = []
    const sent = new Set<string>()
    let buffered = Buffer.alloc(0)
    let last = performance.now()
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname)
    const send = (name: string) => {
      if (sent.has(name)) return
      sent.add(name)
      for (const bytes of script[name] ?? []) socket.write(bytes)
    }
    const onMethod = (channel: number, payload: Buffer) => {
      const name = names.get(payload.readUInt32BE(0)) ?? "no method"
      seen.push(`${channel} ${name}${name.endsWith(".close") ? ` ${closing(payload)}` : ""}`)
      if (name === "connection.close" && !("silent" in script)) socket.write(closeOk)
      if (name === "connection.close-ok" && !("lingers" in script)) socket.end()
      send(name)
    }
    socket.on("connect", () => send("begin"))
    socket.on("data", (bytes: Buffer) => {
      last = performance.now()
      buffered = Buffer.concat([buffered, bytes])
      if (buffered.toString("latin1", 0, 4) === "AMQP") {
        seen.push(`AMQP ${buffered.subarray(4, 8).join(".")}`)
        buffered = buffered.subarray(8)
      }
      for (let size = 0; buffered.length >= FRAME_OVERHEAD; buffered = buffered.subarray(size + FRAME_OVERHEAD)) {
        size = buffered.readUInt32BE(3)
        if (buffered.length < size + FRAME_OVERHEAD) return
        if (buffered[0] === FRAME_METHOD) onMethod(buffered.readUInt16BE(1), buffered.subarray(7, size + 7))
      }
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      const seconds = (performance.now() - last) / 1000
      seen.push(seconds < 2 ? "ends at once" : `ends after ${seconds < 7 ? 3 : seconds < 20 ? 10 : 30} s`)
      // Whether an error of a channel comes before the answer to the client's close is a race inside of RabbitMQ.
      const isClosed = seen.some((text) => text.startsWith("0 connection.close "))
      resume(Effect.succeed(seen.filter((text) => !isClosed || text !== "0 connection.close-ok")))
    })
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: "50 seconds", orElse: () => Effect.succeed(["does not end"]) }))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })("beside RabbitMQ", (it) => {
  it.effect(
    "a client that breaks the rules of the protocol gets the same frames and the same end",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const memory = yield* MemoryBroker.make({ version: yield* versionOf(url) })
        const memoryUrl = yield* memory.listen()
        const on = (target: string) =>
          Effect.map(
            Effect.forEach(
              Object.entries(scripts),
              ([title, script]) => Effect.map(played(target, script), (seen) => [title, seen] as const),
              { concurrency: "unbounded" }
            ),
            Object.fromEntries
          )
        const [rabbitmq, inMemory] = yield* Effect.all([on(url), on(memoryUrl)], { concurrency: 2 })
        assert.deepStrictEqual(inMemory, rabbitmq)
      }),
    120_000
  )
})
