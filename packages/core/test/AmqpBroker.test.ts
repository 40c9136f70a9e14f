/** Two brokers in one application. Two virtual hosts of one broker are two brokers to a client. */
import { assert, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpBroker,
  AmqpChannel,
  AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer } from "effect"
import { contents } from "./support/queues.ts"
import { anotherVhost } from "./support/vhosts.ts"

class Orders extends AmqpBroker.Service<Orders>()("test/Orders") {}
class Audit extends AmqpBroker.Service<Audit>()("test/Audit") {}

const say = (queue: string, content: string) =>
  AmqpPublisher.publish({ routingKey: queue, content }, { mandatory: true })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("each broker has its own services, and effects that get them by its key use that broker", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const brokers = Layer.merge(
        Orders.fromConfig(yield* AmqpConfig.fromUrl(url)),
        Audit.fromConfig(yield* AmqpConfig.fromUrl(yield* anotherVhost))
      )
      yield* Effect.gen(function* () {
        for (const Service of [
          AmqpConnection.AmqpConnection,
          AmqpPool.AmqpPool,
          AmqpPublisher.AmqpPublisher,
          AmqpConsumer.AmqpConsumer,
          AmqpRpc.AmqpRpc
        ] as const) {
          const service: Effect.Effect<unknown, never, Amqp.Amqp> = Service
          assert.notStrictEqual(yield* Orders.provide(service), yield* Audit.provide(service))
        }
        const declare = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("brokers")))
        yield* Effect.all([Orders.provide(declare), Audit.provide(declare)])
        yield* Effect.all([Orders.provide(say("brokers", "an order")), Audit.provide(say("brokers", "a trace"))])
        assert.deepStrictEqual(yield* Orders.provide(contents("brokers")), ["an order"])
        assert.deepStrictEqual(yield* Audit.provide(contents("brokers")), ["a trace"])
        // One channel of each broker, in one scope.
        const vhost = Effect.map(AmqpConnection.AmqpConnection, ({ config }) => config.vhost)
        assert.notStrictEqual(yield* Orders.provide(vhost), yield* Audit.provide(vhost))
        const used = Effect.map(AmqpPool.stats, (stats) => stats.used)
        yield* Effect.scoped(
          Effect.gen(function* () {
            for (let i = 0; i < 2; i++) {
              yield* Orders.provide(AmqpChannel.use(() => Effect.void))
              yield* Audit.provide(AmqpChannel.use(() => Effect.void))
            }
            assert.deepStrictEqual([yield* Orders.provide(used), yield* Audit.provide(used)], [1, 1])
          })
        )
        assert.deepStrictEqual([yield* Orders.provide(used), yield* Audit.provide(used)], [0, 0])
      }).pipe(Effect.provide(brokers, { local: true }))
    }).pipe(Effect.scoped)
  )

  it.effect("two layers of Amqp in one application share nothing that belongs to a connection", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const config = yield* AmqpConfig.fromUrl(url)
      const parts = ["one", "two"].map((connectionName) => {
        const seen: Array<string | undefined> = []
        const part = Layer.effectDiscard(
          Effect.gen(function* () {
            const { config } = yield* AmqpConnection.AmqpConnection
            seen.push(config.connectionName)
            const { queue } = yield* Effect.scoped(
              AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true, autoDelete: true }))
            )
            yield* AmqpPublisher.publish({ routingKey: queue, content: "mine" }, { mandatory: true })
            const mine = yield* AmqpPool.stats
            seen.push(`${mine.created} channels`)
          })
        ).pipe(Layer.provide(Amqp.fromConfig({ ...config, connectionName })))
        return { part, seen }
      })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Layer.build(Layer.mergeAll(Layer.empty, ...parts.map(({ part }) => part)))
          assert.deepStrictEqual(
            parts.map(({ seen }) => seen),
            [
              ["one", "1 channels"],
              ["two", "1 channels"]
            ]
          )
          yield* awaitCensus({ connections: 2, channels: 4 })
        })
      )
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )
})
