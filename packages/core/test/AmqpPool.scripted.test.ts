/**
 * The pool's promises where no real broker fails on command: a broker that never answers, answers late, or dies first.
 */
import { assert, describe, it } from "@effect/vitest"
import { AmqpError, AmqpChannel, AmqpConnection, AmqpPool } from "@effect-amqp/core"
import { Deferred, Duration, Effect, Exit, Fiber, Random, Scope } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { quietly, tagOf, untilStats, withPool } from "./support/amqp.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const declare = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q")))

/** Random numbers at their minimum: reconnecting takes no time. */
const zero = { nextDoubleUnsafe: () => 0, nextIntUnsafe: () => 0 }

/** Fills the pool: borrows as many channels as it has places, all at once, and uses each. */
const fill = (places: number) =>
  Effect.scoped(
    Effect.forEach(
      Array.from({ length: places }),
      () => Effect.flatMap(AmqpPool.get, (channel) => channel.queueDeclare("q")),
      { concurrency: "unbounded", discard: true }
    )
  )

/** Each step of an acquisition at which it can be stopped: how to bring it there, and how to know that it is there. */
const steps: Record<
  string,
  (broker: ScriptedBroker.ScriptedBroker) => Effect.Effect<unknown, unknown, AmqpPool.AmqpPool>
> = {
  "in the wait queue": () =>
    Effect.gen(function* () {
      const stats = yield* AmqpPool.stats
      yield* untilStats((now) => now.pending > stats.pending)
    }),
  "while the channel opens": (broker) => broker.received("channel.open", broker.count("channel.open") + 1)
}

