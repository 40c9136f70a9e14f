/**
 * The whole of it, as layers: configuration, connection, pool.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AmqpConfig from "./AmqpConfig.ts"
import * as AmqpConnection from "./AmqpConnection.ts"
import type { AmqpError } from "./AmqpError.ts"
import * as AmqpPool from "./AmqpPool.ts"

/** What these layers provide. */
export type Amqp = AmqpConnection.AmqpConnection | AmqpPool.AmqpPool

/** A connection and its pool, by settings that have been checked. */
export const fromConfig = (config: AmqpConfig.AmqpConfig): Layer.Layer<Amqp, AmqpError> =>
  Layer.provideMerge(AmqpPool.layer, AmqpConnection.layer(config))

/**
 * A connection and its pool, by settings in code.
 *
 * Building it connects, so an application with this layer is up only when the broker is; `connectionAttempts` and
 * `retryDelay` say for how long it tries. Fails with `InvalidConfig`, which lists every mistake, or with why it could
 * not connect.
 *
 * @example
 * ```ts
 * import { Amqp } from "@effect-amqp/core"
 *
 * const AmqpLayer = Amqp.layer({ host: "rabbit.internal", pool: { max: 32, recycle: "30 minutes" } })
 * ```
 */
export const layer = (options?: AmqpConfig.Options): Layer.Layer<Amqp, AmqpError> =>
  Layer.unwrap(Effect.map(AmqpConfig.make(options), fromConfig))

/**
 * A connection and its pool, by an Effect `Config`: `AmqpConfig.config` reads the environment, and another may be put
 * together from it.
 */
export const layerConfig = (
  config: Config.Config<AmqpConfig.AmqpConfig>
): Layer.Layer<Amqp, AmqpError | Config.ConfigError> => Layer.unwrap(Effect.map(config, fromConfig))

/**
 * What an application provides: a connection and its pool, configured by the environment (`AMQP_URL`, or `AMQP_HOST`,
 * `AMQP_PORT`, `AMQP_USERNAME`, `AMQP_PASSWORD`, `AMQP_VHOST`; `AMQP_POOL_SIZE`, `AMQP_POOL_RECYCLE` and the rest).
 */
export const AmqpLive: Layer.Layer<Amqp, AmqpError | Config.ConfigError> = layerConfig(AmqpConfig.config)
