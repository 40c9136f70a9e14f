/**
 * The connection: its service and its states.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConfig } from "./config.ts"
import type * as AmqpError from "./error.ts"
import type { InsideId } from "./inside.ts"

/**
 * The state of a connection.
 *
 * **When to use**
 *
 * Use to show or log the connection's state, or to wait for a change of it.
 *
 * **Details**
 *
 * - `Connecting`: the first connect is under way.
 * - `Open`: there is a connection.
 * - `Reconnecting`: the connection was lost, and the library makes another one.
 * - `Closed`: the connection is closed for good: by its scope, by a refusal at the first connect, by
 *   `reconnect.onRefused`, or because `reconnect.schedule` has ended. Only a new secret (`updateSecret`) reopens a
 *   connection that a refused login or virtual host has closed.
 *
 * @see {@link AmqpConnection} for the service that has the present state
 *
 * @category models
 * @since 0.1.0
 */
export type State =
  | {
      readonly _tag: "Connecting"
      /** Number of failed attempts, if the first connect is made in the background (`lazyConnect`). */
      readonly attempt: number
      /** The failure of the last attempt. */
      readonly reason: AmqpError.AmqpErrorReason | undefined
    }
  | {
      readonly _tag: "Open"
      /** The broker's address, as `host:port`. */
      readonly peer: string
      /** The broker's product and version, as the broker reports them. */
      readonly product: string
      /** The number of this connection, counted by this service: 1 is the first. */
      readonly generation: number
      /** The negotiated maximum number of channels. */
      readonly channelMax: number
      /** The negotiated maximum size of a frame, in bytes. */
      readonly frameMax: number
      /** The negotiated heartbeat interval. Zero: no heartbeats. */
      readonly heartbeat: Duration.Duration
    }
  | {
      readonly _tag: "Reconnecting"
      /** Number of failed attempts since the loss. */
      readonly attempt: number
      /** The reason of the loss or, after a failed attempt, the failure of that attempt. */
      readonly reason: AmqpError.AmqpErrorReason
    }
  | {
      /** The connection is closed for good. See the details of `State` for the exception. */
      readonly _tag: "Closed"
      /** Why the connection is closed. */
      readonly reason: AmqpError.AmqpErrorReason
    }

/**
 * Whether the broker accepts what is published on the connection.
 *
 * **When to use**
 *
 * Use to show or log that the broker has blocked the connection.
 *
 * **Details**
 *
 * `Blocked` is the broker's `connection.blocked`, with the broker's reason, such as a lack of memory or disk
 * (https://www.rabbitmq.com/docs/connection-blocked).
 *
 * @category models
 * @since 0.1.0
 */
export type Flow = { readonly _tag: "Flowing" } | { readonly _tag: "Blocked"; readonly reason: string }

