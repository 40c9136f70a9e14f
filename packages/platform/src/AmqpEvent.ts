/**
 * Events: a schema, an exchange and a routing key in one value, which publishers and consumers share.
 *
 * **Example** (One value per event)
 *
 * ```ts
 * import { AmqpEvent } from "@effect-amqp/platform"
 * import { Effect, Schema } from "effect"
 *
 * const OrderPlaced = AmqpEvent.make("OrderPlaced", {
 *   schema: Schema.Struct({ id: Schema.Int, region: Schema.String }),
 *   exchange: "orders",
 *   routingKey: (order) => `order.placed.${order.region}`,
 *   bindingKey: "order.placed.*"
 * })
 *
 * const place = AmqpEvent.publish(OrderPlaced, { id: 7, region: "eu" })
 *
 * const billing = AmqpEvent.layerConsume(OrderPlaced, "billing", (order) => Effect.log("billing order", order.id))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Schema from "effect/Schema"
import * as AmqpConsumer from "./AmqpConsumer.ts"
import { json } from "./AmqpMessage.ts"
import * as AmqpPublisher from "./AmqpPublisher.ts"
import * as AmqpTopology from "./AmqpTopology.ts"
import type { Confirmed } from "./model/channel.ts"
import type { AmqpError } from "./model/error.ts"
import type { Event, EventOptions, PublishEventOptions } from "./model/event.ts"
import type { Message, Properties } from "./model/message.ts"

export * from "./model/event.ts"

// The type of `onDecodeFailure` must not depend on the event's schema, which a generic function does not know.
type DecodeEventOptions = Omit<AmqpConsumer.DecodeOptions<Schema.Schema.All>, "schema">

/**
 * Declares an event.
 *
 * **When to use**
 *
 * Use once per event, in a module that publishers and consumers share.
 *
 * **Details**
 *
 * Every message carries the event's name as its `type`. `make` does not fail: `publish` fails with `InvalidArgument` if
 * the exchange, the routing key or a property is invalid.
 *
 * **Example** (An event for the queue of the same name)
 *
 * ```ts
 * import { AmqpEvent } from "@effect-amqp/platform"
 * import { Schema } from "effect"
 *
 * const EmailRequested = AmqpEvent.make("EmailRequested", {
 *   schema: Schema.Struct({ to: Schema.String, subject: Schema.String }),
 *   routingKey: "emails"
 * })
 * ```
 *
 * @see {@link publish} for publishing a value
 * @see {@link consume} for handling values
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <S extends Schema.Schema.All>(name: string, options: EventOptions<S>): Event<S> => {
  const { exchange = "", properties, schema } = options
  const isDerived = typeof options.routingKey === "function"
  return {
    name,
    schema,
    exchange,
    routingKey: isDerived ? options.routingKey : () => options.routingKey as string,
    bindingKey: options.bindingKey ?? (options.routingKey as string),
    properties: withProperties({ type: name }, properties),
    json: json(schema as Schema.Schema<Schema.Schema.Type<S>, unknown, Schema.Schema.Context<S>>)
  }
}

/**
 * Encodes a value of an event as a message.
 *
 * **When to use**
 *
 * Use for what takes messages: a borrowed channel, `AmqpPublisher.publishAll`.
 *
 * **Details**
 *
 * Fails with `InvalidArgument` if the value does not match the schema.
 *
 * **Example** (Publishing a stream of events)
 *
 * ```ts
 * import { AmqpEvent, AmqpPublisher } from "@effect-amqp/platform"
 * import { Schema, Stream } from "effect"
 *
 * const Counted = AmqpEvent.make("Counted", { schema: Schema.Int, routingKey: "numbers" })
 *
 * const program = Stream.range(1, 1000).pipe(
 *   Stream.mapEffect((n) => AmqpEvent.encode(Counted, n)),
 *   (messages) => AmqpPublisher.publishAll(messages, { mandatory: true }),
 *   Stream.runDrain
 * )
 * ```
 *
 * @see {@link publish} for publishing one value
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = <S extends Schema.Schema.All>(
  event: Event<S>,
  value: Schema.Schema.Type<S>,
  properties?: Properties
): Effect.Effect<Message, AmqpError, Schema.Schema.Context<S>> =>
  Effect.suspend(() => {
    const { exchange, routingKey } = event
    const envelope = { ...withProperties(event.properties, properties), exchange, routingKey: "" }
    // Only a value that matches the schema is passed to the function that derives the routing key.
    return Effect.map(event.json.encode(value, envelope), (message) => ({ ...message, routingKey: routingKey(value) }))
  })

/** A property that is `undefined` is not set. */
const withProperties = (base: Properties, properties: Properties | undefined): Properties => ({
  ...base,
  ...Object.fromEntries(Object.entries(properties ?? {}).filter(([, value]) => value !== undefined))
})

