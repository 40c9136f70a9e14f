/** Events: one value says what is published, where to, and how it is read. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpEvent, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Schema, Stream } from "effect"
import { declareQueue, withConsumers } from "./support/consumers.ts"
import { start } from "./support/publisher.ts"

const Order = Schema.Struct({ id: Schema.Int, region: Schema.String, at: Schema.Date })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => withConsumers(url)(effect))

  const reasonOf = <A, R>(effect: Effect.Effect<A, { readonly reason: { readonly _tag: string } }, R>) =>
    Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)

  describe("An event", () => {
    it.effect("is published by its value to the queues that are bound to it, and consumed as that value", () =>
      Effect.gen(function* () {
        const OrderPlaced = AmqpEvent.make("OrderPlaced", {
          schema: Order,
          exchange: "events.placed",
          routingKey: (order) => `order.placed.${order.region}`,
          bindingKey: "order.placed.*",
          properties: { appId: "shop" }
        })
        yield* AmqpTopology.declare(
          AmqpTopology.make(
            AmqpTopology.exchange("events.placed", "topic", { autoDelete: true }),
            AmqpTopology.queue("events.placed.eu", { autoDelete: true }),
            AmqpEvent.binding(OrderPlaced, "events.placed.eu")
          )
        )
        const received = yield* Deferred.make<readonly [typeof Order.Type, string, string, string, string]>()
        yield* start(
          AmqpEvent.consume(OrderPlaced, "events.placed.eu", (order, { exchange, properties, routingKey }) =>
            Deferred.succeed(received, [
              order,
              exchange,
              routingKey,
              properties.type ?? "",
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
      }).pipe(run)
    )

    it.effect("that no queue receives fails with PublishReturned, unless it need not be received", () =>
      Effect.gen(function* () {
        const Ignored = AmqpEvent.make("Ignored", { schema: Schema.Int, exchange: "amq.topic", routingKey: "ignored" })
        assert.strictEqual(yield* reasonOf(AmqpEvent.publish(Ignored, 1)), "PublishReturned")
        yield* AmqpEvent.publish(Ignored, 1, { mandatory: false })
      }).pipe(run)
    )

    it.effect("whose value does not match its schema fails with InvalidArgument, and nothing is sent", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const Count = AmqpEvent.make("Count", { schema: Schema.Int, routingKey: queue })
        assert.strictEqual(yield* reasonOf(AmqpEvent.publish(Count, 1.5)), "InvalidArgument")
      }).pipe(run)
    )

    it.effect("passes only values that match its schema to the function of its routing key", () =>
      Effect.gen(function* () {
        const Placed = AmqpEvent.make("Placed", {
          schema: Schema.Struct({ place: Schema.Struct({ region: Schema.String }) }),
          routingKey: ({ place }) => place.region,
          bindingKey: "*"
        })
        assert.strictEqual(yield* reasonOf(AmqpEvent.publish(Placed, {} as never)), "InvalidArgument")
      }).pipe(run)
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

    it.effect("whose routing key throws is a defect of the caller's, and nothing is sent", () =>
      Effect.gen(function* () {
        const Broken = AmqpEvent.make("Broken", {
          schema: Schema.Int,
          routingKey: () => {
            throw new Error("no key")
          },
          bindingKey: "broken"
        })
        assert.isTrue((yield* Effect.exit(AmqpEvent.publish(Broken, 1)))._tag === "Failure")
      }).pipe(run)
    )

    it.effect("is encoded for what publishes messages, such as publishAll", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const Counted = AmqpEvent.make("Counted", { schema: Schema.Int, routingKey: queue })
        const messages = Stream.mapEffect(Stream.range(1, 100), (n) => AmqpEvent.encode(Counted, n))
        const confirmed = yield* Stream.runCount(AmqpPublisher.publishAll(messages, { mandatory: true }))
        assert.strictEqual(confirmed, 100)
      }).pipe(run)
    )
  })
})
