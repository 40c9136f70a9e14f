/**
 * The connection to the broker: connecting, reconnecting and closing.
 *
 * A scope owns the connection. While the scope is open there is at most one live connection. When it is lost, the
 * library makes another one, on the next of the configured hosts; no other part of the library reconnects. When the
 * scope closes, `connection.close` is sent and the socket is destroyed, within `closeTimeout`, whatever the broker or
 * the network does.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { AmqpConfig } from "./model/config.ts"
import type * as AmqpError from "./model/error.ts"
import type { Condition, ConditionReporter } from "./model/connection.ts"
import { makeConditionReporter } from "./internal/connection/conditionReporter.ts"
import { ConnectionInside } from "./internal/connection/connectionInternals.ts"
import { AmqpConnection } from "./model/connection.ts"
import { make } from "./internal/connection/supervisor.ts"

export * from "./model/connection.ts"
export { make } from "./internal/connection/supervisor.ts"

export type { Condition } from "./model/connection.ts"

/**
 * The problems that need an operator's attention now, in addition to the connection's state. Empty if there are none.
 *
 * **When to use**
 *
 * Use in health checks and diagnostics. Reading it costs no round trip.
 *
 * **Details**
 *
 * The parts of the application report conditions: consumers that have ended or could not start, and others.
 *
 * | kind                  | what it is                                                                   | ready |
 * | --------------------- | ---------------------------------------------------------------------------- | ----- |
 * | `ConsumerEnded`       | a consumer or RPC server has ended, and the application did not end it       | no    |
 * | `ConsumerNotStarted`  | it has not subscribed yet: an attempt has failed, or 5 s have passed         | no    |
 * | `ConsumerInterrupted` | it has lost its subscription, and subscribes again                           | yes   |
 * | `DeclarationSetAside` | the broker refuses a declaration of a topology layer, which tries it again   | yes ¹ |
 *
 * ¹ No, if the declaration has never succeeded, which is possible with `lazyConnect` only.
 *
 * Other kinds are documented where they are reported, also by other packages (`conditionReporter`). A condition disappears when its problem is solved. The condition
 * of a consumer disappears when a consumer of the same name has subscribed or was asked to end, or when the scope of
 * its `AmqpConsumer` closes.
 *
 * **Example** (Logging conditions)
 *
 * ```ts
 * import { AmqpConnection } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   for (const { kind, message, since } of yield* AmqpConnection.conditions) {
 *     yield* Effect.logWarning(kind, { message, since: new Date(since).toISOString() })
 *   }
 * })
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const conditions: Effect.Effect<ReadonlyArray<Condition>, never, AmqpConnection> = Effect.map(
  AmqpConnection,
  (connection) => Array.from(ConnectionInside.of(connection)?.conditions.all.values() ?? [])
)

/**
 * A reporter of one condition, for another package or for the application itself: health checks, the dashboard and
 * metrics report it as they report the library's own conditions.
 *
 * **When to use**
 *
 * Use in code that runs next to the connection and depends on it, such as a relay of stored messages, for problems that
 * need an operator's attention.
 *
 * **Details**
 *
 * Each reporter has at most one condition at a time. For several, make several reporters: they never replace one
 * another's conditions, whichever packages make them. The condition is cleared when the scope closes.
 *
 * Nothing is logged. On a connection that was made by hand, such as a test's, nothing is reported.
 *
 * **Gotchas**
 *
 * - The kind is a value of the metric's attribute `amqp.condition.kind`, and `AmqpHealth` returns it publicly. Use few
 *   kinds, without names or addresses. The library's own kinds belong to the library.
 * - The message must not contain a secret: the dashboard shows it.
 *
 * **Example** (Reporting a database that does not answer)
 *
 * ```ts
 * import { AmqpConnection } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * declare const poll: Effect.Effect<void, Error>
 *
 * const relay = Effect.gen(function* () {
 *   const condition = yield* AmqpConnection.conditionReporter
 *   const once = Effect.matchEffect(poll, {
 *     onFailure: ({ message }) => condition.report({ kind: "JobsUnavailable", message, notReady: true }),
 *     onSuccess: () => condition.clear
 *   })
 *   return yield* Effect.forever(Effect.andThen(once, Effect.sleep("1 second")))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @see {@link conditions} for reading all conditions
 *
 * @category constructors
 * @since 0.1.0
 */
export const conditionReporter: Effect.Effect<ConditionReporter, never, AmqpConnection | Scope.Scope> = Effect.flatMap(
  AmqpConnection,
  makeConditionReporter
)

/**
 * The connection as a layer.
 *
 * **When to use**
 *
 * Use to put the services together yourself. `Amqp.layer` provides the connection together with everything else.
 *
 * **Details**
 *
 * The connection is made when the layer is built, and closed when its scope closes. With `lazyConnect` the layer is
 * built immediately and the connection is made in the background. Fails with the reason of the last attempt.
 *
 * **Example** (A connection and a pool)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { AmqpConfig, AmqpConnection, AmqpPool } from "@effect-amqp/core"
 *
 * const Connection = Layer.unwrap(Effect.map(AmqpConfig.make({ host: "rabbit.internal" }), AmqpConnection.layer))
 * const Pool = AmqpPool.layer.pipe(Layer.provideMerge(Connection))
 * ```
 *
 * @see {@link make} for the connection as a scoped effect
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (config: AmqpConfig): Layer.Layer<AmqpConnection, AmqpError.AmqpError> =>
  Layer.effect(AmqpConnection, make(config))