describe("2. No reservation is lost: an open that fails, times out or is interrupted at any step gives its place back.", () => {
  it.live("an acquisition that is interrupted in the wait queue or while its channel opens gives its place back", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "channel.open": (open) => open.hold() } })
      yield* Effect.gen(function* () {
        for (let round = 0; round < 3; round++) {
          const opening = yield* Effect.forEach([1, 2], () => Effect.forkChild(declare, { startImmediately: true }))
          const queued = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(declare, { startImmediately: true }))
          yield* untilStats((stats) => stats.used === 2 && stats.pending === 3)
          yield* broker.until((now) => now.held("channel.open") === 2)
          yield* Fiber.interruptAll([...queued, ...opening])
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
        }
        broker.off("channel.open")
        broker.release("channel.open")
        yield* fill(2)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, idle: 2 })
        assert.isAtMost(broker.maxOpenChannels, 2)
      }).pipe(withPool(broker.url, { pool: { max: 2 } }))
      yield* broker.socketsClosed
    })
  )

  it.live("an open that fails gives its place back: the channel is closed instead of opened", () =>
    onScriptedBroker({ pool: { max: 2 } }, function* (broker) {
      for (let round = 0; round < 5; round++) {
        broker.once("channel.open", (open) => open.closeChannel(504, "CHANNEL_ERROR - scripted"))
        assert.strictEqual(yield* tagOf(declare), "ProtocolError")
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      }
      yield* fill(2)
    })
  )

  it.live("an open whose connection dies continues on the next one, within the same acquireTimeout", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const config = { pool: { max: 2, acquireTimeout: Duration.millis(500) } }
      yield* Effect.gen(function* () {
        for (let round = 0; round < 5; round++) {
          broker.once("channel.open", (open) => open.destroy())
          yield* declare
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
        }
        yield* fill(2)
        broker.destroy()
        broker.on("channel.open", (open) => open.destroy())
        assert.strictEqual(yield* tagOf(declare), "AcquireTimeout")
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      }).pipe(withPool(broker.url, config), Effect.provideService(Random.Random, zero))
    })
  )

  it.live("an open whose connection the broker closes because of a mistake fails with that reason", () =>
    onScriptedBroker({ pool: { max: 2 } }, function* (broker) {
      broker.once("channel.open", (open) => open.closeConnection(530, "NOT_ALLOWED - scripted"))
      assert.strictEqual(yield* tagOf(declare), "ProtocolError")
      yield* fill(2)
    })
  )

  it.live("an acquisition that times out at any step gives its place back", () =>
    onScriptedBroker(
      {
        broker: { on: { "channel.open": (open) => open.hold() } },
        pool: { max: 2, acquireTimeout: Duration.millis(100) }
      },
      function* (broker) {
        const reasons = yield* Effect.forEach([1, 2, 3, 4], () => tagOf(declare), { concurrency: "unbounded" })
        assert.deepStrictEqual(
          reasons,
          Array.from({ length: 4 }, () => "AcquireTimeout")
        )
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, timedOut: 4 })
        broker.off("channel.open")
        broker.release("channel.open")
        yield* fill(2)
      }
    )
  )

  it.live("an acquisition that is stopped while the connection is away gives its place back", () =>
    onScriptedBroker({ pool: { max: 2, acquireTimeout: Duration.millis(100) } }, function* (broker) {
      const { state } = yield* AmqpConnection.AmqpConnection
      yield* broker.down
      yield* untilStats(() => state.value._tag === "Reconnecting")
      const waiting = yield* Effect.forkChild(declare, { startImmediately: true })
      yield* untilStats((stats) => stats.used === 1)
      yield* Fiber.interrupt(waiting)
      const error = yield* Effect.flip(declare)
      assert.strictEqual(error.reason._tag, "AcquireTimeout")
      assert.include(error.message, "not connected, reconnecting (connection")
      // The error gives the reason for reconnecting, as text and as data.
      const { cause } = error.reason as AmqpError.AcquireTimeout
      assert.isTrue(cause instanceof AmqpError.ConnectFailed || cause instanceof AmqpError.ConnectionClosed)
      assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      yield* broker.up
      yield* Effect.retry(fill(2), { while: (error) => error.isRetryable })
    })
  )

  it.live("places are given back however often acquisitions are stopped at each step, in any mixture", () =>
    onScriptedBroker({ pool: { max: 3 } }, function* (broker) {
      for (let round = 0; round < 50; round++) {
        const name = round % 2 === 0 ? "in the wait queue" : "while the channel opens"
        broker.on("channel.open", (open) => (round % 3 === 0 ? open.proceed() : open.hold()))
        const fibers = yield* Effect.forEach(Array.from({ length: 6 }), () =>
          Effect.forkChild(Effect.scoped(AmqpPool.get), { startImmediately: true })
        )
        yield* Effect.race(steps[name]!(broker), Effect.sleep("5 millis"))
        yield* Fiber.interruptAll(fibers)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
      }
      broker.off("channel.open")
      broker.release("channel.open")
      yield* fill(3)
      assert.isAtMost(broker.maxOpenChannels, 3)
    })
  )
})

