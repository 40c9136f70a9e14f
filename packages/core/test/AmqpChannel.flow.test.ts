/** What only a scripted broker does on command: `channel.flow`, and confirms that come late, twice or never. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { Duration, Effect, Exit, Fiber } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { withPool, reasonOf } from "./support/amqp.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const message = { routingKey: "q", content: "a" }

describe("channel.flow", () => {
  it.live(
    "a stopped publisher waits, or fails if configured so; it continues when resumed; every flow is answered",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            broker.flow(false)
            yield* broker.received("channel.flow-ok")
            const waiting = yield* Effect.forkChild(channel.publish(message), { startImmediately: true })
            const failing = yield* reasonOf(channel.publish(message, { onBlocked: "fail" }))
            assert.strictEqual(failing._tag, "PublishForbidden")
            assert.include(failing.message, "channel.flow")
            broker.flow(false)
            yield* broker.received("channel.flow-ok", 2)
            assert.isUndefined(waiting.pollUnsafe())
            assert.strictEqual(broker.count("basic.publish"), 0)
            broker.flow(true)
            yield* Fiber.join(waiting)
            yield* broker.received("channel.flow-ok", 3)
            yield* broker.received("basic.publish")
            assert.deepStrictEqual(
              broker.log.filter((entry) => entry.method === "channel.flow-ok").map((entry) => entry.args),
              [{ active: false }, { active: false }, { active: true }] as never
            )
          })
        ).pipe(Effect.scoped, withPool(broker.url))
      })
  )

  it.live("other methods and other channels' publishes continue while publishers of a channel are stopped", () =>
    onScriptedBroker({}, function* (broker) {
      const one = yield* AmqpPool.get
      broker.flow(false)
      yield* broker.received("channel.flow-ok")
      const two = yield* AmqpPool.get
      yield* one.queueDeclare("q")
      yield* two.publish(message)
      yield* broker.received("basic.publish")
    })
  )

  it.live("a stopped publisher whose time is up fails with PublishTimeout, and nothing was sent", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          broker.flow(false)
          yield* broker.received("channel.flow-ok")
          const reason = yield* reasonOf(channel.publish(message, { timeout: "20 millis" }))
          assert.deepInclude(reason, { _tag: "PublishTimeout", sent: false })
          assert.include(reason.message, "channel.flow")
          broker.flow(true)
          yield* channel.publish(message)
          yield* broker.received("basic.publish")
          assert.strictEqual(broker.count("basic.publish"), 1)
        })
      ).pipe(Effect.scoped, withPool(broker.url))
    })
  )

  it.live("the end of the connection ends the wait, and the next channel is not stopped", () =>
    onScriptedBroker({}, function* (broker) {
      const channel = yield* AmqpPool.get
      broker.flow(false)
      yield* broker.received("channel.flow-ok")
      const waiting = yield* Effect.forkChild(channel.publish(message), { startImmediately: true })
      broker.destroy()
      assert.strictEqual((yield* reasonOf(Fiber.join(waiting)))._tag, "ConnectionClosed")
      yield* Effect.scoped(AmqpChannel.use((next) => next.publish(message)))
      yield* broker.received("basic.publish")
    })
  )

  it.live("an interrupted wait sends nothing and leaves nothing behind", () =>
    onScriptedBroker({}, function* (broker) {
      const waits = AmqpChannel.useConfirm((channel) =>
        Effect.gen(function* () {
          broker.flow(false)
          yield* broker.received("channel.flow-ok")
          const waiting = yield* Effect.forkChild(channel.publish(message), { startImmediately: true })
          yield* Fiber.interrupt(waiting)
          broker.flow(true)
          yield* broker.received("channel.flow-ok", 2)
          // The channel has no pending publish.
          yield* channel.queueDeclare("q")
        })
      )
      yield* Effect.scoped(waits)
      assert.strictEqual(broker.count("basic.publish"), 0)
      const { stats } = (yield* AmqpPool.AmqpPool).confirm
      assert.deepInclude(yield* stats, { idle: 1, discarded: 0 })
    })
  )
})

describe("12. A confirmed publish resolves once, and never as success without the broker's ack.", () => {
  const confirming = <A, E>(
    broker: ScriptedBroker.ScriptedBroker,
    f: (channel: AmqpChannel.ConfirmChannel) => Effect.Effect<A, E, never>
  ) => AmqpChannel.useConfirm(f).pipe(Effect.scoped, withPool(broker.url))

  it.live("a publish waits for its ack, up to its timeout", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": (publish) => publish.hold() } })
      yield* confirming(broker, (channel) =>
        Effect.gen(function* () {
          const publishing = yield* Effect.forkChild(channel.publish(message), { startImmediately: true })
          yield* broker.until((now) => now.held("basic.publish") === 1)
          yield* channel.queueDeclare("another round trip")
          assert.isUndefined(publishing.pollUnsafe())
          broker.release("basic.publish")
          assert.strictEqual((yield* Fiber.join(publishing))._tag, "Confirmed")
        })
      )
    })
  )

  it.live("acks in any order, with multiple, twice or with unused tags: each publish gets its own outcome", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      yield* confirming(broker, (channel) =>
        Effect.gen(function* () {
          const publishing = yield* Effect.forEach([1, 2, 3, 4, 5, 6], () =>
            Effect.forkChild(Effect.exit(channel.publish(message)), { startImmediately: true })
          )
          yield* broker.received("basic.publish", 6)
          const outcome = (n: number) => Effect.map(Fiber.join(publishing[n - 1]!), (exit) => Exit.isSuccess(exit))
          broker.send(1, "basic.ack", { deliveryTag: 3, multiple: false })
          assert.isTrue(yield* outcome(3))
          broker.send(1, "basic.ack", { deliveryTag: 3, multiple: false })
          broker.send(1, "basic.nack", { deliveryTag: 99, multiple: false })
          broker.send(1, "basic.nack", { deliveryTag: 2, multiple: true })
          assert.isFalse(yield* outcome(1))
          assert.isFalse(yield* outcome(2))
          assert.isUndefined(publishing[3]!.pollUnsafe())
          broker.send(1, "basic.ack", { deliveryTag: 5, multiple: true })
          assert.isTrue(yield* outcome(4))
          assert.isTrue(yield* outcome(5))
          assert.isUndefined(publishing[5]!.pollUnsafe())
          broker.send(1, "basic.nack", { deliveryTag: 0, multiple: true })
          assert.isFalse(yield* outcome(6))
        })
      )
    })
  )

  it.live("a publish without an answer fails with PublishTimeout; a later ack changes nothing", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      yield* confirming(broker, (channel) =>
        Effect.gen(function* () {
          const reason = yield* reasonOf(channel.publish(message, { timeout: Duration.millis(20) }))
          assert.deepInclude(reason, { _tag: "PublishTimeout", sent: true })
          broker.send(1, "basic.ack", { deliveryTag: 1, multiple: false })
          const next = yield* Effect.forkChild(channel.publish(message), { startImmediately: true })
          yield* broker.received("basic.publish", 2)
          assert.isUndefined(next.pollUnsafe())
          broker.send(1, "basic.ack", { deliveryTag: 2, multiple: false })
          yield* Fiber.join(next)
        })
      )
    })
  )

  it.live("a publish is of unknown outcome when its channel, connection or scope ends first", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      const deaths: ReadonlyArray<() => void> = [
        () => broker.closeChannels(541, "INTERNAL_ERROR"),
        () => broker.destroy(),
        () => broker.closeConnections(320, "CONNECTION_FORCED")
      ]
      for (const [index, die] of deaths.entries()) {
        const reason = yield* confirming(broker, (channel) =>
          Effect.gen(function* () {
            const publishing = yield* Effect.forkChild(Effect.flip(channel.publish(message)), {
              startImmediately: true
            })
            yield* broker.received("basic.publish", index + 1)
            die()
            return (yield* Fiber.join(publishing)).reason
          })
        )
        assert.strictEqual(reason._tag, "PublishUnknown", `death ${index}`)
      }
      const left = yield* Effect.gen(function* () {
        const publishing = yield* Effect.scoped(
          AmqpChannel.useConfirm((channel) =>
            Effect.gen(function* () {
              const fiber = yield* Effect.forkDetach(Effect.flip(channel.publish(message)), { startImmediately: true })
              yield* broker.received("basic.publish", deaths.length + 1)
              return fiber
            })
          )
        )
        return (yield* Fiber.join(publishing)).reason
      }).pipe(withPool(broker.url))
      assert.strictEqual(left._tag, "PublishUnknown")
    })
  )
})

describe("a reply that is incomplete when the connection dies", () => {
  it.live("fails its operation at once with the reason of the connection's end", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({
        on: {
          // Its content never follows.
          "basic.get": (get) => get.reply("basic.get-ok", { deliveryTag: 1, redelivered: false, routingKey: "q" })
        }
      })
      yield* AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          const getting = yield* Effect.forkChild(reasonOf(channel.get("q")), { startImmediately: true })
          yield* broker.received("basic.get")
          // The broker answers in order, so it has sent get-ok by now.
          yield* Effect.sync(() => broker.flow(true))
          yield* broker.received("channel.flow-ok")
          broker.destroy()
          assert.strictEqual((yield* Fiber.join(getting))._tag, "ConnectionClosed")
        })
      ).pipe(Effect.scoped, withPool(broker.url, { continuationTimeout: Duration.hours(1) }))
    })
  )
})
