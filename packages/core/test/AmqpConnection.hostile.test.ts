/** A broker, or whatever answers in its place, that does not keep to the protocol. */
import { assert, describe, it } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConnection, type AmqpError, AmqpPublisher } from "@effect-amqp/core"
import { Duration, Effect, Fiber, Queue, References, Result, Stream, SubscriptionRef } from "effect"
import { type AddressInfo, connect, createServer, type Server } from "node:net"
import { configOf, withPool } from "./support/amqp.ts"
import { encodeFrame, encodeMessage } from "./support/frames.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { Spoiler } from "./support/Spoiler.ts"
import { collectGarbage } from "./support/heap.ts"

const openOk = encodeMessage(0, "connection.open-ok")

/** Connects to a broker that sends this in one piece with its open-ok, when nobody can listen yet. */
const connectedTo = <A, E>(
  bytes: Buffer,
  program: Effect.Effect<A, E, AmqpConnection.AmqpConnection>
): Effect.Effect<A, E | AmqpError.AmqpError> =>
  Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
    broker.once("connection.open", (open) => open.write(Buffer.concat([openOk, bytes])))
    return yield* program.pipe(withPool(broker.url))
  }).pipe(Effect.scoped)

describe("what comes in one piece with open-ok", () => {
  const refusals: Record<string, [Buffer, string]> = {
    "connection.close": [encodeMessage(0, "connection.close", { replyCode: 320, replyText: "not now" }), "not now"],
    "a method of a channel that is not there": [encodeMessage(7, "channel.open-ok"), "unknown channel"],
    "a method that is the client's": [encodeMessage(0, "tx.select"), "Unexpected frame"],
    "a method of nobody's": [encodeFrame(1, 0, Buffer.of(0, 99, 0, 99)), "Unknown class"],
    "a frame of no type": [encodeFrame(77, 0, Buffer.of(1, 2, 3)), "Unknown frame type"],
    "a method that ends in the middle": [encodeFrame(1, 0, Buffer.of(0, 10, 0, 50, 1)), "ends before its fields"]
  }
  for (const [name, [bytes, words]] of Object.entries(refusals)) {
    it.live(`${name}: a typed error, with a reason`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(connectedTo(bytes, Effect.void))
        assert.include(error.message, words)
        assert.include(["ProtocolError", "ConnectionClosed"], error.reason._tag)
      })
    )
  }

  it.live("connection.blocked: the connection is open, and blocked", () =>
    connectedTo(
      encodeMessage(0, "connection.blocked", { reason: "low on memory" }),
      Effect.gen(function* () {
        const { flow, state } = yield* AmqpConnection.AmqpConnection
        assert.deepInclude(yield* SubscriptionRef.get(flow), { reason: "low on memory" })
        assert.strictEqual((yield* SubscriptionRef.get(state))._tag, "Open")
      })
    )
  )
})

describe("a broker that goes on after it has sent rubbish", () => {
  it.live("without an answer to connection.close: its connection is given up, and made again", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.close": () => {} }, protocolErrors: "record" })
      yield* Effect.gen(function* () {
        const { state } = yield* AmqpConnection.AmqpConnection
        const again = yield* SubscriptionRef.changes(state).pipe(
          Stream.filter((now) => now._tag === "Open" && now.generation > 1),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        broker.connection().write(encodeMessage(7, "channel.open-ok"))
        yield* Fiber.join(again)
        yield* broker.until((now) => now.connections === 1)
      }).pipe(
        withPool(broker.url, { closeTimeout: Duration.millis(100) }),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    }).pipe(Effect.scoped)
  )
})

