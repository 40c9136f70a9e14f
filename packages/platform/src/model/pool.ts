/**
 * The pool of channels: its service and its counts.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpChannel, ConfirmChannel, TransactionChannel } from "./channel.ts"
import type { AmqpError } from "./error.ts"
import type { Stats } from "./poolStats.ts"

export * from "./poolStats.ts"

/**
 * The pooled channels of one kind: regular, confirm or transaction channels.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes any kind of channel.
 *
 * @see {@link AmqpPool} for the service that has one for each kind
 *
 * @category models
 * @since 0.1.0
 */
export interface ChannelsOf<Channel> {
  /**
   * Borrows a channel until the scope closes. It ends within `acquireTimeout`: with a channel, or with
   * `AcquireTimeout`, `PoolClosed`, `PoolExhausted` or the error of opening.
   */
  readonly get: Effect.Effect<Channel, AmqpError, Scope.Scope>
  /** The channel of the current scope: the first use borrows it, later uses get the same one. See `AmqpChannel.use`. */
  readonly ofScope: Effect.Effect<Channel, AmqpError, Scope.Scope>
  /** Borrows a channel for the duration of one effect. */
  readonly use: <A, E, R>(f: (channel: Channel) => Effect.Effect<A, E, R>) => Effect.Effect<A, E | AmqpError, R>
  /** The counts of this kind. */
  readonly stats: Effect.Effect<Stats>
}

/**
 * The operations of `AmqpPool`.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes the service.
 *
 * @see {@link AmqpPool} for the service
 *
 * @category models
 * @since 0.1.0
 */
export interface Service extends ChannelsOf<AmqpChannel> {
  /** Channels in confirm mode. See `AmqpChannel.useConfirm`. */
  readonly confirm: ChannelsOf<ConfirmChannel>
  /** Channels in transaction mode. See `AmqpChannel.useTransaction`. */
  readonly transaction: ChannelsOf<TransactionChannel>
}

/**
 * The pool of channels, as a service.
 *
 * **When to use**
 *
 * Use to borrow channels directly or to read the pool's counts. `AmqpChannel.use` and its variants are more convenient.
 *
 * **Details**
 *
 * The service itself has the regular channels; `confirm` and `transaction` have the others. Each kind has pool places
 * of its own. The settings are those of `AmqpConfig`'s `pool`, with `max` for each kind and `min` for regular channels
 * only. A channel is opened when it is first needed. With `pool: false` every borrow opens a channel and closes it
 * afterwards.
 *
 * @see {@link ChannelsOf} for the operations of each kind
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpPool extends Context.Tag("@effect-amqp/platform/AmqpPool")<AmqpPool, Service>() {}