describe("3. A channel that arrives after its opener gave up is closed.", () => {
  it.live("when the opener has timed out: its place stays taken until that close is answered", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.once("channel.open", (open) => open.hold())
        assert.strictEqual(yield* tagOf(declare), "ReplyTimeout")
        // The place stays taken, so the broker never has the late channel and its successor at the same time.
        assert.strictEqual(yield* tagOf(declare), "AcquireTimeout")
        assert.strictEqual(broker.count("channel.open"), 1)
        assert.strictEqual(broker.count("channel.close"), 0)
        broker.release("channel.open")
        yield* fill(1)
        yield* broker.until((now) => now.openChannels === 1)
        assert.strictEqual(broker.maxOpenChannels, 1)
        assert.deepStrictEqual(broker.methods().slice(-4), [
          "channel.open",
          "channel.close",
          "channel.open",
          "queue.declare"
        ])
      }).pipe(
        withPool(broker.url, {
          pool: { max: 1, acquireTimeout: Duration.millis(200) },
          continuationTimeout: Duration.millis(50)
        })
      )
      yield* broker.socketsClosed
    })
  )

  it.live("when the borrower was interrupted, without pooling", () =>
    onScriptedBroker({ pool: false }, function* (broker) {
      broker.once("channel.open", (open) => open.hold())
      const opening = yield* Effect.forkChild(declare, { startImmediately: true })
      yield* broker.received("channel.open")
      yield* Fiber.interrupt(opening)
      yield* declare
      yield* broker.received("channel.close")
      broker.release("channel.open")
      yield* broker.received("channel.close", 2)
      yield* broker.until((now) => now.openChannels === 0)
      assert.deepInclude(yield* AmqpPool.stats, { used: 0 })
    })
  )

  it.live("when the pool has closed in the meantime", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "channel.open": (open) => open.hold() } })
      const waiting = yield* Effect.gen(function* () {
        const waiting = yield* Effect.forkDetach(declare, { startImmediately: true })
        yield* broker.received("channel.open")
        return waiting
      }).pipe(withPool(broker.url, { closeTimeout: Duration.millis(200) }))
      assert.strictEqual(yield* tagOf(Fiber.join(waiting)), "PoolClosed")
      yield* broker.socketsClosed
      assert.strictEqual(broker.openChannels, 0)
    })
  )

  it.live("a channel that arrives after its borrower has left serves the next one: it is opened once", () =>
    onScriptedBroker({ pool: { max: 1 } }, function* (broker) {
      broker.once("channel.open", (open) => open.hold())
      const opening = yield* Effect.forkChild(declare, { startImmediately: true })
      yield* broker.received("channel.open")
      yield* Fiber.interrupt(opening)
      const next = yield* Effect.forkChild(declare, { startImmediately: true })
      broker.release("channel.open")
      yield* Fiber.join(next)
      assert.strictEqual(broker.count("channel.open"), 1)
    })
  )
})

describe("4. Open channels never exceed the pool's `max`, nor the negotiated channel-max, while replacing discarded ones too.", () => {
  const churn = (borrows: number) =>
    Effect.forEach(
      Array.from({ length: borrows }, (_, i) => i),
      (i) =>
        Effect.scoped(
          AmqpChannel.use((channel) => {
            // One third breaks its channel, one third interrupts a request, one third behaves well.
            if (i % 3 === 0) return Effect.exit(channel.get("missing"))
            const declaring = channel.queueDeclare("q")
            if (i % 3 === 2) return declaring
            return Effect.flatMap(Effect.forkChild(declaring, { startImmediately: true }), Fiber.interrupt)
          })
        ),
      { concurrency: 20, discard: true }
    )
  const missing: ScriptedBroker.Script = {
    "basic.get": (get) => get.closeChannel(404, "NOT_FOUND - no queue 'missing' in vhost '/'")
  }

  it.live("while replacing discarded ones too", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: missing })
      yield* Effect.gen(function* () {
        yield* churn(600)
        const stats = yield* untilStats((now) => now.used === 0)
        assert.isAbove(stats.discarded, 200)
      }).pipe(withPool(broker.url, { pool: { max: 4 } }))
      assert.strictEqual(broker.maxOpenChannels, 4)
    })
  )

  it.live("a pool larger than channel-max is reduced to it", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: missing, tune: { channelMax: 3 } })
      yield* Effect.gen(function* () {
        yield* churn(200)
        assert.strictEqual((yield* AmqpPool.stats).max, 3)
      }).pipe(withPool(broker.url, { pool: { max: 10 } }))
      assert.strictEqual(broker.maxOpenChannels, 3)
    })
  )

  it.live("without pooling, a channel beyond the limit is ChannelMaxReached", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ tune: { channelMax: 2 } })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* AmqpPool.get
          yield* AmqpPool.get
          const error = yield* Effect.flip(AmqpPool.get)
          assert.strictEqual(error.reason._tag, "ChannelMaxReached")
          assert.include(error.message, "all channels of this connection are in use (channelMax 2)")
        })
      ).pipe(withPool(broker.url, { pool: false }))
    })
  )
})

