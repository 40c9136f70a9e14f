/**
 * The publisher where no real broker fails on command: silent and late brokers, acks in any order, channels that die.
 */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConnection, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { Duration, Effect, Exit, Fiber } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import {
  closable,
  held,
  joinAll,
  message,
  outcomeOf,
  published,
  send,
  start,
  startAll,
  untilStats,
  withPublisher
} from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { closedByRefusals, reasonOf } from "./support/amqp.ts"

const millis = Duration.millis

const never: ScriptedBroker.Script = { "basic.publish": () => {} }
/** Checks how many places are free: that many publishes are sent, and no more. */
const placesFree = (broker: ScriptedBroker.ScriptedBroker, expected: number) =>
  Effect.gen(function* () {
    const before = broker.count("basic.publish")
    const { inFlight, waiting } = yield* (yield* AmqpPublisher.AmqpPublisher).stats
    const fibers = yield* startAll(Array.from({ length: expected + 2 }, () => send("probe")))
    yield* untilStats((stats) => stats.inFlight === inFlight + expected && stats.waiting === waiting + 2)
    yield* broker.until(() => broker.count("basic.publish") === before + expected)
    yield* Fiber.interruptAll(fibers)
  })

describe("12. A confirmed publish resolves once, and never as success without the broker's ack.", () => {
  it.live("without an answer of the broker no publish succeeds", () =>
    onScriptedBroker({ broker: { on: never }, publishTimeout: millis(500) }, function* (broker) {
      const outcomes = yield* joinAll(yield* startAll(Array.from({ length: 20 }, (_, i) => send(`${i}`))))
      assert.deepStrictEqual(new Set(outcomes), new Set(["PublishTimeout"]))
      assert.strictEqual(broker.count("basic.publish"), 20)
    })
  )

  it.live("acks and nacks reach the messages they name: in any order, many at once, twice, or for unknown tags", () =>
    onScriptedBroker({ broker: { on: never }, publisher: { channels: 1 } }, function* (broker) {
      const fibers = yield* startAll(Array.from({ length: 10 }, (_, i) => send(`${i}`)))
      yield* broker.received("basic.publish", 10)
      const ack = (deliveryTag: number, multiple = false) => broker.send(1, "basic.ack", { deliveryTag, multiple })
      const nack = (deliveryTag: number, multiple = false) => broker.send(1, "basic.nack", { deliveryTag, multiple })
      nack(3)
      ack(3)
      ack(99)
      ack(5)
      ack(5)
      ack(4, true)
      nack(4, true)
      nack(7, true)
      ack(9)
      const early = yield* joinAll([...fibers.slice(0, 7), fibers[8]!])
      const [ok, refused] = ["Confirmed", "PublishNacked"]
      assert.deepStrictEqual(early, [ok, ok, refused, ok, ok, refused, refused, ok] as never)
      assert.isUndefined(fibers[7]!.pollUnsafe())
      ack(0, true)
      assert.deepStrictEqual(yield* joinAll([fibers[7]!, fibers[9]!]), [ok, ok] as never)
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { confirmed: 7, nacked: 3, inFlight: 0 })
    })
  )

  it.live("an ack of everything does not confirm what is published in reaction to it", () =>
    onScriptedBroker({ broker: { on: never }, publisher: { channels: 1 } }, function* (broker) {
      const twice = Effect.andThen(send("first"), send("second"))
      const fibers = yield* startAll([twice, twice, twice])
      yield* broker.received("basic.publish", 3)
      broker.send(1, "basic.ack", { deliveryTag: 0, multiple: true })
      yield* broker.received("basic.publish", 6)
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { confirmed: 3, inFlight: 3 })
      broker.send(1, "basic.nack", { deliveryTag: 6, multiple: true })
      assert.deepStrictEqual(new Set(yield* joinAll(fibers)), new Set(["PublishNacked"]))
    })
  )

  it.live("a message that timed out keeps its place until the broker answers, and its late ack is not reported", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlight: 3, channels: 1 } }, function* (broker) {
      const reasons = yield* Effect.forEach(
        [1, 2],
        () => reasonOf(AmqpPublisher.publish(message("late"), { timeout: 500 })),
        { concurrency: 2 }
      )
      for (const reason of reasons) assert.deepInclude(reason, { _tag: "PublishTimeout", sent: true })
      yield* placesFree(broker, 1)
      // Interrupted publishes keep their places, too.
      yield* placesFree(broker, 0)
      broker.release("basic.publish")
      yield* untilStats((stats) => stats.inFlight === 0)
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { timedOut: 2, confirmed: 0, unknown: 0 })
      yield* placesFree(broker, 3)
    })
  )

  it.live("a mandatory message that was returned is PublishReturned even if the channel dies before its ack", () =>
    onScriptedBroker(
      {
        broker: {
          on: {
            "basic.publish": ({ args, content, reply }) => {
              const { exchange, routingKey } = args
              if (!args.mandatory) return
              reply("basic.return", { replyCode: 312, replyText: "NO_ROUTE", exchange, routingKey }, content)
            }
          }
        },
        publisher: { channels: 1 }
      },
      function* (broker) {
        const fibers = yield* startAll([send("a"), send("b", { mandatory: true }), send("c")])
        yield* broker.received("basic.publish", 3)
        broker.closeChannels(541)
        assert.deepStrictEqual(yield* joinAll(fibers), ["PublishUnknown", "PublishReturned", "PublishUnknown"])
      }
    )
  )

  it.live("the death of a channel is reported to each of its messages once, and to none of another channel", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { channels: 2 } }, function* (broker) {
      const fibers = yield* startAll(Array.from({ length: 10 }, (_, i) => send(`${i}`)))
      yield* untilStats((stats) => stats.channels === 2)
      fibers.push(...(yield* startAll(Array.from({ length: 10 }, (_, i) => send(`${i + 10}`)))))
      yield* broker.received("basic.publish", 20)
      broker.send(1, "channel.close", { replyCode: 541, replyText: "INTERNAL_ERROR" })
      yield* broker.received("channel.close-ok")
      broker.release("basic.publish")
      const outcomes = yield* joinAll(fibers)
      const onFirst = broker.log.flatMap((r) =>
        r.method === "basic.publish" && r.channel === 1 ? [String(r.content!.body)] : []
      )
      assert.isAbove(onFirst.length, 5)
      assert.isBelow(onFirst.length, 20)
      for (const [i, outcome] of outcomes.entries()) {
        assert.strictEqual(outcome, onFirst.includes(`${i}`) ? "PublishUnknown" : "Confirmed", `${i}`)
      }
    })
  )
})

