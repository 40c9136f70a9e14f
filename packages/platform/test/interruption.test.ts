// Fibers of Effect 3 that are interrupted at random moments: nothing of them is left on either side, nor in the broker.
import {
  AmqpChannel,
  AmqpConsumer,
  AmqpError,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc,
  AmqpTopology,
  type Amqp
} from "@effect-amqp/platform"
import { assert, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, FiberId, type Scope } from "effect"
import { randomOf } from "../../core/chaos/random.ts"
import * as Application from "./support/application.ts"
import { Broker, layer as BrokerLayer } from "./support/Broker.ts"
import * as Fibers from "./support/fibers.ts"
import { turn, until } from "./support/polling.ts"

const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000)

const max = 4

const workers = 8

const Echo = AmqpRpc.make("interrupted.echo", { payload: AmqpRpc.Content, success: AmqpRpc.Content })

const contentOf = (byte: number) => ({
  content: Uint8Array.of(byte),
  contentType: undefined,
  contentEncoding: undefined
})

const call = (byte: number) => AmqpRpc.client(Echo, { timeout: "1 minute" })(contentOf(byte))

type Body = Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp | Scope.Scope>

/** What one fiber does, and how many fibers do so at a time. The numbers add up to 20,000. */
interface Kind {
  readonly fibers: number
  readonly atOnce: number
  readonly endless?: boolean
  /** Bodies of fibers. `middle` runs where a fiber has what it asked for. */
  readonly bodies: ReadonlyArray<(middle: Effect.Effect<void>) => Body>
}

const message = { routingKey: "interrupted", content: "x" }

/** A handler counts itself, so that the test sees one whose finalizers have not run. */
const handlers = { begun: 0, ended: 0, served: 0 }

const handler = (middle: Effect.Effect<void>) => () =>
  Effect.zipRight(
    Effect.acquireRelease(
      Effect.sync(() => handlers.begun++),
      () => Effect.sync(() => handlers.ended++)
    ),
    Effect.zipRight(
      middle,
      Effect.zipRight(Effect.scoped(AmqpChannel.use((channel) => channel.publish(message))), Effect.never)
    )
  )

const kinds: Record<string, Kind> = {
  "borrowed channels": {
    fibers: 8000,
    atOnce: 200,
    bodies: [
      (middle) => AmqpChannel.use((channel) => Effect.zipRight(middle, channel.publish(message))),
      (middle) => AmqpChannel.use((channel) => Effect.zipRight(middle, channel.queueDeclarePassive("interrupted"))),
      (middle) => AmqpChannel.useConfirm((channel) => Effect.zipRight(middle, channel.publish(message))),
      (middle) => AmqpChannel.useTransaction((channel) => Effect.zipRight(middle, channel.publish(message))),
      (middle) =>
        Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
          pool.use((channel) => Effect.zipRight(middle, channel.get("interrupted", { noAck: true })))
        ),
      (middle) =>
        Effect.flatMap(AmqpPool.get, (channel) => Effect.zipRight(middle, Effect.asVoid(channel.get("interrupted")))),
      // An exclusive queue stays as long as the connection, so its borrower deletes it.
      (middle) =>
        AmqpChannel.use((channel) =>
          Effect.zipRight(
            Effect.acquireRelease(channel.queueDeclare("", { exclusive: true }), ({ queue }) =>
              Effect.orDie(channel.queueDelete(queue))
            ),
            middle
          )
        )
    ]
  },
  publishes: {
    fibers: 6000,
    atOnce: 500,
    bodies: [
      () => AmqpPublisher.publish(message),
      () =>
        AmqpError.catchReason(
          AmqpPublisher.publish({ routingKey: "nowhere", content: "x" }, { mandatory: true }),
          "PublishReturned",
          () => Effect.void
        )
    ]
  },
  "calls and their servers": {
    fibers: 5000,
    atOnce: 500,
    bodies: [() => call(1)]
  },
  "consumers and their handlers": {
    fibers: 1000,
    atOnce: 50,
    endless: true,
    bodies: [
      (middle) =>
        AmqpConsumer.consume("interrupted.handled", handler(middle), { concurrency: 4, shutdownTimeout: "0 millis" }),
      (middle) =>
        AmqpConsumer.consumeBatch("interrupted.handled", handler(middle), {
          size: 2,
          within: "5 millis",
          shutdownTimeout: "0 millis"
        })
    ]
  }
}

