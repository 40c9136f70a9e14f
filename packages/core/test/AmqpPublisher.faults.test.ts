/** The publisher when something fails at the worst moment: between two steps, or during one. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConnection, type AmqpError, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Queue, References, Stream } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import {
  held,
  joinAll,
  message,
  outcomeOf,
  published,
  send,
  start,
  startAll,
  untilFlow,
  untilStats,
  withPublisher
} from "./support/publisher.ts"
import { until } from "./support/polling.ts"
import { range } from "./support/ranges.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { reasonOf } from "./support/amqp.ts"

describe("a connection that dies", () => {
  it.live(
    "with several channels: waiting messages are not written to the last of them, but to the next connection",
    () =>
      onScriptedBroker({ broker: { on: held }, publisher: { channels: 2, maxInFlight: 4 } }, function* (broker) {
        const inFlight = yield* startAll([send("1"), send("2")])
        yield* untilStats((stats) => stats.channels === 2)
        inFlight.push(...(yield* startAll([send("3"), send("4")])))
        yield* broker.received("basic.publish", 4)
        assert.sameMembers(
          broker.log.flatMap((r) => (r.method === "basic.publish" ? [r.channel] : [])),
          [1, 1, 2, 2]
        )
        const waiting = yield* startAll(["a", "b", "c", "d"].map((content) => send(content)))
        yield* untilStats((stats) => stats.waiting === 4)
        broker.off("basic.publish")
        broker.destroy()
        assert.deepStrictEqual(new Set(yield* joinAll(inFlight)), new Set(["PublishUnknown"]))
        assert.deepStrictEqual(yield* joinAll(waiting), ["Confirmed", "Confirmed", "Confirmed", "Confirmed"])
        assert.sameMembers(published(broker).slice(4), ["a", "b", "c", "d"])
      })
  )

  it.live("while a channel opens, before the first message: the message goes with the next connection", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("confirm.select", (select) => select.destroy())
      const waiting = yield* startAll([send("a"), send("b")])
      assert.deepStrictEqual(yield* joinAll(waiting), ["Confirmed", "Confirmed"])
      assert.deepStrictEqual(published(broker), ["a", "b"])
    })
  )

  it.live("and whose successor accepts smaller frames: headers that no longer fit are refused, the rest is sent", () =>
    onScriptedBroker({ broker: { tune: { frameMax: 8192 } } }, function* (broker) {
      const { state } = yield* AmqpConnection.AmqpConnection
      yield* broker.down
      while (state.value._tag === "Open") yield* Effect.yieldNow
      const large = { ...message("large"), headers: { h: "x".repeat(9000) } }
      const tooLarge = yield* start(reasonOf(AmqpPublisher.publish(large)))
      const small = yield* start(send("small"))
      yield* untilStats((stats) => stats.waiting === 2)
      yield* broker.up
      assert.deepInclude(yield* Fiber.join(tooLarge), { _tag: "InvalidArgument", argument: "headers" })
      assert.strictEqual(yield* Fiber.join(small), "Confirmed")
      assert.deepStrictEqual(published(broker), ["small"])
    })
  )
})

describe("a message that was accepted without a connection", () => {
  it.live("is measured by the limit of the broker that is connected next", () =>
    onScriptedBroker(
      {
        broker: {
          serverProperties: { product: "RabbitMQ", version: "4.0.5", capabilities: { publisher_confirms: true } }
        }
      },
      function* (broker) {
        const { state } = yield* AmqpConnection.AmqpConnection
        yield* broker.down
        while (state.value._tag === "Open") yield* Effect.yieldNow
        const content = new Uint8Array(2 ** 24 + 1)
        const waiting = yield* start(outcomeOf(AmqpPublisher.publish({ routingKey: "k", content })))
        yield* untilStats((stats) => stats.waiting === 1)
        yield* broker.up
        assert.strictEqual(yield* Fiber.join(waiting), "MessageTooLarge")
        assert.strictEqual(broker.count("basic.publish"), 0)
      }
    )
  )
})

describe("a channel that the driver gives up because of what the broker sends", () => {
  it.live("accepts no more messages: they go to the next one", () =>
    onScriptedBroker({ broker: { protocolErrors: "record" }, publisher: { channels: 1 } }, function* (broker) {
      assert.strictEqual(yield* send("first"), "Confirmed")
      broker.on("channel.close", (close) => close.hold())
      const deliver = { consumerTag: "c", deliveryTag: 1, exchange: "", routingKey: "" }
      // The method requires content, and has none.
      broker.connection().send(1, "basic.deliver", deliver)
      broker.connection().send(1, "basic.deliver", deliver)
      yield* broker.received("channel.close")
      const waiting = yield* start(send("second"))
      yield* untilStats((stats) => stats.waiting === 1)
      broker.off("channel.close")
      broker.release("channel.close")
      assert.strictEqual(yield* Fiber.join(waiting), "Confirmed")
      assert.deepStrictEqual(published(broker), ["first", "second"])
    })
  )
})

describe("a channel that the driver gives up, and the broker does not close", () => {
  it.live("releases its messages and their places at once", () =>
    onScriptedBroker(
      {
        broker: {
          protocolErrors: "record",
          on: { "channel.close": () => {}, "basic.publish": (publish) => publish.hold() }
        },
        publisher: { channels: 1, maxInFlight: 2 },
        closeTimeout: Duration.millis(200)
      },
      function* (broker) {
        const unconfirmed = yield* startAll([send("a"), send("b")])
        yield* broker.received("basic.publish", 2)
        const deliver = { consumerTag: "c", deliveryTag: 1, exchange: "", routingKey: "" }
        broker.connection().send(1, "basic.deliver", deliver)
        broker.connection().send(1, "basic.deliver", deliver)
        yield* broker.received("channel.close")
        broker.off("basic.publish")
        assert.strictEqual(yield* send("c"), "Confirmed")
        assert.deepStrictEqual(yield* joinAll(unconfirmed), ["PublishUnknown", "PublishUnknown"])
        assert.deepStrictEqual(published(broker), ["a", "b", "c"])
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 0, waiting: 0 })
        assert.strictEqual(broker.count("connection.start-ok"), 1)
      }
    )
  )
})

describe("publishAll", () => {
  it.live("does not miss an outcome that arrives just before it waits for it", () =>
    onScriptedBroker({ publisher: { maxInFlight: 3 } }, function* () {
      // A fiber that yields after every few steps lets everything happen between any two of them.
      for (const steps of [3, 4, 5, 6, 7, 8]) {
        const all = Stream.runCount(AmqpPublisher.publishAll(range(100).map(message)))
        const counted = Effect.provideService(all, References.MaxOpsBeforeYield, steps)
        assert.strictEqual(yield* Effect.timeout(counted, "3 seconds"), 100, `${steps}`)
      }
    })
  )

  it.live("sends no message that waits for its turn after a failure is known", () =>
    onScriptedBroker(
      { broker: { on: { "basic.publish": () => {} } }, publisher: { maxInFlight: 3, channels: 1 } },
      function* (broker) {
        const other = yield* start(send("other"))
        yield* broker.received("basic.publish")
        const reading = yield* Deferred.make<void>()
        const gate = yield* Deferred.make<void>()
        const all = yield* start(
          AmqpPublisher.publishAll(range(10).map(message)).pipe(
            Stream.runForEach(() => Effect.andThen(Deferred.succeed(reading, undefined), Deferred.await(gate))),
            outcomeOf
          )
        )
        yield* broker.received("basic.publish", 3)
        broker.send(1, "basic.ack", { deliveryTag: 2 })
        yield* Deferred.await(reading)
        yield* broker.received("basic.publish", 4)
        yield* untilStats((stats) => stats.inFlight === 3 && stats.waiting === 1)
        // The reader of the sequence does not know yet.
        broker.send(1, "basic.nack", { deliveryTag: 3 })
        yield* untilStats((stats) => stats.nacked === 1 && stats.waiting === 0)
        broker.send(1, "basic.ack", { deliveryTag: 0, multiple: true })
        assert.strictEqual(yield* Fiber.join(other), "Confirmed")
        yield* untilStats((stats) => stats.inFlight === 0)
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual(yield* Fiber.join(all), "PublishNacked")
        assert.deepStrictEqual(published(broker), ["other", "0", "1", "2"])
      }
    )
  )

  it.live("sends nothing more when it is left early, however long its source takes to end", () =>
    onScriptedBroker({}, function* (broker) {
      yield* send("first")
      broker.block()
      yield* untilFlow("Blocked")
      const ending = yield* Deferred.make<void>()
      const gate = yield* Deferred.make<void>()
      const source = Stream.ensuring(
        Stream.fromIterable(range(10).map(message)),
        Effect.andThen(Deferred.succeed(ending, undefined), Deferred.await(gate))
      )
      const all = yield* start(Stream.runDrain(AmqpPublisher.publishAll(source)))
      yield* untilStats((stats) => stats.waiting === 1)
      const leaving = yield* start(Fiber.interrupt(all))
      yield* Deferred.await(ending)
      broker.unblock()
      yield* untilFlow("Flowing")
      assert.strictEqual(yield* send("second"), "Confirmed")
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(leaving)
      assert.deepStrictEqual(published(broker), ["first", "second"])
    })
  )

  it.live("ends with a message's defect when reading the message throws, and affects no other caller", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlight: 2, channels: 1 } }, function* (broker) {
      const trap = {
        ...message(1),
        get exchange(): string {
          throw new Error("a trap")
        }
      }
      const others = yield* startAll([send("other"), send("other")])
      yield* broker.received("basic.publish", 2)
      // The message is read when the publisher is notified of free room, in the middle of the driver's work.
      const all = yield* start(Effect.exit(Stream.runCount(AmqpPublisher.publishAll([message(0), trap, message(2)]))))
      yield* untilStats((stats) => stats.waiting === 1)
      broker.off("basic.publish")
      broker.release("basic.publish")
      const exit = yield* Fiber.join(all)
      assert.isTrue(Exit.hasDies(exit))
      assert.deepStrictEqual(yield* joinAll(others), ["Confirmed", "Confirmed"])
      assert.strictEqual(yield* send("after"), "Confirmed")
      assert.strictEqual(broker.count("connection.start-ok"), 1)
      assert.deepStrictEqual(published(broker), ["other", "other", "0", "after"])
    })
  )

  it.live("refuses what is neither a stream nor an iterable", () =>
    onScriptedBroker({}, function* () {
      for (const messages of [undefined, null, 5, message(1), "text"]) {
        const all = Stream.runDrain(AmqpPublisher.publishAll(messages as never))
        assert.deepInclude(yield* reasonOf(all as Effect.Effect<void, AmqpError.AmqpError>), {
          _tag: "InvalidArgument",
          argument: "messages"
        })
      }
    })
  )
})

describe("sink", () => {
  it.live("counts no message as confirmed that was not: it does not accept failures as values", () =>
    onScriptedBroker(
      {
        broker: {
          on: { "basic.publish": ({ deliveryTag, reply }) => reply("basic.nack", { deliveryTag }) }
        }
      },
      function* (broker) {
        const options = { mandatory: false, failures: "values" } as const
        const counted = Stream.run(Stream.make(message(1)), AmqpPublisher.sinkWith(options))
        assert.deepInclude(yield* reasonOf(counted), { _tag: "InvalidArgument", argument: "failures" })
        assert.strictEqual(broker.count("basic.publish"), 0)
      }
    )
  )
})

describe("a message that has to wait", () => {
  it.live("is checked as strictly as one that does not", () =>
    onScriptedBroker({}, function* (broker) {
      const content = "x".repeat(10_000)
      const publish = (extra: object) => reasonOf(AmqpPublisher.publish({ routingKey: "k", content, ...extra }))
      const unknown = { prority: 5 }
      // The first message waits for the channel.
      assert.deepInclude(yield* publish(unknown), { _tag: "InvalidArgument", argument: "prority" })
      assert.strictEqual(yield* send(content), "Confirmed")
      assert.deepInclude(yield* publish(unknown), { _tag: "InvalidArgument", argument: "prority" })
      assert.strictEqual(broker.count("basic.publish"), 1)
    })
  )

  it.live("is sent with all of its properties, including inherited ones", () =>
    onScriptedBroker({}, function* (broker) {
      const content = "x".repeat(10_000)
      const inherits = Object.assign(Object.create({ messageId: "inherited" }) as object, {
        exchange: "x",
        routingKey: "k",
        content,
        headers: { n: 1 }
      }) as AmqpMessage.Message
      assert.strictEqual(yield* outcomeOf(AmqpPublisher.publish(inherits)), "Confirmed")
      const sent = yield* broker.received("basic.publish")
      assert.strictEqual(sent.content!.body.toString(), content)
      assert.deepInclude(sent.content!.properties, { messageId: "inherited", headers: { n: 1 } })
    })
  )
})

describe("a message that kills its channel", () => {
  it.live("by its size is the first one that is too large, whatever was sent before", () =>
    onScriptedBroker({ publisher: { channels: 1 } }, function* (broker) {
      assert.strictEqual(yield* send("before"), "Confirmed")
      broker.on("basic.publish", (publish) => {
        if (publish.content!.body.length <= 10) return
        publish.closeChannel(406, "PRECONDITION_FAILED - message size 12 is larger than configured max size 10")
      })
      const outcomes = yield* joinAll(yield* startAll([send("small"), send("x".repeat(12)), send("y".repeat(12))]))
      assert.deepStrictEqual(outcomes, ["PublishUnknown", "MessageTooLarge", "PublishUnknown"])
    })
  )
})

describe("a message that is returned", () => {
  it.live("with changes made on its way, or since it was published, is recognized by where it was sent", () =>
    onScriptedBroker({ broker: { on: { "basic.publish": () => {} } }, publisher: { channels: 1 } }, function* (broker) {
      const fibers = yield* startAll([
        send("a", { mandatory: true }),
        outcomeOf(AmqpPublisher.publish({ exchange: "x", routingKey: "other", content: "b" }, { mandatory: true })),
        send("c")
      ])
      yield* broker.received("basic.publish", 3)
      const connection = broker.connection()
      connection.send(
        1,
        "basic.return",
        { replyCode: 312, replyText: "NO_ROUTE", exchange: "x", routingKey: "other" },
        { body: Buffer.from("B"), properties: { headers: { stamped: true } } }
      )
      broker.send(1, "basic.ack", { deliveryTag: 0, multiple: true })
      assert.deepStrictEqual(yield* joinAll(fibers), ["Confirmed", "PublishReturned", "Confirmed"])
    })
  )
})

describe("a channel that cannot be opened", () => {
  it.live("is not requested again with every message while another one works", () =>
    onScriptedBroker(
      {
        broker: {
          on: {
            "channel.open": (open) => (open.channel === 1 ? open.proceed() : open.closeChannel(504, "CHANNEL_ERROR"))
          }
        },
        publisher: { channels: 2 }
      },
      function* (broker) {
        for (let i = 0; i < 50; i++) {
          assert.deepStrictEqual(yield* joinAll(yield* startAll([send("a"), send("b")])), ["Confirmed", "Confirmed"])
        }
        // At most one attempt per second is made.
        assert.isAtMost(broker.count("channel.open"), 10)
      }
    )
  )

  it.live(
    "because the broker closes each as soon as it is open is not requested again at the speed of the network",
    () =>
      onScriptedBroker(
        {
          broker: {
            on: {
              "confirm.select": (select) => {
                select.proceed()
                select.closeChannel(541, "INTERNAL_ERROR - scripted")
              }
            }
          },
          publisher: { channels: 1 }
        },
        function* (broker) {
          assert.strictEqual(yield* send("a", { timeout: 350 }), "PublishTimeout")
          assert.isAtMost(broker.count("channel.open"), 5)
          broker.off("confirm.select")
          assert.strictEqual(yield* send("b"), "Confirmed")
        }
      )
  )
})

describe("a channel on which the broker refuses messages", () => {
  it.live("is closed and replaced by another, which may be accepted", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.on("basic.publish", ({ deliveryTag, proceed, reply }) =>
        broker.count("channel.open") === 1 ? reply("basic.nack", { deliveryTag }) : proceed()
      )
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* send("a"), "PublishNacked")
        assert.strictEqual(yield* until(send("b"), (outcome) => outcome !== "PublishNacked"), "Confirmed")
        yield* broker.until(({ openChannels }) => openChannels === 1)
        assert.strictEqual(broker.count("channel.open"), 2)
        assert.strictEqual(broker.count("channel.close"), 1)
      }).pipe(withPublisher(broker.url, { channels: 1 }))
    })
  )

  it.live("is replaced less and less often if its successors are refused, too", () =>
    onScriptedBroker(
      {
        broker: {
          on: { "basic.publish": ({ deliveryTag, reply }) => reply("basic.nack", { deliveryTag }) }
        },
        publisher: { channels: 1 }
      },
      function* (broker) {
        yield* Effect.forever(send("a")).pipe(Effect.timeoutOption("1500 millis"))
        // The channel is replaced after 100, 200, 400 and 800 ms at the earliest.
        assert.isAtLeast(broker.count("channel.open"), 3)
        assert.isAtMost(broker.count("channel.open"), 5)
      }
    )
  )

  const refusing = Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make({
      on: {
        "basic.publish": ({ content, deliveryTag, hold, proceed, reply }) => {
          const text = String(content!.body)
          if (text === "refused") reply("basic.nack", { deliveryTag })
          else if (text === "stays") hold()
          else proceed()
        }
      }
    })
    /** One message is pending on a channel that has just refused another. */
    const begin = Effect.gen(function* () {
      const stays = yield* start(send("stays"))
      // A channel must be this old to be replaced at once.
      yield* Effect.sleep(150)
      assert.strictEqual(yield* send("refused"), "PublishNacked")
      const later = yield* startAll([send("later"), send("last")])
      yield* untilStats((stats) => stats.waiting === 2)
      return { stays, later }
    })
    return { broker, begin }
  })

  it.live("is not replaced before the pending messages have their answers: a queue has the messages in order", () =>
    Effect.gen(function* () {
      const { begin, broker } = yield* refusing
      yield* Effect.gen(function* () {
        const { later, stays } = yield* begin
        yield* Effect.sleep(100)
        assert.strictEqual(broker.count("channel.open"), 1)
        broker.release("basic.publish")
        assert.strictEqual(yield* Fiber.join(stays), "Confirmed")
        assert.deepStrictEqual(yield* joinAll(later), ["Confirmed", "Confirmed"])
        assert.deepStrictEqual(published(broker), ["stays", "refused", "later", "last"])
        assert.strictEqual(broker.count("channel.open"), 2)
      }).pipe(withPublisher(broker.url, { channels: 1 }))
    })
  )

  it.live("stays open alongside its successor until its confirms are in: a slow queue makes no outcome unknown", () =>
    Effect.gen(function* () {
      const { begin, broker } = yield* refusing
      yield* Effect.gen(function* () {
        const { later, stays } = yield* begin
        assert.deepStrictEqual(yield* joinAll(later), ["Confirmed", "Confirmed"])
        yield* untilStats((stats) => stats.channels === 2 && stats.inFlight === 1)
        assert.strictEqual(broker.count("channel.close"), 0)
        broker.release("basic.publish")
        assert.strictEqual(yield* Fiber.join(stays), "Confirmed")
        yield* broker.until(({ openChannels }) => openChannels === 1)
        yield* untilStats((stats) => stats.channels === 1 && stats.inFlight === 0)
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { confirmed: 3, nacked: 1, unknown: 0 })
      }).pipe(withPublisher(broker.url, { channels: 1 }, { closeTimeout: Duration.seconds(1) }))
    })
  )

  it.live("stays open at most until its confirms are due: those that time out release their places in flight", () =>
    Effect.gen(function* () {
      const { begin, broker } = yield* refusing
      broker.on("channel.close", (close) => close.hold())
      yield* Effect.gen(function* () {
        const { later, stays } = yield* begin
        assert.deepStrictEqual(yield* joinAll(later), ["Confirmed", "Confirmed"])
        assert.strictEqual(yield* Fiber.join(stays), "PublishTimeout")
        yield* untilStats((stats) => stats.inFlight === 0)
        yield* broker.received("channel.close")
        // The confirm is too late: the outcome is known already.
        broker.release("basic.publish")
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, {
          confirmed: 2,
          unknown: 0,
          timedOut: 1
        })
      }).pipe(
        withPublisher(
          broker.url,
          { channels: 1 },
          { closeTimeout: Duration.seconds(1), publishTimeout: Duration.seconds(3) }
        )
      )
    })
  )

  it.live("is not overtaken by a sequence: its next message waits until the confirms before it are in", () =>
    Effect.gen(function* () {
      const { broker } = yield* refusing
      yield* Effect.gen(function* () {
        const publisher = yield* AmqpPublisher.AmqpPublisher
        const before: Record<string, Effect.Effect<unknown>> = {
          // A channel must be this old to be replaced at once.
          refused: Effect.sleep(150),
          next: until(publisher.stats, (stats) => stats.nacked === 1)
        }
        const paced = Stream.fromIterable(["warm up", "stays", "refused", "next"]).pipe(
          Stream.mapEffect((content) => Effect.as(before[content] ?? Effect.void, message(content)))
        )
        const sequence = yield* start(
          Stream.runCollect(AmqpPublisher.publishAll(paced, { failures: "values" })).pipe(
            Effect.map((all) =>
              all.map(({ result }) => (result._tag === "Success" ? "ok" : result.failure.reason._tag))
            )
          )
        )
        yield* until(publisher.stats, (stats) => stats.channels === 2 && stats.inFlight === 1)
        assert.strictEqual(yield* send("another"), "Confirmed")
        assert.notInclude(published(broker), "next")
        broker.release("basic.publish")
        assert.deepStrictEqual(yield* Fiber.join(sequence), ["ok", "ok", "PublishNacked", "ok"])
        assert.deepStrictEqual(published(broker), ["warm up", "stays", "refused", "another", "next"])
      }).pipe(withPublisher(broker.url, { channels: 1 }, { closeTimeout: Duration.seconds(1) }))
    })
  )

  it.live("dies while it is being replaced: each message has one outcome, and another channel is opened", () =>
    Effect.gen(function* () {
      const { begin, broker } = yield* refusing
      yield* Effect.gen(function* () {
        const { later, stays } = yield* begin
        broker.destroy()
        assert.strictEqual(yield* Fiber.join(stays), "PublishUnknown")
        assert.deepStrictEqual(yield* joinAll(later), ["Confirmed", "Confirmed"])
        yield* Effect.sleep(1200)
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { channels: 1, unknown: 1, inFlight: 0 })
        assert.strictEqual(broker.count("channel.open"), 2)
      }).pipe(withPublisher(broker.url, { channels: 1 }, { closeTimeout: Duration.seconds(1) }))
    })
  )
})

