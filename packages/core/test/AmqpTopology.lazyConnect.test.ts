/** Topologies of an application that starts before its broker (`lazyConnect`). */
import { assert, describe, it, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  AmqpMessage,
  AmqpPublisher,
  AmqpTopology
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Layer, Queue, References } from "effect"
import { TestClock } from "effect/testing"
import type { Link } from "../src/internal/connection/link.ts"
import { Preparations } from "../src/internal/connection/preparations.ts"
import { configOf, type Overrides, reasonOf, untilOpen, untilState } from "./support/amqp.ts"
import { endOf, start } from "./support/application.ts"
import { deleteQueue, logged } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { assertNoLeaks } from "./support/leaks.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const { exchange, externalExchange, make, queue, queueBinding: bind } = AmqpTopology

/** Attempts follow each other quickly. The layer must not wait for `acquireTimeout`, so it is long. */
const lazy: Overrides = {
  lazyConnect: true,
  pool: { acquireTimeout: Duration.seconds(60) },
  reconnect: { ...configOf("amqp://127.0.0.1").reconnect, minDelay: Duration.millis(5), maxDelay: Duration.millis(20) }
}

const silently = Effect.provideService(References.MinimumLogLevel, "None")

const conditions = Effect.map(AmqpConnection.conditions, (all) =>
  all.filter(({ kind }) => kind === "DeclarationSetAside")
)

/** Builds a part of an application in the scope of the test, which must not wait for the broker. */
const built = <E, R>(part: Layer.Layer<never, E, R>) =>
  Layer.build(Layer.fresh(part)).pipe(
    Effect.timeoutOrElse({ duration: "2 seconds", orElse: () => Effect.die(new Error("the layer waits")) })
  )

const send = (to: { readonly exchange?: string; readonly routingKey: string }, content = "") =>
  AmqpPublisher.publish({ ...to, content }, { mandatory: true })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  /** An application whose broker is away until `proxy.heal()`. */
  const beforeItsBroker = <A, E>(
    body: (proxy: FaultProxy.FaultProxy) => Effect.Effect<A, E, Amqp.Amqp | TestBroker.TestBroker>
  ) =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      proxy.refuse()
      return yield* Effect.provide(body(proxy), Amqp.fromConfig(configOf(url, lazy)), { local: true })
    }).pipe(Effect.scoped)

  describe("An application that starts before its broker", () => {
    it.effect("is built at once; its topology is declared before what waits is published and consumed", () =>
      beforeItsBroker((proxy) =>
        Effect.gen(function* () {
          const handled = yield* Queue.unbounded<string>()
          const topology = make(
            exchange("lazy.shop", "topic"),
            queue("lazy.orders", { queueType: "quorum" }),
            bind("lazy.orders", "lazy.shop", "order.*")
          )
          const consumer = AmqpConsumer.layerConsume("lazy.orders", (delivery) =>
            Queue.offer(handled, AmqpMessage.text(delivery))
          )
          yield* built(Layer.provideMerge(consumer, AmqpTopology.layer(topology)))
          const waiting = yield* Effect.forkScoped(
            send({ exchange: "lazy.shop", routingKey: "order.created" }, "waited")
          )
          yield* proxy.accepted(4)
          assert.isUndefined(waiting.pollUnsafe())
          proxy.heal()
          yield* Fiber.join(waiting)
          assert.strictEqual(yield* Queue.take(handled), "waited")
          assert.deepStrictEqual(yield* AmqpConnection.conditions, [])
        }).pipe(Effect.scoped)
      ).pipe(silently)
    )

    it.effect("a topology that binds to what an earlier layer declares is declared after it, without an error", () =>
      logged((lines) =>
        beforeItsBroker((proxy) =>
          Effect.gen(function* () {
            // The first one takes longer than the second one would.
            const names = Array.from({ length: 30 }, (_, i) => `lazy.first.${i}`)
            const first = AmqpTopology.layer(
              make(...names.map((name) => exchange(name, "fanout")), queue("lazy.first"))
            )
            const second = AmqpTopology.layer(
              make(externalExchange(names[29]!), queue("lazy.second"), bind("lazy.second", names[29]!))
            )
            yield* built(Layer.provideMerge(second, first))
            const waiting = yield* Effect.forkScoped(send({ exchange: names[29]!, routingKey: "" }))
            yield* proxy.accepted(2)
            proxy.heal()
            yield* Fiber.join(waiting)
            assert.deepStrictEqual(
              lines.filter(({ level, text }) => level === "Error" || text.includes("topology")),
              []
            )
            assert.deepStrictEqual(yield* conditions, [])
          }).pipe(Effect.scoped)
        )
      )
    )

    it.effect("with a topology that has mistakes is not built, and needs no broker for that", () =>
      beforeItsBroker(() =>
        Effect.gen(function* () {
          const reason = yield* reasonOf(built(AmqpTopology.layer(make(bind("lazy.nowhere", "lazy.neither")))))
          assert.strictEqual(reason._tag, "InvalidTopology")
        }).pipe(Effect.scoped)
      ).pipe(silently)
    )

    it.effect("with a queue that exists otherwise is not ready, logs an error, and declares the rest", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const other = yield* start(configOf(url))
          yield* AmqpTopology.declare(make(queue("lazy.other", { maxLength: 1 }))).pipe(
            Effect.provideContext(other.context)
          )
          yield* beforeItsBroker((proxy) =>
            Effect.gen(function* () {
              yield* built(AmqpTopology.layer(make(queue("lazy.other"), queue("lazy.rest"))))
              const waiting = yield* Effect.forkScoped(send({ routingKey: "lazy.rest" }))
              proxy.heal()
              yield* Fiber.join(waiting)
              const [condition] = yield* until(conditions, (all) => all.length === 1, "the conditions")
              assert.isTrue(condition!.notReady)
              assert.include(condition!.message, "x-max-length")
              const errors = lines.filter(({ level }) => level === "Error")
              assert.lengthOf(errors, 1)
              assert.include(errors[0]!.text, "lazy.other")
              yield* deleteQueue("lazy.other")
              yield* until(conditions, (all) => all.length === 0, "the conditions")
              yield* send({ routingKey: "lazy.other" })
            }).pipe(Effect.scoped)
          )
        }).pipe(Effect.scoped)
      )
    )
  })

  describe("A lazy connection that is open already", () => {
    it.effect("the layer is built when its topology is declared, for publishers and borrowers that have channels", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          yield* untilOpen()
          yield* built(AmqpTopology.layer(make(queue("lazy.early"))))
          yield* send({ routingKey: "lazy.early" })
          for (let i = 0; i < 5; i++) {
            const name = `lazy.late.${i}`
            yield* built(AmqpTopology.layer(make(queue(name))))
            yield* send({ routingKey: name })
            yield* AmqpChannel.use((channel) => channel.queueDeclarePassive(name))
          }
        }).pipe(Effect.scoped, Effect.provide(Amqp.fromConfig(configOf(url, lazy)), { local: true }), silently)
      })
    )
  })
})