/**
 * Publishes a value of an event, and completes when the broker has confirmed that a queue has it.
 *
 * **When to use**
 *
 * Use for every event that must not get lost. Use `AmqpPublisher.publish` for messages that are not events.
 *
 * **Details**
 *
 * It fails as `AmqpPublisher.publish` does: with `PublishReturned` if no queue is bound for the event (see `mandatory`),
 * and with `InvalidArgument` if the value does not match the schema.
 *
 * **Example** (Publishing with a message id)
 *
 * ```ts
 * import { AmqpEvent } from "@effect-amqp/platform"
 * import { Schema } from "effect"
 *
 * const OrderPlaced = AmqpEvent.make("OrderPlaced", {
 *   schema: Schema.Struct({ id: Schema.Int }),
 *   routingKey: "orders"
 * })
 *
 * const program = AmqpEvent.publish(OrderPlaced, { id: 7 }, { properties: { messageId: "order-7" } })
 * ```
 *
 * @see {@link encode} for a message that something else publishes
 *
 * @category publishing
 * @since 0.1.0
 */
export const publish = <S extends Schema.Schema.All>(
  event: Event<S>,
  value: Schema.Schema.Type<S>,
  options?: PublishEventOptions
): Effect.Effect<Confirmed, AmqpError, AmqpPublisher.AmqpPublisher | Schema.Schema.Context<S>> => {
  const { mandatory = true, properties, ...publishOptions } = options ?? {}
  return Effect.flatMap(encode(event, value, properties), (message) =>
    AmqpPublisher.publish(message, { ...publishOptions, mandatory })
  )
}

/**
 * Runs a handler for each value of an event that a queue delivers.
 *
 * **When to use**
 *
 * Use as `AmqpConsumer.consume`, whose `schema` it sets. Use `layerConsume` for a consumer that runs as long as the
 * application.
 *
 * **Details**
 *
 * It runs and fails as `AmqpConsumer.consume` does. The queue has to exist, and to be bound: see `binding`.
 *
 * **Gotchas**
 *
 * All messages of the queue are decoded by the event's schema, whatever their `type`. Give each event a queue of its
 * own.
 *
 * **Example** (Handling an event)
 *
 * ```ts
 * import { AmqpConsumer, AmqpEvent } from "@effect-amqp/platform"
 * import { Effect, Schema } from "effect"
 *
 * const OrderPlaced = AmqpEvent.make("OrderPlaced", {
 *   schema: Schema.Struct({ id: Schema.Int }),
 *   routingKey: "orders"
 * })
 *
 * const shipping = AmqpEvent.consume(OrderPlaced, "orders", (order) => Effect.log("shipping", order.id), {
 *   onDecodeFailure: AmqpConsumer.deadLetter
 * })
 * ```
 *
 * @see {@link layerConsume} for a consumer as a layer
 *
 * @category consuming
 * @since 0.1.0
 */
