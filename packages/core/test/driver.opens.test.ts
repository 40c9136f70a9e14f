/**
 * Several channels that open at the same time: each gets its own answer, in whatever order they arrive, and even if
 * some are given up.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { BrokerClose } from "../src/internal/driver/driver.ts"
import { driving, messageOf, turns } from "./support/driverConnection.ts"
import { encodeMessage } from "./support/frames.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

type Opening = ScriptedBroker.Context<"channel.open">

/** Every order of three openings, each of which may be given up or not. */
const orders = [
  [0, 1, 2],
  [0, 2, 1],
  [1, 0, 2],
  [1, 2, 0],
  [2, 0, 1],
  [2, 1, 0]
] as const

const delivery = (channel: number) =>
  encodeMessage(channel, "basic.deliver", { consumerTag: "c", deliveryTag: 1, routingKey: "q" }, { body: Buffer.of(1) })

describe("channels that open at the same time", () => {
  for (const order of orders) {
    for (const isOneSegment of [true, false]) {
      const together = isOneSegment ? "in one segment" : "one by one"
      it.live(
        `are answered in the order ${order.join(", ")}, ${together}: one opens, one is refused, one is given up`,
        () =>
          Effect.gen(function* () {
            const openings: Array<Opening> = []
            const broker = yield* ScriptedBroker.make({
              on: { "channel.open": (opening) => void openings.push(opening) }
            })
            const { connection, ends, open, opening } = yield* driving(broker.url)
            const channels = [opening(), opening(), opening(), opening()] as const
            const [opens, refused, givenUp, unanswered] = channels
            yield* broker.received("channel.open", 4)
            givenUp.channel.close()
            unanswered.channel.close()
            // Late frames may arrive for numbers that were used before.
            for (const { channel } of openings) broker.connection().write(delivery(channel))
            const answers = [
              // Deliveries may follow immediately.
              () => {
                openings[0]!.proceed()
                broker.connection().write(delivery(openings[0]!.channel))
              },
              () => openings[1]!.closeChannel(504),
              () => openings[2]!.proceed()
            ]
            if (isOneSegment) broker.connection().inOneSegment(() => order.forEach((i) => answers[i]!()))
            else {
              for (const i of order) {
                answers[i]!()
                yield* turns(3)
              }
            }
            yield* refused.untilGone
            yield* givenUp.untilGone
            yield* until(
              Effect.sync(() => opens.deliveries.length),
              (count) => count > 0,
              "the deliveries"
            )
            assert.isTrue(opens.isOpened)
            assert.deepStrictEqual(
              channels.map(({ deliveries }) => deliveries.length),
              [1, 0, 0, 0]
            )
            assert.strictEqual(refused.ends.length, 1)
            assert.instanceOf(refused.ends[0], BrokerClose)
            assert.deepStrictEqual([opens.ends, givenUp.ends, unanswered.ends], [[], [], []])
            assert.isFalse(unanswered.isOpened)
            const { order: sent } = broker.connection()
            assert.deepStrictEqual<ReadonlyArray<string>>(sent.namesOf(openings[1]!.channel), [
              "channel.open",
              "channel.close-ok"
            ])
            assert.deepStrictEqual<ReadonlyArray<string>>(sent.namesOf(openings[2]!.channel), [
              "channel.open",
              "channel.close"
            ])
            assert.deepStrictEqual<ReadonlyArray<string>>(sent.namesOf(openings[3]!.channel), ["channel.open"])
            // The two numbers are free again.
            broker.off("channel.open")
            const again = [yield* open, yield* open] as const
            assert.sameMembers(
              again.map(({ channel }) => channel.number),
              [openings[1]!.channel, openings[2]!.channel]
            )
            for (const { channel } of [opens, ...again]) {
              channel.publish(messageOf("a"))
              yield* Effect.promise(() => channel.queueDeclare("q", {}))
            }
            // The opening that was never answered ends with its connection.
            assert.strictEqual(unanswered.goings, 0)
            connection.destroy(new Error("over"))
            assert.strictEqual(unanswered.goings, 1)
            assert.deepStrictEqual(ends, [])
          }).pipe(Effect.scoped)
      )
    }
  }

  it.live("that are given up are closed when they are answered, however many", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "channel.open": (opening) => opening.hold() } })
      const { ends, open, opening } = yield* driving(broker.url)
      const channels = Array.from({ length: 50 }, opening)
      yield* broker.received("channel.open", 50)
      for (const { channel } of channels) channel.close()
      assert.strictEqual(broker.count("channel.close"), 0)
      broker.off("channel.open")
      broker.connection().inOneSegment(() => broker.release("channel.open"))
      for (const { untilGone } of channels) yield* untilGone
      assert.strictEqual(broker.count("channel.close"), 50)
      assert.strictEqual(broker.openChannels, 0)
      yield* open
      assert.deepStrictEqual(ends, [])
    }).pipe(Effect.scoped)
  )
})
