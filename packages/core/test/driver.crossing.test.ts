/**
 * A channel that ends, from either side, while frames are being sent in both directions: after the end nothing is sent
 * for it, and the connection stays open for all others. The broker of these tests fails them when a client sends what
 * AMQP does not allow there.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { BrokerClose } from "../src/internal/driver/driver.ts"
import {
  type DrivenChannel,
  driving,
  messageOf,
  moreThanFits,
  Outcomes,
  turns,
  untilStuck
} from "./support/driverConnection.ts"
import { encodeMessage } from "./support/frames.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const large = Buffer.alloc(moreThanFits, "x")
const small = messageOf("a")

type Call = (channel: DrivenChannel["channel"]) => unknown

/** The calls on a channel that the broker closes, in order. */
const calls: ReadonlyArray<readonly [string, Call]> = [
  ["a publish", (channel) => channel.publish(small)],
  ["an ack", (channel) => channel.ack(1, false)],
  ["a publish of many frames", (channel) => channel.publish(messageOf(large))],
  ["a nack", (channel) => channel.nack(2, false, true)],
  ["a declaration", (channel) => channel.queueDeclare("held", {})],
  ["a publish that waits for its answer", (channel) => channel.publish(small)],
  ["a get that waits for it", (channel) => channel.get("q", false)],
  ["a second declaration", (channel) => channel.queueDeclare("held", {})],
  ["a reject", (channel) => channel.reject(3, false)],
  ["a publish at the end", (channel) => channel.publish(small)]
]

const answersOnce = (driven: DrivenChannel) => {
  assert.strictEqual(driven.ends.length, 1)
  assert.strictEqual(driven.goings, 1)
}

/** A broker that does not answer the declaration of `held`, and ignores settlements. */
const holding = ScriptedBroker.make({
  on: {
    "queue.declare": (declare) => (declare.args.queue === "held" ? undefined : declare.proceed()),
    "basic.ack": () => {},
    "basic.nack": () => {},
    "basic.reject": () => {}
  }
})

/** When the broker's close is read, by how it is made to cross earlier calls. */
const crossings = {
  "earlier calls were sent before it": { isPaused: false, isSameTurn: false },
  "it is read before earlier calls are sent": { isPaused: false, isSameTurn: true },
  "the socket is full": { isPaused: true, isSameTurn: false }
} as const

describe("channel.close of the broker: nothing follows our close-ok, and all other channels continue", () => {
  for (const [crossing, { isPaused, isSameTurn }] of Object.entries(crossings)) {
    for (let point = 0; point <= calls.length; point++) {
      const where = point === 0 ? "before everything" : `behind ${calls[point - 1]![0]}`
      it.live(`${crossing}: ${where}`, () =>
        Effect.gen(function* () {
          const broker = yield* holding
          const { connection, ends, open } = yield* driving(broker.url)
          const closed = yield* open
          const other = yield* open
          const { number } = closed.channel
          const outcomes = new Outcomes()
          const close = () => broker.send(number, "channel.close", { replyCode: 404, classId: 60, methodId: 40 })
          const call = (from: number, to: number) => {
            for (const [, call] of calls.slice(from, to)) outcomes.of(() => call(closed.channel))
          }
          if (isPaused) {
            broker.pause()
            other.channel.publish(messageOf(large))
            yield* untilStuck
          }
          // Another channel writes in the same turns.
          other.channel.publish(small)
          if (isSameTurn) {
            yield* turns()
            close()
            call(0, point)
          } else {
            call(0, point)
            yield* turns(3)
            close()
          }
          other.channel.publish(small)
          yield* until(
            Effect.sync(() => closed.ends.length),
            (count) => count > 0,
            "how often the channel has ended"
          )
          call(point, calls.length)
          const declared = other.channel.queueDeclare("other", {})
          broker.resume()
          yield* closed.untilGone
          yield* broker.received("channel.close-ok")
          yield* Effect.promise(() => declared)
          yield* outcomes.untilSettled
          answersOnce(closed)
          assert.instanceOf(closed.ends[0], BrokerClose)
          // A call without an answer was sent or is refused. A call with an answer fails with the end of the channel.
          assert.notInclude(outcomes.all, "answered")
          assert.notInclude(outcomes.all.slice(point), "sent")
          const { order } = broker.connection()
          assert.strictEqual(order.namesOf(number).at(-1), "channel.close-ok")
          assert.strictEqual(
            broker.log.filter((entry) => entry.method === "basic.publish" && entry.channel === other.channel.number)
              .length,
            isPaused ? 3 : 2
          )
          // Its number can be used again.
          const next = yield* open
          assert.strictEqual(next.channel.number, number)
          next.channel.publish(small)
          yield* Effect.promise(() => next.channel.queueDeclare("next", {}))
          assert.deepStrictEqual(ends, [])
          assert.deepStrictEqual([other.ends, next.ends], [[], []])
          assert.strictEqual(connection.channelMax, 2047)
        }).pipe(Effect.scoped)
      )
    }
  }
})

