/**
 * All services as one layer: connection, pool, publisher, consumers and requests.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Background from "./internal/consumer/background.ts"
import * as AmqpConfig from "./AmqpConfig.ts"
import * as AmqpConnection from "./AmqpConnection.ts"
import * as AmqpConsumer from "./AmqpConsumer.ts"
import type { AmqpError } from "./model/error.ts"
import * as AmqpMetrics from "./AmqpMetrics.ts"
import * as AmqpPool from "./AmqpPool.ts"
import * as AmqpPublisher from "./AmqpPublisher.ts"
import * as AmqpRpc from "./AmqpRpc.ts"

/**
 * The services that these layers provide.
 *
 * **When to use**
 *
 * Use as the requirement of a part of an application that uses several of the services.
 *
 * **Details**
 *
 * These are a connection, its pool of channels, its publisher, its client for requests, and the consumers. The
 * consumers have a connection of their own, which is made when the first of them starts. Channels are opened when they
 * are first needed.
 *
 * @see {@link layer} for providing them
 *
 * @category models
 * @since 0.1.0
 */
export type Amqp =
  | AmqpConnection.AmqpConnection
  | AmqpPool.AmqpPool
  | AmqpPublisher.AmqpPublisher
  | AmqpConsumer.AmqpConsumer
  | AmqpRpc.AmqpRpc

/**
 * All services by a checked configuration, as a layer.
 *
 * **When to use**
 *
 * Use when the configuration is already made, for instance by `AmqpConfig.fromUrl`.
 *
 * **Details**
 *
 * Each layer has a connection of its own, also if several are built in one application. Building and closing it are
 * described at `layer`.
 *
 * **Example** (A broker by its URL)
 *
 * ```ts
 * import { Amqp, AmqpConfig } from "@effect-amqp/core"
 * import { Effect, Layer } from "effect"
 *
 * const config = AmqpConfig.fromUrl("amqp://orders:s3cret@rabbit.internal")
 * const AmqpLayer = Layer.unwrap(Effect.map(config, Amqp.fromConfig))
 * ```
 *
 * @see {@link layer} for settings in code
 * @see {@link layerConfig} for an Effect `Config`
 *
 * @category layers
 * @since 0.1.0
 */
export const fromConfig = (config: AmqpConfig.AmqpConfig): Layer.Layer<Amqp, AmqpError> =>
  // Fresh, because a layer is built once per application, and a second connection must not get the first one's pool.
  Layer.fresh(
    AmqpMetrics.layer.pipe(
      Layer.provideMerge(AmqpConsumer.layer),
      Layer.provideMerge(Layer.mergeAll(AmqpPublisher.layer, AmqpPool.layer, AmqpRpc.layer))
    )
  ).pipe(Layer.provideMerge(AmqpConnection.layer(config)))

