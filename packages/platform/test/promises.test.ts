// The promises of the core, through the bridge: each as an application of Effect 3 sees it, on a real broker.
import {
  Amqp,
  AmqpChannel,
  type AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/platform"
import { assert, describe, layer } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Context,
  Deferred,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Option,
  Queue,
  Schedule,
  Scope,
  Stream,
  TestClock,
  TestContext
} from "effect"
import * as Application from "./support/application.ts"
import { Broker, layer as BrokerLayer, layerPrivate, proxied } from "./support/Broker.ts"
import { turn, until, untilStats } from "./support/polling.ts"

const tagOf = <A, R>(effect: Effect.Effect<A, AmqpError.AmqpError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)

/** Borrows this many channels at the same time, and returns them. */
const fill = (count: number) =>
  Effect.scoped(
    Effect.all(
      Array.from({ length: count }, () => AmqpPool.get),
      { concurrency: count, discard: true }
    )
  )

const declare = Effect.scoped(
  AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true, autoDelete: true }))
)

const counts = Effect.map(AmqpPool.stats, ({ created, discarded, idle, pending, used }) => ({
  created,
  discarded,
  idle,
  pending,
  used
}))

const endings: Record<string, Effect.Effect<unknown, unknown>> = {
  success: Effect.void,
  failure: Effect.fail("no"),
  defect: Effect.die(new Error("bug")),
  interruption: Effect.interrupt
}