const utf8 = (text: string) => Buffer.from(text)

/** What a broker sends on one channel, frame by frame. */
const sentByBroker = (channel: number): ReadonlyArray<readonly [string, Buffer]> => {
  const framesOf = (name: string, bytes: Buffer) => {
    const frames: Array<readonly [string, Buffer]> = []
    const parts = ["its method", "its header", "the first part of its body", "the second part of its body"]
    for (let at = 0; at < bytes.length;) {
      const end = at + 8 + bytes.readUInt32BE(at + 3)
      const part = bytes.length === end && at === 0 ? name : `${name}: ${parts[frames.length]}`
      frames.push([part, bytes.subarray(at, end)])
      at = end
    }
    return frames
  }
  const content = { properties: { messageId: "m" }, body: utf8("body".repeat(40)) }
  return [
    ...framesOf(
      "a delivery",
      encodeMessage(channel, "basic.deliver", { consumerTag: "c", deliveryTag: 1, routingKey: "q" }, content, 100)
    ),
    ...framesOf("a confirm", encodeMessage(channel, "basic.ack", { deliveryTag: 1 })),
    ...framesOf(
      "a return",
      encodeMessage(channel, "basic.return", { replyCode: 312, replyText: "NO_ROUTE", routingKey: "q" }, content, 100)
    ),
    ...framesOf("a flow", encodeMessage(channel, "channel.flow", { active: true })),
    ...framesOf("a cancel", encodeMessage(channel, "basic.cancel", { consumerTag: "c" })),
    ...framesOf("a reply", encodeMessage(channel, "queue.declare-ok", { queue: "held" })),
    ...framesOf("a refused confirm", encodeMessage(channel, "basic.nack", { deliveryTag: 2 }))
  ]
}

const framesOfBroker = sentByBroker(1).map(([name]) => name)

