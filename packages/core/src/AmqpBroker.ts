/**
 * Several brokers in one application.
 *
 * With one broker its services (`Amqp.Amqp`) are provided, and `AmqpPublisher.publish` and the others find them. With two,
 * each has a key of its own: a class, made once, which the application is given a layer for. Code says which of them it
 * means by `provide`.
 *
 * A broker without a `connectionName` is called by its key, for the broker's own tools, and so that metrics and lines of the
 * log tell them apart.
 *
 * @example
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

/** The key of a broker. Its service is what `Amqp.layer` would provide. */
export interface BrokerClass<Self, Id extends string> extends Context.ServiceClass<
  Self,
  Id,
  Context.Context<Amqp.Amqp>
> {
  /** Gives an effect the services of this broker. */
  readonly provide: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Amqp.Amqp> | Self>
  /** The services of this broker as those of the only one: for a part of an application that knows of no others. */
  readonly services: Layer.Layer<Amqp.Amqp, never, Self>
  /** By settings in code, as `Amqp.layer`: nothing connects before the layer is built. */
  readonly layer: (options?: AmqpConfig.Options) => Layer.Layer<Self, AmqpError>
  /** By an Effect `Config`, as `Amqp.layerConfig`: nothing is read before the layer is built. */
  readonly layerConfig: (
    config: Config.Config<AmqpConfig.AmqpConfig>
  ) => Layer.Layer<Self, AmqpError | Config.ConfigError>
  /** By settings that have been checked, as `Amqp.fromConfig`. */
  readonly fromConfig: (config: AmqpConfig.AmqpConfig) => Layer.Layer<Self, AmqpError>
}

/** The key of any broker. */
export type Any = Context.Key<unknown, Context.Context<Amqp.Amqp>>

/** Brokers, by their keys: what code that chooses among them needs. */
export type Identifier<Brokers extends ReadonlyArray<Any>> = Context.Service.Identifier<Brokers[number]>

/**
 * Makes the key of a broker, to be extended by a class.
 *
 * @example
 * ```ts
 * import { AmqpBroker, AmqpConsumer } from "@effect-amqp/core"
 *
 * class Audit extends AmqpBroker.Service<Audit>()("app/Audit") {}
 *
 * const worker = AmqpConsumer.consume("audit", (delivery) => delivery.ack).pipe(Audit.provide)
 * ```
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