describe("on a scripted broker", () => {
  const withBroker = <A, E>(
    body: (broker: ScriptedBroker.ScriptedBroker) => Effect.Effect<A, E, Amqp.Amqp>,
    overrides?: Overrides
  ) =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* broker.down
      yield* Effect.provide(body(broker), Amqp.fromConfig(configOf(broker.url, { ...lazy, ...overrides })), {
        local: true
      })
    }).pipe(silently, Effect.scoped)

  it.live(
    "nothing is published or consumed on the first connection before the broker has answered the declarations",
    () =>
      withBroker((broker) =>
        Effect.gen(function* () {
          broker.on("queue.bind", (context) => context.hold())
          const topology = make(exchange("e", "direct"), queue("q"), bind("q", "e", "k"))
          yield* built(
            Layer.provideMerge(
              AmqpConsumer.layerConsume("q", () => Effect.void),
              AmqpTopology.layer(topology)
            )
          )
          const waiting = yield* Effect.forkScoped(send({ exchange: "e", routingKey: "k" }))
          yield* broker.up
          yield* broker.received("queue.bind")
          // The consumers' connection is open as well, and both have had time for more.
          yield* broker.until(({ count }) => count("connection.open") === 2)
          yield* Effect.sleep("50 millis")
          assert.strictEqual(broker.count("basic.publish") + broker.count("basic.consume"), 0)
          broker.release("queue.bind")
          yield* Fiber.join(waiting)
          yield* broker.received("basic.consume")
          assert.strictEqual(broker.count("queue.declare"), 1)
        }).pipe(Effect.scoped)
      )
  )

  for (const [code, text] of [
    [403, "ACCESS_REFUSED - configure access to queue 'a' in vhost '/' refused for user 'guest'"],
    [405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'a' in vhost '/'"]
  ] as const) {
    it.live(`a refused declaration makes the application not ready until it has succeeded once: ${code}`, () =>
      withBroker(
        (broker) =>
          Effect.gen(function* () {
            const refused = { now: true }
            broker.on("queue.declare", (declare) =>
              declare.args.queue === "a" && refused.now ? declare.closeChannel(code, text) : declare.proceed()
            )
            yield* built(AmqpTopology.layer(make(queue("a"), queue("b"))))
            yield* broker.up
            const [first] = yield* until(conditions, (all) => all.length > 0, "the conditions")
            assert.isTrue(first!.notReady)
            yield* send({ routingKey: "b" })
            refused.now = false
            yield* until(conditions, (all) => all.length === 0, "the conditions")
            refused.now = true
            broker.destroy()
            const [second] = yield* until(conditions, (all) => all.length > 0, "the conditions")
            assert.isFalse(second!.notReady)
          }).pipe(Effect.scoped),
        { continuationTimeout: Duration.seconds(1) }
      )
    )
  }

  it.live("a layer that is built on an open connection does not wait for longer than that lasts", () =>
    withBroker((broker) =>
      Effect.gen(function* () {
        yield* broker.up
        yield* untilOpen()
        broker.once("queue.declare", (context) => context.hold())
        const building = yield* Effect.forkScoped(Layer.build(AmqpTopology.layer(make(queue("q")))))
        yield* broker.received("queue.declare")
        yield* Effect.sleep("20 millis")
        assert.isUndefined(building.pollUnsafe())
        broker.on("protocol-header", () => {})
        broker.destroy()
        yield* Fiber.join(building)
        yield* untilState(({ _tag }) => _tag !== "Open")
      }).pipe(Effect.scoped)
    )
  )

  const moments: ReadonlyArray<
    readonly [name: string, arrange: (broker: ScriptedBroker.ScriptedBroker) => Effect.Effect<void>]
  > = [
    ["while the broker is away", () => Effect.sleep("30 millis")],
    [
      "while it connects",
      (broker) => {
        broker.on("protocol-header", () => {})
        return Effect.andThen(broker.up, broker.received("protocol-header"))
      }
    ],
    [
      "while its channel opens",
      (broker) => {
        broker.on("channel.open", (context) => context.hold())
        return Effect.andThen(broker.up, broker.received("channel.open"))
      }
    ],
    [
      "during the first declaration",
      (broker) => {
        broker.on("exchange.declare", (context) => context.hold())
        return Effect.andThen(broker.up, broker.received("exchange.declare"))
      }
    ],
    [
      "during the last declaration of the second layer",
      (broker) => {
        broker.on("queue.bind", (context) => context.hold())
        return Effect.andThen(broker.up, broker.received("queue.bind"))
      }
    ],
    ["after the last one", (broker) => Effect.andThen(broker.up, broker.received("basic.consume"))]
  ]
  for (const [name, arrange] of moments) {
    it.live(`an application that ends ${name} ends in time and leaves nothing`, () =>
      Effect.gen(function* () {
        const ended = yield* Deferred.make<number>()
        const app = Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make()
          yield* broker.down
          const config = configOf(broker.url, {
            ...lazy,
            shutdownTimeout: Duration.millis(500),
            closeTimeout: Duration.millis(200)
          })
          const { close, context } = yield* start(config)
          let begun = 0
          const waiting = yield* Effect.gen(function* () {
            yield* built(
              AmqpConsumer.layerConsume("q", () => Effect.void).pipe(
                Layer.provideMerge(AmqpTopology.layer(make(externalExchange("e"), queue("q"), bind("q", "e", "k")))),
                Layer.provideMerge(AmqpTopology.layer(make(exchange("e", "direct"))))
              )
            )
            const waiting = yield* Effect.forkDetach(send({ exchange: "e", routingKey: "k" }))
            yield* arrange(broker)
            begun = performance.now()
            return waiting
          }).pipe(Effect.scoped, Effect.provideContext(context))
          yield* close
          yield* Deferred.succeed(ended, performance.now() - begun)
          const end = endOf(yield* Effect.timeout(Fiber.await(waiting), "2 seconds"))
          assert.include(["done", "PoolClosed", "PublishUnknown"], end)
          yield* Effect.timeout(broker.socketsClosed, "2 seconds")
        })
        yield* assertNoLeaks(Effect.scoped(app))
        // `shutdownTimeout` and twice `closeTimeout`, and some for the machine.
        assert.isBelow(yield* Deferred.await(ended), 900 + 900)
      }).pipe(silently, Effect.scoped)
    )
  }
})