describe("a close of ours: earlier calls are sent in order, nothing follows, and what arrives afterwards is dropped", () => {
  for (let point = 0; point <= framesOfBroker.length; point++) {
    for (const isCut of point < framesOfBroker.length ? [false, true] : [false]) {
      const where = isCut
        ? `amid ${framesOfBroker[point]!}`
        : point === 0
          ? "before all that the broker sends"
          : `behind ${framesOfBroker[point - 1]!}`
      it.live(where, () =>
        Effect.gen(function* () {
          const broker = yield* holding
          const { connection, ends, open } = yield* driving(broker.url)
          const closing = yield* open
          const other = yield* open
          const { channel } = closing
          const { number } = channel
          const frames = sentByBroker(number).map(([, frame]) => frame)
          const bytes = Buffer.concat(frames)
          const cut = Buffer.concat(frames.slice(0, point)).length + (isCut ? frames[point]!.length >> 1 : 0)
          const outcomes = new Outcomes()
          outcomes.of(() => channel.queueDeclare("held", {}))
          yield* broker.received("queue.declare")
          const before = connection.bytesRead
          broker.connection().write(bytes.subarray(0, cut))
          yield* until(
            Effect.sync(() => connection.bytesRead - before),
            (read) => read === cut,
            "the bytes read"
          )
          const delivered = closing.deliveries.length
          outcomes.of(() => channel.publish(small))
          outcomes.of(() => channel.ack(1, false))
          channel.close()
          outcomes.of(() => channel.publish(small))
          // The rest arrives after the close was sent, and before its answer.
          broker.once("channel.close", (close) => {
            close.write(bytes.subarray(cut))
            close.proceed()
          })
          yield* closing.untilGone
          yield* outcomes.untilSettled
          const isReplied = point === framesOfBroker.length || point === framesOfBroker.length - 1
          assert.deepStrictEqual(outcomes.all, [
            isReplied ? "answered" : "ChannelEnded",
            "sent",
            "sent",
            "ChannelEnded"
          ])
          const flowed = closing.flows.length === 1 ? ["channel.flow-ok"] : []
          const cancelled = closing.cancels.length === 1 ? ["basic.cancel-ok"] : []
          assert.deepStrictEqual<ReadonlyArray<string>>(broker.connection().order.namesOf(number), [
            "channel.open",
            "queue.declare",
            // They wait for the answer to earlier calls.
            ...flowed,
            ...cancelled,
            "basic.publish",
            "header",
            "body",
            "basic.ack",
            "channel.close"
          ])
          // The library has closed the channel, so nothing is reported any more.
          assert.deepStrictEqual(closing.ends, [])
          assert.strictEqual(closing.goings, 1)
          assert.strictEqual(closing.deliveries.length, delivered)
          // Late frames are dropped, and do not reach the channel that has its number now.
          broker.connection().write(Buffer.concat(frames.slice(0, 9).filter((_, i) => i !== 4)))
          broker.once("channel.open", (opening) => {
            opening.write(Buffer.concat(frames.slice(0, 4)))
            opening.proceed()
          })
          const next = yield* open
          assert.strictEqual(next.channel.number, number)
          yield* Effect.promise(() => next.channel.queueDeclare("next", {}))
          assert.deepStrictEqual([next.deliveries, next.returns, next.confirms, next.flows], [[], [], [], []])
          yield* Effect.promise(() => other.channel.queueDeclare("other", {}))
          assert.deepStrictEqual([ends, other.ends, next.ends], [[], [], []])
        }).pipe(Effect.scoped)
      )
    }
  }
})

/** At most this many bytes are written. */
const busyFor = 2 ** 20 * 400

const untilEnded = (driven: DrivenChannel) =>
  until(
    Effect.sync(() => driven.ends.length),
    (count) => count > 0,
    "how often the channel has ended"
  )

describe("a channel that both sides close", () => {
  const goesOn = Effect.fnUntraced(function* (
    broker: ScriptedBroker.ScriptedBroker,
    number: number,
    open: Effect.Effect<DrivenChannel>
  ) {
    yield* broker.until((now) => !now.connection().channels.has(number))
    const next = yield* open
    assert.strictEqual(next.channel.number, number)
    yield* Effect.promise(() => next.channel.queueDeclare("next", {}))
  })

  for (const isRead of [true, false]) {
    const when = isRead ? "our close is called when it is read" : "our close has left"
    it.live(`is closed once, and its number is free: the broker's close comes, ${when}`, () =>
      Effect.gen(function* () {
        const broker = yield* holding
        const { ends, open } = yield* driving(broker.url)
        const closing = yield* open
        const { number } = closing.channel
        closing.channel.publish(small)
        if (isRead) {
          broker.send(number, "channel.close", { replyCode: 404 })
          yield* untilEnded(closing)
          closing.channel.close()
        } else {
          closing.channel.close()
          broker.once("channel.close", (close) => {
            close.reply("channel.close", { replyCode: 404 })
            close.reply("channel.close-ok")
          })
        }
        yield* closing.untilGone
        yield* goesOn(broker, number, open)
        assert.strictEqual(closing.goings, 1)
        assert.strictEqual(closing.ends.length, isRead ? 1 : 0)
        assert.deepStrictEqual(ends, [])
      }).pipe(Effect.scoped)
    )
  }

  for (const [name, wait] of Object.entries({
    "in the same turn": Effect.void,
    "a turn later": turns(1),
    "two turns later": turns(2),
    "three turns later": turns(3)
  })) {
    for (const isAnswerDue of [false, true]) {
      const held = isAnswerDue ? ", with a method that has no answer" : ""
      it.live(`is closed once, and its number is free: the broker's close is sent ${name} than ours${held}`, () =>
        Effect.gen(function* () {
          const broker = yield* holding
          const { ends, open } = yield* driving(broker.url)
          const closing = yield* open
          const { number } = closing.channel
          const outcomes = new Outcomes()
          if (isAnswerDue) outcomes.of(() => closing.channel.queueDeclare("held", {}))
          closing.channel.publish(small)
          closing.channel.close()
          yield* wait
          if (broker.connection().channels.get(number)?.state === "open") {
            broker.send(number, "channel.close", { replyCode: 404 })
          }
          yield* closing.untilGone
          yield* outcomes.untilSettled
          yield* goesOn(broker, number, open)
          assert.strictEqual(closing.goings, 1)
          assert.deepStrictEqual(closing.ends, [])
          assert.deepStrictEqual(ends, [])
        }).pipe(Effect.scoped)
      )
    }
  }
})

