/**
 * A connection that ends while data is queued everywhere: in the channels' outputs, in amqplib's own queues, and in the
 * socket.
 */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpPool } from "@effect-amqp/core"
import { Duration, Effect, Fiber } from "effect"
import { BrokerClose } from "../src/internal/driver/driver.ts"
import { quietly, reasonOf, untilOpen, withPool } from "./support/amqp.ts"
import { driving, messageOf, moreThanFits, Outcomes, turns, untilStuck } from "./support/driverConnection.ts"
import { eventually, until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const large = Buffer.alloc(moreThanFits, "x")

const make = ScriptedBroker.make({
  on: { "basic.ack": () => {}, "queue.declare": (declare) => declare.hold() }
})

/** How far the queued data has got when the close is read. */
const moments = {
  "nothing was sent": { isPaused: false, turns: 0 },
  "a turn later": { isPaused: false, turns: 1 },
  "two turns later": { isPaused: false, turns: 2 },
  "the socket is full": { isPaused: true, turns: 3 }
} as const

describe("connection.close of the broker with data queued everywhere", () => {
  for (const [moment, { isPaused, turns: count }] of Object.entries(moments)) {
    it.live(`is answered, nothing follows, and each channel and request gets it once: ${moment}`, () =>
      Effect.gen(function* () {
        const broker = yield* make
        const { ends, open, opening } = yield* driving(broker.url)
        const one = yield* open
        const two = yield* open
        const outcomes = new Outcomes()
        if (isPaused) {
          broker.pause()
          one.channel.publish(messageOf(large))
          yield* untilStuck
        }
        yield* turns()
        if (count === 0) broker.closeConnections(320)
        for (const { channel } of [one, two]) {
          outcomes.of(() => channel.publish(messageOf("a")))
          outcomes.of(() => channel.queueDeclare("q", {}))
          outcomes.of(() => channel.publish(messageOf(Buffer.alloc(500_000))))
          outcomes.of(() => channel.queueDeclare("q", {}))
          outcomes.of(() => channel.get("q", true))
        }
        const late = opening()
        yield* turns(count)
        if (count > 0) broker.closeConnections(320)
        yield* until(
          Effect.sync(() => ends.length),
          (length) => length > 0,
          "the ends"
        )
        for (const { channel } of [one, two]) outcomes.of(() => channel.publish(messageOf("late")))
        broker.resume()
        yield* outcomes.untilSettled
        yield* broker.received("connection.close-ok")
        yield* broker.socketsClosed
        const answers = ["sent", "ChannelEnded", "sent", "ChannelEnded", "ChannelEnded"]
        assert.deepStrictEqual(outcomes.all, [...answers, ...answers, "ChannelEnded", "ChannelEnded"])
        assert.strictEqual(ends.length, 1)
        assert.instanceOf(ends[0], BrokerClose)
        assert.deepStrictEqual(
          [one, two, late].map((driven) => driven.ends),
          [[undefined], [undefined], [undefined]]
        )
        assert.deepStrictEqual(
          [one, two, late].map((driven) => driven.goings),
          [1, 1, 1]
        )
        assert.strictEqual(broker.connection().order.frames.at(-1)?.name, "connection.close-ok")
      }).pipe(Effect.scoped)
    )
  }

  it.live("is reported as such when the broker ends the socket right behind it", () =>
    Effect.gen(function* () {
      const broker = yield* make
      const { ends, open } = yield* driving(broker.url)
      const one = yield* open
      one.channel.publish(messageOf("a"))
      broker.connection().inOneSegment(() => {
        broker.closeConnections(320)
        broker.end()
      })
      yield* broker.socketsClosed
      assert.strictEqual(ends.length, 1)
      assert.instanceOf(ends[0], BrokerClose)
      assert.deepStrictEqual([one.ends, one.goings], [[undefined], 1])
    }).pipe(Effect.scoped)
  )

  it.live("is a lost connection for every user, once, and the connection is re-established", () =>
    Effect.gen(function* () {
      const broker = yield* make
      yield* Effect.gen(function* () {
        const [one, two] = [yield* AmqpPool.get, yield* AmqpPool.get]
        broker.pause()
        const publishing = yield* Effect.forkChild(reasonOf(one.publish({ routingKey: "q", content: large })))
        const declaring = yield* Effect.forkChild(reasonOf(two.queueDeclare("q")))
        yield* turns(10)
        broker.closeConnections(320)
        broker.resume()
        const reasons = [yield* Fiber.join(publishing), yield* Fiber.join(declaring), yield* reasonOf(one.get("q"))]
        assert.deepStrictEqual(
          reasons.map(({ _tag }) => _tag),
          ["ConnectionClosed", "ConnectionClosed", "ConnectionClosed"]
        )
        yield* untilOpen(2)
        broker.off("queue.declare")
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q")))
        const { state } = yield* AmqpConnection.AmqpConnection
        assert.deepInclude(state.value, { _tag: "Open", generation: 2 })
      }).pipe(Effect.scoped, withPool(broker.url))
    }).pipe(Effect.scoped, quietly)
  )
})

describe("connection.close of ours with data queued everywhere", () => {
  for (const isPaused of [false, true]) {
    const slow = isPaused ? ", when the socket takes it" : ""
    it.live(`sends everything that was written before it${slow}`, () =>
      Effect.gen(function* () {
        const broker = yield* make
        const { connection, ends, open } = yield* driving(broker.url)
        const one = yield* open
        const two = yield* open
        if (isPaused) {
          broker.pause()
          one.channel.publish(messageOf(large))
          yield* untilStuck
        }
        const outcomes = new Outcomes()
        for (const { channel } of [one, two]) {
          channel.publish(messageOf(Buffer.alloc(500_000)))
          channel.ack(1, false)
        }
        outcomes.of(() => two.channel.queueDeclare("q", {}))
        connection.close()
        if (isPaused) {
          yield* turns(20)
          assert.deepStrictEqual(ends, [])
          broker.resume()
        }
        yield* eventually(
          "the end",
          Effect.sync(() => ends.length === 1)
        )
        yield* outcomes.untilSettled
        assert.deepStrictEqual(ends, [undefined])
        const { order } = broker.connection()
        assert.strictEqual(order.frames.at(-1)?.name, "connection.close")
        assert.strictEqual(order.namesOf(one.channel.number).at(-1), "basic.ack")
        assert.strictEqual(order.namesOf(two.channel.number).at(-1), "queue.declare")
        assert.strictEqual(broker.count("basic.publish"), isPaused ? 3 : 2)
        assert.deepStrictEqual([one.goings, two.goings], [1, 1])
      }).pipe(Effect.scoped)
    )
  }

  it.live("is not held up by channels that would continue to write: they are refused", () =>
    Effect.gen(function* () {
      const broker = yield* make
      const { connection, ends, open } = yield* driving(broker.url)
      const one = yield* open
      const two = yield* open
      broker.pause()
      one.channel.publish(messageOf(large))
      yield* untilStuck
      connection.close()
      const outcomes = new Outcomes()
      const write = () => {
        outcomes.of(() => two.channel.publish(messageOf("late")))
        outcomes.of(() => two.channel.ack(1, false))
        outcomes.of(() => two.channel.get("q", true))
      }
      write()
      one.onDrained = write
      broker.resume()
      yield* eventually(
        "the end",
        Effect.sync(() => ends.length === 1)
      )
      yield* outcomes.untilSettled
      assert.deepStrictEqual([...new Set(outcomes.all)], ["ChannelEnded"])
      assert.strictEqual(broker.count("basic.publish"), 1)
      assert.strictEqual(broker.connection().order.frames.at(-1)?.name, "connection.close")
    }).pipe(Effect.scoped)
  )

  it.live("ends within its time when the socket accepts nothing", () =>
    Effect.gen(function* () {
      const broker = yield* make
      const began = yield* Effect.gen(function* () {
        const channel = yield* AmqpPool.get
        broker.pause()
        yield* Effect.forkScoped(Effect.ignore(channel.publish({ routingKey: "q", content: large })))
        yield* untilStuck
        return performance.now()
      }).pipe(
        Effect.scoped,
        withPool(broker.url, { closeTimeout: Duration.millis(300), shutdownTimeout: Duration.millis(600) })
      )
      assert.isBelow(performance.now() - began, 3000)
      broker.resume()
      yield* broker.socketsClosed
      assert.strictEqual(broker.count("connection.close"), 0)
    }).pipe(Effect.scoped, quietly)
  )
})