describe("5. A checkout always ends: with a channel, `AcquireTimeout`, `PoolClosed`, or the error of opening.", () => {
  it.live("with the error of opening, for every caller that waits for that place", () =>
    onScriptedBroker({ pool: { max: 1 } }, function* (broker) {
      let refuse = () => {}
      broker.once("channel.open", (open) => {
        refuse = () => open.closeConnection(504, "CHANNEL_ERROR - scripted")
      })
      const first = yield* Effect.forkChild(Effect.flip(declare), { startImmediately: true })
      yield* broker.received("channel.open")
      yield* Fiber.interrupt(first)
      const second = yield* Effect.forkChild(Effect.flip(declare), { startImmediately: true })
      yield* untilStats((stats) => stats.used === 1)
      refuse()
      const error = yield* Fiber.join(second)
      assert.strictEqual(error.reason._tag, "ProtocolError")
      assert.include(error.message, "CHANNEL_ERROR - scripted")
    })
  )

  it.live("not with the code for which the broker closed the connection: the next connection serves it", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        for (const code of [501, 503, 504, 505, 530, 540, 541]) {
          broker.once("channel.open", (open) => open.hold())
          const opening = yield* Effect.forkChild(declare, { startImmediately: true })
          yield* broker.until((now) => now.held("channel.open") === 1)
          broker.closeConnections(code)
          yield* Fiber.join(opening)
          broker.closeChannels(404)
          broker.release("channel.open")
          yield* untilStats((stats) => stats.idle === 0)
        }
      }).pipe(withPool(broker.url, { pool: { max: 1 } }), Effect.provideService(Random.Random, zero), quietly)
    })
  )
})

describe("7. A channel known to be closed is never lent.", () => {
  it.live("when the broker closed it while it was idle", () =>
    onScriptedBroker({}, function* (broker) {
      yield* fill(3)
      broker.closeChannels(541, "INTERNAL_ERROR - scripted")
      yield* untilStats((stats) => stats.idle === 0)
      yield* fill(3)
      assert.deepInclude(yield* AmqpPool.stats, { created: 6, discarded: 3, idle: 3 })
    })
  )
})

describe("9. Business errors keep the channel; channel errors, defects in an operation and interrupted requests discard it.", () => {
  it.live("even if its reply came before the scope ended", () =>
    onScriptedBroker({ pool: { max: 1 } }, function* (broker) {
      yield* Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            broker.once("queue.declare", (declare) => declare.hold())
            const asking = yield* Effect.forkChild(channel.queueDeclare("asked"), { startImmediately: true })
            yield* broker.received("queue.declare")
            yield* Fiber.interrupt(asking)
            broker.release("queue.declare")
            // Replies arrive in order: when this one is here, so is the first.
            yield* channel.queuePurge("asked")
          })
        )
      )
      assert.deepInclude(yield* AmqpPool.stats, { discarded: 1, created: 1 })
    })
  )
})

describe("a confirm channel on which the broker refuses messages", () => {
  it.live("is discarded when it is returned, since another one may be accepted", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.on("basic.publish", ({ deliveryTag, proceed, reply }) =>
        broker.count("channel.open") === 1 ? reply("basic.nack", { deliveryTag }) : proceed()
      )
      const publish = Effect.scoped(
        AmqpChannel.useConfirm((channel) => channel.publish({ routingKey: "q", content: "a" }))
      )
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* tagOf(publish), "PublishNacked")
        yield* publish
        yield* publish
        assert.strictEqual(broker.count("channel.open"), 2)
        yield* broker.until(({ openChannels }) => openChannels === 1)
      }).pipe(withPool(broker.url))
    })
  )
})

