/**
 * The pool of channels of one connection.
 *
 * A borrower has a channel until its scope closes. Pool places are given out first come, first served. The channel in a
 * place is opened when it is first needed, stays open for the next borrower, and is replaced when it is too old, has
 * died, or came back unfit.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpChannel } from "./model/channel.ts"
import type { AmqpError } from "./model/error.ts"
import { AmqpPool, type Service, type Stats } from "./model/pool.ts"

export * from "./model/pool.ts"

/**
 * Borrows a channel until the scope closes.
 *
 * **When to use**
 *
 * Use when a scope needs a channel in addition to those that it has borrowed before. In most cases `AmqpChannel.use`
 * fits better: it borrows once per scope.
 *
 * **Details**
 *
 * It waits for a free pool place and for the connection, at most `acquireTimeout` (5 s by default). Fails with
 * `AcquireTimeout`, `PoolExhausted` (`maxWaiting` borrowers wait already), `PoolClosed`, or the error of opening.
 *
 * @see {@link use} for borrowing without a scope
 *
 * @category accessors
 * @since 0.1.0
 */
export const get: Effect.Effect<AmqpChannel, AmqpError, Scope.Scope | AmqpPool> = Effect.flatMap(
  AmqpPool,
  (pool) => pool.get
)

/**
 * Borrows a channel for the duration of one effect.
 *
 * **When to use**
 *
 * Use for single operations. It needs no scope, and the channel is back in the pool before the next effect runs.
 *
 * **Details**
 *
 * Fails as `get` does, and with the errors of `f`.
 *
 * @see {@link get} for borrowing until a scope closes
 *
 * @category combinators
 * @since 0.1.0
 */
export const use = <A, E, R>(
  pool: Service,
  f: (channel: AmqpChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R> => pool.use(f)

/**
 * The pool's present counts for regular channels.
 *
 * **When to use**
 *
 * Use to log or show how busy the pool is. `pool.confirm.stats` and `pool.transaction.stats` have the counts of the
 * other kinds.
 *
 * @category accessors
 * @since 0.1.0
 */
export const stats: Effect.Effect<Stats, never, AmqpPool> = Effect.flatMap(AmqpPool, (pool) => pool.stats)