layer(BrokerLayer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("1. Leaving a scope by success, failure, defect or interruption settles its channel exactly once. There is no return call.", () => {
    for (const [name, ending] of Object.entries(endings)) {
      it.effect(`by ${name}`, () =>
        Effect.gen(function* () {
          const { awaitCensus } = yield* Broker
          const pool = yield* AmqpPool.AmqpPool
          const expected = yield* Effect.exit(ending)
          const ways = [
            Effect.scoped(AmqpChannel.use(() => ending)),
            Effect.scoped(Effect.zipRight(pool.get, ending)),
            pool.use(() => ending)
          ]
          for (const way of ways) {
            assert.deepStrictEqual(yield* Effect.exit(way), expected)
            // The pool has one place, which the next one can borrow: it got back the channel that it lent.
            assert.deepStrictEqual(yield* counts, { created: 1, discarded: 0, idle: 1, pending: 0, used: 0 })
          }
          const confirming = Effect.scoped(AmqpChannel.useConfirm(() => ending))
          const transaction = AmqpChannel.useTransaction(() => ending)
          assert.deepStrictEqual(yield* Effect.exit(confirming), expected)
          assert.deepStrictEqual(yield* Effect.exit(transaction), expected)
          for (const { stats } of [pool.confirm, pool.transaction]) {
            assert.deepInclude(yield* stats, { created: 1, discarded: 0, idle: 1, used: 0 })
          }
          yield* awaitCensus({ connections: 1, channels: 3 })
        }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
      )
    }
  })

  describe("2. No reservation is lost: an open that fails, times out or is interrupted at any step gives its place back.", () => {
    const outcomes: Record<string, string> = {
      "is interrupted, as are those in the wait queue": "interrupted",
      "times out": "timed out"
    }
    for (const [name, outcome] of Object.entries(outcomes)) {
      it.scoped(`an open that ${name}`, () =>
        Effect.gen(function* () {
          const { proxy, sent, url } = yield* proxied
          const acquireTimeout = outcome === "interrupted" ? "1 minute" : "100 millis"
          yield* Effect.gen(function* () {
            proxy.stall("down")
            const opened = yield* sent
            const fibers = yield* Effect.replicateEffect(Effect.fork(declare), 5)
            yield* untilStats(({ pending, used }) => used === 2 && pending === 3)
            yield* opened
            if (outcome === "interrupted") yield* Fiber.interruptAll(fibers)
            for (const fiber of fibers) {
              const exit = yield* Fiber.await(fiber)
              assert(Exit.isFailure(exit))
              if (outcome === "interrupted") assert.isTrue(Cause.isInterruptedOnly(exit.cause))
              else assert.strictEqual(Option.getOrThrow(Cause.failureOption(exit.cause)).reason._tag, "AcquireTimeout")
            }
            assert.deepInclude(yield* counts, { pending: 0, used: 0 })
            proxy.heal()
            yield* Effect.timeout(fill(2), "4 seconds")
          }).pipe(Effect.provide(Amqp.layer({ url, pool: { max: 2, acquireTimeout } })))
        })
      )
    }

    it.scoped("an open that fails because the connection is lost", () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* proxied
        yield* Effect.gen(function* () {
          proxy.refuse()
          proxy.rst()
          const error = yield* Effect.flip(declare)
          assert(error.reason instanceof AmqpError.AcquireTimeout)
          // Why there is no channel is a reason of Effect 3, too.
          assert(
            error.reason.cause instanceof AmqpError.ConnectFailed ||
              error.reason.cause instanceof AmqpError.ConnectionClosed
          )
          assert.deepInclude(yield* counts, { pending: 0, used: 0 })
          proxy.heal()
          yield* Effect.retry(fill(2), { while: ({ isRetryable }) => isRetryable })
        }).pipe(Effect.provide(Amqp.layer({ url, pool: { max: 2, acquireTimeout: "300 millis" } })))
      })
    )
  })

  describe("3. A channel that arrives after its opener gave up is closed.", () => {
    it.scoped("when its borrower was interrupted, without pooling", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* Broker
        const { proxy, sent, url } = yield* proxied
        yield* Effect.gen(function* () {
          proxy.stall("down")
          const opened = yield* sent
          const fiber = yield* Effect.fork(Effect.scoped(AmqpChannel.use(() => Effect.never)))
          yield* opened
          // It is open in the broker, and the client has not read so.
          yield* awaitCensus({ channels: 1 })
          assert(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
          proxy.heal()
          yield* awaitCensus({ connections: 1, channels: 0 })
          assert.deepInclude(yield* counts, { used: 0 })
        }).pipe(Effect.provide(Amqp.layer({ url, pool: false })))
      })
    )
  })

  describe("4. Open channels never exceed the pool's `max`, nor the negotiated channel-max, while replacing discarded ones too.", () => {
    // Of three borrowers one breaks its channel, one has a request interrupted, and one behaves well.
    const churn = (borrows: number, concurrency: number) =>
      Effect.forEach(
        Array.from({ length: borrows }, (_, i) => i),
        (i) => {
          const use = (channel: AmqpChannel.Operations): Effect.Effect<unknown, AmqpError.AmqpError> => {
            const declaring = channel.queueDeclare("churn", { autoDelete: true })
            if (i % 3 === 0) return Effect.exit(channel.get("missing"))
            if (i % 3 === 1) return declaring
            return Effect.flatMap(Effect.fork(declaring), (fiber) => Effect.zipRight(turn, Fiber.interrupt(fiber)))
          }
          return Effect.retry(Effect.scoped(i % 2 === 0 ? AmqpChannel.use(use) : AmqpChannel.useConfirm(use)), {
            while: ({ reason }) => reason._tag === "ChannelMaxReached",
            schedule: Schedule.spaced("5 millis")
          })
        },
        { concurrency, discard: true }
      )
    const limits = {
      "the pool's max, for each kind": [{ pool: { max: 3, acquireTimeout: "30 seconds" } }, 6, 30],
      "channel-max, for all kinds": [{ channelMax: 4, pool: { max: 3, acquireTimeout: "30 seconds" } }, 4, 6]
    } as const
    for (const [name, [settings, limit, concurrency]] of Object.entries(limits)) {
      it.effect(name, () =>
        Effect.gen(function* () {
          const { awaitCensus, census } = yield* Broker
          const pool = yield* AmqpPool.AmqpPool
          let most = 0
          const watching = yield* Effect.fork(
            Effect.forever(Effect.tap(census, ({ channels }) => Effect.sync(() => (most = Math.max(most, channels)))))
          )
          yield* churn(90, concurrency)
          yield* Fiber.interrupt(watching)
          const regular = yield* pool.stats
          const confirm = yield* pool.confirm.stats
          assert.isAbove(regular.discarded + confirm.discarded, 29)
          assert.strictEqual(regular.used + confirm.used, 0)
          assert.isAbove(most, 1)
          assert.isAtMost(most, limit)
          yield* awaitCensus({ connections: 1, channels: regular.idle + confirm.idle })
        }).pipe(Effect.provide(Application.amqp(settings)))
      )
    }
  })

  describe("5. A checkout always ends: with a channel, `AcquireTimeout`, `PoolExhausted`, `PoolClosed`, or the error of opening.", () => {
    it.effect("with AcquireTimeout, with PoolExhausted, and with a channel", () =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* pool.get
            const waiting = yield* Effect.fork(tagOf(declare))
            yield* untilStats(({ pending }) => pending === 1)
            assert.strictEqual(yield* tagOf(declare), "PoolExhausted")
            assert.strictEqual(yield* Fiber.join(waiting), "AcquireTimeout")
          })
        )
        yield* declare
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1, maxWaiting: 1, acquireTimeout: "100 millis" } })))
    )

    it.effect("with the error of opening", () =>
      Effect.scoped(
        Effect.gen(function* () {
          yield* AmqpPool.get
          assert.strictEqual(yield* tagOf(AmqpPool.get), "ChannelMaxReached")
        })
      ).pipe(Effect.provide(Application.amqp({ channelMax: 1, pool: false })))
    )

    it.scoped("with PoolClosed when the layer's scope has closed, for waiting callers and for later ones", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(
          Application.amqp({ pool: { max: 1 }, shutdownTimeout: "50 millis" }),
          scope
        )
        const pool = Context.get(context, AmqpPool.AmqpPool)
        yield* pool.get
        const waiting = yield* Effect.fork(tagOf(pool.use(() => Effect.void)))
        yield* until(pool.stats, ({ pending }) => pending === 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Fiber.join(waiting), "PoolClosed")
        assert.strictEqual(yield* tagOf(pool.use(() => Effect.void)), "PoolClosed")
      })
    )
  })

  describe("6. Waiters are served first come, first served; a cancelled waiter never swallows a place.", () => {
    it.effect("the channels come back, in the order of the waiting fibers, without the one that was interrupted", () =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        const gate = yield* Deferred.make<void>()
        const served: Array<number> = []
        const holder = yield* Effect.fork(pool.use(() => Deferred.await(gate)))
        yield* untilStats(({ used }) => used === 1)
        const waiters: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
        for (let i = 0; i < 5; i++) {
          waiters.push(yield* Effect.fork(pool.use(() => Effect.sync(() => served.push(i)))))
          yield* untilStats(({ pending }) => pending === i + 1)
        }
        for (const i of [0, 3]) {
          const exit = yield* Fiber.interrupt(waiters[i]!)
          assert(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause))
        }
        assert.strictEqual((yield* AmqpPool.stats).pending, 3)
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.all([Fiber.join(holder), Fiber.join(waiters[4]!)])
        assert.deepStrictEqual(served, [1, 2, 4])
        assert.deepInclude(yield* counts, { created: 1, pending: 0, used: 0 })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )
  })

  describe("7. A channel known to be closed is never lent.", () => {
    it.effect("after the broker has closed all connections, the next borrowers get channels that work", () =>
      Effect.gen(function* () {
        const { closeConnections } = yield* Broker
        yield* fill(3)
        assert.deepInclude(yield* counts, { idle: 3, created: 3 })
        yield* closeConnections
        yield* untilStats(({ idle }) => idle === 0)
        yield* Effect.all([declare, declare, declare], { concurrency: 3 })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 3 } })))
    )

    it.effect("a scope whose channel has died gets a fresh one", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const first = yield* AmqpChannel.use(Effect.succeed)
          assert.strictEqual(yield* tagOf(first.queueDeclarePassive("missing")), "NotFound")
          const second = yield* AmqpChannel.use(Effect.succeed)
          assert.notStrictEqual(second, first)
          yield* second.queueDeclare("", { exclusive: true })
        })
      ).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )
  })

  describe("8. A lent channel is clean: no consumers, no unsettled deliveries, no pending confirms, default prefetch, no stray listeners. One that cannot be made clean is discarded.", () => {
    it.effect("the next borrower finds nothing of the last one, whose streams have ended", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* Broker
        const [unsettled, reading] = yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              yield* channel.queueDeclare("dirty")
              yield* Effect.forEach(["a", "b", "c"], (content) => channel.publish({ routingKey: "dirty", content }))
              yield* channel.qos(1)
              const { deliveries } = yield* channel.consume("dirty")
              const first = yield* Deferred.make<AmqpMessage.Delivery>()
              const reading = yield* Effect.forkDaemon(
                Effect.exit(Stream.runForEach(deliveries, (delivery) => Deferred.succeed(first, delivery)))
              )
              yield* channel.publish({ exchange: "", routingKey: "nowhere", content: "x" }, { mandatory: true })
              return [yield* Deferred.await(first), reading] as const
            })
          )
        )
        yield* Fiber.join(reading)
        yield* awaitCensus({ consumers: 0, unacked: 0 })
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              assert.strictEqual(yield* tagOf(channel.ack(unsettled)), "DeliverySettled")
              // More than one without a settlement: the prefetch of the last borrower is gone.
              const { deliveries } = yield* channel.consume("dirty")
              const again = yield* Stream.runCollect(Stream.take(deliveries, 3))
              assert.deepStrictEqual(Chunk.toReadonlyArray(again).map(AmqpMessage.text).toSorted(), ["a", "b", "c"])
              yield* channel.queueDelete("dirty")
            })
          )
        )
        yield* awaitCensus({ channels: (yield* counts).idle })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )
  })

  describe("9. Business errors keep the channel; channel errors, defects in an operation and interrupted requests discard it.", () => {
    it.effect("a business error, a defect and an interruption of the borrower keep it", () =>
      Effect.gen(function* () {
        for (const ending of Object.values(endings)) {
          yield* Effect.exit(
            Effect.scoped(
              AmqpChannel.use((channel) => Effect.zipRight(channel.queueDeclare("", { exclusive: true }), ending))
            )
          )
        }
        assert.deepInclude(yield* counts, { created: 1, discarded: 0, idle: 1 })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )

    it.effect("a channel error discards it, and a mistake that is refused before anything is sent does not", () =>
      Effect.gen(function* () {
        const refused = AmqpChannel.use((channel) =>
          channel.publish({ routingKey: "q", content: "", headers: { f: (() => 1) as never } })
        )
        assert.strictEqual(yield* tagOf(Effect.scoped(refused)), "InvalidArgument")
        assert.deepInclude(yield* counts, { created: 1, discarded: 0 })
        const missing = AmqpChannel.use((channel) => channel.queueDeclarePassive("missing"))
        assert.strictEqual(yield* tagOf(Effect.scoped(missing)), "NotFound")
        yield* declare
        assert.deepInclude(yield* counts, { created: 2, discarded: 1 })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )

    it.scoped("an interrupted request discards it: its reply reaches no other caller", () =>
      Effect.gen(function* () {
        const { proxy, sent, url } = yield* proxied
        yield* Effect.gen(function* () {
          yield* declare
          proxy.stall("down")
          const requested = yield* sent
          const asking = yield* Effect.fork(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("asked"))))
          yield* requested
          yield* Fiber.interrupt(asking)
          proxy.heal()
          const { queue } = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("another")))
          assert.strictEqual(queue, "another")
          assert.deepInclude(yield* counts, { created: 2, discarded: 1 })
        }).pipe(Effect.provide(Amqp.layer({ url, pool: { max: 1 } })))
      })
    )
  })

  describe("10. Every close is bounded in time, whatever the broker or the network does; shutdown meets its deadline even with borrowers that never return, whose handles then fail with `ChannelReleased`.", () => {
    for (const network of ["works", "is silent"]) {
      it.scoped(`when the network ${network}`, () =>
        Effect.gen(function* () {
          const { proxy, url } = yield* proxied
          const scope = yield* Scope.make()
          const context = yield* Layer.buildWithScope(
            Amqp.layer({ url, shutdownTimeout: "200 millis", closeTimeout: "200 millis" }),
            scope
          )
          const borrowed = yield* Deferred.make<AmqpChannel.AmqpChannel>()
          const gate = yield* Deferred.make<void>()
          const borrower = yield* Effect.fork(
            Effect.uninterruptible(
              AmqpChannel.use((channel) =>
                Effect.zipRight(Deferred.succeed(borrowed, channel), Deferred.await(gate))
              ).pipe(Effect.scoped, Effect.provide(context))
            )
          )
          const channel = yield* Deferred.await(borrowed)
          if (network !== "works") proxy.stall()
          const began = performance.now()
          yield* Scope.close(scope, Exit.void)
          const took = performance.now() - began
          // At least as long as borrowers have, and at most `shutdownTimeout` and twice `closeTimeout`.
          assert.isAbove(took, 190)
          assert.isBelow(took, 600 + 400)
          assert.strictEqual(yield* tagOf(channel.queueDeclare("late")), "ChannelReleased")
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.join(borrower)
        })
      )
    }
  })

  describe("11. Recycling by age (with jitter) and by idleness are two settings; neither resets the other; none cuts a borrower off.", () => {
    const onTestClock = <A, E>(pool: AmqpConfig.PoolOptions, program: Effect.Effect<A, E, Amqp.Amqp>) =>
      program.pipe(Effect.provide(Application.amqp({ pool })), Effect.provide(TestContext.TestContext))

    it.effect("a channel that is used often is replaced by its age, when its borrower has returned it", () =>
      onTestClock(
        { max: 1, recycle: "60 seconds", idleTimeout: "30 seconds" },
        Effect.gen(function* () {
          for (let i = 0; i < 4; i++) {
            yield* declare
            yield* TestClock.adjust("12 seconds")
          }
          assert.deepInclude(yield* counts, { created: 1, idle: 1 })
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.zipRight(TestClock.adjust("2 minutes"), channel.queueDeclare("", { exclusive: true }))
            )
          )
          yield* declare
          assert.deepInclude(yield* AmqpPool.stats, { created: 2, recycled: 1, discarded: 0 })
        })
      )
    )

    it.effect("a channel that is idle is closed, however young it is", () =>
      onTestClock(
        { max: 2, recycle: Duration.infinity, idleTimeout: "30 seconds" },
        Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const held = yield* AmqpPool.get
              yield* declare
              yield* TestClock.adjust("20 seconds")
              assert.deepInclude(yield* counts, { idle: 1, used: 1 })
              yield* TestClock.adjust("40 seconds")
              yield* untilStats(({ idle }) => idle === 0)
              // The other one was not idle, but borrowed.
              yield* held.queueDeclare("", { exclusive: true })
            })
          )
          assert.deepInclude(yield* counts, { created: 2, idle: 1, used: 0 })
        })
      )
    )
  })

  describe("12. A confirmed publish resolves once, and never as success without the broker's ack.", () => {
    it.effect("a message that the broker refuses is PublishNacked, and the others are in the queue", () =>
      Effect.gen(function* () {
        const { queues } = yield* Broker
        yield* Effect.scoped(
          AmqpChannel.use((channel) => channel.queueDeclare("full", { maxLength: 3, overflow: "reject-publish" }))
        )
        const message = { routingKey: "full", content: "x" }
        const ways: ReadonlyArray<Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp>> = [
          AmqpPublisher.publish(message),
          Effect.scoped(AmqpChannel.useConfirm((channel) => channel.publish(message)))
        ]
        const outcomes = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, i) => ways[i % 2]!),
          (way) => Effect.either(way),
          { concurrency: "unbounded" }
        )
        const refused = outcomes.filter(Either.isLeft)
        assert.isAbove(refused.length, 0)
        for (const { left } of refused) assert.strictEqual(left.reason._tag, "PublishNacked")
        const { messages } = yield* Effect.map(
          until(queues, (all) => all.some(({ name }) => name === "full")),
          (all) => all.find(({ name }) => name === "full")!
        )
        assert.strictEqual(outcomes.filter(Either.isRight).length, messages)
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.scoped("messages whose confirms are lost with the connection are PublishUnknown", () =>
      Effect.gen(function* () {
        const { queues } = yield* Broker
        const { proxy, url } = yield* proxied
        yield* Effect.gen(function* () {
          const publisher = yield* AmqpPublisher.AmqpPublisher
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("unknown")))
          const message = { routingKey: "unknown", content: "x" }
          yield* publisher.publish(message)
          proxy.stall("down")
          let ends = 0
          const fibers = yield* Effect.replicateEffect(
            Effect.fork(
              Effect.ensuring(
                Effect.either(publisher.publish(message)),
                Effect.sync(() => ends++)
              )
            ),
            200
          )
          // They are in the queue, and no confirm has arrived.
          yield* until(queues, (all) => all.some(({ messages, name }) => name === "unknown" && messages === 201))
          assert.strictEqual(ends, 0)
          proxy.rst()
          proxy.heal()
          const outcomes = yield* Effect.forEach(fibers, Fiber.join)
          for (const outcome of outcomes) {
            assert(Either.isLeft(outcome))
            assert.strictEqual(outcome.left.reason._tag, "PublishUnknown")
          }
          assert.strictEqual(ends, 200)
          const stats = yield* publisher.stats
          assert.deepInclude(stats, { confirmed: 1, inFlight: 0, unknown: 200, waiting: 0 })
        }).pipe(Effect.provide(Amqp.layer({ url })))
      })
    )
  })

  describe("14. A delivery settles at most once, and only on the channel that delivered it. A late ack is a typed error, not a 406.", () => {
    it.effect("a second settlement, one on another channel, and one after the connection are typed errors", () =>
      Effect.gen(function* () {
        const { closeConnections } = yield* Broker
        const pool = yield* AmqpPool.AmqpPool
        yield* Effect.scoped(
          Effect.gen(function* () {
            const channel = yield* pool.get
            const other = yield* pool.get
            yield* channel.queueDeclare("settled")
            yield* channel.publish({ routingKey: "settled", content: "a" })
            yield* channel.publish({ routingKey: "settled", content: "b" })
            const first = Option.getOrThrow(yield* channel.get("settled"))
            const late = Option.getOrThrow(yield* channel.get("settled"))
            assert.strictEqual(yield* tagOf(other.ack(first)), "DeliverySettled")
            yield* channel.ack(first)
            assert.strictEqual(yield* tagOf(channel.ack(first)), "DeliverySettled")
            assert.strictEqual(yield* tagOf(channel.nack(first)), "DeliverySettled")
            yield* channel.queueDeclarePassive("settled")
            yield* closeConnections
            yield* until(AmqpPool.stats, ({ idle }) => idle === 0)
            const { state } = yield* AmqpConnection.AmqpConnection
            yield* until(state.get, (now) => now._tag === "Open" && now.generation === 2)
            assert.strictEqual(yield* tagOf(channel.ack(late)), "ConnectionClosed")
          })
        )
        assert.deepInclude(yield* counts, { used: 0 })
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.scoped("in a consumer's stream, too", () =>
      Effect.gen(function* () {
        const { closeConnections } = yield* Broker
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("streamed")))
        yield* AmqpPublisher.publish({ routingKey: "streamed", content: "a" })
        yield* AmqpPublisher.publish({ routingKey: "streamed", content: "b" })
        const deliveries = yield* Queue.unbounded<AmqpConsumer.Delivery>()
        yield* Effect.forkScoped(
          Stream.runForEach(AmqpConsumer.stream("streamed", { resubscribe: "lost" }), (each) => deliveries.offer(each))
        )
        const first = yield* deliveries.take
        const second = yield* deliveries.take
        yield* first.ack
        assert.isTrue(first.isSettled)
        assert.strictEqual(yield* tagOf(first.ack), "DeliverySettled")
        assert.strictEqual(yield* tagOf(first.nack({ requeue: true })), "DeliverySettled")
        yield* closeConnections
        // It comes again, on the next connection: the first one can no longer be settled.
        const again = yield* deliveries.take
        assert.deepStrictEqual([AmqpMessage.text(again), again.redelivered], ["b", true])
        assert.strictEqual(yield* tagOf(second.ack), "DeliverySettled")
        yield* again.ack
      }).pipe(Effect.provide(Application.amqp()))
    )
  })

  describe("15. A consumer's end is explicit: a server cancel or a lost channel is an error with its reason or a resubscription, never silence.", () => {
    it.scoped("a queue that is deleted ends the consumer, the batches and the stream with ConsumerCancelled", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* Broker
        const ends: Array<AmqpConsumer.End> = []
        const never = {
          resubscribe: "never",
          onEnd: (end: AmqpConsumer.End) => Effect.sync(() => ends.push(end))
        } as const
        const consumers = [
          AmqpConsumer.consume("deleted", () => Effect.void, never),
          AmqpConsumer.consumeBatch("deleted", () => Effect.void, { ...never, size: 2, within: "1 second" }),
          Stream.runDrain(AmqpConsumer.stream("deleted", never))
        ]
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("deleted")))
        const fibers = yield* Effect.forEach(consumers, (consumer) => Effect.fork(tagOf(consumer)))
        yield* awaitCensus({ consumers: 3 })
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("deleted")))
        for (const fiber of fibers) assert.strictEqual(yield* Fiber.join(fiber), "ConsumerCancelled")
        assert.deepStrictEqual(
          ends.map(({ queue, reason }) => [queue, reason?.reason._tag]),
          Array.from({ length: 3 }, () => ["deleted", "ConsumerCancelled"])
        )
        assert.isTrue(ends.every(({ reason }) => reason instanceof AmqpError.AmqpError))
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.scoped("a lost connection is a resubscription, whose declare runs in Effect 3 each time", () =>
      Effect.gen(function* () {
        const { awaitCensus, closeConnections } = yield* Broker
        let declared = 0
        const seen = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume("resubscribed", (delivery) => seen.offer(AmqpMessage.text(delivery)), {
            declare: (channel) =>
              Effect.zipRight(
                Effect.sync(() => declared++),
                Effect.asVoid(channel.queueDeclare("resubscribed"))
              )
          })
        )
        for (const round of ["1", "2", "3"]) {
          yield* awaitCensus({ consumers: 1 })
          yield* Effect.retry(AmqpPublisher.publish({ routingKey: "resubscribed", content: round }), {
            while: ({ isRetryable }) => isRetryable
          })
          assert.strictEqual(yield* seen.take, round)
          // A delivery whose acknowledgement has not arrived comes again.
          yield* awaitCensus({ unacked: 0 })
          if (round !== "3") yield* closeConnections
        }
        assert.strictEqual(declared, 3)
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.scoped("a declare that fails ends the consumer with its own error", () =>
      Effect.gen(function* () {
        // The consumed queue exists, so only what `declare` looks for can be missing.
        yield* AmqpChannel.use((channel) => channel.queueDeclare("declared"))
        yield* AmqpPublisher.publish({ routingKey: "declared", content: "x" })
        const handled = yield* Deferred.make<string>()
        const ended = tagOf(
          AmqpConsumer.consume("declared", () => Deferred.succeed(handled, "handled"), {
            declare: (channel) => Effect.asVoid(channel.queueDeclarePassive("undeclared"))
          })
        )
        assert.strictEqual(yield* Effect.raceFirst(ended, Deferred.await(handled)), "NotFound")
      }).pipe(Effect.provide(Application.amqp()))
    )
  })

  describe("16. A handle used after its scope closed fails with `ChannelReleased`; it never touches the next borrower's channel.", () => {
    it.effect("whatever it is used for", () =>
      Effect.gen(function* () {
        const stale = yield* Effect.scoped(AmqpChannel.use(Effect.succeed))
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              assert.notStrictEqual(channel, stale)
              const { queue } = yield* channel.queueDeclare("", { exclusive: true })
              yield* channel.publish({ routingKey: queue, content: "mine" })
              const delivery = Option.getOrThrow(yield* channel.get(queue))
              const uses: ReadonlyArray<Effect.Effect<unknown, AmqpError.AmqpError>> = [
                stale.publish({ routingKey: queue, content: "stale" }),
                stale.get(queue),
                stale.ack(delivery),
                stale.nack(delivery),
                stale.reject(delivery),
                stale.recover,
                stale.qos(1),
                stale.consume(queue),
                stale.queueDeclare("stale"),
                stale.queueDeclarePassive(queue),
                stale.queueBind(queue, "amq.fanout", ""),
                stale.queuePurge(queue),
                stale.queueDelete(queue),
                stale.exchangeDeclare("stale", "fanout")
              ]
              for (const use of uses) assert.strictEqual(yield* tagOf(use), "ChannelReleased")
              yield* channel.ack(delivery)
              assert.isTrue(Option.isNone(yield* channel.get(queue)))
            })
          )
        )
        assert.deepInclude(yield* counts, { created: 1, discarded: 0 })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )

    it.effect("an operation that runs when its scope closes ends, and its channel is not lent again", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.tap(Effect.forkDaemon(channel.queueDeclare("", { exclusive: true })), Effect.yieldNow())
          )
        )
        const exit = yield* Fiber.await(fiber)
        assert(Exit.isFailure(exit))
        assert.strictEqual(Option.getOrThrow(Cause.failureOption(exit.cause)).reason._tag, "ChannelReleased")
        yield* declare
        assert.deepInclude(yield* counts, { created: 2, discarded: 1 })
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )
  })
})