describe("a broker that accepts and confirms nothing, on a connection that looks healthy", () => {
  it.live(
    "fills a backlog of maxWaitingBytes: what comes after a second of silence is refused, and nothing is lost",
    () =>
      onScriptedBroker(
        { broker: { on: held }, publisher: { maxInFlight: 1, maxWaitingBytes: 100 } },
        function* (broker) {
          const inFlight = yield* start(send("first"))
          yield* untilStats((stats) => stats.inFlight === 1)
          const patient = yield* startAll([send("x".repeat(60)), send("y".repeat(60))])
          const refused = yield* until(
            Effect.gen(function* () {
              const late = yield* start(reasonOf(AmqpPublisher.publish(message("z".repeat(60)))))
              yield* Effect.yieldNow
              const exit = late.pollUnsafe()
              if (exit === undefined) yield* Fiber.interrupt(late)
              return exit
            }),
            (exit) => exit !== undefined
          )
          const reason = yield* refused!
          assert.strictEqual(reason._tag, "PoolExhausted")
          assert.include(reason.message, "1 message with 5 bytes is not confirmed yet")
          assert.include(reason.message, "maxWaitingBytes 100")
          broker.off("basic.publish")
          broker.release("basic.publish")
          assert.deepStrictEqual(yield* joinAll([inFlight, ...patient]), ["Confirmed", "Confirmed", "Confirmed"])
        }
      )
  )
})

