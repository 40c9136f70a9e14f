/**
 * The connection to the broker: made, kept, made again, closed.
 *
 * A scope owns it. While the scope is open there is at most one live connection; when that is lost, another is made, on
 * the next of the configured hosts. Nobody else reconnects. When the scope closes, `connection.close` is sent and the
 * socket destroyed, within `closeTimeout`, whatever the broker or the network does.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AmqpConfig } from "./model/config.ts"
import type * as AmqpError from "./model/error.ts"
import type { Condition } from "./model/connection.ts"
import { ConnectionInside } from "./internal/connection/links.ts"
import { AmqpConnection } from "./model/connection.ts"
import { make } from "./internal/connection/supervisor.ts"

export * from "./model/connection.ts"
export { make } from "./internal/connection/supervisor.ts"

export type { Condition } from "./model/connection.ts"

/**
 * What needs an operator's attention now, beside the state of the connection: consumers that have ended, or could not start,
 * and what else the parts of the application have reported. Empty if all is well. Reading it costs no round trip.
 *
 * | kind                  | what it is                                                                  | ready |
 * | --------------------- | --------------------------------------------------------------------------- | ----- |
 * | `ConsumerEnded`       | a consumer or RPC server has ended that nobody asked to                     | no    |
 * | `ConsumerNotStarted`  | one has not subscribed yet: an attempt has failed, or 5 s have passed       | no    |
 * | `ConsumerInterrupted` | one has lost its subscription, and subscribes again                         | yes   |
 * | `DeclarationSetAside` | the broker refuses a declaration of a topology layer, which tries it again  | yes   |
 *
 * Other kinds are told where they come from. A condition goes when it has passed; that of a consumer when one of the same
 * name has subscribed, or was asked to end, or when the scope of its `AmqpConsumer` closes.
 *
 * @example
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
 */
export const conditions: Effect.Effect<ReadonlyArray<Condition>, never, AmqpConnection> = Effect.map(
  AmqpConnection,
  (connection) => Array.from(ConnectionInside.of(connection)?.conditions.all.values() ?? [])
)

/** The connection as a layer: made when the layer is built, closed when its scope closes. */
export const layer = (config: AmqpConfig): Layer.Layer<AmqpConnection, AmqpError.AmqpError> =>
  Layer.effect(AmqpConnection, make(config))
