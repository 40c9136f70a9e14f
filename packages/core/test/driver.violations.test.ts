/**
 * A broker that breaks the protocol: a violation on one channel ends only that channel, with the reason, as long as the
 * stream can be read on. Otherwise the connection ends, and is re-established.
 */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { Effect } from "effect"
import { ProtocolViolation } from "../src/internal/driver/driver.ts"
import { quietly, reasonOf, untilOpen, withPool } from "./support/amqp.ts"
import { driving, messageOf, Outcomes } from "./support/driverConnection.ts"
import { encodeFrame, encodeMessage, FRAME_BODY, FRAME_HEADER, FRAME_METHOD } from "./support/frames.ts"
import { encodeMethod } from "../src/testing/internal/memory/codec/methodCodec.ts"
import { eventually } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const deliver = (channel: number) =>
  encodeMessage(channel, "basic.deliver", { consumerTag: "c", deliveryTag: 1, routingKey: "q" })
const content = (channel: number, size: number, body: number) => {
  const whole = encodeMessage(channel, "basic.deliver", {}, { body: Buffer.alloc(size) })
  const method = encodeMessage(channel, "basic.deliver", {}).length
  const header = whole.subarray(method, whole.length - size - (size === 0 ? 0 : 8))
  return Buffer.concat([header, encodeFrame(FRAME_BODY, channel, Buffer.alloc(body))])
}
const cut = (channel: number, payload: Buffer) => encodeFrame(FRAME_METHOD, channel, payload.subarray(0, -2))

type Sent = (channel: number) => Buffer

/** The broker answers the declaration with these frames. */
const wrongAnswers: Record<string, Sent> = {
  "the reply to another method": (channel) => encodeMessage(channel, "queue.bind-ok"),
  "a get-ok": (channel) => encodeMessage(channel, "basic.get-ok", {}, { body: Buffer.alloc(1) }),
  "a get-empty": (channel) => encodeMessage(channel, "basic.get-empty"),
  "the reply to a method that the driver sends itself": (channel) => encodeMessage(channel, "confirm.select-ok"),
  "two replies": (channel) =>
    Buffer.concat([encodeMessage(channel, "queue.declare-ok"), encodeMessage(channel, "queue.declare-ok")])
}

/** The broker sends these without a request. */
const unasked: Record<string, Sent> = {
  "a reply without a request": (channel) => encodeMessage(channel, "queue.declare-ok", { queue: "q" }),
  "a get-ok without a request": (channel) => encodeMessage(channel, "basic.get-ok", {}, { body: Buffer.alloc(1) }),
  "a flow-ok without a request": (channel) => encodeMessage(channel, "channel.flow-ok"),
  "a header without a method": (channel) => content(channel, 0, 0),
  "a body without a method": (channel) => encodeFrame(FRAME_BODY, channel, Buffer.alloc(1)),
  "a body in place of a header": (channel) =>
    Buffer.concat([deliver(channel), encodeFrame(FRAME_BODY, channel, Buffer.alloc(1))]),
  "a message within a message": (channel) => Buffer.concat([deliver(channel), deliver(channel)]),
  "more body than was announced": (channel) => Buffer.concat([deliver(channel), content(channel, 3, 4)])
}

/** After these, the meaning and the channel of what follows are unknown. */
const unreadable: Record<string, Sent> = {
  "a delivery cut short": (channel) => cut(channel, encodeMethod("basic.deliver", { routingKey: "queue" })),
  "a return cut short": (channel) => cut(channel, encodeMethod("basic.return", { routingKey: "queue" })),
  "a confirm cut short": (channel) => cut(channel, encodeMethod("basic.ack", { deliveryTag: 1 })),
  "a flow without its bit": (channel) =>
    encodeFrame(FRAME_METHOD, channel, encodeMethod("channel.flow", {}).subarray(0, 4)),
  "a cancel cut short": (channel) => cut(channel, encodeMethod("basic.cancel", { consumerTag: "tag" })),
  "a close cut short": (channel) => cut(channel, encodeMethod("channel.close", {})),
  "a method without a number": (channel) => encodeFrame(FRAME_METHOD, channel, Buffer.alloc(2)),
  "a header cut short": (channel) =>
    Buffer.concat([deliver(channel), encodeFrame(FRAME_HEADER, channel, Buffer.alloc(5))]),
  "a close-ok for a channel that was not closed": (channel) => encodeMessage(channel, "channel.close-ok"),
  "a reply on a channel that is not open": () => encodeMessage(1000, "queue.declare-ok"),
  "a method of channels on channel 0": () => encodeMessage(0, "queue.declare-ok")
}

const make = ScriptedBroker.make({ on: { "queue.declare": (declare) => declare.proceed() } })