describe("a message that kills its channel", () => {
  const kills = (text: string): ScriptedBroker.Script => ({
    "basic.publish": (publish) => {
      if (String(publish.content!.body) === "culprit") publish.closeChannel(404, text)
    }
  })

  it.live("is not distinguished from similar ones if their exchange existed before: all are unknown", () =>
    onScriptedBroker({ publisher: { channels: 1 } }, function* (broker) {
      assert.strictEqual(yield* send("before"), "Confirmed")
      broker.on("basic.publish", kills("NOT_FOUND - no exchange 'x' in vhost '/'")["basic.publish"]!)
      const outcomes = yield* joinAll(yield* startAll([send("innocent"), send("culprit"), send("innocent")]))
      assert.deepStrictEqual(outcomes, ["PublishUnknown", "PublishUnknown", "PublishUnknown"])
      // A single publish is recognized: a caller that retries one by one learns the reason.
      assert.strictEqual(yield* send("culprit"), "NotFound")
    })
  )

  it.live("is not guessed: a close that names no message makes all of them unknown, with its reason as the cause", () =>
    onScriptedBroker(
      { broker: { on: kills("PRECONDITION_FAILED - something new") }, publisher: { channels: 1 } },
      function* () {
        const reasons = yield* Effect.forEach(
          ["innocent", "culprit", "innocent"],
          (content) => reasonOf(AmqpPublisher.publish(message(content))),
          { concurrency: "unbounded" }
        )
        for (const reason of reasons) {
          assert.strictEqual(reason._tag, "PublishUnknown")
          assert.include(reason.message, "something new")
          assert.strictEqual((reason.cause as { _tag?: string })._tag, "NotFound")
        }
      }
    )
  )

  it.live("by its size is recognized by its size", () =>
    onScriptedBroker(
      {
        broker: {
          on: {
            "basic.publish": (publish) => {
              if (publish.content!.body.length <= 10) return
              publish.closeChannel(406, "PRECONDITION_FAILED - message size 12 is larger than configured max size 10")
            }
          }
        },
        publisher: { channels: 1 }
      },
      function* () {
        const outcomes = yield* joinAll(yield* startAll([send("small"), send("ü".repeat(6)), send("small")]))
        assert.deepStrictEqual(outcomes, ["PublishUnknown", "MessageTooLarge", "PublishUnknown"])
      }
    )
  )

  it.live("is followed by a new channel at once, on which waiting messages are sent in order", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { channels: 1, maxInFlight: 2 } }, function* (broker) {
      const first = yield* startAll([send("a"), send("b")])
      const waiting = yield* startAll([send("c"), send("d"), send("e"), send("f")])
      yield* broker.received("basic.publish", 2)
      broker.send(1, "channel.close", { replyCode: 404, replyText: "NOT_FOUND", classId: 60, methodId: 40 })
      assert.deepStrictEqual(yield* joinAll(first), ["PublishUnknown", "PublishUnknown"])
      yield* broker.received("basic.publish", 4)
      broker.off("basic.publish")
      broker.release("basic.publish")
      assert.deepStrictEqual(new Set(yield* joinAll(waiting)), new Set(["Confirmed"]))
      assert.deepStrictEqual(published(broker), ["a", "b", "c", "d", "e", "f"])
      assert.strictEqual(broker.count("channel.open"), 2)
    })
  )
})

