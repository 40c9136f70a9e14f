/** A broker, or another server in its place, that violates the protocol. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConnection, AmqpConsumer, AmqpError, AmqpPool } from "@effect-amqp/core"
import { Duration, Effect, Fiber, Option, Queue, References, SubscriptionRef } from "effect"
import { untilOpen, untilState, withPool } from "./support/amqp.ts"
import { declareQueue, withConsumers } from "./support/consumers.ts"
import type { FieldTable } from "../src/testing/internal/memory/codec/fieldTable.ts"
import { nestedTable, objectKeys } from "./support/hostileTables.ts"
import { encodeFrame, encodeMessage, FRAME_BODY, FRAME_HEADER, FRAME_METHOD } from "./support/frames.ts"
import { countOf, playStreams, sumOf, tableOf } from "./support/corruptedSessions.ts"
import { start } from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { kindNames } from "./support/CorruptedStream.ts"

const openOk = encodeMessage(0, "connection.open-ok")

/**
 * Connects to a broker that sends these bytes in one piece with its open-ok, before any listener can be registered.
 */
const connectedTo = <A, E>(
  bytes: Buffer,
  program: Effect.Effect<A, E, AmqpConnection.AmqpConnection>
): Effect.Effect<A, E | AmqpError.AmqpError> =>
  Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
    broker.once("connection.open", (open) => open.write(Buffer.concat([openOk, bytes])))
    return yield* program.pipe(withPool(broker.url))
  }).pipe(Effect.scoped)

describe("data that arrives in one piece with open-ok", () => {
  const refusals: Record<string, [Buffer, string]> = {
    "connection.close": [encodeMessage(0, "connection.close", { replyCode: 320, replyText: "not now" }), "not now"],
    "a method of a channel that is not open": [
      encodeMessage(7, "channel.open-ok"),
      "channel.open-ok on channel 7, which is not open"
    ],
    "a method that only a client may send": [encodeMessage(0, "tx.select"), "Unexpected frame"],
    "a method that does not exist": [
      encodeFrame(1, 0, Buffer.of(0, 99, 0, 99)),
      "Unexpected frame: got method 99.99 on channel 0"
    ],
    "a frame of no type": [encodeFrame(77, 0, Buffer.of(1, 2, 3)), "expected frame type 1, 2, 3 or 8, got 77"],
    "a method that ends in the middle": [encodeFrame(1, 0, Buffer.of(0, 10, 0, 50, 1)), "does not match its fields"]
  }
  for (const [name, [bytes, words]] of Object.entries(refusals)) {
    it.live(`${name}: the connection ends with a typed error that has a reason`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(connectedTo(bytes, Effect.void))
        assert.include(error.message, words)
        assert.include(["ProtocolError", "ConnectionClosed"], error.reason._tag)
      })
    )
  }

  it.live("connection.blocked and connection.close: the next connection is not blocked", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
      const blocked = encodeMessage(0, "connection.blocked", { reason: "low on memory" })
      const closed = encodeMessage(0, "connection.close", { replyCode: 320, replyText: "not now" })
      broker.once("connection.open", (open) => open.write(Buffer.concat([openOk, blocked, closed])))
      yield* Effect.gen(function* () {
        const { flow, state } = yield* AmqpConnection.AmqpConnection
        assert.deepInclude(yield* SubscriptionRef.get(state), { _tag: "Open", generation: 1 })
        assert.strictEqual((yield* SubscriptionRef.get(flow))._tag, "Flowing")
      }).pipe(withPool(broker.url, { connectionAttempts: 2, retryDelay: Duration.millis(1) }))
    }).pipe(Effect.scoped)
  )

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

type Closing = Pick<ScriptedBroker.Context<"connection.open">, "closeConnection">

/** Why a connection ends to which these bytes were sent. */
const lostBy = (broker: ScriptedBroker.ScriptedBroker, bytes: Buffer) =>
  Effect.gen(function* () {
    const lost = yield* start(untilState((now) => now._tag === "Reconnecting"))
    broker.connection().write(bytes)
    return (yield* Fiber.join(lost)).reason
  }).pipe(withPool(broker.url), Effect.provideService(References.MinimumLogLevel, "None"))

