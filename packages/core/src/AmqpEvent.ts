/**
 * Events: a schema, an exchange and a routing key in one value, which publishers and consumers share.
 *
 * **Example** (One value per event)
 *
 * ```ts
 * import { AmqpEvent } from "@effect-amqp/core"
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
import type { Confirmed, PublishOptions } from "./model/channel.ts"
import type { AmqpError } from "./model/error.ts"
import type { Json, Message, Properties } from "./model/message.ts"

/**
 * Options of an event.
 *
 * **When to use**
 *
 * Use with `make`.
 *
 * **Details**
 *
 * An event whose routing key is a function of its value says with which `bindingKey` queues receive all of its values.
 *
 * @category options
 * @since 0.1.0
 */
export type EventOptions<S extends Schema.Constraint> = {
  /** The schema of the event. Its values are sent as JSON. */
  readonly schema: S
  /** The exchange to publish to. Default: `""`, the default exchange, which routes to the queue named by `routingKey`. */
  readonly exchange?: string | undefined
  /** Properties of each message of the event. `type` is the event's name unless it is set here. */
  readonly properties?: Properties | undefined
} & (
  | {
      /** The routing key. At most 255 bytes. */
      readonly routingKey: string
      /** The binding key with which queues receive the event. Default: `routingKey`. */
      readonly bindingKey?: string | undefined
    }
  | {
      /** Derives the routing key from a value. At most 255 bytes. */
      readonly routingKey: (value: S["Type"]) => string
      /** The binding key with which queues receive all values of the event, such as `order.placed.*`. */
      readonly bindingKey: string
    }
)

/**
 * An event: what is published, where to, and how consumers read it.
 *
 * **When to use**
 *
 * Use as the type of a value that `make` returns.
 *
 * @see {@link make} for declaring an event
 *
 * @category models
 * @since 0.1.0
 */
export interface Event<S extends Schema.Constraint> {
  /** Its name, which messages have as their `type`. */
  readonly name: string
  /** The schema of its values, for the option `schema` of consumers. */
  readonly schema: S
  /** The exchange to publish to. */
  readonly exchange: string
  /** The routing key of a value. */
  readonly routingKey: (value: S["Type"]) => string
  /** The binding key with which queues receive the event. */
  readonly bindingKey: string
  /** Properties of each message. */
  readonly properties: Properties
  /** Encodes and decodes its values. */
  readonly json: Json<S>
}

/**
 * Options of publishing an event.
 *
 * **When to use**
 *
 * Use with `publish`, for a deadline, for properties of this message such as a `messageId`, or to allow that no queue
 * receives it.
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishEventOptions extends PublishOptions {
  /**
   * Whether the publish fails with `PublishReturned` if no queue is bound for the event. Default: `true`, so that an event
   * is never lost silently. Use `false` for events that need no subscriber.
   */
  readonly mandatory?: boolean | undefined
  /** Properties of this message, in addition to those of the event. */
  readonly properties?: Properties | undefined
}

// The type of `onDecodeFailure` must not depend on the event's schema, which a generic function does not know.
type DecodeEventOptions = Omit<AmqpConsumer.DecodeOptions<Schema.Constraint>, "schema">

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
 * import { AmqpEvent } from "@effect-amqp/core"
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
export const make = <S extends Schema.Constraint>(name: string, options: EventOptions<S>): Event<S> => {
  const { exchange = "", properties, schema } = options
  const isDerived = typeof options.routingKey === "function"
  return {
    name,
    schema,
    exchange,
    routingKey: isDerived ? options.routingKey : () => options.routingKey as string,
    bindingKey: options.bindingKey ?? (options.routingKey as string),
    properties: withProperties({ type: name }, properties),
    json: json(schema)
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
 * import { AmqpEvent, AmqpPublisher } from "@effect-amqp/core"
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
export const encode = <S extends Schema.Constraint>(
  event: Event<S>,
  value: S["Type"],
  properties?: Properties
): Effect.Effect<Message, AmqpError, S["EncodingServices"]> =>
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
 * import { AmqpEvent } from "@effect-amqp/core"
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
export const publish = <S extends Schema.Constraint>(
  event: Event<S>,
  value: S["Type"],
  options?: PublishEventOptions
): Effect.Effect<Confirmed, AmqpError, AmqpPublisher.AmqpPublisher | S["EncodingServices"]> => {
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
 * import { AmqpConsumer, AmqpEvent } from "@effect-amqp/core"
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
export const consume = <S extends Schema.Constraint, A, E, R, IE = never, IR = never>(
  event: Event<S>,
  queue: string,
  handler: (value: S["Type"], delivery: AmqpConsumer.Delivery) => Effect.Effect<A, E, R>,
  options?: AmqpConsumer.ConsumeOptions<NoInfer<E | IE>> & DecodeEventOptions & AmqpConsumer.InboxOptions<IE, IR>
): Effect.Effect<never, AmqpError, AmqpConsumer.Services<R | IR | S["DecodingServices"]>> =>
  AmqpConsumer.consume<A, E, R, S, IE, IR>(queue, handler, withSchema(event, options))

const withSchema = <S extends Schema.Constraint, O extends DecodeEventOptions>({ schema }: Event<S>, options?: O) =>
  ({ ...options, schema }) as Omit<O, keyof DecodeEventOptions> & AmqpConsumer.DecodeOptions<S>

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
 * import { Amqp, AmqpEvent, AmqpLive } from "@effect-amqp/core"
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
export const layerConsume = <S extends Schema.Constraint, A, E, R, IE = never, IR = never>(
  event: Event<S>,
  queue: string,
  handler: (value: S["Type"], delivery: AmqpConsumer.Delivery) => Effect.Effect<A, E, R>,
  options?: AmqpConsumer.ConsumeOptions<NoInfer<E | IE>> &
    DecodeEventOptions &
    AmqpConsumer.InboxOptions<IE, IR> &
    AmqpConsumer.LayerOptions
): Layer.Layer<never, never, AmqpConsumer.Services<R | IR | S["DecodingServices"]>> =>
  AmqpConsumer.layerConsume<A, E, R, S, IE, IR>(queue, handler, withSchema(event, options))

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
 * import { AmqpEvent, AmqpTopology } from "@effect-amqp/core"
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
export const binding = <S extends Schema.Constraint>(event: Event<S>, queue: string): AmqpTopology.Binding =>
  AmqpTopology.queueBinding(queue, event.exchange, event.bindingKey)