describe("Preparations", () => {
  it.effect("a wait that began before a link does not end what others wait for on it", () =>
    Effect.gen(function* () {
      let link: Link | undefined
      const preparations = new Preparations(() => link)
      preparations.add(undefined)
      const early = yield* Effect.forkChild(preparations.wait(Duration.seconds(20)))
      yield* TestClock.adjust("19 seconds")
      link = {} as Link
      const late = yield* Effect.forkChild(preparations.wait(Duration.seconds(20)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(early)
      assert.isFalse(preparations.areDone)
      yield* TestClock.adjust("19 seconds")
      yield* Fiber.join(late)
      assert.isTrue(preparations.areDone)
    })
  )

  it.effect(
    "are attempted in the order of their layers; an attempt that takes long delays the next one for a bounded time",
    () =>
      Effect.gen(function* () {
        const link = {} as Link
        const preparations = new Preparations(() => link)
        const first = preparations.add(undefined)
        const second = preparations.add(undefined)
        const bound = Duration.seconds(20)
        yield* preparations.waitForEarlier(first, link, bound)
        const waiting = yield* Effect.forkChild(preparations.waitForEarlier(second, link, bound))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(waiting.pollUnsafe())
        first.markAttempted(link)
        yield* Fiber.join(waiting)
        const third = preparations.add(undefined)
        const bounded = yield* Effect.forkChild(preparations.waitForEarlier(third, link, bound))
        yield* TestClock.adjust(bound)
        yield* Fiber.join(bounded)
      })
  )
})
