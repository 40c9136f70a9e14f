/** The pool of channels: its service, and what it tells. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpChannel, ConfirmChannel, TransactionChannel } from "./channel.ts"
import type { AmqpError } from "./error.ts"
import type { InsideId } from "./inside.ts"

/** A count of the pool, at one moment. The last five count from the pool's start. */
export interface Stats {
  /** Open channels that nobody has borrowed. */
  readonly idle: number
  /** Places that are borrowed. */
  readonly used: number
  /** Borrowers in line. */
  readonly pending: number
  /** As configured. */
  readonly min: number
  /** As configured; `Infinity` without pooling. */
  readonly max: number
  /** Channels opened. */
  readonly created: number
  /** Channels closed because of their age or idleness. */
  readonly recycled: number
  /** Channels not lent again: dead, or unfit for the next borrower. */
  readonly discarded: number
  /** Borrowers that left with `AcquireTimeout`. */
  readonly timedOut: number
}

/** The pooled channels of one kind. */
export interface ChannelsOf<Channel> {
  /**
   * Borrows a channel until the scope closes.
   *
   * Ends, in at most `acquireTimeout`, with a channel, `AcquireTimeout`, `PoolClosed`, `PoolExhausted` (`maxWaiting`
   * are in line already), or the error of opening. Without a connection it waits for one, also if that is lost while the
   * channel opens; `AcquireTimeout` then says why there is none.
   */
  readonly get: Effect.Effect<Channel, AmqpError, Scope.Scope>
  /** The channel of the current scope: borrowed at first use, the same one afterwards. See `AmqpChannel.use`. */
  readonly ofScope: Effect.Effect<Channel, AmqpError, Scope.Scope>
  /** Borrows a channel for the time of one effect. */
  readonly use: <A, E, R>(f: (channel: Channel) => Effect.Effect<A, E, R>) => Effect.Effect<A, E | AmqpError, R>
  /** The counts of this kind. */
  readonly stats: Effect.Effect<Stats>
}

/**
 * The pool, as a service: regular channels, and beside them confirm and transaction channels, each kind lent from places
 * of its own.
 *
 * Its settings are those of `AmqpConfig`'s `pool`, `max` for each kind. Channels are opened at first need. With
 * `pool: false` every borrow opens a channel of its own and closes it afterwards.
 */
export class AmqpPool extends Context.Service<
  AmqpPool,
  ChannelsOf<AmqpChannel> & {
    /** Channels in confirm mode. See `AmqpChannel.useConfirm`. */
    readonly confirm: ChannelsOf<ConfirmChannel>
    /** Channels in transaction mode. See `AmqpChannel.useTransaction`. */
    readonly transaction: ChannelsOf<TransactionChannel>
    /** For the library's own parts. A copy of the service keeps it, and one that is made by hand does without. */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpPool") {}
