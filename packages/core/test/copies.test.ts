/**
 * Copies and wrappers of services behave as their originals to everything that is built on them. Services that are
 * written by hand are foreign.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import {
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpMessage,
  AmqpMetrics,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc,
  AmqpTopology
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import {
  type Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Queue,
  References,
  Schema,
  Scope,
  Stream,
  SubscriptionRef
} from "effect"
import { inspect } from "node:util"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { configOf, reasonOf, untilOpen } from "./support/amqp.ts"
import { declareQueue, nextText, onBroker, untilQueue } from "./support/consumers.ts"
import { until } from "./support/polling.ts"
import { count, value } from "./support/metrics.ts"
import { range } from "./support/ranges.ts"
import { held, message, published, start, untilStats } from "./support/publisher.ts"

/** Wrappers as tests and applications write them. */
const ways: Record<string, <Service extends object>(service: Service) => Service> = {
  "a copy": (service) => ({ ...service }),
  "an object that inherits": (service) => Object.create(service),
  "a proxy": (service) => new Proxy(service, {})
}

/** Runs an effect with another service in place of the one in the context. */
const replacing = <I, Service>(tag: Context.Key<I, Service>, replace: (service: Service) => Service) =>
  Effect.updateService(tag, replace)

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String })

const of = (name: string, outcome: string) => ({
  "messaging.system": "rabbitmq",
  "messaging.operation.name": name,
  "amqp.outcome": outcome
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  for (const [way, replaced] of Object.entries(ways)) {
    describe(way, () => {
      it.effect("of a connection supports a pool, a topology, a publisher, a consumer, a client and a server", () =>
        Effect.gen(function* () {
          const queue = AmqpTopology.queue(`carried by ${way}`)
          const services = AmqpConsumer.layer.pipe(
            Layer.provideMerge(Layer.mergeAll(AmqpPublisher.layer, AmqpRpc.layer)),
            Layer.provideMerge(AmqpTopology.layer(AmqpTopology.make(queue, AmqpTopology.queue("echo")))),
            Layer.provideMerge(AmqpPool.layer)
          )
          yield* Effect.gen(function* () {
            yield* AmqpPublisher.publish({ routingKey: queue.name, content: "a" }, { mandatory: true })
            const acked = Stream.tap(AmqpConsumer.stream(queue.name), ({ ack }) => ack)
            assert.lengthOf(yield* Stream.runCollect(Stream.take(acked, 1)), 1)
            yield* start(AmqpRpc.serve(Echo, Effect.succeed))
            assert.strictEqual(yield* AmqpRpc.client(Echo)("word"), "word")
          }).pipe(Effect.scoped, Effect.provide(services, { local: true }))
          assert.deepStrictEqual(yield* AmqpConnection.conditions, [])
        }).pipe(replacing(AmqpConnection.AmqpConnection, replaced), onBroker)
      )

      it.effect("of a consumer reports the end of what it consumes, is measured, and ends with the original", () =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const consumer = replaced(yield* Scope.provide(AmqpConsumer.make, scope))
          const queue = yield* declareQueue()
          const handled = yield* Queue.unbounded<unknown>()
          const fiber = yield* AmqpConsumer.consume(queue, (delivery) => Queue.offer(handled, delivery)).pipe(
            Effect.provideService(AmqpConsumer.AmqpConsumer, consumer),
            start
          )
          yield* AmqpPublisher.publish({ routingKey: queue, content: "a" })
          yield* Queue.take(handled)
          yield* untilQueue(queue, { messages: 0, consumers: 1 })
          const gone = AmqpConsumer.consume("never declared", () => Effect.void)
          yield* Effect.ignore(Effect.provideService(gone, AmqpConsumer.AmqpConsumer, consumer))
          assert.deepStrictEqual(
            (yield* AmqpConnection.conditions).map(({ kind }) => kind),
            ["ConsumerEnded"]
          )
          const own = yield* Effect.provideService(
            AmqpConsumer.ownConnection,
            AmqpConsumer.AmqpConsumer,
            replaced(consumer)
          )
          assert.strictEqual((yield* SubscriptionRef.get(own))?.state.value._tag, "Open")
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual((yield* reasonOf(Fiber.join(fiber)))._tag, "ConnectionClosed")
        }).pipe(onBroker)
      )

      it.effect("of each service is measured as the original is", () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const services = AmqpConsumer.layer.pipe(
            Layer.provideMerge(Layer.mergeAll(AmqpPublisher.layer, AmqpRpc.layer, AmqpPool.layer)),
            Layer.provideMerge(AmqpConnection.layer(configOf(url)))
          )
          yield* Effect.gen(function* () {
            const consumer = yield* AmqpConsumer.AmqpConsumer
            yield* Effect.gen(function* () {
              yield* declareQueue(undefined, "echo")
              yield* start(AmqpRpc.serve(Echo, Effect.succeed))
              yield* AmqpRpc.client(Echo)("word")
              yield* AmqpPublisher.publish({ routingKey: "nowhere", content: "a" })
            }).pipe(
              Effect.provideService(AmqpConsumer.AmqpConsumer, { ...consumer, publisher: { ...consumer.publisher } })
            )
            yield* Effect.gen(function* () {
              assert.strictEqual((yield* value(AmqpMetrics.useTime, { "amqp.channel.kind": "regular" })).count, 1)
              assert.isAtLeast((yield* value(AmqpMetrics.operationDuration, of("publish", "confirmed"))).count, 1)
              assert.strictEqual((yield* value(AmqpMetrics.operationDuration, of("call", "replied"))).count, 1)
              assert.strictEqual(yield* count(AmqpMetrics.calls, { "amqp.outcome": "replied" }), 1)
              assert.strictEqual(yield* count(AmqpMetrics.serverReplies, { "amqp.rpc.reply": "success" }), 1)
              assert.strictEqual(yield* count(AmqpMetrics.consumedMessages), 1)
              assert.strictEqual(yield* count(AmqpMetrics.undecodableMessages), 0)
            }).pipe(
              Effect.provide(AmqpMetrics.layer, { local: true }),
              replacing(AmqpConnection.AmqpConnection, replaced),
              replacing(AmqpPool.AmqpPool, replaced),
              replacing(AmqpPublisher.AmqpPublisher, replaced),
              replacing(AmqpConsumer.AmqpConsumer, replaced),
              replacing(AmqpRpc.AmqpRpc, replaced)
            )
          }).pipe(
            Effect.scoped,
            Effect.provide(services, { local: true }),
            Effect.provideService(Metric.MetricRegistry, new Map()),
            Effect.provideService(References.MinimumLogLevel, "Warn")
          )
        })
      )
    })
  }

  it.effect("a consumer whose publisher is wrapped publishes its retries through the wrapper", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const consumer = yield* AmqpConsumer.AmqpConsumer
      let retries = 0
      const attempts = yield* Queue.unbounded<number>()
      yield* AmqpConsumer.consume(
        queue,
        ({ attempt }) => Effect.andThen(Queue.offer(attempts, attempt), attempt < 3 ? Effect.fail("no") : Effect.void),
        { onFailure: AmqpConsumer.retry({ delay: 5, times: 5 }) }
      ).pipe(
        Effect.provideService(AmqpConsumer.AmqpConsumer, {
          ...consumer,
          publisher: {
            ...consumer.publisher,
            publish: (...args) => Effect.suspend(() => (retries++, consumer.publisher.publish(...args)))
          }
        }),
        start
      )
      yield* AmqpPublisher.publish({ routingKey: queue, content: "a" })
      assert.deepStrictEqual(yield* Queue.takeN(attempts, 3), [1, 2, 3])
      yield* untilQueue(queue, { messages: 0 })
      assert.strictEqual(retries, 2)
    }).pipe(onBroker)
  )

  it.effect("a server whose publisher is wrapped sends every reply through the wrapper", () =>
    onTestBroker({}, function* () {
      yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("echo")))
      const consumer = yield* AmqpConsumer.AmqpConsumer
      let replies = 0
      const publish: typeof consumer.publisher.publish = (...args) =>
        Effect.suspend(() => (replies++, consumer.publisher.publish(...args)))
      yield* AmqpRpc.serve(Echo, Effect.succeed).pipe(
        Effect.provideService(AmqpConsumer.AmqpConsumer, {
          ...consumer,
          publisher: { ...consumer.publisher, publish }
        }),
        start
      )
      for (const word of ["a", "b", "c"]) assert.strictEqual(yield* AmqpRpc.client(Echo)(word), word)
      assert.strictEqual(replies, 3)
    })
  )

  it.effect("a publisher with its own publish sends each message of publishAll through it", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const wrapped = (publisher: AmqpPublisher.AmqpPublisher["Service"]) => ({
        ...publisher,
        publish: (message: AmqpMessage.Message, options?: AmqpChannel.PublishOptions) =>
          publisher.publish(
            { ...message, content: `wrapped ${typeof message.content === "string" ? message.content : "bytes"}` },
            options
          )
      })
      const all = ["a", "b"].map((content) => ({ routingKey: queue, content }))
      yield* Stream.runDrain(AmqpPublisher.publishAll(all)).pipe(replacing(AmqpPublisher.AmqpPublisher, wrapped))
      assert.deepStrictEqual([yield* nextText(queue), yield* nextText(queue)], ["wrapped a", "wrapped b"])
    }).pipe(onBroker)
  )

  it.effect("a service does not show its internals when it is printed", () =>
    onTestBroker({}, function* () {
      yield* untilOpen()
      const services = [
        yield* AmqpConnection.AmqpConnection,
        yield* AmqpPool.AmqpPool,
        yield* AmqpPublisher.AmqpPublisher,
        yield* AmqpConsumer.AmqpConsumer,
        yield* AmqpRpc.AmqpRpc
      ]
      for (const service of services) {
        const inside = Object.entries(service).find(([name]) => name.includes("Inside"))?.[1]
        assert.match(inspect(inside, { depth: Infinity, showHidden: true }), /^\w+Inside {}$/)
        assert.strictEqual(JSON.stringify(inside), "{}")
      }
    })
  )
})

