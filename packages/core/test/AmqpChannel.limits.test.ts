/** The number of channels that an application can open: limits of the connection, the user and the node. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConnection, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Clock, Duration, Effect, Fiber, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import { ChannelBudget, ChannelPermit } from "../src/internal/connection/channelBudget.ts"
import { channelLimitIn } from "../src/internal/connection/brokerTexts.ts"
import type { Link } from "../src/internal/connection/link.ts"
import { configOf, reasonOf } from "./support/amqp.ts"
import { until } from "./support/polling.ts"
import { range } from "./support/ranges.ts"
import { outcomeOf, start, startAll, joinAll, tally } from "./support/publisher.ts"
import * as Users from "./support/users.ts"

const application = (url: string, overrides: Parameters<typeof configOf>[1]) =>
  Effect.provide(Amqp.layer(configOf(url, overrides)), { local: true })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a user who may open few channels", () => {
    it.effect(
      "learns the limit by losing a connection; then borrowers and publishers wait for a channel, and consumers continue",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const user = yield* Users.make("limited")
          yield* user.limitChannels(4)
          const own = new URL(broker.url)
          own.username = user.name
          own.password = "limited"
          const warnings: Array<string> = []
          const queue = `limited-${process.pid}`
          yield* Effect.gen(function* () {
            const { state } = yield* AmqpConnection.AmqpConnection
            const generation = () => (state.value._tag === "Open" ? state.value.generation : 0)
            yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
            let handled = 0
            yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => Effect.sync(() => void handled++)))
            const borrow = Effect.scoped(
              AmqpChannel.use((channel) => Effect.andThen(channel.queueDeclarePassive(queue), Effect.sleep(20)))
            )
            const round = Effect.gen(function* () {
              const borrowers = yield* Effect.forEach(range(8), () => Effect.forkChild(Effect.exit(borrow)))
              const publishes = yield* startAll(
                range(4).map(() => outcomeOf(AmqpPublisher.publish({ routingKey: queue, content: "x" })))
              )
              const borrowed = yield* Effect.forEach(borrowers, (fiber) => Fiber.join(fiber))
              return {
                failed: borrowed.filter((exit) => exit._tag === "Failure").length,
                published: tally(yield* joinAll(publishes))
              }
            })
            // The broker does not announce the limit. The loss of a connection reveals it.
            yield* until(Effect.andThen(round, Effect.sync(generation)), (n) => n >= 2, "the connection", 40)
            // The broker notices the loss with a delay: until then the lost connection's channels count as well.
            const undisturbed = Effect.gen(function* () {
              const learned = generation()
              for (let i = 0; i < 6; i++) {
                const { failed, published } = yield* round
                if (failed > 0 || published["Confirmed"] !== 4) return false
              }
              return generation() === learned
            })
            yield* until(undisturbed, (isUndisturbed) => isUndisturbed, "borrowers and publishers", 40)
            yield* until(
              Effect.sync(() => handled),
              (n) => n >= 24,
              "messages handled"
            )
            assert.isAtLeast(warnings.filter((text) => text.startsWith("AMQP channel limit reached")).length, 1)
            const { channels } = yield* broker.census
            assert.isAtMost(channels, 4)
          }).pipe(
            Effect.scoped,
            application(own.href, { pool: { max: 16, acquireTimeout: Duration.seconds(20) } }),
            Effect.provideService(References.MinimumLogLevel, "Warn"),
            Effect.provideService(
              Logger.CurrentLoggers,
              new Set([Logger.make(({ message }) => void warnings.push(String(message)))])
            )
          )
        })
    )
  })

  describe("idle channels of a pool that hold every number of the connection", () => {
    it.effect("are closed for a publisher: first the one that was idle for longest", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = `idle-${process.pid}`
        yield* Effect.gen(function* () {
          const { state } = yield* AmqpConnection.AmqpConnection
          yield* Effect.scoped(
            Effect.gen(function* () {
              const channels = yield* Effect.forEach(range(3), () => AmqpPool.get)
              yield* channels[0]!.queueDeclare(queue, { autoDelete: true })
            })
          )
          assert.deepInclude(yield* AmqpPool.stats, { idle: 3 })
          const sent = yield* joinAll(
            yield* startAll(range(20).map(() => outcomeOf(AmqpPublisher.publish({ routingKey: queue, content: "x" }))))
          )
          assert.deepStrictEqual(tally(sent), { Confirmed: 20 })
          assert.deepInclude(yield* AmqpPool.stats, { idle: 2 })
          assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
        }).pipe(application(broker.url, { channelMax: 3, pool: { max: 3 } }))
      })
    )

    it.effect("are closed for a pool of another kind, and a borrowed one is not", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          yield* Effect.scoped(Effect.forEach(range(3), () => AmqpPool.get))
          yield* Effect.scoped(
            Effect.gen(function* () {
              const borrowed = yield* Effect.forEach(range(2), () => AmqpPool.get)
              yield* AmqpChannel.useConfirm((channel) => channel.queueDeclare("", { exclusive: true }))
              for (const channel of borrowed) yield* channel.queueDeclare("", { exclusive: true })
              const reason = yield* reasonOf(Effect.scoped(AmqpPool.get))
              assert.strictEqual(reason._tag, "ChannelMaxReached")
            })
          )
        }).pipe(application(broker.url, { channelMax: 3, pool: { max: 3 } }))
      })
    )
  })
})

describe("the budget of channels", () => {
  const link = (channelMax = 0) => ({ channelMax, closedBy: undefined }) as unknown as Link
  const made = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const fork = Effect.runForkWith(yield* Effect.context())
    const limits: Array<number | undefined> = []
    const now = () => clock.currentTimeMillisUnsafe()
    const budget = new ChannelBudget({ now, fork, limited: (allowed) => void limits.push(allowed) })
    return { budget, limits }
  })
  const open = (budget: ChannelBudget, of: Link) => {
    const ticket = new ChannelPermit(budget, of)
    assert.isTrue(budget.tryAcquire(ticket))
    ticket.isOwned = true
    ticket.opened()
    return ticket
  }
  const refusal = (limit: number) =>
    `NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (${limit})`

  plain("recognizes the broker's messages about channel limits of users and of nodes", () => {
    assert.strictEqual(channelLimitIn(refusal(4)), 4)
    assert.strictEqual(
      channelLimitIn("NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed limit of 7"),
      7
    )
    assert.strictEqual(
      channelLimitIn("NOT_ALLOWED - number of channels opened on node 'n' has reached the maximum allowed limit of 8"),
      8
    )
    assert.isUndefined(channelLimitIn("NOT_ALLOWED - access to vhost refused"))
  })

  plain.effect(
    "allows, after a refusal, the number that was open, the first waiter first, and more after a pause",
    () =>
      Effect.gen(function* () {
        const { budget, limits } = yield* made
        const [first, second] = [link(), link()]
        range(2).forEach(() => open(budget, first))
        budget.linkEnded(first, refusal(4))
        assert.deepStrictEqual(limits, [2])
        // The lost connection's channels count until the broker has noticed the loss.
        assert.isTrue(budget.isFull(second))
        yield* TestClock.adjust("1 second")
        const held = range(2).map(() => open(budget, second))
        const order: Array<string> = []
        const wait = (name: string, timeout: Duration.Duration = Duration.infinity) => {
          const ticket = new ChannelPermit(budget, second)
          assert.isFalse(budget.tryAcquire(ticket))
          const granted = Effect.sync(() => {
            ticket.isOwned = true
            order.push(name)
          })
          return Effect.ensuring(
            Effect.andThen(budget.acquire(ticket, timeout), granted),
            Effect.sync(() => ticket.openingEnded())
          )
        }
        const early = yield* start(Effect.exit(wait("early", Duration.seconds(1))))
        const given = yield* start(wait("given up"))
        const late = yield* start(wait("late"))
        yield* Fiber.interrupt(given)
        yield* TestClock.adjust(1000)
        assert.strictEqual((yield* Fiber.join(early))._tag, "Failure")
        held[0]!.release()
        yield* TestClock.adjust(200)
        yield* Fiber.join(late)
        assert.deepStrictEqual(order, ["late"])
        assert.isTrue(budget.isFull(second))
        // The number that the broker has named is allowed now, and an hour later there is no limit any more.
        yield* TestClock.adjust("8 seconds")
        range(2).forEach(() => open(budget, second))
        assert.isTrue(budget.isFull(second))
        assert.deepStrictEqual(limits, [2])
        yield* TestClock.adjust("1 hour")
        assert.isFalse(budget.isFull(second))
        assert.deepStrictEqual(limits, [2, undefined])
      })
  )

  plain.effect("allows the number that the broker has named, after a refusal that our own openings explain", () =>
    Effect.gen(function* () {
      const { budget, limits } = yield* made
      const lost = link()
      range(2).forEach(() => open(budget, lost))
      // Three more openings were under way.
      range(3).forEach(() => assert.isTrue(budget.tryAcquire(new ChannelPermit(budget, lost))))
      budget.linkEnded(lost, refusal(4))
      assert.deepStrictEqual(limits, [4])
      yield* TestClock.adjust("1 second")
      const next = link()
      range(4).forEach(() => open(budget, next))
      assert.isTrue(budget.isFull(next))
    })
  )

  plain.effect("delays no caller on a connection with free numbers while another connection has none", () =>
    Effect.gen(function* () {
      const { budget } = yield* made
      const [full, other] = [link(1), link(1)]
      const only = open(budget, full)
      const next = new ChannelPermit(budget, full)
      assert.isFalse(budget.tryAcquire(next))
      assert.strictEqual((yield* reasonOf(budget.acquire(next, Duration.infinity)))._tag, "ChannelMaxReached")
      open(budget, other)
      only.release()
      assert.isTrue(budget.tryAcquire(next))
    })
  )
})
