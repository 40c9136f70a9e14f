/**
 * The whole of it, as layers: configuration, connection, pool, publisher, consumers, requests.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AmqpConfig from "./AmqpConfig.ts"
import * as AmqpConnection from "./AmqpConnection.ts"
import * as AmqpConsumer from "./AmqpConsumer.ts"
import type { AmqpError } from "./model/error.ts"
import * as AmqpMetrics from "./AmqpMetrics.ts"
import * as AmqpPool from "./AmqpPool.ts"
import * as AmqpPublisher from "./AmqpPublisher.ts"
import * as AmqpRpc from "./AmqpRpc.ts"

/**
 * What these layers provide: a connection, its pool of channels, its publisher, its client for requests, and the consumers with
 * a connection of their own, which is made when the first of them starts. Channels are opened at first need.
 */
export type Amqp =
  | AmqpConnection.AmqpConnection
  | AmqpPool.AmqpPool
  | AmqpPublisher.AmqpPublisher
  | AmqpConsumer.AmqpConsumer
  | AmqpRpc.AmqpRpc

/** All of it, by settings that have been checked. */
export const fromConfig = (config: AmqpConfig.AmqpConfig): Layer.Layer<Amqp, AmqpError> =>
  // Fresh: layers are built once an application, and a second connection must not get the pool of the first.
  Layer.fresh(
    AmqpMetrics.layer.pipe(
      Layer.provideMerge(AmqpConsumer.layer),
      Layer.provideMerge(Layer.mergeAll(AmqpPublisher.layer, AmqpPool.layer, AmqpRpc.layer))
    )
  ).pipe(Layer.provideMerge(AmqpConnection.layer(config)))

/**
 * All of it, by settings in code.
 *
 * Building it connects, so an application with this layer is up only when the broker is; `connectionAttempts` and
 * `retryDelay` say for how long it tries. Fails with `InvalidConfig`, which lists every mistake, or with why it could
 * not connect.
 *
 * When its scope closes, whatever needs the layer has been stopped before. Then, in this order: consumers that still run
 * take no more, and their handlers finish, for which they may publish, borrow and call; publisher, pool and client turn
 * away who is in line and who comes, and wait for confirms, channels and replies; their channels are closed, and the
 * connections, whose sockets are destroyed in every case. It takes at most `shutdownTimeout` and twice `closeTimeout`, counted
 * from the moment at which the first consumer began to stop, if some have right before; interrupting it changes nothing.
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
 * All of it, by an Effect `Config`: `AmqpConfig.config` reads the environment, and another may be put
 * together from it.
 */
export const layerConfig = (
  config: Config.Config<AmqpConfig.AmqpConfig>
): Layer.Layer<Amqp, AmqpError | Config.ConfigError> => Layer.unwrap(Effect.map(config, fromConfig))

/**
 * What an application provides: connection, pool, publisher, consumers and requests, configured by the environment
 * (`AMQP_URL`, or `AMQP_HOST`, `AMQP_PORT`, `AMQP_USERNAME`, `AMQP_PASSWORD`, `AMQP_VHOST`; `AMQP_POOL_SIZE`,
 * `AMQP_POOL_RECYCLE` and the rest).
 */
export const AmqpLive: Layer.Layer<Amqp, AmqpError | Config.ConfigError> = layerConfig(AmqpConfig.config)
