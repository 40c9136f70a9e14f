/** The memory broker: time, dead letters, faults, and RabbitMQ's errors, over both of its doors. */
import { Amqp, AmqpChannel, AmqpConsumer, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { AmqpTest, MemoryBroker } from "@effect-amqp/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option, type Scope } from "effect"
import { reasonOf, tagOf, untilState, quietly } from "./support/amqp.ts"

const declare = (queue: string, args: Record<string, unknown> = {}) =>
  AmqpChannel.use((channel) => channel.queueDeclare(queue, args as never))

const publish = (routingKey: string, content = "one") => AmqpPublisher.publish({ routingKey, content })

const texts = (queue: string) => Effect.map(AmqpTest.queue(queue), ({ messages }) => messages.map(({ text }) => text))

/** Runs a test on a fresh broker in this process. */
const onMemory = <A, E>(
  effect: Effect.Effect<A, E, Amqp.Amqp | MemoryBroker.MemoryBroker | Scope.Scope>,
  options?: AmqpTest.Options
) => Effect.provide(Effect.scoped(effect), AmqpTest.layer(options))

describe("time", () => {
  it.effect("a message's time to live of a day passes when the TestClock does", () =>
    onMemory(
      Effect.gen(function* () {
        yield* declare("late")
        yield* declare("daily", { messageTtl: "1 day", deadLetterExchange: "", deadLetterRoutingKey: "late" })
        yield* publish("daily")
        yield* AmqpTest.adjust("23 hours")
        assert.deepStrictEqual([yield* texts("daily"), yield* texts("late")], [["one"], []])
        yield* AmqpTest.adjust("1 hour")
        assert.deepStrictEqual([yield* texts("daily"), yield* texts("late")], [[], ["one"]])
        const [dead] = (yield* AmqpTest.queue("late")).messages
        assert.deepStrictEqual(dead?.properties.headers["x-death"], [
          Object.assign(Object.create(null), {
            count: 1,
            reason: "expired",
            queue: "daily",
            time: new Date(86_400_000),
            exchange: "",
            "routing-keys": ["daily"]
          })
        ] as never)
      })
    )
  )

  it.effect("a chain of queues with times to live takes one adjustment", () =>
    onMemory(
      Effect.gen(function* () {
        yield* declare("end")
        for (let i = 9; i >= 0; i--) {
          const deadLetterRoutingKey = i === 9 ? "end" : `step${i + 1}`
          yield* declare(`step${i}`, { messageTtl: "1 minute", deadLetterExchange: "", deadLetterRoutingKey })
        }
        yield* publish("step0")
        yield* AmqpTest.adjust("10 minutes")
        const [dead] = (yield* AmqpTest.queue("end")).messages
        assert.lengthOf(dead!.properties.headers["x-death"] as ReadonlyArray<unknown>, 10)
      })
    )
  )

  it.effect("an unused queue expires, and a used one does not", () =>
    onMemory(
      Effect.gen(function* () {
        const { queue } = yield* MemoryBroker.MemoryBroker
        yield* declare("unused", { expires: "1 hour" })
        yield* AmqpTest.adjust("59 minutes")
        yield* declare("unused", { expires: "1 hour" })
        yield* AmqpTest.adjust("59 minutes")
        assert.isDefined(yield* queue("unused"))
        yield* AmqpTest.adjust("1 minute")
        assert.isUndefined(yield* queue("unused"))
      })
    )
  )
})

describe("the delivery limit of a quorum queue", () => {
  const failing = (version: MemoryBroker.Version, how: "nack" | "reject") =>
    onMemory(
      Effect.gen(function* () {
        yield* declare("dead")
        const deadLetters = { deadLetterExchange: "", deadLetterRoutingKey: "dead" }
        yield* declare("work", { queueType: "quorum", deliveryLimit: 2, ...deadLetters })
        yield* publish("work")
        let deliveries = 0
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            while (deliveries < 10) {
              const got = yield* channel.get("work")
              if (Option.isNone(got)) return
              deliveries++
              yield* channel[how](got.value, { requeue: true })
            }
          })
        )
        return { deliveries, dead: (yield* texts("dead")).length }
      }),
      { version }
    )

  it.effect("counts nacks on 3.10, and only rejects on 4.3", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* failing("3.10", "nack"), { deliveries: 3, dead: 1 })
      assert.deepStrictEqual(yield* failing("3.10", "reject"), { deliveries: 3, dead: 1 })
      assert.deepStrictEqual(yield* failing("4.3", "nack"), { deliveries: 10, dead: 0 })
      assert.deepStrictEqual(yield* failing("4.3", "reject"), { deliveries: 3, dead: 1 })
    })
  )
})

