/** Publishers while the connection dies, is blocked, or is absent: the outcome of each message, and what it cost. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Stream, SubscriptionRef, Schedule } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { reasonOf, untilState, withPool } from "./support/amqp.ts"
import { encodeMessage } from "./support/frames.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { bytesHeld } from "./support/heap.ts"
import {
  closable,
  joinAll,
  outcomeOf,
  published,
  start,
  startAll,
  tally,
  untilFlow,
  untilStats,
  withPublisher
} from "./support/publisher.ts"
import { eventually, until } from "./support/polling.ts"
import { range } from "./support/ranges.ts"
import { takeAll } from "./support/queues.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { limitBodies } from "./support/versions.ts"

const mebibyte = 2 ** 20

/** A queue of the broker, declared and emptied by a connection that no fault reaches. */
const aQueue = Effect.fnUntraced(function* (url: string) {
  const name = `outage-${yield* Effect.sync(() => ++queues)}`
  yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(name))).pipe(withPool(url))
  const contents = Effect.map(takeAll(name), (texts) => texts.map((text) => Number(text.split(" ", 1)[0]))).pipe(
    withPool(url)
  )
  return { name, contents }
})
let queues = 0

/** Waits until the broker has sent nothing for a while. */
const untilQuiet = ({ stats }: FaultProxy.FaultProxy) =>
  Effect.suspend(() => {
    let before = -1
    return Effect.sync(() => {
      const isQuiet = stats.down.dropped === before
      before = stats.down.dropped
      return isQuiet
    }).pipe(Effect.repeat({ until: (isQuiet) => isQuiet, schedule: Schedule.spaced("200 millis") }))
  })