/**
 * All services by settings in code, as a layer.
 *
 * **When to use**
 *
 * Use when the application decides the settings itself. `AmqpLive` reads them from the environment.
 *
 * **Details**
 *
 * Building the layer connects, so an application with this layer starts only when the broker is available;
 * `connectionAttempts` and `retryDelay` bound how long it tries. With `lazyConnect` the connection is made in the
 * background. Fails with `InvalidConfig`, which lists every mistake, or with the reason why it could not connect.
 *
 * When its scope closes, everything that depends on the layer has already stopped. Then, in this order:
 *
 * 1. Consumers that still run take no more deliveries, and their handlers finish. The handlers can still publish,
 *    borrow channels and call.
 * 2. Publisher, pool and client fail new and waiting callers, and wait for confirms, borrowed channels and replies.
 * 3. Their channels are closed, then the connections. The sockets are destroyed in every case.
 *
 * This takes at most `shutdownTimeout` and twice `closeTimeout`. If consumers have begun to stop immediately before,
 * the time counts from the moment at which the first of them did. Interruption does not change the shutdown.
 *
 * **Example** (Settings in code)
 *
 * ```ts
 * import { Amqp } from "@effect-amqp/core"
 *
 * const AmqpLayer = Amqp.layer({ url: "amqp://orders:s3cret@rabbit.internal", pool: { max: 32 } })
 * ```
 *
 * @see {@link layerConfig} for an Effect `Config`
 * @see {@link fromConfig} for a checked configuration
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: AmqpConfig.Options): Layer.Layer<Amqp, AmqpError> =>
  Layer.unwrap(Effect.map(AmqpConfig.make(options), fromConfig))

/**
 * All services by an Effect `Config`, as a layer.
 *
 * **When to use**
 *
 * Use when the settings come from a `ConfigProvider` under names of your own. `AmqpConfig.config` reads the
 * environment, and other configurations can be derived from it.
 *
 * **Details**
 *
 * The configuration is read when the layer is built. Fails with a `ConfigError` that lists every mistake, or as `layer`
 * does. Closing is described at `layer`.
 *
 * **Example** (Variables with a prefix)
 *
 * ```ts
 * import { Amqp, AmqpConfig } from "@effect-amqp/core"
 * import { Config } from "effect"
 *
 * // Reads ORDERS_AMQP_URL, ORDERS_AMQP_POOL_SIZE and so on.
 * const AmqpLayer = Amqp.layerConfig(AmqpConfig.config.pipe(Config.nested("ORDERS")))
 * ```
 *
 * @see {@link layer} for settings in code
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Config<AmqpConfig.AmqpConfig>
): Layer.Layer<Amqp, AmqpError | Config.ConfigError> => Layer.unwrap(Effect.map(config, fromConfig))

/**
 * All services, configured by the environment.
 *
 * **When to use**
 *
 * Use as the usual layer of an application.
 *
 * **Details**
 *
 * It reads `AMQP_URL`, or `AMQP_HOST`, `AMQP_PORT`, `AMQP_USERNAME`, `AMQP_PASSWORD` and `AMQP_VHOST`;
 * `AMQP_POOL_SIZE`, `AMQP_POOL_RECYCLE` and the others (see `AmqpConfig.config`). Building and closing it are described
 * at `layer`.
 *
 * **Example** (Publishing with the settings of the environment)
 *
 * ```ts
 * import { AmqpLive, AmqpPublisher } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = AmqpPublisher.publish({ routingKey: "orders", content: "one order" }).pipe(Effect.provide(AmqpLive))
 * ```
 *
 * @see {@link layer} for settings in code
 *
 * @category layers
 * @since 0.1.0
 */
export const AmqpLive: Layer.Layer<Amqp, AmqpError | Config.ConfigError> = layerConfig(AmqpConfig.config)

/**
 * Runs an application, given as a layer, until it is interrupted or one of its consumers or servers ends with an error.
 *
 * **When to use**
 *
 * Use instead of `Layer.launch` for an application with `AmqpConsumer.layerConsume` or `AmqpRpc.layerServe`.
 *
 * **Details**
 *
 * It is `Layer.launch`, and fails with the error of the first consumer or server of the layer that ends with one, after
 * all parts of the application have stopped in order. `NodeRuntime.runMain` then ends the process with status 1, so that
 * whatever supervises it starts it again.
 *
 * It fails with `E` if the layer cannot be built.
 *
 * **Example** (A worker)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Amqp, AmqpConsumer, AmqpLive, AmqpMessage } from "@effect-amqp/core"
 * import { Effect, Layer } from "effect"
 *
 * AmqpConsumer.layerConsume("orders", (delivery) => Effect.log(AmqpMessage.text(delivery))).pipe(
 *   Layer.provide(AmqpLive),
 *   Amqp.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const launch = <ROut, E, RIn>(layer: Layer.Layer<ROut, E, RIn>): Effect.Effect<never, E | AmqpError, RIn> =>
  Background.launch(layer)