/** A server in front of a broker that spoils the first connection to it. */
const spoiled = (seed: number, port: number) =>
  Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      let first = true
      const server = createServer((client) => {
        const spoiler = first ? new Spoiler(seed) : undefined
        first = false
        const broker = connect(port, "127.0.0.1")
        for (const socket of [client, broker]) socket.on("error", () => {})
        client.on("data", (bytes) => broker.write(bytes))
        client.on("close", () => broker.destroy())
        broker.on("close", () => client.end())
        broker.on("data", (bytes: Buffer) => {
          client.write(spoiler?.pass(bytes) ?? bytes)
          if (spoiler?.ends === true) client.end()
        })
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

/** Most of what a client can be sent. */
const session = Effect.fnUntraced(function* (queue: string) {
  yield* AmqpChannel.use((channel) =>
    Effect.gen(function* () {
      yield* channel.queueDeclare(queue)
      const headers = { attempt: 1, nested: { list: ["x", 1.5, true] } }
      yield* channel.publish({ routingKey: queue, content: "one", headers, timestamp: new Date(0) })
      const consumer = yield* channel.consume(queue)
      // What has become of it may be nobody's any more.
      const delivery = yield* Queue.take(consumer.deliveries).pipe(Effect.timeout("500 millis"), Effect.option)
      if (delivery._tag === "Some") yield* channel.ack(delivery.value)
      yield* channel.cancel(consumer.consumerTag)
      yield* channel.publish({ routingKey: queue, content: "two" })
      yield* channel.get(queue)
    })
  ).pipe(Effect.scoped)
  yield* AmqpPublisher.publish({ routingKey: queue, content: "three" })
})

const millis = Duration.millis

const short = {
  connectTimeout: millis(1000),
  socketTimeout: millis(1000),
  continuationTimeout: millis(300),
  publishTimeout: millis(300),
  closeTimeout: millis(200),
  shutdownTimeout: millis(200),
  pool: { acquireTimeout: millis(500) }
}

/** Every wait of a session together, and the shutdown. */
const longest = "20 seconds"

const heap = Effect.sync(() => {
  for (let i = 0; i < 3; i++) collectGarbage()
  return process.memoryUsage().heapUsed / 1024 / 1024
})

describe("a broker that sends rubbish", () => {
  const streams = Number(process.env["HOSTILE_STREAMS"] ?? 10_000)
  const from = Number(process.env["HOSTILE_SEED"] ?? 0)

  it.live(
    `in ${streams} spoiled streams: all ends in time with an answer or an error, nothing is uncaught, memory is bounded`,
    () =>
      Effect.gen(function* () {
        const uncaught: Array<unknown> = []
        const note = (cause: unknown) => void uncaught.push(cause)
        yield* Effect.acquireRelease(
          Effect.sync(() => process.on("uncaughtExceptionMonitor", note).on("unhandledRejection", note)),
          () => Effect.sync(() => process.off("uncaughtExceptionMonitor", note).off("unhandledRejection", note))
        )
        const ended = new Map<string, number>()
        const strange: Array<string> = []

        const run = (port: number) => (seed: number) =>
          Effect.gen(function* () {
            const server = yield* spoiled(seed, port)
            const url = `amqp://127.0.0.1:${(server.address() as AddressInfo).port}`
            const { kind } = new Spoiler(seed)
            const result = yield* session(`q${seed}`).pipe(
              Effect.provide(Amqp.fromConfig(configOf(url, short)), { local: true }),
              Effect.catchDefect((defect) =>
                Effect.sync(() => void strange.push(`${seed} (${kind}): ${String(defect)}`))
              ),
              Effect.result,
              Effect.timeoutOption(longest)
            )
            if (result._tag === "None") return void strange.push(`${seed} (${kind}): did not end within ${longest}`)
            const tag = Result.isSuccess(result.value) ? "success" : result.value.failure.reason._tag
            if (tag === "UnknownError") strange.push(`${seed} (${kind}): ${String(result.value)}`)
            ended.set(tag, (ended.get(tag) ?? 0) + 1)
          }).pipe(Effect.scoped)

        // A broker each thousand: it keeps a log of all it has received.
        const some = (first: number, count: number) =>
          Effect.flatMap(ScriptedBroker.make({ protocolErrors: "record" }), ({ port }) =>
            Effect.forEach(
              Array.from({ length: count }, (_, i) => first + i),
              run(port),
              { concurrency: 48, discard: true }
            )
          ).pipe(Effect.scoped)

        const step = Math.min(1000, streams)
        yield* some(from, step)
        const before = yield* heap
        for (let done = step; done < streams; done += step) yield* some(from + done, step)
        const after = yield* heap
        assert.deepStrictEqual(strange, [])
        assert.deepStrictEqual(uncaught, [])
        assert.isBelow(after - before, 20)
        // Some do no harm, most are noticed: else the streams were not spoiled.
        assert.isBelow(ended.get("success") ?? 0, 0.7 * streams)
        assert.isAbove(ended.get("ProtocolError") ?? 0, 0.05 * streams)
        console.log(`hostile: ${streams} streams`, Object.fromEntries(ended), `heap +${(after - before).toFixed(1)} MB`)
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    300_000
  )
})
