/**
 * One connection is one conversation: a large body that is being sent holds up only its own channel, and the calls on
 * one channel are sent in the order of the calls.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Duration, Effect } from "effect"
import type { DriverChannel } from "../src/internal/driver/driver.ts"
import { int } from "./support/arbitrary.ts"
import { driving, messageOf, moreThanFits, Outcomes, turns, untilStuck } from "./support/driverConnection.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const large = Buffer.alloc(moreThanFits, "x")

/** A broker that ignores settlements. */
const unsettling = (tune: Partial<ScriptedBroker.Tune> = {}) =>
  ScriptedBroker.make({
    tune,
    on: { "basic.ack": () => {}, "basic.nack": () => {}, "basic.reject": () => {} }
  })

describe("a large body that is being sent", () => {
  it.live("holds up no other channel and no heartbeat, and the calls on its own channel follow it in order", () =>
    Effect.gen(function* () {
      const broker = yield* unsettling({ frameMax: 4096, heartbeat: 1 })
      const { connection, ends, open } = yield* driving(broker.url, { heartbeat: Duration.seconds(1) })
      assert.strictEqual(connection.heartbeat, 1)
      const own = yield* open
      const other = yield* open
      const outcomes = new Outcomes()
      broker.pause()
      own.channel.publish(messageOf(large))
      yield* untilStuck
      outcomes.of(() => own.channel.queueDeclare("a", {}))
      outcomes.of(() => own.channel.ack(1, false))
      outcomes.of(() => own.channel.get("a", false))
      outcomes.of(() => own.channel.select("confirm"))
      outcomes.of(() => own.channel.publish(messageOf("behind")))
      outcomes.of(() => other.channel.queueDeclare("b", {}))
      outcomes.of(() => other.channel.publish(messageOf("b", "b")))
      outcomes.of(() => other.channel.get("b", true))
      outcomes.of(() => other.channel.select("confirm"))
      // amqplib sends a heartbeat when it has sent nothing else for a certain time.
      yield* Effect.sleep("1200 millis")
      const { order } = broker.connection()
      broker.resume()
      yield* outcomes.untilSettled
      assert.notInclude(outcomes.all, "ChannelEnded")
      yield* broker.received("basic.publish", 3)
      assert.deepStrictEqual<ReadonlyArray<string>>(order.namesOf(own.channel.number), [
        "channel.open",
        "basic.publish",
        "header",
        "body",
        "queue.declare",
        "basic.ack",
        "basic.get",
        "confirm.select",
        "basic.publish",
        "header",
        "body"
      ])
      const last = order.frames.findLastIndex(({ channel, size }) => channel === own.channel.number && size > 1000)
      const beat = order.frames.findIndex(({ name }) => name === "heartbeat")
      assert.isAbove(beat, 0)
      assert.isBelow(beat, last)
      for (const name of ["queue.declare", "basic.publish", "basic.get", "confirm.select"]) {
        const at = order.frames.findIndex((frame) => frame.name === name && frame.channel === other.channel.number)
        assert.isAbove(at, 0, name)
        assert.isBelow(at, last, name)
      }
      const first = broker.log.find(
        ({ channel, method }) => method === "basic.publish" && channel === own.channel.number
      )
      assert.isTrue(first?.content?.body.equals(large))
      assert.deepStrictEqual([ends, own.ends, other.ends], [[], [], []])
    }).pipe(Effect.scoped)
  )
})

/** The calls on a channel, and what each sends. */
const calls: ReadonlyArray<readonly [string, (channel: DriverChannel, tag: number) => unknown]> = [
  ["basic.publish", (channel, tag) => channel.publish(messageOf(String(tag)))],
  ["basic.publish", (channel, tag) => channel.publish(messageOf(`${tag}${" ".repeat(5000)}`))],
  ["basic.ack", (channel, tag) => channel.ack(tag, false)],
  ["basic.nack", (channel, tag) => channel.nack(tag, false, true)],
  ["basic.reject", (channel, tag) => channel.reject(tag, true)],
  ["basic.get", (channel) => channel.get("q", true)],
  ["queue.declare", (channel) => channel.queueDeclare("q", {})],
  ["exchange.declare", (channel) => channel.exchangeDeclare("e", "topic", {})],
  ["basic.qos", (channel) => channel.qos(1, false)],
  ["channel.flow", (channel) => channel.flow(true)]
]

/** The call, and whether it is made in its own turn. */
const step = Arbitrary.all([int(0, calls.length - 1), int(0, 2)])

/** A frame that a call sends, with what distinguishes it from others of its kind. */
const sentBy = (name: string, tag: number) =>
  name.startsWith("basic.") && name !== "basic.get" && name !== "basic.qos" ? `${name} ${tag}` : name

const received = ({ args, content, method }: ScriptedBroker.AnyReceived) => {
  if (content !== undefined) return `${method} ${Number.parseInt(content.body.toString(), 10)}`
  return "deliveryTag" in args ? `${method} ${args.deliveryTag}` : method
}

describe("calls on one channel", () => {
  it.live(
    "are sent in the order in which they are made, whichever they are, and in whichever turns they are made",
    () =>
      Effect.gen(function* () {
        const broker = yield* unsettling({ frameMax: 4096 })
        const { ends, open } = yield* driving(broker.url)
        const isInOrder = Effect.fnUntraced(function* (steps: ReadonlyArray<readonly [number, number]>) {
          const driven = yield* open
          const { channel } = driven
          const outcomes = new Outcomes()
          const from = broker.log.length
          for (const [i, [which, turn]] of steps.entries()) {
            if (turn === 0) yield* turns()
            outcomes.of(() => calls[which]![1](channel, i + 1))
          }
          yield* outcomes.untilSettled
          channel.close()
          yield* driven.untilGone
          const expected = steps.map(([which], i) => sentBy(calls[which]![0], i + 1))
          const sent = broker.log.slice(from).map(received)
          return !outcomes.all.includes("ChannelEnded") && `${sent}` === `${[...expected, "channel.close"]}`
        })
        const result = yield* Arbitrary.checkEffect(Arbitrary.array(step, { maxLength: 30 }), isInOrder, {
          runs: 100,
          size: 30
        })
        assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
        assert.deepStrictEqual(ends, [])
      }).pipe(Effect.scoped)
  )
})