const endsAlone = (sent: Sent, isAnswer: boolean) =>
  Effect.gen(function* () {
    const broker = yield* make
    const { ends, open } = yield* driving(broker.url)
    const broken = yield* open
    const other = yield* open
    const { channel } = broken
    const outcomes = new Outcomes()
    if (isAnswer) {
      broker.once("queue.declare", (declare) => declare.write(sent(channel.number)))
      outcomes.of(() => channel.queueDeclare("q", {}))
      outcomes.of(() => channel.get("q", true))
    } else broker.connection().write(sent(channel.number))
    yield* broken.untilGone
    yield* outcomes.untilSettled
    assert.strictEqual(broken.ends.length, 1)
    assert.instanceOf(broken.ends[0], ProtocolViolation)
    assert.strictEqual(broken.goings, 1)
    assert.deepStrictEqual([broken.deliveries, broken.returns, broken.flows], [[], [], []])
    // The library has closed it, and its number can be used again.
    assert.strictEqual(broker.connection().order.namesOf(channel.number).at(-1), "channel.close")
    const next = yield* open
    assert.strictEqual(next.channel.number, channel.number)
    for (const driven of [other, next]) {
      driven.channel.publish(messageOf("a"))
      yield* Effect.promise(() => driven.channel.queueDeclare("q", {}))
    }
    assert.deepStrictEqual([ends, other.ends, next.ends], [[], [], []])
    return outcomes.all
  }).pipe(Effect.scoped)

describe("a broker that breaks the protocol ends only that channel", () => {
  for (const [name, sent] of Object.entries(wrongAnswers)) {
    it.live(`with ${name}`, () =>
      Effect.gen(function* () {
        const outcomes = yield* endsAlone(sent, true)
        // After the first of two replies, the get waits for its own reply.
        const expected =
          name === "two replies" ? ["answered", "ProtocolViolation"] : ["ProtocolViolation", "ChannelEnded"]
        assert.deepStrictEqual(outcomes, expected)
      })
    )
  }
  for (const [name, sent] of Object.entries(unasked)) it.live(`with ${name}`, () => endsAlone(sent, false))

  it.live("which is a ProtocolError for its borrower, and does not affect other borrowers", () =>
    Effect.gen(function* () {
      const broker = yield* make
      yield* Effect.gen(function* () {
        const [one, two] = [yield* AmqpPool.get, yield* AmqpPool.get]
        broker.once("queue.declare", (declare) => declare.reply("queue.bind-ok"))
        assert.strictEqual((yield* reasonOf(one.queueDeclare("q")))._tag, "ProtocolError")
        yield* two.queueDeclare("q")
        assert.strictEqual(broker.count("accept"), 1)
      }).pipe(Effect.scoped, withPool(broker.url))
    }).pipe(Effect.scoped, quietly)
  )
})

describe("a broker that sends what cannot be read ends the connection", () => {
  for (const [name, sent] of Object.entries(unreadable)) {
    it.live(`with ${name}: each user of the connection gets the reason once`, () =>
      Effect.gen(function* () {
        const broker = yield* make
        const { ends, open } = yield* driving(broker.url)
        const one = yield* open
        const two = yield* open
        const outcomes = new Outcomes()
        broker.on("queue.declare", () => {})
        outcomes.of(() => two.channel.queueDeclare("q", {}))
        yield* broker.received("queue.declare")
        broker.connection().write(sent(one.channel.number))
        yield* eventually(
          "the end",
          Effect.sync(() => ends.length > 0)
        )
        yield* outcomes.untilSettled
        yield* broker.socketsClosed
        assert.deepStrictEqual(outcomes.all, ["ChannelEnded"])
        assert.strictEqual(ends.length, 1)
        assert.instanceOf(ends[0], ProtocolViolation)
        assert.deepStrictEqual(
          [one, two].map((driven) => [driven.ends, driven.goings]),
          [
            [[undefined], 1],
            [[undefined], 1]
          ]
        )
      }).pipe(Effect.scoped)
    )
  }

  it.live("which is a lost connection that is re-established", () =>
    Effect.gen(function* () {
      const broker = yield* make
      yield* Effect.gen(function* () {
        const one = yield* AmqpPool.get
        broker.once("queue.declare", (declare) => declare.write(unreadable["a delivery cut short"]!(declare.channel)))
        const reason = yield* reasonOf(one.queueDeclare("q"))
        assert.include(["ConnectionClosed", "ProtocolError"], reason._tag)
        yield* untilOpen(2)
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q")))
      }).pipe(Effect.scoped, withPool(broker.url))
    }).pipe(Effect.scoped, quietly)
  )
})