const figures: Array<ReadonlyArray<string | number>> = []
const print = (title: string, rows: ReadonlyArray<ReadonlyArray<string | number>>) =>
  console.log(
    [
      title,
      ...rows.map((row) =>
        row
          .map((cell) => String(cell).padEnd(32))
          .join("")
          .trimEnd()
      )
    ].join("\n")
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a connection that dies with N unconfirmed publishes: each ends once, each success is in its queue, and waiting messages are sent on the next connection", () => {
    /**
     * How the connection dies. `arrived`: all messages had reached the broker, and the confirms were lost on their way.
     */
    const deaths = {
      "reset amid the last bytes": { arrived: false, by: undefined },
      "reset with all of them stored": { arrived: true, by: (proxy: FaultProxy.FaultProxy) => Effect.sync(proxy.rst) },
      "closed by the broker": {
        arrived: true,
        by: (_: FaultProxy.FaultProxy, broker: TestBroker.TestBroker["Service"]) => broker.closeConnections()
      },
      "killed in the broker": {
        arrived: true,
        by: (_: FaultProxy.FaultProxy, broker: TestBroker.TestBroker["Service"]) => broker.killConnections
      }
    }
    const queued = 20

    for (const n of [1, 100, 10_000]) {
      for (const [death, { arrived, by }] of Object.entries(deaths)) {
        it.effect(`${n}, ${death}`, () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const proxy = yield* FaultProxy.make(broker.url)
            const queue = yield* aQueue(broker.url)
            yield* Effect.gen(function* () {
              const send = (i: number) =>
                outcomeOf(AmqpPublisher.publish({ routingKey: queue.name, content: `${i} ${"x".repeat(100)}` }))
              assert.strictEqual(yield* send(-1), "Confirmed")
              const before = proxy.stats.up.bytes
              // What comes down is lost. What went up may be held, and is then released up to the cut.
              if (arrived) proxy.drop("down")
              else proxy.stall("up")
              const sent = yield* startAll(range(n).map(send))
              yield* untilStats((stats) => stats.inFlight === n)
              const waiting = yield* startAll(range(queued).map((i) => send(n + i)))
              yield* untilStats((stats) => stats.waiting === queued)
              if (by === undefined) {
                proxy.heal()
                proxy.drop("down")
                // The cut is halfway through the only message, or through all of them.
                proxy.cutAfter(n === 1 ? 60 : n * 80, "up")
                yield* proxy.until(({ reset }) => reset === 1)
                proxy.heal()
              } else {
                const arrivedAll = Effect.map(
                  broker.census,
                  ({ messages, unconfirmed }) => messages >= n && unconfirmed === 0
                )
                yield* eventually("they arrive", arrivedAll)
                // The last confirms are counted before they are sent, and would let waiting messages go out.
                yield* untilQuiet(proxy)
                proxy.heal()
                yield* by(proxy, broker)
              }
              const outcomes = yield* joinAll(sent)
              const later = yield* joinAll(waiting)
              assert.deepStrictEqual(tally(later), { Confirmed: queued })
              const stored = yield* queue.contents
              const times = new Map<number, number>()
              for (const i of stored) times.set(i, (times.get(i) ?? 0) + 1)
              for (const [i, outcome] of outcomes.entries()) {
                assert.include(["Confirmed", "PublishUnknown"], outcome)
                if (outcome === "Confirmed") assert.strictEqual(times.get(i), 1, `${i} was confirmed`)
                else assert.isAtMost(times.get(i) ?? 0, 1)
              }
              // These were never sent before, so each is there once.
              for (const i of range(queued)) assert.strictEqual(times.get(n + i), 1)
              if (arrived) assert.strictEqual(stored.length, 1 + n + queued)
              // The last of them had not been sent, in any case.
              else assert.isFalse(times.has(n - 1))
              const stats = yield* (yield* AmqpPublisher.AmqpPublisher).stats
              assert.deepInclude(stats, { inFlight: 0, waiting: 0, timedOut: 0, refused: 0 })
              assert.strictEqual(stats.confirmed + stats.unknown, 1 + n + queued)
              assert.isAbove(proxy.stats.up.bytes, before)
              const { Confirmed = 0, PublishUnknown = 0 } = tally(outcomes)
              figures.push([n, death, Confirmed, PublishUnknown, stored.length - 1 - queued, queued])
            }).pipe(withPublisher(proxy.through(broker.url), { maxInFlight: n, maxInFlightBytes: 2 ** 40 }))
          })
        )
      }
    }

    it.effect("the figures", () =>
      Effect.sync(() => {
        assert.strictEqual(figures.length, 12)
        print("Death with N unconfirmed publishes", [
          ["N", "death", "confirmed", "unknown", "of these N stored", "waiting, confirmed later"],
          ...figures
        ])
      })
    )
  })

  describe("a write buffer that is full when the connection dies", () => {
    it.effect(
      "each outcome says accurately whether it was sent, waiting messages are sent once on the next, and the memory is freed",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const proxy = yield* FaultProxy.make(broker.url)
          const queue = yield* aQueue(broker.url)
          yield* Effect.gen(function* () {
            const padding = "x".repeat(16_384)
            const send = (i: number, timeout: Duration.Input = "30 seconds") =>
              Effect.match(AmqpPublisher.publish({ routingKey: queue.name, content: `${i} ${padding}` }, { timeout }), {
                onFailure: ({ reason }) =>
                  reason._tag === "PublishTimeout" ? (`sent: ${reason.sent}` as const) : reason._tag,
                onSuccess: () => "Confirmed" as const
              })
            assert.strictEqual(yield* send(-1), "Confirmed")
            const before = bytesHeld()
            proxy.stall("up")
            const count = 3000
            // Every tenth publish times out before the connection dies.
            const patient = (i: number) => i % 10 !== 0
            const fibers = yield* startAll(range(count).map((i) => send(i, patient(i) ? "30 seconds" : "300 millis")))
            yield* untilFlow("Buffering")
            yield* untilStats((stats) => stats.timedOut === count / 10)
            const { inFlight, waiting } = yield* (yield* AmqpPublisher.AmqpPublisher).stats
            assert.isAbove(inFlight, 10)
            assert.isAbove(waiting, 100)
            proxy.rst()
            proxy.heal()
            const outcomes = yield* joinAll(fibers)
            const stored = yield* queue.contents
            const times = new Map<number, number>()
            for (const i of stored) times.set(i, (times.get(i) ?? 0) + 1)
            for (const [i, outcome] of outcomes.entries()) {
              const allowed = patient(i) ? ["Confirmed", "PublishUnknown"] : ["sent: true", "sent: false"]
              assert.include(allowed, outcome)
              if (outcome === "Confirmed") assert.strictEqual(times.get(i), 1, `${i} was confirmed`)
              if (outcome === "sent: false") assert.isFalse(times.has(i), `${i} was not sent`)
            }
            const counts: Record<string, number> = tally(outcomes as ReadonlyArray<string>)
            // All waiting publishes were sent. Those in flight are all unknown, or had timed out.
            assert.strictEqual(counts["Confirmed"], waiting)
            assert.strictEqual(counts["PublishUnknown"]! + counts["sent: true"]!, inFlight)
            assert.isAbove(counts["sent: false"]!, 0)
            assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 0, waiting: 0 })
            const grown = (bytesHeld() - before) / mebibyte
            assert.isBelow(grown, 10)
            print("Full write buffer, then death", [
              ...Object.entries(counts),
              ["MB kept afterwards", grown.toFixed(1)]
            ])
          }).pipe(
            withPublisher(proxy.through(broker.url), { channels: 1, maxInFlight: 100_000, maxInFlightBytes: 2 ** 40 })
          )
        })
    )
  })

  describe("while the connection is away", () => {
    it.effect(
      "400 MB offered grow the process by less than 50 MB; each publish times out or is sent once, afterwards",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const proxy = yield* FaultProxy.make(broker.url)
          const queue = yield* aQueue(broker.url)
          yield* Effect.gen(function* () {
            const size = 100_000
            // Each message has its own content.
            const content = (i: number) => Buffer.alloc(size, " ").fill(`${i} `, 0, 8)
            const send = (i: number, options?: AmqpChannel.PublishOptions) =>
              Effect.suspend(() =>
                outcomeOf(AmqpPublisher.publish({ routingKey: queue.name, content: content(i) }, options))
              )
            assert.strictEqual(yield* send(0), "Confirmed")
            const before = { held: bytesHeld(), rss: process.memoryUsage().rss }
            proxy.refuse()
            proxy.rst()
            yield* untilState((now) => now._tag === "Reconnecting")

            // A publish that may not wait fails at once.
            const impatient = yield* reasonOf(
              AmqpPublisher.publish({ routingKey: queue.name, content: content(1) }, { onBlocked: "fail" })
            )
            assert.strictEqual(impatient._tag, "PublishForbidden")
            assert.include(impatient.message, "there is no connection")

            // Fibers offer 300 MB, a source 100 MB.
            const short = yield* startAll(range(100).map((i) => send(10_000 + i, { timeout: "500 millis" })))
            const fibers = yield* startAll(range(2900).map((i) => send(20_000 + i)))
            let taken = 0
            const source = function* () {
              for (; taken < 1000; taken++) yield { routingKey: queue.name, content: content(30_000 + taken) }
            }
            const all = yield* start(Stream.runCount(AmqpPublisher.publishAll(source())))
            const turnedAway = fibers.filter((fiber) => fiber.pollUnsafe() !== undefined)
            const { waiting } = yield* untilStats((stats) => stats.waiting > 0)
            const grown = {
              held: (bytesHeld() - before.held) / mebibyte,
              rss: (process.memoryUsage().rss - before.rss) / mebibyte
            }
            assert.isBelow(grown.held, 50)
            // This includes what V8 has collected and not returned to the system: 50 to 130 MB of the 400.
            assert.isBelow(grown.rss, 250)
            assert.isAtMost(taken, 1)

            // Publishes with a short timeout end by it.
            assert.deepStrictEqual(tally(yield* joinAll(short)), { PublishTimeout: 100 })
            // Publishes that found no room failed at once.
            assert.deepStrictEqual(tally(yield* joinAll(turnedAway)), { PoolExhausted: turnedAway.length })
            assert.isAbove(turnedAway.length, 2500)

            proxy.heal()
            const outcomes = tally(yield* joinAll(fibers))
            assert.strictEqual(yield* Fiber.join(all), 1000)
            const confirmed = 2900 - turnedAway.length
            assert.deepStrictEqual(outcomes, { PoolExhausted: turnedAway.length, Confirmed: confirmed })
            assert.isAbove(confirmed, 100)
            const stored = yield* queue.contents
            assert.strictEqual(stored.length, 1 + confirmed + 1000)
            assert.strictEqual(new Set(stored).size, stored.length)
            assert.isFalse(stored.some((i) => i === 1 || (i >= 10_000 && i < 20_000)))
            assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 0, waiting: 0 })
            print("400 MB offered while the connection is away", [
              ["MB more, heap and buffers", grown.held.toFixed(1)],
              ["MB more, resident", grown.rss.toFixed(1)],
              ["waiting", waiting],
              ["turned away at once", turnedAway.length],
              ["sent afterwards, once", confirmed + 1000]
            ])
          }).pipe(withPublisher(proxy.through(broker.url), {}, { publishTimeout: Duration.seconds(30) }))
        })
    )

    it.effect("waiting publishes that may not wait for a connection fail when the connection is lost", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(broker.url)
        const queue = yield* aQueue(broker.url)
        yield* Effect.gen(function* () {
          const send = (i: number, options?: AmqpChannel.PublishOptions) =>
            outcomeOf(AmqpPublisher.publish({ routingKey: queue.name, content: `${i} ` }, options))
          assert.strictEqual(yield* send(0), "Confirmed")
          proxy.stall()
          const first = yield* start(send(1))
          yield* untilStats((stats) => stats.inFlight === 1)
          const [patient, impatient] = yield* startAll([send(2), send(3, { onBlocked: "fail" })])
          yield* untilStats((stats) => stats.waiting === 2)
          proxy.refuse()
          proxy.rst()
          assert.strictEqual(yield* Fiber.join(impatient!), "PublishForbidden")
          assert.strictEqual(yield* Fiber.join(first), "PublishUnknown")
          assert.isUndefined(patient!.pollUnsafe())
          proxy.heal()
          assert.strictEqual(yield* Fiber.join(patient!), "Confirmed")
          assert.deepStrictEqual(yield* queue.contents, [0, 2])
        }).pipe(withPublisher(proxy.through(broker.url), { maxInFlight: 1 }))
      })
    )
  })
})

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a publisher that is closed while the broker blocks it", () => {
    it.effect("ends in bounded time: waiting publishes are PoolClosed and never sent, sent ones are unknown", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = yield* aQueue(broker.url)
        const outcomes = yield* Effect.gen(function* () {
          const { close, publisher } = yield* closable()
          const send = (i: number) => outcomeOf(publisher.publish({ routingKey: queue.name, content: `${i} ` }))
          assert.strictEqual(yield* send(0), "Confirmed")
          yield* broker.blockPublishers
          const telling = yield* start(send(1))
          yield* until(SubscriptionRef.get(publisher.flow), ({ _tag }) => _tag === "Blocked", "the flow")
          const waiting = yield* startAll(range(50).map((i) => send(100 + i)))
          // This is a long time for a publisher.
          yield* Effect.sleep("1 second")
          assert.deepInclude(yield* publisher.stats, { inFlight: 1, waiting: 50, timedOut: 0 })
          const [time] = yield* Effect.timed(close)
          assert.isBelow(Duration.toMillis(time), 3000)
          assert.strictEqual(yield* send(2), "PoolClosed")
          return [yield* Fiber.join(telling), tally(yield* joinAll(waiting))]
        }).pipe(
          withPublisher(
            broker.url,
            {},
            {
              shutdownTimeout: Duration.millis(200),
              closeTimeout: Duration.millis(200),
              publishTimeout: Duration.seconds(60)
            }
          )
        )
        assert.deepStrictEqual(outcomes, ["PublishUnknown", { PoolClosed: 50 }])
        yield* broker.unblockPublishers
        yield* broker.awaitCensus({ connections: 0, channels: 0 })
        for (const i of yield* queue.contents) assert.include([0, 1], i)
      })
    )
  })

  describe("a message that is larger than the broker accepts", () => {
    it.effect(
      "fails with MessageTooLarge and is not retried; other pending ones are unknown, and the next one is confirmed",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* limitBodies(100_000)
          const queue = yield* aQueue(broker.url)
          yield* Effect.gen(function* () {
            const { state } = yield* AmqpConnection.AmqpConnection
            const send = (i: number, size = 100) =>
              outcomeOf(AmqpPublisher.publish({ routingKey: queue.name, content: `${i} ${"x".repeat(size)}` }))
            assert.strictEqual(yield* send(0), "Confirmed")
            for (let round = 1; round <= 5; round++) {
              const at = round * 100
              const fibers = yield* startAll([
                ...range(10).map((i) => send(at + i)),
                send(at + 10, 200_000),
                send(at + 11)
              ])
              const outcomes = yield* joinAll(fibers)
              assert.strictEqual(outcomes[10], "MessageTooLarge")
              for (const outcome of outcomes.toSpliced(10, 1)) assert.include(["Confirmed", "PublishUnknown"], outcome)
              assert.strictEqual(yield* send(at + 12), "Confirmed")
            }
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            const stats = yield* (yield* AmqpPublisher.AmqpPublisher).stats
            assert.deepInclude(stats, { inFlight: 0, waiting: 0, refused: 5 })
            const stored = yield* queue.contents
            assert.isFalse(stored.some((i) => i % 100 === 10))
            assert.isTrue(range(5).every((round) => stored.includes((round + 1) * 100 + 12)))
            assert.strictEqual(new Set(stored).size, stored.length)
          }).pipe(withPublisher(broker.url, { channels: 1 }))
        }).pipe(Effect.scoped)
    )
  })

  describe("channel-max", () => {
    /** For connections that are opened while the effect runs. */
    const fewChannels = Effect.acquireRelease(
      Effect.flatMap(TestBroker.TestBroker, (broker) =>
        Effect.as(broker.evaluate("application:set_env(rabbit, channel_max, 3)."), broker)
      ),
      (broker) => Effect.orDie(broker.evaluate("application:set_env(rabbit, channel_max, 2047)."))
    )

    it.effect(
      "a publisher without a channel is ChannelMaxReached at once while the connection stays; with one, it publishes",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* fewChannels
          const queue = yield* aQueue(broker.url)
          yield* Effect.gen(function* () {
            const { state } = yield* AmqpConnection.AmqpConnection
            const send = (i: number) => outcomeOf(AmqpPublisher.publish({ routingKey: queue.name, content: `${i} ` }))
            yield* Effect.scoped(
              Effect.gen(function* () {
                const borrowed = yield* Effect.forEach(range(3), () => AmqpPool.get)
                assert.deepInclude(state.value, { channelMax: 3 })
                for (let round = 0; round < 20; round++) {
                  assert.strictEqual(yield* send(0), "ChannelMaxReached")
                  assert.strictEqual(
                    yield* Effect.map(reasonOf(Effect.scoped(AmqpPool.get)), ({ _tag }) => _tag),
                    "ChannelMaxReached"
                  )
                }
                for (const channel of borrowed) yield* channel.queueDeclarePassive(queue.name)
              })
            )
            // The channels are closed without their borrowers' knowledge, so the first free number is the publisher's.
            yield* broker.awaitCensus({ channels: 0 })
            assert.deepStrictEqual(tally(yield* joinAll(yield* startAll(range(100).map(send)))), { Confirmed: 100 })
            yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive(queue.name)))
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            yield* broker.awaitCensus({ connections: 1 })
          }).pipe(withPublisher(broker.url, { channels: 2 }, { pool: false }))
        }).pipe(Effect.scoped)
    )
  })
})