describe("waiting", () => {
  it.live("is first come, first served, with at most maxInFlight messages in flight", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlight: 5, channels: 1 } }, function* (broker) {
      const fibers = yield* startAll(Array.from({ length: 20 }, (_, i) => send(String(i))))
      for (let answered = 0; answered < 20; answered++) {
        yield* broker.until(() => broker.count("basic.publish") === Math.min(20, answered + 5))
        const { inFlight, waiting } = yield* (yield* AmqpPublisher.AmqpPublisher).stats
        assert.strictEqual(inFlight, Math.min(5, 20 - answered))
        assert.strictEqual(waiting, Math.max(0, 15 - answered))
        broker.release("basic.publish", 1)
        yield* Fiber.join(fibers[answered]!)
      }
      assert.deepStrictEqual(
        published(broker),
        Array.from({ length: 20 }, (_, i) => String(i))
      )
    })
  )

  it.live("puts a fiber that publishes in reaction to its confirm behind those that have waited longer", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlight: 1 } }, function* (broker) {
      const fibers = yield* startAll([Effect.andThen(send("a"), send("d")), send("b"), send("c")])
      for (let i = 1; i <= 4; i++) {
        yield* broker.received("basic.publish", i)
        broker.release("basic.publish")
      }
      yield* joinAll(fibers)
      assert.deepStrictEqual(published(broker), ["a", "b", "c", "d"])
    })
  )

  it.live("ends by interruption or timeout without losing a place, and the message is never sent", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlight: 1 } }, function* (broker) {
      const first = yield* start(send("first"))
      yield* broker.received("basic.publish")
      const interrupted = yield* startAll([send("i1"), send("i2"), send("i3")])
      const late = yield* start(reasonOf(AmqpPublisher.publish(message("late"), { timeout: 30 })))
      const last = yield* start(send("last"))
      yield* Fiber.interrupt(interrupted[1]!)
      yield* Fiber.interrupt(interrupted[0]!)
      yield* Fiber.interrupt(interrupted[2]!)
      const reason = yield* Fiber.join(late)
      assert.deepInclude(reason, { _tag: "PublishTimeout", sent: false })
      assert.include(reason.message, "1 message with 5 bytes is not confirmed yet (maxInFlight 1")
      broker.off("basic.publish")
      broker.release("basic.publish")
      assert.deepStrictEqual(yield* joinAll([first, last]), ["Confirmed", "Confirmed"])
      assert.deepStrictEqual(published(broker), ["first", "last"])
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 0, waiting: 0, timedOut: 1 })
    })
  )

  it.live("bounds the bytes in flight, and a message above the bound goes alone", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlightBytes: 100, channels: 1 } }, function* (broker) {
      const fibers = yield* startAll([
        send("x".repeat(60)),
        send("y".repeat(40)),
        send("z"),
        send("w".repeat(500)),
        send("v")
      ])
      yield* broker.received("basic.publish", 2)
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 2, waiting: 3 })
      broker.release("basic.publish")
      yield* broker.received("basic.publish", 3)
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 1, waiting: 2 })
      broker.release("basic.publish")
      yield* broker.received("basic.publish", 4)
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 1, waiting: 1 })
      broker.off("basic.publish")
      broker.release("basic.publish")
      yield* joinAll(fibers)
      assert.deepStrictEqual(
        published(broker).map((text) => text.length),
        [60, 40, 1, 500, 1]
      )
    })
  )
})