describe("a close of ours waits for earlier calls", () => {
  it.live("frames that wait for a method's answer are sent before it, in order", () =>
    Effect.gen(function* () {
      const broker = yield* holding
      const { ends, open } = yield* driving(broker.url)
      const closing = yield* open
      const { channel } = closing
      const outcomes = new Outcomes()
      outcomes.of(() => channel.queueDeclare("held", {}))
      channel.publish(messageOf(Buffer.alloc(300_000)))
      channel.ack(1, false)
      outcomes.of(() => channel.queueDeclare("held", {}))
      channel.nack(2, false, true)
      channel.close()
      yield* closing.untilGone
      yield* outcomes.untilSettled
      // The second declaration was not sent, and its caller gets an error.
      assert.deepStrictEqual(outcomes.all, ["ChannelEnded", "ChannelEnded"])
      assert.deepStrictEqual(broker.connection().order.namesOf(channel.number), [
        "channel.open",
        "queue.declare",
        "basic.publish",
        "header",
        "body",
        "basic.ack",
        "basic.nack",
        "channel.close"
      ])
      assert.deepStrictEqual(ends, [])
    }).pipe(Effect.scoped)
  )

  it.live("while the socket is full it is not sent, and it is sent when the socket drains", () =>
    Effect.gen(function* () {
      const broker = yield* holding
      const { ends, open } = yield* driving(broker.url)
      const closing = yield* open
      broker.pause()
      closing.channel.publish(messageOf(large))
      yield* untilStuck
      closing.channel.ack(1, false)
      closing.channel.close()
      yield* turns(20)
      assert.strictEqual(closing.goings, 0)
      broker.resume()
      yield* closing.untilGone
      assert.deepStrictEqual(broker.connection().order.namesOf(closing.channel.number).slice(-3), [
        "body",
        "basic.ack",
        "channel.close"
      ])
      assert.deepStrictEqual(ends, [])
    }).pipe(Effect.scoped)
  )

  for (const isAnswerDue of [false, true]) {
    const held = isAnswerDue ? ", with a method that has no answer" : ""
    it.live(`and not for what other channels write all the time${held}`, () =>
      Effect.gen(function* () {
        const broker = yield* holding
        const { ends, open } = yield* driving(broker.url)
        const closing = yield* open
        const outcomes = new Outcomes()
        let written = 0
        for (let i = 0; i < 4; i++) {
          const busy = yield* open
          const write = () => {
            while (closing.goings === 0 && written < busyFor) {
              written += large.length / 20
              if (!busy.channel.publish(messageOf(large.subarray(0, large.length / 20)))) return
            }
          }
          busy.onDrained = write
          write()
        }
        yield* turns(5)
        if (isAnswerDue) outcomes.of(() => closing.channel.queueDeclare("held", {}))
        closing.channel.publish(small)
        closing.channel.close()
        yield* closing.untilGone
        assert.isBelow(written, busyFor)
        assert.deepStrictEqual(ends, [])
      }).pipe(Effect.scoped)
    )
  }
})