describe("a broker's table", () => {
  const started = (serverProperties: FieldTable) =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ serverProperties })
      return yield* Effect.flatMap(AmqpConnection.AmqpConnection, ({ state }) => SubscriptionRef.get(state)).pipe(
        withPool(broker.url)
      )
    }).pipe(Effect.scoped)

  it.live("of server properties with the names of Object's members is harmless", () =>
    Effect.gen(function* () {
      const strange: FieldTable = Object.fromEntries(
        objectKeys.map((name) => [name, { product: "polluted", [name]: 1 }])
      )
      for (const value of [strange, [strange], "text", 1, null, new Uint8Array(3)]) {
        const now = yield* started({ ...strange, product: value, version: value, capabilities: value })
        assert.strictEqual(now._tag, "Open")
        assert.strictEqual(now._tag === "Open" && now.product, value === "text" ? "text text" : "unknown")
      }
      const now = yield* started(strange)
      assert.strictEqual(now._tag === "Open" && now.product, "unknown")
      assert.isUndefined(({} as Record<string, unknown>)["product"])
    })
  )

  for (const levels of [1000, 10_000, 20_000]) {
    it.live(`of server properties, nested ${levels} deep, is read, or is a ProtocolError`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
        const text = (content: string) => Buffer.concat([Buffer.of(0, 0, 0, content.length), Buffer.from(content)])
        const start = Buffer.concat([Buffer.of(0, 10, 0, 10, 0, 9), nestedTable(levels), text("PLAIN"), text("en_US")])
        broker.on("protocol-header", ({ write }) => write(encodeFrame(FRAME_METHOD, 0, start)))
        const result = yield* Effect.result(Effect.void.pipe(withPool(broker.url)))
        if (result._tag === "Failure") {
          assert.strictEqual(result.failure.reason._tag, "ProtocolError")
          assert.include(result.failure.message, "nested too deep")
        }
        yield* broker.socketsClosed
      }).pipe(Effect.scoped)
    )

    it.live(
      `of a method, nested ${levels} deep, ends its connection with ProtocolError at most, and the next one works`,
      () =>
        Effect.gen(function* () {
          const declare = Buffer.concat([Buffer.of(0, 50, 0, 10, 0, 0, 0, 0), nestedTable(levels)])
          const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
          const reason = yield* lostBy(broker, encodeFrame(FRAME_METHOD, 0, declare))
          assert.strictEqual(reason._tag, "ProtocolError")
        }).pipe(Effect.scoped)
    )

    it.live(`of headers, nested ${levels} deep, is delivered, and is kept as bytes where it is not read`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const header = Buffer.concat([Buffer.of(0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0), nestedTable(levels)])
        broker.once("basic.get", (get) => {
          get.reply("basic.get-ok", { deliveryTag: 1, routingKey: "q" })
          get.write(encodeFrame(FRAME_HEADER, get.channel, header))
        })
        yield* Effect.gen(function* () {
          const pool = yield* AmqpPool.AmqpPool
          const got = yield* pool.use((channel) => channel.get("q", { noAck: true }))
          assert.isTrue(Option.isSome(got))
          assert.isTrue(Option.isNone(yield* pool.use((channel) => channel.get("q"))))
        }).pipe(withPool(broker.url))
        assert.strictEqual(broker.count("accept"), 1)
      }).pipe(Effect.scoped)
    )
  }

  it.live("a frame larger than negotiated ends every connection as soon as its size is read", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ tune: { frameMax: 4096 }, protocolErrors: "record" })
      // The frame's first bytes are enough.
      const reason = yield* lostBy(broker, encodeFrame(FRAME_BODY, 0, Buffer.alloc(0), 4097).subarray(0, 7))
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.include(reason.message, "4097")
    }).pipe(Effect.scoped)
  )
})

describe("a broker that refuses the handshake with a code that AMQP does not define", () => {
  for (const method of ["connection.start-ok", "connection.open"] as const) {
    it.live(`in answer to ${method}: ConnectionClosed, with the code`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ on: { [method]: (at: Closing) => at.closeConnection(65_535, "") } })
        const { reason } = yield* Effect.flip(Effect.void.pipe(withPool(broker.url)))
        assert.strictEqual(reason._tag, "ConnectionClosed")
        assert.include(reason.message, "65535")
        yield* broker.socketsClosed
      }).pipe(Effect.scoped)
    )
  }
})

