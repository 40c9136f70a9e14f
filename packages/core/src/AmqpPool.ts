/**
 * The pool of channels of one connection.
 *
 * A borrower has a channel until its scope closes. Effect's `Pool` gives out the pool places, first come, first served.
 * The channel in a place is opened when it is first needed, stays open for the next borrower, and is replaced when it
 * is too old, has died, or came back unfit.
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
 * **Example** (Two channels in one scope)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPool } from "@effect-amqp/core"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const declaring = yield* AmqpPool.get
 *     const publishing = yield* AmqpPool.get
 *     yield* declaring.queueDeclare("orders")
 *     yield* publishing.publish({ routingKey: "orders", content: "one order" })
 *   })
 * )
 * ```
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
 * **Example** (Declaring a queue)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPool } from "@effect-amqp/core"
 *
 * const program = Effect.gen(function* () {
 *   const pool = yield* AmqpPool.AmqpPool
 *   yield* AmqpPool.use(pool, (channel) => channel.queueDeclare("orders"))
 * })
 * ```
 *
 * @see {@link get} for borrowing until a scope closes
 *
 * @category combinators
 * @since 0.1.0
 */
export const use = <A, E, R>(
  pool: AmqpPool["Service"],
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

/**
 * Makes a pool on the connection in context.
 *
 * **When to use**
 *
 * Use for a second pool with a lifetime of its own. `layer` provides the usual one.
 *
 * **Details**
 *
 * The settings are those of the connection's configuration (`pool`). When its scope closes, waiting borrowers fail with
 * `PoolClosed`, the pool waits up to `shutdownTimeout` for borrowed channels, revokes the rest (operations on them fail
 * with `ChannelReleased`), and closes all channels.
 *
 * @see {@link layer} for the pool as a layer
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<AmqpPool["Service"], never, AmqpConnection | Scope.Scope> = Effect.flatMap(
  AmqpConnection,
  (connection) => internal.make(connection)
)

/**
 * The pool as a layer.
 *
 * **When to use**
 *
 * Use to put the services together yourself. `Amqp.layer` provides the pool together with everything else.
 *
 * @see {@link make} for the pool as a scoped effect
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpPool, never, AmqpConnection> = Layer.effect(AmqpPool, make)