layer(layerPrivate, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("13. Blocked publishers wait or fail as configured; blocked state dies with its connection; consumers go on consuming and acking.", () => {
    it.scoped("on a broker with a memory alarm", () =>
      Effect.gen(function* () {
        const { awaitCensus, blockPublishers, closeConnections, unblockPublishers } = yield* Broker
        const { flow } = yield* AmqpConnection.AmqpConnection
        const message = (content: string) => ({ routingKey: "blocked", content })
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("blocked")))
        const seen = yield* Queue.unbounded<string>()
        const goOn = yield* Deferred.make<void>()
        yield* AmqpPublisher.publish(message("before"))
        yield* Effect.forkScoped(
          AmqpConsumer.consume("blocked", (delivery) =>
            Effect.zipRight(Deferred.await(goOn), seen.offer(AmqpMessage.text(delivery)))
          )
        )
        yield* awaitCensus({ unacked: 1 })
        yield* blockPublishers
        const waiting = yield* Effect.fork(AmqpPublisher.publish(message("waited")))
        const blocked = yield* Stream.runHead(Stream.filter(flow.changes, ({ _tag }) => _tag === "Blocked"))
        assert.isTrue(Option.isSome(blocked))
        assert.strictEqual(
          yield* tagOf(AmqpPublisher.publish(message("never"), { onBlocked: "fail" })),
          "PublishForbidden"
        )
        yield* Deferred.succeed(goOn, undefined)
        assert.strictEqual(yield* seen.take, "before")
        yield* awaitCensus({ unacked: 0 })
        assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
        yield* closeConnections
        yield* until(flow.get, ({ _tag }) => _tag === "Flowing")
        yield* unblockPublishers
        const outcome = yield* Fiber.await(waiting)
        // It was sent to the first connection, or waited for the second one.
        if (Exit.isSuccess(outcome)) assert.strictEqual(yield* seen.take, "waited")
        else assert.strictEqual(Option.getOrThrow(Cause.failureOption(outcome.cause)).reason._tag, "PublishUnknown")
        yield* AmqpPublisher.publish(message("after"))
        yield* until(seen.take, (content) => content === "after")
      }).pipe(Effect.provide(Application.amqp()))
    )
  })
})
