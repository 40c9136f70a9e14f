/**
 * Back-pressure: a full write buffer, `connection.blocked` and `channel.flow` as one state, and what publishers do in
 * it.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Option, Queue, Stream, SubscriptionRef } from "effect"
import { Socket } from "node:net"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { withPool, reasonOf } from "./support/amqp.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import {
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
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { bytesHeld } from "./support/heap.ts"

/** Every state from now on, the current one first. */
const flows = Effect.gen(function* () {
  const { flow } = yield* AmqpPublisher.AmqpPublisher
  const seen = yield* Queue.unbounded<AmqpPublisher.Flow>()
  yield* Effect.forkScoped(Stream.runForEach(SubscriptionRef.changes(flow), (now) => Queue.offer(seen, now)))
  return seen
})

const takeTag = (seen: Queue.Dequeue<AmqpPublisher.Flow>) => Effect.map(Queue.take(seen), ({ _tag }) => _tag)

describe("13. Blocked publishers wait or fail as configured; blocked state dies with its connection; consumers go on consuming and acking.", () => {
  it.live(
    "connection.blocked: publishes that wait are sent in order when it ends; those that do not wait fail at once",
    () =>
      onScriptedBroker({}, function* (broker) {
        yield* send("first")
        broker.block("low on disk")
        assert.deepStrictEqual(yield* untilFlow("Blocked"), { _tag: "Blocked", reason: "low on disk" })
        const waiting = yield* startAll([send("a"), send("b"), send("c")])
        const reason = yield* reasonOf(AmqpPublisher.publish(message("now or never"), { onBlocked: "fail" }))
        assert.strictEqual(reason._tag, "PublishForbidden")
        assert.include(reason.message, "low on disk")
        const late = yield* reasonOf(AmqpPublisher.publish(message("late"), { timeout: 30 }))
        assert.deepInclude(late, { _tag: "PublishTimeout", sent: false })
        assert.include(late.message, "low on disk")
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { waiting: 3, forbidden: 1, timedOut: 1 })
        broker.unblock()
        assert.deepStrictEqual(new Set(yield* joinAll(waiting)), new Set(["Confirmed"]))
        assert.deepStrictEqual(published(broker), ["first", "a", "b", "c"])
        yield* untilFlow("Flowing")
      })
  )

  it.live("a connection that is blocked before there is a channel", () =>
    Effect.gen(function* () {
      // A broker answers nothing on a blocked connection.
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.block()
        yield* untilFlow("Blocked")
        assert.strictEqual(yield* send("a", { onBlocked: "fail" }), "PublishForbidden")
        const waiting = yield* start(send("b"))
        yield* untilStats((stats) => stats.waiting === 1)
        assert.strictEqual(broker.count("channel.open"), 0)
        broker.unblock()
        assert.strictEqual(yield* Fiber.join(waiting), "Confirmed")
      }).pipe(withPublisher(broker.url, {}, { continuationTimeout: Duration.millis(500) }))
    })
  )

  it.live(
    "a connection that is blocked while the channel opens: the wait continues, for longer than continuationTimeout",
    () =>
      onScriptedBroker(
        { broker: { protocolErrors: "record" }, continuationTimeout: Duration.millis(1500) },
        function* (broker) {
          broker.once("channel.open", (open) => open.hold())
          const waiting = yield* start(send("a"))
          yield* broker.received("channel.open")
          broker.block()
          // The opening is given up after continuationTimeout, and closed when it has been answered.
          yield* Effect.sleep(1700)
          assert.strictEqual(broker.count("channel.close"), 0)
          broker.release("channel.open")
          yield* broker.received("channel.close")
          assert.isUndefined(waiting.pollUnsafe())
          broker.unblock()
          assert.strictEqual(yield* Fiber.join(waiting), "Confirmed")
        }
      )
  )

  it.live("publishes that wait for another reason and may not wait for a block fail when the broker blocks", () =>
    onScriptedBroker(
      { broker: { on: { "basic.publish": (publish) => publish.hold() } }, publisher: { maxInFlight: 1 } },
      function* (broker) {
        const first = yield* start(send("first"))
        yield* broker.received("basic.publish")
        const [patient, impatient] = yield* startAll([send("patient"), send("impatient", { onBlocked: "fail" })])
        yield* untilStats((stats) => stats.waiting === 2)
        broker.block()
        assert.strictEqual(yield* Fiber.join(impatient!), "PublishForbidden")
        assert.isUndefined(patient!.pollUnsafe())
        // A pending message is confirmed while the connection is blocked.
        broker.off("basic.publish")
        broker.release("basic.publish")
        assert.strictEqual(yield* Fiber.join(first), "Confirmed")
        broker.unblock()
        assert.strictEqual(yield* Fiber.join(patient!), "Confirmed")
      }
    )
  )

  it.live("blocked state dies with its connection: waiting publishes are sent on the next one", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* send("first")
          const seen = yield* flows
          assert.strictEqual(yield* takeTag(seen), "Flowing")
          broker.block()
          assert.strictEqual(yield* takeTag(seen), "Blocked")
          const waiting = yield* startAll([send("a"), send("b")])
          yield* untilStats((stats) => stats.waiting === 2)
          broker.destroy()
          assert.strictEqual(yield* takeTag(seen), "Flowing")
          assert.deepStrictEqual(yield* joinAll(waiting), ["Confirmed", "Confirmed"])
          assert.deepStrictEqual(published(broker), ["first", "a", "b"])
        })
      ).pipe(withPublisher(broker.url))
    })
  )

  it.live("a new listener gets the current state first, and each change once", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* send("first")
          broker.block("one")
          yield* untilFlow("Blocked")
          const seen = yield* flows
          assert.deepStrictEqual(yield* Queue.take(seen), { _tag: "Blocked", reason: "one" })
          broker.block("one")
          broker.block("two")
          assert.deepStrictEqual(yield* Queue.take(seen), { _tag: "Blocked", reason: "two" })
          broker.unblock()
          broker.unblock()
          assert.strictEqual(yield* takeTag(seen), "Flowing")
          yield* send("second")
          assert.strictEqual(Queue.sizeUnsafe(seen), 0)
        })
      ).pipe(withPublisher(broker.url))
    })
  )

  describe("channel.flow", () => {
    it.live("stop, stop again, resume: each is answered; publishes wait, or fail", () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* send("first")
            const seen = yield* flows
            assert.strictEqual(yield* takeTag(seen), "Flowing")
            broker.flow(false)
            assert.strictEqual(yield* takeTag(seen), "Stopped")
            broker.flow(false)
            assert.deepInclude((yield* broker.received("channel.flow-ok", 2)).args, { active: false })
            const waiting = yield* startAll([send("a"), send("b")])
            yield* untilStats((stats) => stats.waiting === 2)
            const reason = yield* reasonOf(AmqpPublisher.publish(message("x"), { onBlocked: "fail" }))
            assert.strictEqual(reason._tag, "PublishForbidden")
            assert.include(reason.message, "channel.flow")
            const late = yield* reasonOf(AmqpPublisher.publish(message("late"), { timeout: 30 }))
            assert.deepInclude(late, { _tag: "PublishTimeout", sent: false })
            assert.deepStrictEqual(published(broker), ["first"])
            broker.flow(true)
            assert.deepInclude((yield* broker.received("channel.flow-ok", 3)).args, { active: true })
            assert.deepStrictEqual(yield* joinAll(waiting), ["Confirmed", "Confirmed"])
            broker.flow(true)
            yield* broker.received("channel.flow-ok", 4)
            assert.strictEqual(yield* takeTag(seen), "Flowing")
            assert.strictEqual(Queue.sizeUnsafe(seen), 0)
            assert.deepStrictEqual(published(broker), ["first", "a", "b"])
          })
        ).pipe(withPublisher(broker.url, { channels: 1 }))
      })
    )

    it.live("a connection that dies while it is stopped: waiting publishes are sent on the next one", () =>
      onScriptedBroker({ publisher: { channels: 1 } }, function* (broker) {
        yield* send("first")
        broker.flow(false)
        yield* untilFlow("Stopped")
        const waiting = yield* start(send("a"))
        yield* untilStats((stats) => stats.waiting === 1)
        broker.destroy()
        assert.strictEqual(yield* Fiber.join(waiting), "Confirmed")
        yield* untilFlow("Flowing")
      })
    )

    it.live("one of two channels is stopped: the other one sends everything", () =>
      onScriptedBroker(
        { broker: { on: { "basic.publish": (publish) => publish.hold() } }, publisher: { channels: 2 } },
        function* (broker) {
          const opening = yield* startAll([send("1"), send("2"), send("3")])
          yield* untilStats((stats) => stats.channels === 2)
          broker.off("basic.publish")
          broker.release("basic.publish")
          yield* joinAll(opening)
          broker.send(1, "channel.flow", { active: false })
          yield* broker.received("channel.flow-ok")
          const outcomes = yield* joinAll(yield* startAll(Array.from({ length: 10 }, (_, i) => send(`${i}`))))
          assert.deepStrictEqual(new Set(outcomes), new Set(["Confirmed"]))
          assert.strictEqual((yield* AmqpPublisher.AmqpPublisher).flow.value._tag, "Flowing")
          assert.strictEqual(yield* send("x", { onBlocked: "fail" }), "Confirmed")
          const sent = broker.log.filter((r) => r.method === "basic.publish")
          assert.strictEqual(sent.filter((r) => r.channel === 2).length, 11)
        }
      )
    )
  })
})

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("13. consumers go on consuming and acking", () => {
    it.effect("during a memory alarm, and waiting messages are published afterwards", () =>
      onTestBroker({}, function* ({ awaitCensus, blockPublishers, unblockPublishers, url }) {
        const { queue } = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("blocked")))
        const publish = (content: string, options?: AmqpChannel.PublishOptions) =>
          outcomeOf(AmqpPublisher.publish({ routingKey: queue, content }, options))
        yield* Effect.forEach(["1", "2", "3"], (content) => publish(content))
        yield* blockPublishers
        // The broker notifies a connection when it publishes. It reads that message when the alarm is over.
        const telling = yield* start(publish("telling"))
        yield* untilFlow("Blocked")
        const waiting = yield* start(publish("waiting"))
        assert.strictEqual(yield* publish("no", { onBlocked: "fail" }), "PublishForbidden")
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const { deliveries } = yield* channel.consume(queue)
              for (let i = 0; i < 3; i++) yield* channel.ack(yield* Queue.take(deliveries))
              yield* awaitCensus({ unacked: 0 })
              yield* unblockPublishers
              assert.deepStrictEqual(yield* joinAll([telling, waiting]), ["Confirmed", "Confirmed"])
              yield* channel.ack(yield* Queue.take(deliveries))
              yield* channel.ack(yield* Queue.take(deliveries))
              assert.isTrue(Option.isNone(yield* channel.get(queue)))
            })
          )
        ).pipe(withPool(url))
        yield* untilFlow("Flowing")
      })
    )
  })
})