describe("places in flight", () => {
  it.live("and their bytes are released with each answer, not only when nothing is in flight", () =>
    onScriptedBroker(
      {
        broker: {
          on: {
            "basic.publish": (publish) =>
              String(publish.content!.body) === "stays" ? publish.hold() : publish.proceed()
          }
        },
        publisher: { maxInFlightBytes: 100, channels: 1 }
      },
      function* (broker) {
        const stays = yield* start(send("stays"))
        yield* broker.received("basic.publish")
        for (let i = 0; i < 3; i++) assert.strictEqual(yield* send("x".repeat(80), { timeout: 2000 }), "Confirmed")
        broker.release("basic.publish")
        yield* Fiber.join(stays)
      }
    )
  )

  it.live(
    "do not stay with a message that waits for room and gives up, by interruption or timeout: the next one passes",
    () =>
      onScriptedBroker({ broker: { on: held }, publisher: { maxInFlightBytes: 100, channels: 1 } }, function* (broker) {
        const first = yield* start(send("x".repeat(60)))
        yield* broker.received("basic.publish")
        const interrupted = yield* start(send("y".repeat(80)))
        const small = yield* start(send("small"))
        yield* untilStats((stats) => stats.waiting === 2)
        yield* Fiber.interrupt(interrupted)
        yield* broker.received("basic.publish", 2)
        const late = yield* start(send("z".repeat(80), { timeout: 50 }))
        const smaller = yield* start(send("s"))
        assert.strictEqual(yield* Fiber.join(late), "PublishTimeout")
        yield* broker.received("basic.publish", 3)
        broker.release("basic.publish")
        assert.deepStrictEqual(yield* joinAll([first, small, smaller]), ["Confirmed", "Confirmed", "Confirmed"])
      })
  )
})