describe("a connection that is not there", () => {
  it.live("sends nothing, and PublishTimeout says so and why", () =>
    onScriptedBroker({}, function* (broker) {
      assert.strictEqual(yield* send("a"), "Confirmed")
      const { state } = yield* AmqpConnection.AmqpConnection
      yield* broker.down
      while (state.value._tag === "Open") yield* Effect.yieldNow
      const reason = yield* reasonOf(AmqpPublisher.publish(message("b"), { timeout: "50 millis" }))
      assert.deepInclude(reason, { _tag: "PublishTimeout", sent: false })
      assert.include(reason.message, "there is no connection")
      yield* broker.up
      assert.strictEqual(yield* send("c"), "Confirmed")
      assert.deepStrictEqual(published(broker), ["a", "c"])
    })
  )

  it.live("when it is closed for good, fails waiting and later publishes at once, with its reason", () =>
    onScriptedBroker(
      {
        broker: { on: { "basic.publish": (publish) => publish.hold() } },
        publisher: { maxInFlight: 1 },
        ...closedByRefusals
      },
      function* (broker) {
        const inFlight = yield* start(send("a"))
        const queued = yield* start(send("b"))
        yield* broker.received("basic.publish")
        broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.destroy()
        assert.strictEqual(yield* Fiber.join(inFlight), "PublishUnknown")
        assert.strictEqual(yield* Fiber.join(queued), "AuthenticationFailed")
        assert.strictEqual(yield* send("c"), "AuthenticationFailed")
        assert.strictEqual(yield* send("d"), "AuthenticationFailed")
      }
    )
  )
})

describe("a channel that cannot be opened", () => {
  it.live("fails every waiting publish with the error of opening; the next publish tries again", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("channel.open", (open) => open.closeChannel(504, "CHANNEL_ERROR - scripted"))
      const outcomes = yield* joinAll(yield* startAll([send("a"), send("b")]))
      assert.deepStrictEqual(outcomes, ["ProtocolError", "ProtocolError"])
      assert.strictEqual(yield* send("c"), "Confirmed")
      assert.deepStrictEqual(published(broker), ["c"])
    })
  )

  it.live("without an answer is given up after continuationTimeout, and closed when it arrives", () =>
    onScriptedBroker({ continuationTimeout: millis(500) }, function* (broker) {
      broker.once("channel.open", (open) => open.hold())
      assert.strictEqual(yield* send("a"), "ReplyTimeout")
      broker.release("channel.open")
      yield* broker.received("channel.close")
      assert.strictEqual(yield* send("b"), "Confirmed")
      yield* broker.until((now) => now.openChannels === 1)
    })
  )

  it.live("as the second channel affects no publish", () =>
    onScriptedBroker(
      { broker: { tune: { channelMax: 1 } }, publisher: { channels: 4, maxInFlight: 10 } },
      function* () {
        const outcomes = yield* joinAll(yield* startAll(Array.from({ length: 100 }, (_, i) => send(String(i)))))
        assert.deepStrictEqual(new Set(outcomes), new Set(["Confirmed"]))
      }
    )
  )

  it.live("since it is closed immediately after it was opened is opened again", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("confirm.select", (select) => {
        select.proceed()
        select.closeChannel(541, "INTERNAL_ERROR - scripted")
      })
      assert.strictEqual(yield* send("a"), "Confirmed")
      assert.strictEqual(broker.count("channel.open"), 2)
    })
  )
})