describe("10. Every close is bounded in time, whatever the broker or the network does; shutdown meets its deadline even with borrowers that never return, whose handles then fail with `ChannelReleased`.", () => {
  const silent: ScriptedBroker.Script = { "channel.close": () => {}, "connection.close": () => {} }
  const dying: ScriptedBroker.Script = {
    "channel.close": (close) => close.destroy(),
    "connection.close": (close) => close.destroy()
  }
  const quick = { closeTimeout: Duration.millis(100), shutdownTimeout: Duration.millis(100) }

  for (const [name, on] of Object.entries({ "never answers": silent, "dies before close-ok": dying })) {
    it.live(`with a broker that ${name}, the pool and the connection close and leave no socket`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ on })
        yield* Effect.timeout(fill(3).pipe(withPool(broker.url, quick)), "2 seconds")
        yield* broker.socketsClosed
      })
    )

    it.live(`with a broker that ${name}, a discarded channel delays neither its borrower nor the next`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ on })
        yield* Effect.gen(function* () {
          broker.once("queue.declare", () => {})
          const asking = yield* Effect.forkChild(declare, { startImmediately: true })
          yield* broker.received("queue.declare")
          yield* Effect.timeout(Fiber.interrupt(asking), "90 millis")
          assert.strictEqual((yield* AmqpPool.stats).used, 0)
          yield* Effect.timeout(Effect.retry(declare, { while: (error) => error.isRetryable }), "2 seconds")
        }).pipe(withPool(broker.url, { ...quick, pool: { max: 1 } }))
        yield* broker.socketsClosed
      })
    )
  }

  it.live("while a discarded channel is closing, the next borrower gets a place whose channel is open", () =>
    onScriptedBroker(
      { broker: { on: { "channel.close": () => {} } }, pool: { max: 2 }, closeTimeout: Duration.seconds(2) },
      function* (broker) {
        yield* fill(2)
        broker.once("queue.purge", () => {})
        const asking = yield* Effect.forkChild(Effect.scoped(AmqpChannel.use((channel) => channel.queuePurge("q"))), {
          startImmediately: true
        })
        yield* broker.received("queue.purge")
        yield* Fiber.interrupt(asking)
        yield* broker.received("channel.close")
        yield* Effect.timeout(declare, "1 second")
        assert.strictEqual(broker.count("channel.open"), 2)
      }
    )
  )

  it.live("waiting borrowers fail at once, without waiting for those that hold a channel", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const scope = yield* Scope.make()
      const line = yield* Deferred.make<Fiber.Fiber<unknown, AmqpError.AmqpError>>()
      const ending = yield* Effect.gen(function* () {
        yield* Scope.provide(AmqpPool.get, scope)
        const waiting = yield* Effect.forkDetach(declare, { startImmediately: true })
        yield* untilStats((stats) => stats.pending === 1)
        return waiting
      }).pipe(
        Effect.flatMap((waiting) => Effect.andThen(Deferred.succeed(line, waiting), Effect.void)),
        withPool(broker.url, { pool: { max: 1 }, shutdownTimeout: Duration.seconds(10) }),
        Effect.forkChild({ startImmediately: true })
      )
      const waiting = yield* Deferred.await(line)
      assert.strictEqual(yield* Effect.timeout(tagOf(Fiber.join(waiting)), "1 second"), "PoolClosed")
      assert.isUndefined(ending.pollUnsafe())
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(ending)
    })
  )

  it.live("a dead network: the peer's host accepts and sends nothing", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const gone = Effect.gen(function* () {
        yield* fill(3)
        broker.pause()
      }).pipe(withPool(broker.url, quick))
      yield* Effect.timeout(gone, "2 seconds")
      broker.resume()
      yield* broker.socketsClosed
    })
  )

  it.live("with borrowers that never return: their handles fail with ChannelReleased", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const scope = yield* Scope.make()
      broker.on("queue.declare", () => {})
      const { asking, channel } = yield* Effect.gen(function* () {
        const channel = yield* Scope.provide(AmqpPool.get, scope)
        const asking = yield* Effect.forkDetach(channel.queueDeclare("never"), { startImmediately: true })
        yield* broker.received("queue.declare")
        return { asking, channel }
      }).pipe(withPool(broker.url, quick), Effect.timeout("2 seconds"))
      assert.strictEqual(yield* tagOf(Fiber.join(asking)), "ChannelReleased")
      assert.strictEqual(yield* tagOf(channel.publish({ routingKey: "q", content: "" })), "ChannelReleased")
      yield* broker.socketsClosed
      yield* Scope.close(scope, Exit.void)
    })
  )
})