export const consume = <S extends Schema.Schema.All, A, E, R>(
  event: Event<S>,
  queue: string,
  handler: (value: Schema.Schema.Type<S>, delivery: AmqpConsumer.Delivery) => Effect.Effect<A, E, R>,
  options?: AmqpConsumer.ConsumeOptions<NoInfer<E>> & DecodeEventOptions
): Effect.Effect<never, AmqpError, AmqpConsumer.Services<R | Schema.Schema.Context<S>>> =>
  AmqpConsumer.consume<A, E, R, S>(queue, asInput(handler), withSchema(event, options))

const withSchema = <S extends Schema.Schema.All, O extends DecodeEventOptions>({ schema }: Event<S>, options?: O) =>
  ({ ...options, schema }) as Omit<O, keyof DecodeEventOptions> & AmqpConsumer.DecodeOptions<S>

/** With a schema the input is its value, which the compiler does not see in a generic function. */
const asInput = <S extends Schema.Schema.All, B>(
  handler: (value: Schema.Schema.Type<S>, delivery: AmqpConsumer.Delivery) => B
) => handler as (value: AmqpConsumer.HandlerInput<S>, delivery: AmqpConsumer.Delivery) => B

/**
 * A consumer of an event as a layer: it runs a handler for each value that a queue delivers, for as long as the layer
 * exists.
 *
 * **When to use**
 *
 * Use in services, to run consumers as parts of the application that `Amqp.launch` runs.
 *
 * **Details**
 *
 * It is `AmqpConsumer.layerConsume` with the event's schema.
 *
 * **Example** (An application with a consumer)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Amqp, AmqpEvent, AmqpLive } from "@effect-amqp/platform"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const OrderPlaced = AmqpEvent.make("OrderPlaced", {
 *   schema: Schema.Struct({ id: Schema.Int }),
 *   routingKey: "orders"
 * })
 *
 * AmqpEvent.layerConsume(OrderPlaced, "orders", (order) => Effect.log("shipping", order.id)).pipe(
 *   Layer.provide(AmqpLive),
 *   Amqp.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @see {@link consume} for a consumer that ends before the application
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConsume = <S extends Schema.Schema.All, A, E, R>(
  event: Event<S>,
  queue: string,
  handler: (value: Schema.Schema.Type<S>, delivery: AmqpConsumer.Delivery) => Effect.Effect<A, E, R>,
  options?: AmqpConsumer.ConsumeOptions<NoInfer<E>> & DecodeEventOptions & AmqpConsumer.LayerOptions
): Layer.Layer<never, never, AmqpConsumer.Services<R | Schema.Schema.Context<S>>> =>
  AmqpConsumer.layerConsume<A, E, R, S>(queue, asInput(handler), withSchema(event, options))

/**
 * The binding with which a queue receives an event.
 *
 * **When to use**
 *
 * Use with `AmqpTopology.make`, for events that are published to an exchange. The default exchange needs no binding.
 *
 * **Example** (A queue for an event)
 *
 * ```ts
 * import { AmqpEvent, AmqpTopology } from "@effect-amqp/platform"
 * import { Schema } from "effect"
 *
 * const OrderPlaced = AmqpEvent.make("OrderPlaced", {
 *   schema: Schema.Struct({ id: Schema.Int }),
 *   exchange: "orders",
 *   routingKey: "order.placed"
 * })
 *
 * const Billing = AmqpTopology.layer(
 *   AmqpTopology.make(
 *     AmqpTopology.exchange("orders", "topic"),
 *     AmqpTopology.queue("billing"),
 *     AmqpEvent.binding(OrderPlaced, "billing")
 *   )
 * )
 * ```
 *
 * @see {@link EventOptions} for `bindingKey`
 *
 * @category topology
 * @since 0.1.0
 */
export const binding = <S extends Schema.Schema.All>(event: Event<S>, queue: string): AmqpTopology.Binding =>
  AmqpTopology.queueBinding(queue, event.exchange, event.bindingKey)
