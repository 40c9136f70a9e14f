/**
 * The connection to the broker, which reconnects after a loss until its scope closes.
 *
 * @since 0.1.0
 */
import { AmqpConnection as Core } from "@effect-amqp/core"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Subscribable from "effect/Subscribable"
import { insideOf } from "./internal/inside.ts"
import { run4 } from "./internal/run.ts"
import type { Condition, Flow, State } from "./model/connection.ts"
import type { AmqpError } from "./model/error.ts"

export * from "./model/connection.ts"

/**
 * The operations of `AmqpConnection`.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes the service.
 *
 * @see {@link AmqpConnection} for the service
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** The present state; `changes` begins with it. */
  readonly state: Subscribable.Subscribable<State>
  /** The present flow state; `changes` begins with it. A lost connection is not blocked. */
  readonly flow: Subscribable.Subscribable<Flow>
  /**
   * Replaces the secret (the password or the access token) without reconnecting. Every later connect uses it, also that
   * of the consumers' connection. `reason` is for the broker's log.
   *
   * Fails with `AuthenticationFailed` if the broker refuses the secret, with `ReplyTimeout` if there is no answer within
   * `continuationTimeout`, or with `InvalidArgument` for a secret that is empty.
   */
  readonly updateSecret: (
    secret: Redacted.Redacted<string>,
    reason?: string | undefined
  ) => Effect.Effect<void, AmqpError>
}

/**
 * The connection, as a service.
 *
 * **When to use**
 *
 * Use to observe the connection's state and the broker's flow control, or to replace its secret.
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpConnection extends Context.Tag("@effect-amqp/platform/AmqpConnection")<AmqpConnection, Service>() {}

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
 * Other kinds are documented where they are reported. A condition disappears when its problem is solved. The condition
 * of a consumer disappears when a consumer of the same name has subscribed or was asked to end, or when the scope of
 * its `AmqpConsumer` closes.
 *
 * **Example** (Logging conditions)
 *
 * ```ts
 * import { AmqpConnection } from "@effect-amqp/platform"
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
export const conditions: Effect.Effect<ReadonlyArray<Condition>, never, AmqpConnection> = Effect.flatMap(
  AmqpConnection,
  (connection) =>
    run4<Core.AmqpConnection, ReadonlyArray<Condition>, never>(
      insideOf("AmqpConnection.conditions", connection) as never,
      Core.conditions
    )
)