/**
 * Interrupts half of the fibers soon after their start, and half in their middle, or after their end if they get there
 * first. A number of turns alone would miss the middle: how many it takes depends on the broker.
 */
const wave = ({ atOnce, bodies, fibers }: Kind, random: ReturnType<typeof randomOf>) => {
  const exits = { completed: 0, interrupted: 0, failed: Array.of<string>() }
  const one = Effect.gen(function* () {
    const middle = yield* Deferred.make<void>()
    const reached = Effect.asVoid(Deferred.succeed(middle, undefined))
    const fiber = yield* Effect.fork(Effect.ensuring(Effect.scoped(random.one(bodies)(reached)), reached))
    if (random.below(2) === 0) yield* Deferred.await(middle)
    const yields = random.below(30)
    for (let i = 0; i < yields; i++) yield* Effect.yieldNow()
    const turns = random.below(4)
    for (let i = 0; i < turns; i++) yield* turn
    const exit = yield* Fiber.interrupt(fiber)
    if (Exit.isSuccess(exit)) exits.completed++
    else if (Cause.isInterruptedOnly(exit.cause)) exits.interrupted++
    else exits.failed.push(Cause.pretty(exit.cause))
  })
  return Effect.as(
    Effect.forEach(Array.from({ length: fibers }), () => one, { concurrency: atOnce, discard: true }),
    exits
  )
}

/** A server, whose workers all wait for each other when they get a 0. */
const serve = Effect.suspend(() => {
  let meeting = Deferred.unsafeMake<void>(FiberId.none)
  let met = 0
  const meet = Effect.suspend(() => {
    const { met: now, meeting: together } = { met: ++met, meeting }
    if (now < workers) return Deferred.await(together)
    met = 0
    meeting = Deferred.unsafeMake<void>(FiberId.none)
    return Deferred.succeed(together, undefined)
  })
  return AmqpRpc.serve(
    Echo,
    (content) => {
      handlers.served++
      return Effect.as(content.content[0] === 0 ? meet : turn, content)
    },
    { concurrency: workers }
  )
})

/**
 * Lets each pool open all its channels and the server start all its workers, so that what they keep in the background
 * is there before and after.
 */
const fill = Effect.gen(function* () {
  const pool = yield* AmqpPool.AmqpPool
  for (const { get } of [pool, pool.confirm, pool.transaction])
    yield* Effect.scoped(Effect.all(Array.from({ length: max }, () => get)))
  yield* Effect.all(
    Array.from({ length: workers }, () => call(0)),
    { concurrency: workers, discard: true }
  )
})

const counts = Effect.gen(function* () {
  const pool = yield* AmqpPool.AmqpPool
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const pools = yield* Effect.all([pool.stats, pool.confirm.stats, pool.transaction.stats])
  const { inFlight, waiting } = yield* publisher.stats
  return {
    pools: pools.map(({ idle, pending, used }) => ({ idle, pending, used })),
    publisher: { inFlight, waiting },
    calls: (yield* AmqpRpc.stats).inFlight
  }
})

/**
 * The fibers that wait for the next deadline of several things. They come when there is one, and end at a deadline, so
 * each owner has one or none.
 */
const timer = /\b(Waiters|LongBorrows|Deadlines)\./

/**
 * Each of the three pools has a wait queue, a search for long borrows and the deadlines of its channels. The publisher,
 * the client, the server and its consumer, the resident consumer and the two connections have one each.
 */
const mostTimers = 3 * 3 + 7

type Watched = Effect.Effect.Success<typeof Fibers.watch>

const timersOf = ({ origins }: Effect.Effect.Success<Watched>) =>
  Object.entries(origins).reduce((sum, [origin, count]) => (timer.test(origin) ? sum + count : sum), 0)