const mebibyte = 2 ** 20

/** For publishers whose messages are never confirmed. */
const stalled = { shutdownTimeout: Duration.millis(1), closeTimeout: Duration.millis(1) }

describe("a connection that accepts no more bytes", () => {
  it.live("is Buffering until it accepts them", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* send("first")
          const seen = yield* flows
          assert.strictEqual(yield* takeTag(seen), "Flowing")
          broker.pause()
          const content = new Uint8Array(mebibyte)
          const fibers = yield* startAll(Array.from({ length: 40 }, () => send(content)))
          assert.strictEqual(yield* takeTag(seen), "Buffering")
          // A full buffer is not a refusal by the broker.
          const late = yield* reasonOf(AmqpPublisher.publish(message("late"), { onBlocked: "fail", timeout: 30 }))
          assert.deepInclude(late, { _tag: "PublishTimeout", sent: false })
          assert.include(late.message, "write buffer is full")
          broker.resume()
          assert.strictEqual(yield* takeTag(seen), "Flowing")
          assert.deepStrictEqual(new Set(yield* joinAll(fibers)), new Set(["Confirmed"]))
        })
      ).pipe(withPublisher(broker.url, { channels: 1 }))
    })
  )

  it.live("is not reported as Buffering for a burst that the network absorbs", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* send("first")
          const seen = yield* flows
          for (let round = 0; round < 5; round++) {
            yield* joinAll(yield* startAll(Array.from({ length: 20 }, () => send("x".repeat(20_000)))))
          }
          assert.deepStrictEqual(yield* Queue.clear(seen), [{ _tag: "Flowing" }])
        })
      ).pipe(withPublisher(broker.url, { channels: 1 }, { writeBufferSize: 65_536 }))
    })
  )

  it.live("keeps as much in the process as writeBufferSize allows, in addition to the system's buffers", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const taken = (writeBufferSize: number) =>
        Effect.gen(function* () {
          const proxy = yield* FaultProxy.make(broker.port)
          return yield* Effect.gen(function* () {
            yield* send("first")
            proxy.stall("up")
            const content = new Uint8Array(16_384)
            yield* startAll(Array.from({ length: 3000 }, () => send(content)))
            yield* untilFlow("Buffering")
            return (yield* (yield* AmqpPublisher.AmqpPublisher).stats).inFlight * content.length
          }).pipe(
            withPublisher(
              proxy.through(broker.url),
              { channels: 1, maxInFlight: 100_000, maxInFlightBytes: 2 ** 40 },
              { ...stalled, writeBufferSize }
            )
          )
        })
      const [little, much] = [yield* taken(4096), yield* taken(32 * mebibyte)]
      assert.isAbove((much - little) / mebibyte, 24)
      assert.isBelow((much - little) / mebibyte, 40)
    })
  )

  for (const [what, content] of [
    ["bytes", new Uint8Array(65_536)],
    ["text", "ü".repeat(32_768)]
  ] as const) {
    it.live(`grows the process by less than 50 MB when 6,400 fibers offer 400 MB of ${what}`, () =>
      onScriptedBroker(
        { publisher: { maxInFlight: 100_000, maxInFlightBytes: 2 ** 40 }, ...stalled },
        function* (broker) {
          yield* send("first")
          broker.pause()
          const before = { held: bytesHeld(), rss: process.memoryUsage().rss }
          yield* startAll(Array.from({ length: 6400 }, () => send(content)))
          yield* untilFlow("Buffering")
          yield* untilStats((stats) => stats.waiting > 5000)
          assert.isBelow((bytesHeld() - before.held) / mebibyte, 50)
          assert.isBelow((process.memoryUsage().rss - before.rss) / mebibyte, 100)
        }
      )
    )
  }

  it.live(
    "grows it as little when publishAll offers 400 MB: it takes no message that has no place from its source",
    () =>
      onScriptedBroker(
        { publisher: { maxInFlight: 100_000, maxInFlightBytes: 2 ** 40 }, ...stalled },
        function* (broker) {
          yield* send("first")
          broker.pause()
          const before = bytesHeld()
          let taken = 0
          const messages = function* () {
            for (; taken < 400; taken++) yield message(Buffer.alloc(mebibyte))
          }
          yield* Effect.forkChild(Stream.runDrain(AmqpPublisher.publishAll(messages())), { startImmediately: true })
          yield* untilFlow("Buffering")
          assert.isBelow((bytesHeld() - before) / mebibyte, 50)
          assert.isBelow(taken, 40)
        }
      )
  )

  it.live("does not recurse: 100,000 waiting publishes are sent one after the other", () =>
    onScriptedBroker({ publishTimeout: Duration.seconds(60) }, function* (broker) {
      yield* send("first")
      broker.block()
      yield* untilFlow("Blocked")
      const fibers = yield* startAll(Array.from({ length: 100_000 }, () => send("")))
      yield* untilStats((stats) => stats.waiting === 100_000)
      broker.unblock()
      for (const outcome of yield* joinAll(fibers)) assert.strictEqual(outcome, "Confirmed")
    })
  )
})

describe("the socket", () => {
  it.live("gets many messages with one write", () =>
    onScriptedBroker({}, function* (broker) {
      yield* send("first")
      const prototype = Socket.prototype as unknown as { _writeGeneric: (...args: Array<unknown>) => unknown }
      const original = prototype._writeGeneric
      let writes = 0
      yield* Effect.acquireUseRelease(
        Effect.sync(() => {
          prototype._writeGeneric = function (this: Socket, ...args) {
            if (this.remotePort === broker.port) writes++
            return original.apply(this, args)
          }
        }),
        () => Effect.flatMap(startAll(Array.from({ length: 1000 }, () => send("x".repeat(100)))), joinAll),
        () =>
          Effect.sync(() => {
            prototype._writeGeneric = original
          })
      )
      assert.isBelow(writes, 30)
    })
  )
})
