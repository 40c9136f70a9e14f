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
import type { InsideId } from "./inside.ts"

/**
 * The counts of one kind of channels in the pool, at one moment.
 *
 * **When to use**
 *
 * Use to see whether the pool is large enough.
 *
 * **Details**
 *
 * `created`, `recycled`, `discarded` and `timedOut` count from the pool's start; the others are the present numbers and
 * bounds.
 *
 * @see {@link ChannelsOf} for the channels that are counted
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Open channels that are not borrowed. */
  readonly idle: number
  /** Pool places that are borrowed. */
  readonly used: number
  /** Borrowers in the wait queue. */
  readonly pending: number
  /** The configured minimum of open channels. */
  readonly min: number
  /** The configured maximum of channels; `Infinity` without pooling. */
  readonly max: number
  /** Channels opened. */
  readonly created: number
  /** Channels closed because of their age or idleness. */
  readonly recycled: number
  /** Returned channels that were closed and not reused: they were dead, or unfit for the next borrower. */
  readonly discarded: number
  /** Borrowers that failed with `AcquireTimeout`. */
  readonly timedOut: number
}

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
   * Borrows a channel until the scope closes.
   *
   * **When to use**
   *
   * Use when a scope needs a channel of its own. `ofScope` shares one channel within a scope.
   *
   * **Details**
   *
   * It ends within `acquireTimeout`: with a channel, or with `AcquireTimeout`, `PoolClosed`, `PoolExhausted`
   * (`maxWaiting` borrowers wait already) or the error of opening. Without a connection it waits for one, also if the
   * connection is lost while the channel opens; `AcquireTimeout` then says why there is none.
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
export class AmqpPool extends Context.Service<
  AmqpPool,
  ChannelsOf<AmqpChannel> & {
    /** Channels in confirm mode. See `AmqpChannel.useConfirm`. */
    readonly confirm: ChannelsOf<ConfirmChannel>
    /** Channels in transaction mode. See `AmqpChannel.useTransaction`. */
    readonly transaction: ChannelsOf<TransactionChannel>
    /**
     * For the library's internal use. A copy of the service keeps it; a service that is made by hand does not need it.
     */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpPool") {}