describe("closing", () => {
  it.live("lets what is in flight finish; waiting and later publishes are PoolClosed, and never sent", () =>
    onScriptedBroker({ broker: { on: held } }, function* (broker) {
      const { close, publisher } = yield* closable({ maxInFlight: 2, channels: 1 })
      const publish = (content: string) => outcomeOf(publisher.publish(message(content)))
      const inFlight = yield* startAll([publish("a"), publish("b")])
      const queued = yield* startAll([publish("c"), publish("d")])
      yield* broker.received("basic.publish", 2)
      const closing = yield* start(close)
      assert.deepStrictEqual(yield* joinAll(queued), ["PoolClosed", "PoolClosed"])
      assert.strictEqual(yield* publish("e"), "PoolClosed")
      assert.isUndefined(closing.pollUnsafe())
      assert.strictEqual(broker.openChannels, 1)
      broker.release("basic.publish")
      assert.deepStrictEqual(yield* joinAll(inFlight), ["Confirmed", "Confirmed"])
      yield* Fiber.join(closing)
      assert.strictEqual(broker.openChannels, 0)
      assert.deepStrictEqual(published(broker), ["a", "b"])
    })
  )

  it.live("is bounded, whatever the broker does: after shutdownTimeout the rest is PublishUnknown", () =>
    onScriptedBroker(
      {
        broker: { on: { ...never, "channel.close": () => {} } },
        shutdownTimeout: millis(50),
        closeTimeout: millis(50)
      },
      function* (broker) {
        const { close, publisher } = yield* closable()
        const inFlight = yield* startAll([1, 2, 3].map((i) => reasonOf(publisher.publish(message(`${i}`)))))
        yield* broker.received("basic.publish", 3)
        const closing = yield* start(Effect.timed(close))
        for (const reason of yield* joinAll(inFlight)) {
          assert.strictEqual(reason._tag, "PublishUnknown")
          assert.include(reason.message, "shutdownTimeout")
        }
        const [took] = yield* Fiber.join(closing)
        assert.isBelow(Duration.toMillis(took), 2000)
        assert.deepInclude(yield* publisher.stats, { inFlight: 0, waiting: 0, unknown: 3 })
      }
    )
  )

  it.live("while a channel opens, or without a connection, gives up that wait", () =>
    onScriptedBroker({ broker: { on: { "channel.open": (open) => open.hold() } } }, function* (broker) {
      const one = yield* closable()
      const opening = yield* start(outcomeOf(one.publisher.publish(message("a"))))
      yield* broker.received("channel.open")
      yield* one.close
      assert.strictEqual(yield* Fiber.join(opening), "PoolClosed")
      broker.release("channel.open")
      yield* broker.received("channel.close")
      yield* broker.until((now) => now.openChannels === 0)

      const two = yield* closable()
      const { state } = yield* AmqpConnection.AmqpConnection
      yield* broker.down
      while (state.value._tag === "Open") yield* Effect.yieldNow
      const waiting = yield* start(outcomeOf(two.publisher.publish(message("b"))))
      yield* two.close
      assert.strictEqual(yield* Fiber.join(waiting), "PoolClosed")
      assert.deepStrictEqual(published(broker), [])
    })
  )

  it.live("from a fiber that has just been confirmed ends, too", () =>
    onScriptedBroker({}, function* (broker) {
      const { close, publisher } = yield* closable()
      yield* Effect.andThen(publisher.publish(message("a")), close)
      assert.strictEqual(broker.openChannels, 0)
    })
  )
})

