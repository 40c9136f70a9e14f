/** How a topology stays declared: declarations that the broker refuses, and queues and exchanges that were deleted. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpConsumer, AmqpPool, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Queue } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { reasonOf, untilOpen } from "./support/amqp.ts"
import { deleteQueue, layerOf, logged, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import { eventually, until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { major } from "./support/versions.ts"

const { exchange, make, queue, queueBinding: bind } = AmqpTopology

const conditions = Effect.map(AmqpConnection.conditions, (all) =>
  all.filter(({ kind }) => kind === "DeclarationSetAside")
)

const noConditions = until(conditions, (all) => all.length === 0, "the conditions")

const withLayer = (topology: AmqpTopology.AmqpTopology, options?: AmqpTopology.LayerOptions) =>
  Effect.provide(AmqpTopology.layer(topology, options), { local: true })

describe("on a scripted broker", () => {
  /** The name of the connection that a method arrived on, as the application configures it. */
  const connections = (broker: ScriptedBroker.ScriptedBroker) =>
    broker.log.flatMap((received) =>
      received.method === "connection.start-ok" ? [String(received.args.clientProperties["connection_name"])] : []
    )

  const declared = (broker: ScriptedBroker.ScriptedBroker) =>
    broker.log.flatMap((received) =>
      received.method === "exchange.declare"
        ? [received.args.exchange]
        : received.method === "queue.declare"
          ? [received.args.queue]
          : received.method === "queue.bind"
            ? [`${received.args.exchange} to ${received.args.queue}`]
            : []
    )

  const topology = make(
    exchange("delayed", "x-delayed-message"),
    exchange("plain", "direct"),
    queue("q"),
    bind("q", "delayed", "k"),
    bind("q", "plain", "k")
  )

  it.live("a declaration that ends the connection is set aside, and all others continue", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const killing = { now: true }
        broker.on("exchange.declare", (declare) =>
          declare.args.exchange === "delayed" && killing.now
            ? declare.closeConnection(503, "COMMAND_INVALID - unknown exchange type 'x-delayed-message'")
            : declare.proceed()
        )
        const before = declared(broker).length
        broker.destroy()
        yield* untilOpen(3)
        yield* until(
          Effect.sync(() => declared(broker).slice(before)),
          (now) => now.includes("plain to q"),
          "what was declared"
        )
        assert.notInclude(declared(broker).slice(before), "delayed to q")
        yield* AmqpPublisher.publish({ exchange: "plain", routingKey: "k", content: "" })
        const [condition] = yield* until(conditions, (all) => all.length > 0, "the conditions")
        assert.deepInclude(condition, { kind: "DeclarationSetAside", notReady: false })
        assert.include(condition!.message, "unknown exchange type")
        // It is tried again and again on its own connection, and the shared one stays open.
        yield* until(
          Effect.sync(() => connections(broker).filter((name) => name === "shop topology").length),
          (count) => count >= 2,
          "its own connections"
        )
        assert.lengthOf(
          connections(broker).filter((name) => name === "shop"),
          3
        )
        killing.now = false
        yield* noConditions
        yield* until(
          Effect.sync(() => declared(broker)),
          (now) => now.slice(before).includes("delayed to q"),
          "what was declared"
        )
        assert.lengthOf(
          connections(broker).filter((name) => name === "shop"),
          3
        )
      }).pipe(withLayer(topology), withConsumers(broker.url, { connectionName: "shop" }))
    })
  )

  it.live("a declaration whose connection is lost each time without a reason is set aside the second time", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.on("exchange.declare", (declare) =>
          declare.args.exchange === "delayed" ? declare.destroy() : declare.proceed()
        )
        broker.destroy()
        yield* untilOpen(4)
        yield* until(
          Effect.sync(() => declared(broker)),
          (now) => now.filter((what) => what === "plain to q").length === 2,
          "what was declared"
        )
        yield* AmqpPublisher.publish({ exchange: "plain", routingKey: "k", content: "" })
      }).pipe(withLayer(topology), withConsumers(broker.url))
    })
  )

  const refusals: ReadonlyArray<readonly [code: number, text: string, level: string]> = [
    [404, "NOT_FOUND - home node 'rabbit@b' of durable queue 'a' in vhost '/' is down or inaccessible", "Warn"],
    [405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'a' in vhost '/'", "Warn"],
    [403, "ACCESS_REFUSED - access to queue 'a' in vhost '/' refused for user 'guest'", "Error"],
    [
      406,
      "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'a' in vhost '/': received 'true' but current is 'false'",
      "Error"
    ]
  ]
  for (const [code, text, level] of refusals) {
    it.live(`a declaration that is refused stops no other, is reported once, and is tried again: ${code}`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* logged((lines) =>
          Effect.gen(function* () {
            const refusing = { now: true }
            broker.on("queue.declare", (declare) =>
              declare.args.queue === "a" && refusing.now ? declare.closeChannel(code, text) : declare.proceed()
            )
            broker.destroy()
            // The second declaration of `b` shows that what follows `a` is declared, on another channel.
            yield* until(
              Effect.sync(() => declared(broker)),
              (now) => now.filter((name) => name === "b").length === 2,
              "what was declared"
            )
            yield* until(
              Effect.sync(() => declared(broker)),
              (now) => now.filter((name) => name === "a").length >= 4,
              "what was declared"
            )
            const about = lines.filter((line) => line.text.includes("set aside"))
            assert.deepStrictEqual(
              about.map((line) => line.level),
              [level]
            )
            assert.include(about[0]!.text, 'queue \\"a\\"')
            assert.lengthOf(yield* conditions, 1)
            refusing.now = false
            yield* noConditions
            assert.isTrue(lines.some((line) => line.text.includes("has succeeded")))
            // One connection was lost, and for another reason.
            assert.strictEqual(broker.count("connection.open"), 2)
          }).pipe(
            withLayer(make(queue("a"), queue("b"))),
            Effect.scoped,
            Effect.provide(layerOf(broker.url), { local: true })
          )
        )
      })
    )
  }

  it.live("what is set aside is not a condition any more when the layer has ended", () =>
    onScriptedBroker({}, function* (broker) {
      const opened = yield* Latch.make()
      const fiber = yield* Effect.forkScoped(
        Effect.andThen(opened.open, Effect.never).pipe(withLayer(make(queue("a"))), Effect.scoped)
      )
      yield* opened.await
      broker.on("queue.declare", (declare) => declare.closeChannel(403))
      broker.destroy()
      yield* until(conditions, (all) => all.length === 1, "the conditions")
      yield* Fiber.interrupt(fiber)
      assert.lengthOf(yield* conditions, 0)
    })
  )

  it.live("a connection that is lost while the layer is built is waited for", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.once("queue.declare", (declare) => declare.destroy())
      yield* Effect.void.pipe(withLayer(make(queue("a"))), withConsumers(broker.url))
      assert.deepStrictEqual(declared(broker), ["a", "a"])
    })
  )

  it.live("the check runs at the given interval, or never", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const passive = () =>
        broker.log.filter((received) => received.method === "queue.declare" && received.args.passive).length
      yield* Effect.void.pipe(withLayer(make(queue("a")), { checkInterval: "never" }), withConsumers(broker.url))
      for (const checkInterval of [-1, 10, "soon", Infinity]) {
        const reason = yield* reasonOf(
          Effect.void.pipe(withLayer(make(queue("a")), { checkInterval } as never), withConsumers(broker.url))
        )
        assert.deepInclude(reason, { _tag: "InvalidArgument", argument: "checkInterval" })
      }
      assert.strictEqual(passive(), 0)
      yield* Effect.andThen(
        broker.until(() => passive() >= 2),
        Effect.void
      ).pipe(
        withLayer(make(queue("a"), queue("gone", { autoDelete: true })), { checkInterval: "1 second" }),
        withConsumers(broker.url)
      )
      assert.isFalse(
        broker.log.some(
          (received) => received.method === "queue.declare" && received.args.passive && received.args.queue === "gone"
        )
      )
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  let count = 0
  /** An exchange, a queue, and a binding between them. */
  const pair = () => {
    const name = `kept-${++count}`
    return { name, topology: make(exchange(name, "direct"), queue(name), bind(name, name, "k")) }
  }

  const publish = (name: string, mandatory = false) =>
    AmqpPublisher.publish({ exchange: name, routingKey: "k", content: "" }, { mandatory })

  describe("A queue that was deleted is declared again, with its bindings", () => {
    for (const resubscribe of ["lost", "always"] as const) {
      it.effect(`when its consumer is cancelled, and the consumer continues (resubscribe: ${resubscribe})`, () =>
        Effect.gen(function* () {
          const { name, topology } = pair()
          yield* Effect.gen(function* () {
            const got = yield* Queue.unbounded<void>()
            const fiber = yield* Effect.forkScoped(
              AmqpConsumer.consume(name, () => Queue.offer(got, undefined), { resubscribe })
            )
            yield* untilQueue(name, { consumers: 1 })
            for (let round = 0; round < 3; round++) {
              yield* deleteQueue(name)
              yield* untilQueue(name, { consumers: 1 })
              yield* publish(name)
              yield* Queue.take(got)
            }
            assert.isUndefined(fiber.pollUnsafe())
          }).pipe(withLayer(topology, { checkInterval: "never" }), onBroker)
        })
      )
    }

    it.effect("when it has no consumer: found by a check, by a borrower's 404 or by a returned message", () =>
      Effect.gen(function* () {
        const remove = (name: string) => deleteQueue(name)
        const back = (name: string) =>
          Effect.andThen(
            eventually(
              "the queue",
              Effect.map(
                TestBroker.TestBroker.use(({ queues }) => queues),
                (rows) => rows.some((row) => row.name === name)
              )
            ),
            eventually(
              "its route",
              Effect.map(Effect.exit(publish(name, true)), (exit) => exit._tag === "Success")
            )
          )
        const looked = pair()
        yield* Effect.andThen(remove(looked.name), back(looked.name)).pipe(
          withLayer(looked.topology, { checkInterval: "1 second" }),
          onBroker
        )
        const borrowed = pair()
        yield* Effect.gen(function* () {
          yield* remove(borrowed.name)
          const reason = yield* reasonOf(
            Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive(borrowed.name)))
          )
          assert.strictEqual(reason._tag, "NotFound")
          yield* back(borrowed.name)
        }).pipe(withLayer(borrowed.topology, { checkInterval: "never" }), onBroker)
        const returned = pair()
        yield* Effect.gen(function* () {
          yield* remove(returned.name)
          assert.strictEqual((yield* reasonOf(publish(returned.name, true)))._tag, "PublishReturned")
          yield* back(returned.name)
        }).pipe(withLayer(returned.topology, { checkInterval: "never" }), onBroker)
        const exchanged = pair()
        yield* Effect.gen(function* () {
          yield* AmqpPool.AmqpPool.use((pool) => pool.use((channel) => channel.exchangeDelete(exchanged.name)))
          assert.strictEqual((yield* reasonOf(publish(exchanged.name)))._tag, "NotFound")
          yield* back(exchanged.name)
        }).pipe(withLayer(exchanged.topology, { checkInterval: "never" }), onBroker)
      })
    )
  })

  describe("The warning that parts were missing names what was missing, and is logged only then", () => {
    const warningsOf = (lines: ReadonlyArray<{ readonly text: string }>) =>
      lines.flatMap(({ text }) => (text.startsWith("AMQP topology declared again") ? [text] : []))
    const oneWarning = (lines: ReadonlyArray<{ readonly text: string }>) =>
      until(
        Effect.sync(() => warningsOf(lines)),
        (all) => all.length > 0,
        "the warnings"
      )
    const isRouted = (name: string) =>
      eventually(
        "its route",
        Effect.map(Effect.exit(publish(name, true)), (exit) => exit._tag === "Success")
      )

    it.effect("not for a message that reaches no queue although every exchange and queue exists", () =>
      Effect.gen(function* () {
        const { name, topology } = pair()
        yield* logged((lines) =>
          Effect.gen(function* () {
            yield* AmqpPool.AmqpPool.use((pool) => pool.use((channel) => channel.queueUnbind(name, name, "k")))
            assert.strictEqual((yield* reasonOf(publish(name, true)))._tag, "PublishReturned")
            // The round of declarations that the message has requested is over when the route is back.
            yield* isRouted(name)
            yield* deleteQueue(name)
            const passive = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive(name)))
            assert.strictEqual((yield* reasonOf(passive))._tag, "NotFound")
            const [warning, ...others] = yield* oneWarning(lines)
            assert.include(warning, `"missing":["queue \\"${name}\\""]`)
            assert.deepStrictEqual(others, [])
          }).pipe(withLayer(topology, { checkInterval: "never" }))
        )
      }).pipe(onBroker)
    )

    it.effect("for a message that reaches no queue because its queue is gone", () =>
      Effect.gen(function* () {
        const { name, topology } = pair()
        yield* logged((lines) =>
          Effect.gen(function* () {
            yield* deleteQueue(name)
            assert.strictEqual((yield* reasonOf(publish(name, true)))._tag, "PublishReturned")
            yield* isRouted(name)
            const [warning, ...others] = yield* oneWarning(lines)
            assert.include(warning, `"missing":["queue \\"${name}\\""]`)
            assert.deepStrictEqual(others, [])
          }).pipe(withLayer(topology, { checkInterval: "never" }))
        )
      }).pipe(onBroker)
    )
  })

  it.effect("a consumer of a deleted queue that it declares itself continues", () =>
    Effect.gen(function* () {
      const name = `own-${++count}`
      const got = yield* Queue.unbounded<void>()
      yield* Effect.forkScoped(
        AmqpConsumer.consume(name, () => Queue.offer(got, undefined), {
          declare: (channel) => Effect.asVoid(channel.queueDeclare(name))
        })
      )
      yield* untilQueue(name, { consumers: 1 })
      yield* deleteQueue(name)
      yield* untilQueue(name, { consumers: 1 })
      yield* send(name, "")
      yield* Queue.take(got)
    }).pipe(onBroker)
  )

  it.effect(
    "a consumer of a queue that is deleted and declared again by others continues, or ends with the reason",
    () =>
      Effect.gen(function* () {
        const name = `others-${++count}`
        yield* AmqpTopology.declare(make(queue(name)))
        const fiber = yield* Effect.forkScoped(reasonOf(AmqpConsumer.consume(name, () => Effect.void)))
        yield* untilQueue(name, { consumers: 1 })
        yield* deleteQueue(name)
        const reason = yield* Fiber.join(fiber)
        assert.strictEqual(reason._tag, "ConsumerCancelled")
        assert.include(reason.message, "was deleted")
        assert.include(reason.message, 'resubscribe: "always"')
        // Without the layer, the 404 of the first start is final.
        assert.strictEqual((yield* reasonOf(AmqpConsumer.consume(name, () => Effect.void)))._tag, "NotFound")
      }).pipe(onBroker)
  )

  it.effect(
    "an exchange whose plugin is missing costs no other client the connection, and is back with the plugin",
    () =>
      Effect.gen(function* () {
        const { closeConnections, evaluate } = yield* TestBroker.TestBroker
        const type = "x-of-a-plugin"
        const register = evaluate(`rabbit_registry:register(exchange, <<"${type}">>, rabbit_exchange_type_fanout).`)
        yield* register
        const { name, topology } = pair()
        const odd = `${name}-odd`
        const all = make(exchange(odd, type), topology, bind(name, odd))
        yield* Effect.gen(function* () {
          yield* publish(name, true)
          yield* evaluate(`rabbit_registry:unregister(exchange, <<"${type}">>).`)
          yield* closeConnections()
          const isFatal = (yield* major) === 3
          const generation = isFatal ? 3 : 2
          yield* untilOpen(generation)
          for (let i = 0; i < 20; i++) yield* publish(name, true)
          yield* until(conditions, (now) => now.length > 0, "the conditions")
          yield* register
          yield* noConditions
          yield* eventually(
            "its binding",
            Effect.map(
              Effect.exit(AmqpPublisher.publish({ exchange: odd, routingKey: "", content: "" }, { mandatory: true })),
              (exit) => exit._tag === "Success"
            )
          )
          const { state } = yield* AmqpConnection.AmqpConnection
          assert.deepInclude(state.value, { _tag: "Open", generation })
        }).pipe(withLayer(all), onBroker)
      })
  )
})