describe("written by hand", () => {
  const publish = () => Effect.succeed({ _tag: "Confirmed" as const })

  it.live("services report what they declare, and nothing more", () =>
    onScriptedBroker({}, function* () {
      const { config, flow, state } = yield* AmqpConnection.AmqpConnection
      const publisher = yield* AmqpPublisher.AmqpPublisher
      const pool = yield* AmqpPool.AmqpPool
      const { confirm, transaction } = pool
      // `Layer.mock` provides every member that it was not given.
      const mocks = Layer.mergeAll(
        Layer.mock(AmqpConnection.AmqpConnection, { config, flow, state }),
        Layer.mock(AmqpPool.AmqpPool, { stats: pool.stats, confirm, transaction }),
        Layer.mock(AmqpPublisher.AmqpPublisher, { publish, flow: publisher.flow, stats: publisher.stats }),
        Layer.mock(AmqpConsumer.AmqpConsumer, { publisher }),
        Layer.mock(AmqpRpc.AmqpRpc, {})
      )
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* AmqpConnection.conditions, [])
        assert.isUndefined(yield* Effect.flatMap(AmqpConsumer.ownConnection, SubscriptionRef.get))
        const registry: Metric.MetricRegistry = new Map()
        const names = yield* Effect.scoped(
          Effect.map(Layer.build(AmqpMetrics.layer), () => Array.from(registry.values(), ({ id }) => id))
        ).pipe(Effect.provideService(Metric.MetricRegistry, registry))
        assert.includeMembers(names, [
          AmqpMetrics.connectionState.id,
          AmqpMetrics.channelCount.id,
          AmqpMetrics.sentMessages.id,
          AmqpMetrics.consumedMessages.id
        ])
        for (const { id } of [
          AmqpMetrics.undecodableMessages,
          AmqpMetrics.useTime,
          AmqpMetrics.operationDuration,
          AmqpMetrics.calls
        ]) {
          assert.notInclude(names, id)
        }
      }).pipe(Effect.provide(mocks, { local: true }))
    })
  )

  it.live("a connection supports nothing: the defect says what to use", () =>
    onScriptedBroker({}, function* () {
      const { config, flow, state, updateSecret } = yield* AmqpConnection.AmqpConnection
      const fake = { config, flow, state, updateSecret }
      const onFake = Effect.provideService(AmqpConnection.AmqpConnection, fake)
      const makes = [
        Effect.asVoid(AmqpPool.make),
        Effect.asVoid(AmqpPublisher.make()),
        Effect.asVoid(AmqpRpc.makeClient())
      ]
      for (const make of makes) {
        const exit = yield* Effect.exit(onFake(Effect.scoped(make)))
        assert.include(String(exit), "expected one made by AmqpConnection.make, or a copy of one")
      }
    })
  )

  it.live("a publisher publishes the messages of publishAll one after the other, where a copy has many in flight", () =>
    onScriptedBroker({ broker: { on: held }, shutdownTimeout: Duration.millis(100) }, function* (broker) {
      const publisher = yield* AmqpPublisher.AmqpPublisher
      const { flow, publish, stats } = publisher
      const all = range(5).map(message)
      const publishing = (by: typeof publisher) =>
        start(Effect.provideService(Stream.runDrain(AmqpPublisher.publishAll(all)), AmqpPublisher.AmqpPublisher, by))
      const copy = yield* publishing({ ...publisher })
      yield* until(
        Effect.sync(() => published(broker)),
        (now) => now.length === 5,
        "what was sent"
      )
      yield* Fiber.interrupt(copy)
      // A wrapping function makes another publisher.
      yield* publishing({ flow, stats, publish: (...args) => publish(...args) })
      yield* untilStats(({ inFlight }) => inFlight === 6)
      yield* publishing({ ...publisher })
      yield* untilStats(({ inFlight }) => inFlight === 11)
    })
  )
})