describe("the size of a message", () => {
  for (const [product, version, limit] of [
    ["RabbitMQ", "4.0.5", 2 ** 24],
    ["RabbitMQ", "3.13.7", 2 ** 27],
    ["another broker", "9.9", undefined]
  ] as const) {
    it.live(`is bounded by ${limit ?? "nothing"} bytes with ${product} ${version}`, () =>
      onScriptedBroker(
        {
          broker: {
            serverProperties: { product, version, capabilities: { publisher_confirms: true } },
            on: never
          }
        },
        function* () {
          // Zeroed memory that is never touched costs nothing. An accepted message is never sent, because the publish
          // is interrupted.
          const content = new Uint8Array(2 ** 27 + 1)
          const publish = (size: number) =>
            AmqpPublisher.publish({ routingKey: "k", content: content.subarray(0, size) })
          const attempt = (size: number) =>
            Effect.gen(function* () {
              const fiber = yield* start(outcomeOf(publish(size)))
              const exit = fiber.pollUnsafe()
              yield* Fiber.interrupt(fiber)
              return exit === undefined ? "taken" : Exit.isSuccess(exit) ? exit.value : "failed"
            })
          if (limit !== undefined) assert.strictEqual(yield* attempt(limit + 1), "MessageTooLarge")
          assert.strictEqual(yield* attempt(limit ?? 2 ** 27 + 1), "taken")
        }
      )
    )
  }
})

describe("settings and options", () => {
  for (const [name, options] of [
    ["channels", { channels: 0 }],
    ["channels", { channels: 1.5 }],
    ["channels", { channels: 2048 }],
    ["maxInFlight", { maxInFlight: Number.NaN }],
    ["maxInFlight", { maxInFlight: -1 }],
    ["maxInFlight", { maxInFlight: "10" }],
    ["maxInFlightBytes", { maxInFlightBytes: 0 }],
    ["maxWaitingBytes", { maxWaitingBytes: 0 }],
    ["maxMessageSize", { maxMessageSize: Number.POSITIVE_INFINITY }],
    ["maxInflight", { maxInflight: 10 }]
  ] as const) {
    it.live(`of a publisher: ${name} of ${JSON.stringify(options)} is InvalidArgument`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const reason = yield* reasonOf(
          Effect.scoped(AmqpPublisher.make(options as AmqpPublisher.Options)).pipe(withPublisher(broker.url))
        )
        assert.deepInclude(reason, { _tag: "InvalidArgument", argument: name })
      })
    )
  }

  it.live("of a publish, and its message: refused before anything is sent", () =>
    onScriptedBroker({}, function* (broker) {
      const refused = (message: unknown, options?: unknown) =>
        reasonOf(AmqpPublisher.publish(message as AmqpMessage.Message, options as never))
      const ok = message("a")
      for (const [argument, of] of [
        ["timeout", refused(ok, { timeout: 0 })],
        ["timeout", refused(ok, { timeout: Number.NaN })],
        ["timeout", refused(ok, { timeout: "soon" })],
        ["onBlocked", refused(ok, { onBlocked: "panic" })],
        ["mandatory", refused(ok, { mandatory: 1 })],
        ["immediate", refused(ok, { immediate: true })],
        ["options", refused(ok, "fast")],
        ["routingKey", refused({ ...ok, routingKey: "x".repeat(256) })],
        ["content", refused({ ...ok, content: 5 })],
        ["message", refused(undefined)],
        ["headers", refused({ ...ok, headers: 7 })]
      ] as const) {
        assert.deepInclude(yield* of, { _tag: "InvalidArgument", argument })
      }
      assert.strictEqual(broker.count("channel.open"), 0)
    })
  )
})
