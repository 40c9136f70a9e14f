// Events: one value says what is published, where to, and how it is read.
import { Amqp, AmqpEvent, AmqpPublisher, AmqpTopology } from "@effect-amqp/platform"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Schema, Stream } from "effect"
import * as Application from "./support/application.ts"
import { Broker } from "./support/Broker.ts"

const Order = Schema.Struct({ id: Schema.Int, region: Schema.String, at: Schema.Date })

const OrderPlaced = AmqpEvent.make("OrderPlaced", {
  schema: Order,
  exchange: "events.placed",
  routingKey: (order) => `order.placed.${order.region}`,
  bindingKey: "order.placed.*",
  properties: { appId: "shop" }
})

class Prices extends Context.Tag("test/Prices")<Prices, { readonly factor: number }>() {}

describe("An event", () => {
  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("is published by its value to the queues that are bound to it, and consumed as that value", () =>
      Effect.gen(function* () {
        yield* AmqpTopology.declare(
          AmqpTopology.make(
            AmqpTopology.exchange("events.placed", "topic"),
            AmqpTopology.queue("events.placed.eu"),
            AmqpEvent.binding(OrderPlaced, "events.placed.eu")
          )
        )
        const received = yield* Deferred.make<readonly [typeof Order.Type, ...ReadonlyArray<string | undefined>]>()
        yield* Effect.forkScoped(
          AmqpEvent.consume(OrderPlaced, "events.placed.eu", (order, { exchange, properties, routingKey }) =>
            Deferred.succeed(received, [
              order,
              exchange,
              routingKey,
              properties.type,
              `${properties.appId} ${properties.messageId}`
            ])
          )
        )
        const order = { id: 7, region: "eu", at: new Date(1_700_000_000_000) }
        yield* AmqpEvent.publish(OrderPlaced, order, { properties: { messageId: "m7" } })
        assert.deepStrictEqual(yield* Deferred.await(received), [
          order,
          "events.placed",
          "order.placed.eu",
          "OrderPlaced",
          "shop m7"
        ])
      })
    )

    it.scoped("that no queue receives fails with PublishReturned, unless it need not be received", () =>
      Effect.gen(function* () {
        const Ignored = AmqpEvent.make("Ignored", { schema: Schema.Int, exchange: "amq.topic", routingKey: "ignored" })
        const error = yield* Effect.flip(AmqpEvent.publish(Ignored, 1))
        assert.strictEqual(error.reason._tag, "PublishReturned")
        yield* AmqpEvent.publish(Ignored, 1, { mandatory: false })
      })
    )

    it.scoped("is encoded with the services of its schema, for what publishes messages", () =>
      Effect.gen(function* () {
        yield* AmqpTopology.declare(AmqpTopology.queue("events.counted"))
        const Priced = Schema.transformOrFail(Schema.Number, Schema.Number, {
          strict: true,
          decode: (n) => Effect.map(Prices, ({ factor }) => n / factor),
          encode: (n) => Effect.map(Prices, ({ factor }) => n * factor)
        })
        const Counted = AmqpEvent.make("Counted", { schema: Priced, routingKey: "events.counted" })
        const messages = Stream.mapEffect(Stream.range(1, 100), (n) => AmqpEvent.encode(Counted, n))
        const confirmed = yield* Stream.runCount(AmqpPublisher.publishAll(messages, { mandatory: true }))
        assert.strictEqual(confirmed, 100)
        const all: Array<number> = []
        const done = yield* Deferred.make<void>()
        const { url } = yield* Broker
        const app = AmqpEvent.layerConsume(Counted, "events.counted", (n) =>
          Effect.sync(() => {
            if (all.push(n) === 100) Deferred.unsafeDone(done, Effect.void)
          })
        ).pipe(Layer.provide(Amqp.layer({ url })), Amqp.launch)
        const fiber = yield* Effect.fork(app)
        yield* Deferred.await(done)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(
          all,
          Array.from({ length: 100 }, (_, i) => i + 1)
        )
      }).pipe(Effect.provideService(Prices, { factor: 3 }))
    )
  })

  it.effect("passes only values that match its schema to the function of its routing key", () =>
    Effect.gen(function* () {
      const Placed = AmqpEvent.make("Placed", {
        schema: Schema.Struct({ place: Schema.Struct({ region: Schema.String }) }),
        routingKey: ({ place }) => place.region,
        bindingKey: "*"
      })
      const error = yield* Effect.flip(AmqpEvent.encode(Placed, {} as never))
      assert.strictEqual(error.reason._tag, "InvalidArgument")
    })
  )

  it.effect("keeps its type and its properties where others are undefined", () =>
    Effect.gen(function* () {
      const Count = AmqpEvent.make("Count", {
        schema: Schema.Int,
        routingKey: "counts",
        properties: { type: undefined, appId: "shop" }
      })
      const message = yield* AmqpEvent.encode(Count, 1, { appId: undefined, messageId: "m1" })
      assert.deepInclude(message, { type: "Count", appId: "shop", messageId: "m1", routingKey: "counts" })
    })
  )
})