describe("faults", () => {
  it.effect("confirms that are withheld arrive when they no longer are; a nack fails its publish", () =>
    onMemory(
      Effect.gen(function* () {
        const broker = yield* MemoryBroker.MemoryBroker
        yield* declare("orders")
        yield* broker.confirms("withhold")
        const publishing = yield* Effect.forkChild(publish("orders"))
        yield* AmqpTest.adjust("1 second")
        assert.isUndefined(publishing.pollUnsafe())
        yield* broker.confirms("send")
        yield* Fiber.join(publishing)
        yield* broker.confirms("nack")
        assert.strictEqual(yield* tagOf(publish("orders")), "PublishNacked")
      })
    )
  )

  it.effect("a cut loses what the broker has not read, and the client reconnects by the TestClock", () =>
    onMemory(
      Effect.gen(function* () {
        yield* declare("orders")
        assert.isAtLeast(yield* AmqpTest.cut, 1)
        yield* AmqpTest.adjust("1 minute")
        yield* publish("orders")
        assert.deepStrictEqual(yield* texts("orders"), ["one"])
      }).pipe(quietly)
    )
  )

  it.effect("a restart keeps durable queues and persistent messages, or nothing", () =>
    onMemory(
      Effect.gen(function* () {
        const broker = yield* MemoryBroker.MemoryBroker
        yield* declare("orders")
        yield* publish("orders")
        yield* AmqpPublisher.publish({ routingKey: "orders", content: "transient", persistent: false })
        yield* broker.restart()
        assert.deepStrictEqual(yield* texts("orders"), ["one"])
        yield* broker.restart({ keeps: "nothing" })
        assert.deepStrictEqual(yield* broker.queues, [])
      }).pipe(quietly)
    )
  )

  it.effect("an alarm blocks a connection after its next publish, and lets it go on when it is over", () =>
    onMemory(
      Effect.gen(function* () {
        const broker = yield* MemoryBroker.MemoryBroker
        yield* declare("orders")
        yield* broker.block()
        yield* publish("orders", "before")
        const second = yield* Effect.forkChild(publish("orders", "during"))
        yield* AmqpTest.adjust("1 second")
        assert.deepStrictEqual(yield* texts("orders"), ["before"])
        yield* broker.unblock
        yield* Fiber.join(second)
        assert.deepStrictEqual(yield* texts("orders"), ["before", "during"])
      })
    )
  )

  it.effect("a consumer that is cancelled by the broker is started again", () =>
    onMemory(
      Effect.gen(function* () {
        const broker = yield* MemoryBroker.MemoryBroker
        const seen: Array<string> = []
        yield* declare("orders")
        yield* Effect.forkScoped(
          AmqpConsumer.consume("orders", ({ content }) => Effect.sync(() => void seen.push(content.toString())))
        )
        yield* publish("orders", "first")
        yield* AmqpTest.awaitIdle
        assert.strictEqual(yield* broker.cancelConsumers("orders"), 1)
        yield* AmqpTest.adjust("1 minute")
        yield* publish("orders", "second")
        yield* AmqpTest.awaitIdle
        assert.deepStrictEqual(seen, ["first", "second"])
      }).pipe(quietly)
    )
  )
})

describe("what it does not have", () => {
  it.effect("is refused, and the error says what to use", () =>
    onMemory(
      Effect.gen(function* () {
        const reason = yield* reasonOf(declare("events", { queueType: "stream" }))
        assert.include(reason.message, "MemoryBroker has no streams: use TestBroker")
      }).pipe(quietly)
    )
  )
})

describe("AmqpTest", () => {
  it.effect("published has what was published, with the queues that it has reached", () =>
    onMemory(
      Effect.gen(function* () {
        yield* declare("orders")
        yield* publish("orders", "routed")
        yield* publish("nowhere", "lost")
        const published = yield* AmqpTest.published
        assert.deepStrictEqual(
          published.map(({ queues, routingKey, text }) => ({ queues, routingKey, text })),
          [
            { queues: ["orders"], routingKey: "orders", text: "routed" },
            { queues: [], routingKey: "nowhere", text: "lost" }
          ]
        )
      })
    )
  )

  it.effect("queue names the queues that there are, where there is none with the name", () =>
    onMemory(
      Effect.gen(function* () {
        yield* declare("orders")
        const defect = yield* Effect.flip(Effect.catchDefect(AmqpTest.queue("order"), Effect.fail))
        assert.include(String(defect), 'expected a queue "order", got only "orders"')
      })
    )
  )

  it.effect("two layers share nothing", () =>
    Effect.gen(function* () {
      yield* onMemory(declare("orders"))
      assert.deepStrictEqual(yield* onMemory(Effect.flatMap(MemoryBroker.MemoryBroker, ({ queues }) => queues)), [])
    })
  )

  it.live("is built in a few milliseconds of CPU time", () =>
    Effect.gen(function* () {
      let millis = Infinity
      // The best of some builds: the machine may be busy.
      for (let build = 0; build < 50; build++) {
        yield* Effect.gen(function* () {
          const before = process.cpuUsage()
          yield* Layer.build(AmqpTest.layer())
          const { system, user } = process.cpuUsage(before)
          millis = Math.min(millis, (system + user) / 1000)
        }).pipe(Effect.scoped)
      }
      console.log(`AmqpTest.layer: built in ${millis.toFixed(2)} ms`)
      assert.isBelow(millis, 5)
    }).pipe(quietly)
  )
})

describe("over a socket", () => {
  it.live("the whole library with amqplib publishes, consumes, and reconnects after a cut", () =>
    Effect.gen(function* () {
      const broker = yield* MemoryBroker.make()
      const url = yield* broker.listen()
      yield* Effect.gen(function* () {
        const seen: Array<string> = []
        const work = AmqpTopology.make(AmqpTopology.queue("work", { queueType: "quorum" }))
        yield* Effect.gen(function* () {
          yield* Effect.forkScoped(
            AmqpConsumer.consume("work", ({ content }) => Effect.sync(() => void seen.push(content.toString())))
          )
          yield* publish("work", "first")
          yield* broker.awaitIdle
          yield* broker.cut
          yield* untilState((state) => state._tag === "Open" && state.generation === 2)
          yield* publish("work", "second")
          while (seen.length < 2) yield* Effect.sleep("5 millis")
          assert.deepStrictEqual(seen, ["first", "second"])
        }).pipe(Effect.provide(AmqpTopology.layer(work)))
      }).pipe(Effect.provide(Amqp.layer({ url })))
    }).pipe(Effect.scoped, quietly)
  )
})
