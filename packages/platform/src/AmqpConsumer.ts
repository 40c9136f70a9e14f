/**
 * Consumers: handlers whose outcome settles the delivery, batches, and streams of deliveries.
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { background } from "./internal/background.ts"
import { consumeBatchOn, consumeOn, streamOn } from "./internal/consuming.ts"
import { hasEnded, insideOf } from "./internal/inside.ts"
import type {
  BatchOptions,
  ConsumeOptions,
  DecodeOptions,
  Delivery,
  HandlerInput,
  LayerOptions,
  StreamOptions
} from "./model/consumer.ts"
import type { AmqpError } from "./model/error.ts"

export * from "./model/consumer.ts"

export * from "./model/policies.ts"

export * from "./model/streamPolicies.ts"

/**
 * The operations of `AmqpConsumer`: none yet. Consumers are started by the functions of this module.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes the service.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  readonly _tag: "AmqpConsumer"
}

/**
 * The service that consumers share.
 *
 * **When to use**
 *
 * Use as a requirement of programs that consume. `Amqp.layer` provides it.
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpConsumer extends Context.Tag("@effect-amqp/platform/AmqpConsumer")<AmqpConsumer, Service>() {}

/**
 * The services that `consume` and `consumeBatch` require: `AmqpConsumer`, and those of the handler except a scope.
 *
 * **When to use**
 *
 * Use to annotate a function that returns a consumer.
 *
 * **Details**
 *
 * Each call of the handler has a scope of its own.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Services<R> = Exclude<R, Scope.Scope> | AmqpConsumer

/**
 * Consumes a queue: calls a handler for each delivery, and settles the delivery by what becomes of the handler.
 *
 * **When to use**
 *
 * Use for the workers of an application. With a `schema` the handler gets the decoded value first.
 *
 * **Details**
 *
 * - The handler succeeds: the delivery is acknowledged.
 * - It fails: `onFailure` decides, by default it is redelivered after a pause.
 * - It dies: the defect is logged, and `onDefect` decides.
 * - It is interrupted because the consumer ends: the delivery goes back to the queue.
 *
 * The handler runs in Effect 3, in the context and with the fiber references of the fiber that called `consume`, in a
 * scope of its own, which closes before the delivery is settled. The consumer runs until it is interrupted; it then
 * waits for its handlers, up to `shutdownTimeout`.
 *
 * It fails with the reason that ended it: `NotFound`, `ConsumerCancelled`, `AccessRefused`, or `InvalidArgument` for
 * wrong options.
 *
 * @see {@link consumeBatch} for several deliveries at a time
 * @see {@link stream} for settling deliveries yourself
 *
 * @category consuming
 * @since 0.1.0
 */
export const consume = <A, E, R, S extends Schema.Schema.All = never>(
  queue: string,
  handler: (value: HandlerInput<S>, delivery: Delivery) => Effect.Effect<A, E, R>,
  options?: ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
): Effect.Effect<never, AmqpError, Services<R | Schema.Schema.Context<S>>> =>
  Effect.flatMap(AmqpConsumer, (service) =>
    consumeOn(insideOf("AmqpConsumer.consume", service), queue, handler as never, options as never)
  )

/**
 * A consumer as a layer: it runs a handler for each delivery of a queue, as `consume` does, for as long as the layer
 * exists.
 *
 * **When to use**
 *
 * Use in services, to run consumers as parts of the application. `Amqp.launch` runs the application, and ends it when a
 * consumer ends with an error. Use `consume` for a consumer that ends before the application does.
 *
 * **Details**
 *
 * The layer is built at once; the consumer starts in the background and waits for its broker. When the layer's scope
 * closes, the consumer stops in order, as `consume` does when it is interrupted, before the services that its handler
 * uses are released.
 *
 * The options are those of `consume`, and `whenFailed`.
 *
 * **Gotchas**
 *
 * `onFailure` is for handlers that fail. A handler that throws, or whose promise rejects in `Effect.promise`, dies of a
 * defect, which `onDefect` decides; by default it is delivered again without end.
 *
 * With `Layer.launch` instead of `Amqp.launch` nothing ends an application whose consumer has ended: an error is
 * logged, and health is not ready.
 *
 * **Example** (An application with a consumer)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Amqp, AmqpConsumer, AmqpLive } from "@effect-amqp/platform"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const Order = Schema.Struct({ id: Schema.Int, product: Schema.String })
 *
 * const Shipping = AmqpConsumer.layerConsume("orders", (order) => Effect.log("shipping", order.product), {
 *   schema: Order,
 *   concurrency: 10
 * })
 *
 * Shipping.pipe(Layer.provide(AmqpLive), Amqp.launch, NodeRuntime.runMain)
 * ```
 *
 * @see {@link consume} for what happens to deliveries
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConsume = <A, E, R, S extends Schema.Schema.All = never>(
  queue: string,
  handler: (value: HandlerInput<S>, delivery: Delivery) => Effect.Effect<A, E, R>,
  options?: ConsumeOptions<NoInfer<E>> & DecodeOptions<S> & LayerOptions
): Layer.Layer<never, never, Services<R | Schema.Schema.Context<S>>> => {
  const { whenFailed = "end", ...consumeOptions } = options ?? {}
  return background(
    "AmqpConsumer.layerConsume",
    consume<A, E, R, S>(queue, handler, consumeOptions as ConsumeOptions<NoInfer<E>> & DecodeOptions<S>),
    whenFailed,
    Effect.map(AmqpConsumer, hasEnded)
  ) as Layer.Layer<never, never, Services<R | Schema.Schema.Context<S>>>
}

/**
 * Consumes a queue in batches: calls a handler for several deliveries, and settles all of them by what becomes of it.
 *
 * **When to use**
 *
 * Use where work is cheaper for many messages than for each, such as inserting rows.
 *
 * **Details**
 *
 * A batch is complete when it has `size` deliveries, or when its first delivery has waited for `within`. Everything else
 * is as for `consume`.
 *
 * @see {@link consume} for single deliveries
 *
 * @category consuming
 * @since 0.1.0
 */
export const consumeBatch = <A, E, R, S extends Schema.Schema.All = never>(
  queue: string,
  handler: (
    values: NonEmptyReadonlyArray<HandlerInput<S>>,
    deliveries: NonEmptyReadonlyArray<Delivery>
  ) => Effect.Effect<A, E, R>,
  options: BatchOptions & ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
): Effect.Effect<never, AmqpError, Services<R | Schema.Schema.Context<S>>> =>
  Effect.flatMap(AmqpConsumer, (service) =>
    consumeBatchOn(insideOf("AmqpConsumer.consumeBatch", service), queue, handler as never, options as never)
  )

/**
 * Consumes a queue as a stream of deliveries, which the program settles.
 *
 * **When to use**
 *
 * Use where a handler per delivery does not fit, for instance to group or join deliveries.
 *
 * **Details**
 *
 * The prefetch bounds how many deliveries are unsettled. The stream ends when its consumer takes no more, and fails with
 * the reason when deliveries stop. Deliveries that are not settled when it ends go back to the queue.
 *
 * @see {@link consume} for handlers
 *
 * @category consuming
 * @since 0.1.0
 */
export const stream = (queue: string, options?: StreamOptions): Stream.Stream<Delivery, AmqpError, AmqpConsumer> =>
  Stream.unwrap(
    Effect.map(AmqpConsumer, (service) => streamOn(insideOf("AmqpConsumer.stream", service), queue, options))
  )