describe("a sequence and single messages in one wait queue", () => {
  it.live("are served in the order of arrival", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { maxInFlight: 1, channels: 1 } }, function* (broker) {
      const first = yield* start(send("first"))
      yield* broker.received("basic.publish")
      const all = yield* start(Stream.runCount(AmqpPublisher.publishAll(["a", "b"].map(message))))
      yield* untilStats((stats) => stats.waiting === 1)
      const single = yield* start(send("c"))
      yield* untilStats((stats) => stats.waiting === 2)
      for (let i = 1; i <= 4; i++) {
        yield* broker.received("basic.publish", i)
        broker.release("basic.publish")
      }
      assert.strictEqual(yield* Fiber.join(all), 2)
      assert.deepStrictEqual(yield* joinAll([first, single]), ["Confirmed", "Confirmed"])
      assert.deepStrictEqual(published(broker), ["first", "a", "c", "b"])
    })
  )

  it.live("are independent of a stopped channel, which holds up its sequence only", () =>
    onScriptedBroker({ broker: { on: held }, publisher: { channels: 2 } }, function* (broker) {
      const opening = yield* startAll([send("1"), send("2")])
      yield* untilStats((stats) => stats.channels === 2)
      broker.off("basic.publish")
      broker.release("basic.publish")
      yield* joinAll(opening)
      const source = yield* Queue.unbounded<AmqpMessage.Message>()
      const all = yield* start(Stream.runCount(Stream.take(AmqpPublisher.publishAll(Stream.fromQueue(source)), 2)))
      yield* Queue.offer(source, message("a"))
      const { channel } = yield* broker.received("basic.publish", 3)
      yield* untilStats((stats) => stats.inFlight === 0)
      broker.send(channel, "channel.flow", { active: false })
      yield* broker.received("channel.flow-ok")
      yield* Queue.offer(source, message("b"))
      yield* untilStats((stats) => stats.waiting === 1)
      assert.strictEqual(yield* send("single", { timeout: 1000 }), "Confirmed")
      broker.send(channel, "channel.flow", { active: true })
      assert.strictEqual(yield* Fiber.join(all), 2)
      assert.deepStrictEqual(published(broker).slice(2), ["a", "single", "b"])
    })
  )
})