/** What an application has when nothing runs in it: its counts, its fibers, and the broker's census. */
const resting = (fibers: Watched) =>
  Effect.gen(function* () {
    const { census, queues } = yield* Broker
    yield* until(queues, (all) =>
      all.every(({ messages, name, unacked }) => name !== Echo.queue || messages + unacked === 0)
    )
    yield* fill
    const { channels, connections, consumers, queues: queueCount, unacked } = yield* census
    const now = yield* fibers
    return {
      ...(yield* counts),
      broker: { channels, connections, consumers, queues: queueCount, unacked },
      effect3: now.effect3,
      effect4: now.effect4 - timersOf(now)
    }
  })

/** The same when it is as expected, or after a minute. The race of a timeout would add a root fiber. */
const rested = (fibers: Watched, expected: unknown) => {
  const deadline = Date.now() + 60_000
  return until(resting(fibers), (now) => JSON.stringify(now) === JSON.stringify(expected) || Date.now() > deadline)
}

/** Notes what would end a process or fill its memory, until the scope ends. */
const errors = Effect.acquireRelease(
  Effect.sync(() => {
    const all: Array<unknown> = []
    const note = (error: unknown) => void all.push(error)
    process.on("unhandledRejection", note).on("uncaughtExceptionMonitor", note).on("warning", note)
    return { all, note }
  }),
  ({ note }) =>
    Effect.sync(() =>
      process.off("unhandledRejection", note).off("uncaughtExceptionMonitor", note).off("warning", note)
    )
)

const listeners = () => Object.fromEntries(process.eventNames().map((name) => [name, process.listenerCount(name)]))

layer(BrokerLayer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.scoped(
    `20,000 fibers interrupted at random leave nothing on either side (SEED=${seed})`,
    () =>
      Effect.gen(function* () {
        assert.strictEqual(
          Object.values(kinds).reduce((sum, { fibers }) => sum + fibers, 0),
          20_000
        )
        const random = randomOf(seed)
        const fibers = yield* Fibers.watch
        const { all } = yield* errors
        yield* Effect.gen(function* () {
          yield* AmqpTopology.declare(
            AmqpTopology.make(
              AmqpTopology.queue("interrupted", { maxLength: 100 }),
              AmqpTopology.queue("interrupted.handled"),
              AmqpTopology.queue("resident"),
              // A request that is dropped has no reply, and its call would wait for its timeout.
              AmqpTopology.queue(Echo.queue)
            )
          )
          yield* Effect.forkScoped(serve)
          // The connection of the consumers stays open as long as there is one.
          yield* Effect.forkScoped(AmqpConsumer.consume("resident", () => Effect.void))
          for (let i = 0; i < 100; i++)
            yield* AmqpPublisher.publish({ routingKey: "interrupted.handled", content: "x" })
          // Everything once, so that what begins at the first use has begun.
          for (const kind of Object.values(kinds)) yield* wave({ ...kind, fibers: kind.bodies.length * 3 }, random)
          const before = yield* resting(fibers)
          const listening = listeners()
          for (const [name, kind] of Object.entries(kinds)) {
            const exits = yield* wave(kind, random)
            assert.deepStrictEqual(exits.failed, [], name)
            assert.isAbove(exits.interrupted, kind.fibers / 20, name)
            // A consumer never completes.
            if (kind.endless !== true) assert.isAbove(exits.completed, kind.fibers / 20, name)
            const after = yield* rested(fibers, before)
            const live = yield* fibers
            assert.deepStrictEqual(after, before, `${name}: the fibers of Effect 4 are ${JSON.stringify(live.origins)}`)
            assert.isAtMost(timersOf(live), mostTimers, JSON.stringify(live.origins))
          }
          assert.isAbove(handlers.served, 1000)
          assert.isAbove(handlers.begun, 400)
          assert.strictEqual(handlers.ended, handlers.begun)
          assert.deepStrictEqual(listeners(), listening)
          assert.deepStrictEqual(all, [])
        }).pipe(Effect.scoped, Effect.provide(Application.amqp({ pool: { max, acquireTimeout: "1 minute" } })))
        const { awaitCensus } = yield* Broker
        yield* awaitCensus({ connections: 0, channels: 0, consumers: 0 })
        const { effect4, origins } = yield* fibers
        assert.strictEqual(effect4, 0, JSON.stringify(origins))
      }),
    300_000
  )
})
