/**
 * The pool of channels of one connection.
 *
 * A borrower gets a channel for the time of its scope. Places are lent by Effect's `Pool`, first come, first served; the
 * channel in a place is opened at first need, kept for the next borrower, and replaced when it has become too old, has
 * died, or came back unfit.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { AmqpChannel } from "./model/channel.ts"
import { AmqpConnection } from "./model/connection.ts"
import type { AmqpError } from "./model/error.ts"
import * as internal from "./internal/pool/pool.ts"
import { type Stats, AmqpPool } from "./model/pool.ts"

export * from "./model/pool.ts"

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