describe("timeout", () => {
  it.live("of a message that was confirmed in time ends nothing, and delays no other timeout", () =>
    onScriptedBroker({}, function* (broker) {
      assert.strictEqual(yield* send("in time", { timeout: 200 }), "Confirmed")
      broker.on("basic.publish", () => {})
      assert.strictEqual(yield* send("late", { timeout: 300 }), "PublishTimeout")
      assert.strictEqual(yield* send("later", { timeout: 20 }), "PublishTimeout")
      assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { confirmed: 1, timedOut: 2 })
    })
  )

  it.live("counts monotonic time, whatever the system clock is set to in the meantime", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: held })
      const clock = yield* Clock.Clock
      let setBy = 0
      const set: Clock.Clock = Object.create(clock, {
        currentTimeMillisUnsafe: { value: () => clock.currentTimeMillisUnsafe() + setBy }
      })
      yield* Effect.gen(function* () {
        const patient = yield* start(send("patient", { timeout: "10 minutes" }))
        yield* broker.received("basic.publish")
        setBy = 3_600_000
        // The timer of this publish checks all deadlines.
        assert.strictEqual(yield* send("late", { timeout: 20 }), "PublishTimeout")
        assert.isUndefined(patient.pollUnsafe())
        const late = yield* start(send("late", { timeout: 20 }))
        setBy = -3_600_000
        assert.strictEqual(yield* Effect.timeout(Fiber.join(late), "3 seconds"), "PublishTimeout")
        broker.off("basic.publish")
        broker.release("basic.publish")
        assert.strictEqual(yield* Fiber.join(patient), "Confirmed")
      }).pipe(withPublisher(broker.url), Effect.provideService(Clock.Clock, set))
    })
  )
})