describe("a broker that keeps sending after it has sent malformed data", () => {
  it.live("and does not answer connection.close: its connection is given up and re-established", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.close": () => {} }, protocolErrors: "record" })
      yield* Effect.gen(function* () {
        const again = yield* start(untilOpen(2))
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

describe("a broker that sends malformed data", () => {
  const streams = Number(process.env["HOSTILE_STREAMS"] ?? 10_000)
  const from = Number(process.env["HOSTILE_SEED"] ?? 0)

  it.live(
    `in ${streams} corrupted streams: all end in time with an answer or an error, nothing is uncaught, memory is bounded`,
    () =>
      Effect.gen(function* () {
        const result = yield* playStreams(streams, from)
        console.log(tableOf(result))
        assert.deepStrictEqual(result.strange, [])
        assert.deepStrictEqual(result.uncaught, [])
        assert.isBelow(result.heapAfter - result.heapBefore, 20)
        assert.isAtMost(result.socketsLeft, 0)
        for (const [kind, ended] of result.ends)
          assert.isAtLeast(countOf(ended), Math.floor(streams / (2 * kindNames.length)), kind)
        // Some corruptions do no harm, but most are noticed: otherwise the streams were not corrupted.
        const all = sumOf(result)
        const counted = streams - result.tooSlow
        assert.isAtLeast(counted, 0.1 * streams)
        assert.isAtLeast(result.corrupted, 0.9 * counted)
        assert.isBelow(all.get("success") ?? 0, 0.7 * counted)
        assert.isAbove(all.get("ProtocolError") ?? 0, 0.1 * counted)
      }).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
    Math.max(300_000, 60 * streams)
  )
})

describe("a broker that ignores basic.qos", () => {
  const prefetch = 10

  /** Delivers without end, as fast as the socket accepts it, once there is a consumer. */
  const flood = (
    broker: ScriptedBroker.ScriptedBroker,
    size: number,
    most = Infinity,
    properties: Parameters<ScriptedBroker.ScriptedBroker["enqueue"]>[2] = {}
  ) => {
    broker.on("basic.consume", ({ args: { consumerTag }, proceed, reply }) => {
      proceed()
      let deliveryTag = 0
      const more = () => {
        for (let i = 0; i < 100 && deliveryTag < most; i++) {
          reply(
            "basic.deliver",
            { consumerTag, deliveryTag: ++deliveryTag, routingKey: "q" },
            { properties, body: Buffer.alloc(size) }
          )
        }
        if (deliveryTag < most && broker.openChannels > 0) setImmediate(more)
      }
      more()
    })
  }

  it.live("loses its connection, with an error that says so, before its deliveries fill the memory", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
      flood(broker, 10_000)
      yield* withConsumers(broker.url)(
        Effect.gen(function* () {
          yield* declareQueue({}, "q")
          let handled = 0
          const { reason } = yield* Effect.flip(
            AmqpConsumer.consume(
              "q",
              () =>
                Effect.andThen(
                  Effect.sync(() => handled++),
                  Effect.never
                ),
              {
                prefetch,
                concurrency: prefetch,
                resubscribe: "never",
                shutdownTimeout: 0
              }
            )
          )
          assert.strictEqual(reason._tag, "ConnectionClosed")
          assert.include(
            reason.message,
            `expected at most ${2 * prefetch + 64} unsettled deliveries, got ${2 * prefetch + 65} from queue "q"`
          )
          const cause: unknown = "cause" in reason ? reason.cause : undefined
          assert.isTrue(AmqpError.isAmqpErrorReason(cause) && cause._tag === "ProtocolError")
          assert.isAtMost(handled, prefetch)
        })
      )
    }).pipe(Effect.scoped)
  )

  it.live("loses it later where it delivers from a stream, because RabbitMQ always sends the rest of a chunk", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
      flood(broker, 10, Infinity, { headers: { "x-stream-offset": 7 } })
      yield* withConsumers(broker.url)(
        Effect.gen(function* () {
          yield* declareQueue({}, "q")
          const options = { prefetch, resubscribe: "never", shutdownTimeout: 0 } as const
          const { message } = yield* Effect.flip(AmqpConsumer.consume("q", () => Effect.never, options))
          assert.include(message, `unsettled deliveries, got ${2 * prefetch + 65 + 2 * 65_535} from queue`)
        })
      )
    }).pipe(Effect.scoped)
  )

  it.live("keeps its connection if it sends as much as RabbitMQ may send, and no more", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
      const most = 2 * prefetch + 64
      flood(broker, 10, most)
      yield* withConsumers(broker.url)(
        Effect.gen(function* () {
          yield* declareQueue({}, "q")
          const handled = yield* Queue.unbounded<undefined>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume("q", () => Queue.offer(handled, undefined), {
              prefetch,
              concurrency: 1
            })
          )
          assert.lengthOf(yield* Queue.takeN(handled, most), most)
          assert.strictEqual(broker.count("connection.open"), 2)
        })
      )
    }).pipe(Effect.scoped)
  )
})