/**
 * The connection, as a service.
 *
 * **When to use**
 *
 * Use to watch the connection or to replace its secret. Channels come from the `AmqpPool`.
 *
 * **Example** (Logging every change of state)
 *
 * ```ts
 * import { Effect, Stream, SubscriptionRef } from "effect"
 * import { AmqpConnection } from "@effect-amqp/core"
 *
 * const logStates = Effect.gen(function* () {
 *   const connection = yield* AmqpConnection.AmqpConnection
 *   yield* Stream.runForEach(SubscriptionRef.changes(connection.state), (state) => Effect.log(state._tag))
 * })
 * ```
 *
 * @see {@link State} for the states
 * @see {@link Flow} for the broker's back-pressure
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpConnection extends Context.Service<
  AmqpConnection,
  {
    /** The configuration that the connection was made with. It keeps the original secret after `updateSecret`. */
    readonly config: AmqpConfig
    /** The present state, and its changes as a stream. For reading only; do not set it. */
    readonly state: SubscriptionRef.SubscriptionRef<State>
    /**
     * The present flow state, and its changes as a stream. A lost connection is not blocked. For reading only; do not
     * set it.
     */
    readonly flow: SubscriptionRef.SubscriptionRef<Flow>
    /**
     * Replaces the secret (the password or the access token) without reconnecting.
     *
     * **When to use**
     *
     * Use for secrets that expire, such as the tokens of RabbitMQ's OAuth 2 backend. One call covers this connection
     * and the consumers' connection.
     *
     * **Details**
     *
     * Every later connect uses the new secret. An open connection sends it to the broker immediately (AMQP's
     * `connection.update-secret`) and waits for the answer; a lost connection logs in with it when it reconnects. A
     * connection that waits after a refused login or virtual host, or that is `Closed` for that reason
     * (`reconnect.onRefused`), tries the new secret immediately; its state shows the outcome.
     *
     * `reason` is for the broker's log: at most 255 bytes, default "refreshed". The user name does not change. `config`
     * keeps the secret that the connection began with.
     *
     * Fails with
     *
     * - `AuthenticationFailed` if the broker refuses the secret. RabbitMQ closes the connection, which reconnects with
     *   the previous secret, if that is still valid.
     * - `ReplyTimeout` if there is no answer within `continuationTimeout`, for instance because the broker has blocked
     *   the connection and reads nothing. Later connects use the new secret nevertheless.
     * - `InvalidArgument` for a secret that is empty or contains a NUL, and for the credentials `External`, whose
     *   secret is the client's certificate.
     * - the reason of the connection, if it is `Closed` for another reason than a refused login or virtual host.
     *
     * **Gotchas**
     *
     * RabbitMQ's own user database accepts any secret here, and checks it at the next connect.
     *
     * **Example** (Refreshing a token)
     *
     * ```ts
     * import { Effect, type Redacted, Schedule } from "effect"
     * import { AmqpConnection } from "@effect-amqp/core"
     *
     * declare const newToken: Effect.Effect<Redacted.Redacted<string>, Error>
     *
     * const refresh = Effect.gen(function* () {
     *   const connection = yield* AmqpConnection.AmqpConnection
     *   const token = yield* newToken
     *   yield* connection.updateSecret(token, "the token expires in 10 minutes")
     * })
     *
     * // Fork this next to the rest of the application.
     * const refreshing = refresh.pipe(
     *   Effect.retry(Schedule.spaced("10 seconds")),
     *   Effect.schedule(Schedule.spaced("50 minutes"))
     * )
     * ```
     */
    readonly updateSecret: (
      secret: Redacted.Redacted<string>,
      reason?: string | undefined
    ) => Effect.Effect<void, AmqpError.AmqpError>
    /**
     * For the library's internal use. A copy of the service keeps it; a service that is made by hand does not need it.
     */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpConnection") {}

/**
 * Reports one condition of a part of the application, such as another package.
 *
 * **When to use**
 *
 * Use as the type of what `AmqpConnection.conditionReporter` returns.
 *
 * @see {@link Condition} for what is reported
 *
 * @category models
 * @since 0.1.0
 */
export interface ConditionReporter {
  /**
   * Reports the condition. It replaces what this reporter has reported before; `since` stays if the kind is the same.
   * After the scope of the reporter has closed, this does nothing.
   */
  readonly report: (condition: Omit<Condition, "since">) => Effect.Effect<void>
  /** Clears the condition, because it has passed. Without one it does nothing. */
  readonly clear: Effect.Effect<void>
}

/**
 * A problem that needs an operator's attention, in addition to the connection's state.
 *
 * **When to use**
 *
 * Use to show or log what `conditions` reports.
 *
 * @see {@link State} for the connection's state
 *
 * @category models
 * @since 0.1.0
 */
export interface Condition {
  /** A stable word for programs, such as `ConsumerEnded` or `DeclarationSetAside`. It contains no name or address. */
  readonly kind: string
  /** The full text, for logs and operators. It may name queues and exchanges, but contains no secret. */
  readonly message: string
  /** Whether the application should get no requests while the condition lasts. */
  readonly notReady: boolean
  /** Time at which the condition began, in milliseconds since the epoch. */
  readonly since: number
}
