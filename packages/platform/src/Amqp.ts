/**
 * All services as one layer: connection, pool, publisher, consumers, and request and reply.
 *
 * @since 0.1.0
 */
import { Amqp as Core } from "@effect-amqp/core"
import type * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AmqpConfig from "./AmqpConfig.ts"
import type { AmqpConnection } from "./AmqpConnection.ts"
import type { AmqpConsumer } from "./AmqpConsumer.ts"
import type { AmqpPublisher } from "./AmqpPublisher.ts"
import type { AmqpRpc } from "./AmqpRpc.ts"
import * as Background from "./internal/background.ts"
import { build } from "./internal/building.ts"
import type { AmqpError } from "./model/error.ts"
import type { AmqpPool } from "./model/pool.ts"

/**
 * The services that these layers provide.
 *
 * **When to use**
 *
 * Use as the requirement of a part of an application that uses several of the services.
 *
 * **Details**
 *
 * These are a connection, its pool of channels, its publisher, its client for request and reply, and the consumers. The consumers have a connection of
 * their own, which is made when the first of them starts. Channels are opened when they are first needed.
 *
 * @see {@link layer} for providing them
 *
 * @category models
 * @since 0.1.0
 */
export type Amqp = AmqpConnection | AmqpPool | AmqpPublisher | AmqpConsumer | AmqpRpc

/**
 * All services by a checked configuration, as a layer.
 *
 * **When to use**
 *
 * Use when the configuration is already made, for instance by `AmqpConfig.fromUrl`.
 *
 * **Details**
 *
 * Each call makes a layer with a connection of its own. An application that provides one such layer to several others
 * builds it once. Building and closing it are described at `layer`.
 *
 * @see {@link layer} for settings in code
 * @see {@link layerConfig} for an Effect `Config`
 *
 * @category layers
 * @since 0.1.0
 */
export const fromConfig = (config: AmqpConfig.AmqpConfig): Layer.Layer<Amqp, AmqpError> =>
  build(Core.fromConfig(config as never))

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
 * When its scope closes, everything that depends on the layer has already stopped. Then consumers that still run take no
 * more deliveries and finish their handlers, the publisher and the pool wait for confirms and borrowed channels, and the
 * connections close. This takes at most `shutdownTimeout` and twice `closeTimeout`.
 *
 * @see {@link layerConfig} for an Effect `Config`
 * @see {@link fromConfig} for a checked configuration
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: AmqpConfig.Options): Layer.Layer<Amqp, AmqpError> =>
  Layer.unwrapEffect(Effect.map(AmqpConfig.make(options), fromConfig))

/**
 * All services by an Effect `Config`, as a layer.
 *
 * **When to use**
 *
 * Use when the settings come from a `ConfigProvider` under names of your own. `AmqpConfig.config` reads the environment,
 * and other configurations can be derived from it.
 *
 * **Details**
 *
 * The configuration is read when the layer is built. Fails with a `ConfigError` that lists every mistake, or as `layer`
 * does. Closing is described at `layer`.
 *
 * @see {@link layer} for settings in code
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Config<AmqpConfig.AmqpConfig>
): Layer.Layer<Amqp, AmqpError | ConfigError.ConfigError> => Layer.unwrapEffect(Effect.map(config, fromConfig))

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
 * @see {@link layer} for settings in code
 *
 * @category layers
 * @since 0.1.0
 */
export const AmqpLive: Layer.Layer<Amqp, AmqpError | ConfigError.ConfigError> = layerConfig(AmqpConfig.config)

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
 * import { Amqp, AmqpConsumer, AmqpLive, AmqpMessage } from "@effect-amqp/platform"
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
