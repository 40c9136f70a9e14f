/**
 * Several brokers in one application.
 *
 * With one broker, the application provides its services (`Amqp.Amqp`), and `AmqpPublisher.publish` and the other
 * functions use them. With two, each broker has a key of its own: a class that is made once, and that a layer provides.
 * Code chooses the broker with `provide`.
 *
 * A broker without a `connectionName` uses its key as the name, in the broker's own tools and to distinguish metrics
 * and log lines.
 *
 * **Example** (Two brokers)
 *
 * ```ts
 * import { AmqpBroker, AmqpConfig, AmqpPublisher } from "@effect-amqp/core"
 * import { Effect, Layer } from "effect"
 *
 * class Orders extends AmqpBroker.Service<Orders>()("app/Orders") {}
 * class Audit extends AmqpBroker.Service<Audit>()("app/Audit") {}
 *
 * // Effect<void, AmqpError, Orders | Audit>
 * const place = Effect.fn("place")(function* (content: string) {
 *   yield* AmqpPublisher.publish({ routingKey: "orders", content }).pipe(Orders.provide)
 *   yield* AmqpPublisher.publish({ routingKey: "audit", content }).pipe(Audit.provide)
 * })
 *
 * const Brokers = Layer.merge(
 *   Orders.layerConfig(AmqpConfig.config),
 *   Audit.layer({ host: "audit.internal", lazyConnect: true })
 * )
 *
 * const program = place("a lamp").pipe(Effect.provide(Brokers))
 * ```
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Amqp from "./Amqp.ts"
import * as AmqpConfig from "./AmqpConfig.ts"
import type { AmqpError } from "./model/error.ts"

/**
 * The key of a broker. Its service is the context that `Amqp.layer` provides.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes any one broker with its layers. Make keys with `Service`.
 *
 * @see {@link Service} for making a key
 * @see {@link Any} for a key without its layers
 *
 * @category models
 * @since 0.1.0
 */
export interface BrokerClass<Self, Id extends string> extends Context.ServiceClass<
  Self,
  Id,
  Context.Context<Amqp.Amqp>
> {
  /** Provides the services of this broker to an effect. */
  readonly provide: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Amqp.Amqp> | Self>
  /**
   * The services of this broker as the services of the only broker, for a part of an application that knows of no
   * others.
   */
  readonly services: Layer.Layer<Amqp.Amqp, never, Self>
  /** The broker by settings in code, as `Amqp.layer`. Nothing connects before the layer is built. */
  readonly layer: (options?: AmqpConfig.Options) => Layer.Layer<Self, AmqpError>
  /** The broker by an Effect `Config`, as `Amqp.layerConfig`. Nothing is read before the layer is built. */
  readonly layerConfig: (
    config: Config.Config<AmqpConfig.AmqpConfig>
  ) => Layer.Layer<Self, AmqpError | Config.ConfigError>
  /** The broker by a checked configuration, as `Amqp.fromConfig`. */
  readonly fromConfig: (config: AmqpConfig.AmqpConfig) => Layer.Layer<Self, AmqpError>
}

/**
 * The key of any broker.
 *
 * **When to use**
 *
 * Use as a constraint in code that works with several brokers.
 *
 * @see {@link Identifier} for what such code requires
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Context.Key<unknown, Context.Context<Amqp.Amqp>>

/**
 * The identifiers of brokers, from their keys.
 *
 * **When to use**
 *
 * Use as the requirement of code that chooses among several brokers.
 *
 * @see {@link Any} for the keys
 *
 * @category models
 * @since 0.1.0
 */
export type Identifier<Brokers extends ReadonlyArray<Any>> = Context.Service.Identifier<Brokers[number]>

/**
 * Makes the key of a broker, to be extended by a class.
 *
 * **When to use**
 *
 * Use once for each broker of an application with more than one.
 *
 * **Details**
 *
 * The identifier is also the connection's name, unless `connectionName` is given.
 *
 * **Example** (Consuming from a second broker)
 *
 * ```ts
 * import { AmqpBroker, AmqpConsumer } from "@effect-amqp/core"
 *
 * class Audit extends AmqpBroker.Service<Audit>()("app/Audit") {}
 *
 * const worker = AmqpConsumer.consume("audit", (delivery) => delivery.ack).pipe(Audit.provide)
 * ```
 *
 * @see {@link BrokerClass} for the members of a key
 *
 * @category constructors
 * @since 0.1.0
 */
export const Service =
  <Self>() =>
  <const Id extends string>(id: Id): BrokerClass<Self, Id> => {
    const key = Context.Service<Self, Context.Context<Amqp.Amqp>>()(id)
    const fromConfig = (config: AmqpConfig.AmqpConfig) =>
      Layer.effect(key, Layer.build(Amqp.fromConfig({ ...config, connectionName: config.connectionName ?? id })))
    return Object.assign(key, {
      provide: <A, E, R>(self: Effect.Effect<A, E, R>) =>
        Effect.flatMap(key, (services) => Effect.provideContext(self, services)),
      services: Layer.effectContext(key),
      layer: (options?: AmqpConfig.Options) => Layer.unwrap(Effect.map(AmqpConfig.make(options), fromConfig)),
      layerConfig: (config: Config.Config<AmqpConfig.AmqpConfig>) => Layer.unwrap(Effect.map(config, fromConfig)),
      fromConfig
    })
  }