describe("generations: what an old connection still sends does nothing to the next one, whose numbers are the same", () => {
  plain.live("confirms that were held back, and returns, of channel 1 and tag 1", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": (publish) => publish.hold() } })
      const proxy = yield* FaultProxy.make(broker.port)
      yield* Effect.gen(function* () {
        const message = { exchange: "x", routingKey: "k", content: "same" }
        const send = outcomeOf(AmqpPublisher.publish(message, { mandatory: true }))
        const first = yield* startAll([send, send])
        yield* broker.received("basic.publish", 2)
        // The library gives the connection up. What the broker then sends still arrives when the next one is open.
        broker.block()
        yield* untilFlow("Blocked")
        proxy.stall("down")
        const old = broker.connection(1)
        const returned = { replyCode: 312, replyText: "NO_ROUTE", exchange: "x", routingKey: "k" }
        old.send(1, "basic.return", returned, { body: Buffer.from("same") })
        old.send(1, "basic.ack", { deliveryTag: 2, multiple: true })
        assert.deepStrictEqual(yield* joinAll(first), ["PublishUnknown", "PublishUnknown"])
        proxy.heal()
        const second = yield* startAll([send, send])
        yield* broker.received("basic.publish", 4)
        const now = broker.connection()
        assert.notStrictEqual(now.id, old.id)
        assert.deepStrictEqual(
          broker.log.flatMap((r) =>
            r.method === "basic.publish" ? [[r.connection.id === old.id, r.channel, r.deliveryTag]] : []
          ),
          [
            [true, 1, 1],
            [true, 1, 2],
            [false, 1, 1],
            [false, 1, 2]
          ]
        )
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, {
          inFlight: 2,
          confirmed: 0,
          returned: 0
        })
        now.send(1, "basic.ack", { deliveryTag: 1 })
        now.send(1, "basic.nack", { deliveryTag: 2 })
        assert.deepStrictEqual(yield* joinAll(second), ["Confirmed", "PublishNacked"])
      }).pipe(
        withPublisher(proxy.through(broker.url), { channels: 1 }, { blockedConnectionTimeout: Duration.millis(700) })
      )
    })
  )

  plain.live("confirms behind connection.close, in the same breath", () =>
    onScriptedBroker(
      { broker: { on: { "basic.publish": (publish) => publish.hold() } }, publisher: { channels: 1 } },
      function* (broker) {
        const send = outcomeOf(AmqpPublisher.publish({ exchange: "x", routingKey: "k", content: "same" }))
        const first = yield* start(send)
        yield* broker.received("basic.publish")
        broker.connection().write(
          Buffer.concat([
            encodeMessage(0, "connection.close", {
              replyCode: 320,
              replyText: "CONNECTION_FORCED",
              classId: 0,
              methodId: 0
            }),
            encodeMessage(1, "basic.ack", { deliveryTag: 1, multiple: false })
          ])
        )
        assert.strictEqual(yield* Fiber.join(first), "PublishUnknown")
        const second = yield* start(send)
        yield* broker.received("basic.publish", 2)
        assert.deepInclude(yield* (yield* AmqpPublisher.AmqpPublisher).stats, { inFlight: 1, confirmed: 0 })
        broker.off("basic.publish")
        broker.connection().send(1, "basic.ack", { deliveryTag: 1 })
        assert.strictEqual(yield* Fiber.join(second), "Confirmed")
        assert.strictEqual(published(broker).length, 2)
      }
    )
  )
})
