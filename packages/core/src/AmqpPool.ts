/**
 * The pool of channels of one connection.
 *
 * A borrower gets a channel for the time of its scope. Places are lent by Effect's `Pool`, first come, first served; the
 * channel in a place is opened at first need, kept for the next borrower, and replaced when it has become too old, has
 * died, or came back unfit.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { AmqpChannel, ConfirmChannel, TransactionChannel } from "./AmqpChannel.ts"
import { AmqpConnection } from "./AmqpConnection.ts"
import type { AmqpError } from "./model/error.ts"
import * as internal from "./internal/pool/pool.ts"

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
  }
>()("@effect-amqp/core/AmqpPool") {}

/**
 * Borrows a channel until the scope closes, whether or not the scope has borrowed one before. Most callers want
 * `AmqpChannel.use`, which borrows once a scope.
 */
export const get: Effect.Effect<AmqpChannel, AmqpError, Scope.Scope | AmqpPool> = Effect.flatMap(
  AmqpPool,
  (pool) => pool.get
)

/**
 * Borrows a channel for the time of one effect: no scope needed, and the channel is back before the next effect runs.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPool } from "@effect-amqp/core"
 *
 * const program = Effect.gen(function*() {
 *   const pool = yield* AmqpPool.AmqpPool
 *   yield* AmqpPool.use(pool, (channel) => channel.queueDeclare("orders"))
 * })
 * ```
 */
export const use = <A, E, R>(
  pool: AmqpPool["Service"],
  f: (channel: AmqpChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R> => pool.use(f)

/** The pool's counts, at this moment. */
export const stats: Effect.Effect<Stats, never, AmqpPool> = Effect.flatMap(AmqpPool, (pool) => pool.stats)

/**
 * A pool on the connection in context. Closing its scope turns waiting borrowers away with `PoolClosed`, waits up to
 * `shutdownTimeout` for the channels that are out, revokes the rest (their handles fail with `ChannelReleased`), and
 * closes all channels.
 */
export const make: Effect.Effect<AmqpPool["Service"], never, AmqpConnection | Scope.Scope> = Effect.flatMap(
  AmqpConnection,
  (connection) => internal.make(connection)
)

/** The pool as a layer. */
export const layer: Layer.Layer<AmqpPool, never, AmqpConnection> = Layer.effect(AmqpPool, make)
