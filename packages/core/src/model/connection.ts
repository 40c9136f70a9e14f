/** A connection: its service, and what it is doing. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConfig } from "./config.ts"
import type * as AmqpError from "./error.ts"
import type { InsideId } from "./inside.ts"

/** What the connection is doing. */
export type State =
  | {
      readonly _tag: "Connecting"
      /** Attempts that have failed, if the first connect is made in the background (`lazyConnect`). */
      readonly attempt: number
      /** Why the last of them has failed. */
      readonly reason: AmqpError.AmqpErrorReason | undefined
    }
  | {
      readonly _tag: "Open"
      /** The peer, as `host:port`. */
      readonly peer: string
      /** The broker's product and version, as it says. */
      readonly product: string
      /** Counts the connections of this service: 1 is the first. */
      readonly generation: number
      /** As negotiated. */
      readonly channelMax: number
      /** As negotiated, in bytes. */
      readonly frameMax: number
      /** As negotiated. Zero: none. */
      readonly heartbeat: Duration.Duration
    }
  | {
      readonly _tag: "Reconnecting"
      /** Attempts that have failed since. */
      readonly attempt: number
      /** Why the connection was lost or, after an attempt, why that has failed. */
      readonly reason: AmqpError.AmqpErrorReason
    }
  | {
      /**
       * For good: by its scope, by a first connect that was refused, by `reconnect.onRefused`, or because `reconnect.schedule`
       * has ended. Only a new secret opens one that a refused login or virtual host has closed.
       */
      readonly _tag: "Closed"
      readonly reason: AmqpError.AmqpErrorReason
    }

/** Whether the broker reads what is published (`connection.blocked`; https://www.rabbitmq.com/docs/connection-blocked). */
export type Flow = { readonly _tag: "Flowing" } | { readonly _tag: "Blocked"; readonly reason: string }

/**
 * The connection, as a service. Applications watch it; channels come from the `AmqpPool`.
 *
 * @example
 * ```ts
 * import { Effect, Stream, SubscriptionRef } from "effect"
 * import { AmqpConnection } from "@effect-amqp/core"
 *
 * const logStates = Effect.gen(function*() {
 *   const connection = yield* AmqpConnection.AmqpConnection
 *   yield* Stream.runForEach(SubscriptionRef.changes(connection.state), (state) => Effect.log(state._tag))
 * })
 * ```
 */
export class AmqpConnection extends Context.Service<
  AmqpConnection,
  {
    readonly config: AmqpConfig
    /** The present state, and its changes as a stream. For reading: do not set it. */
    readonly state: SubscriptionRef.SubscriptionRef<State>
    /** The present flow state, and its changes as a stream. A lost connection is not blocked. For reading. */
    readonly flow: SubscriptionRef.SubscriptionRef<Flow>
    /**
     * Replaces the secret (the password, or the access token) without connecting again: with RabbitMQ's OAuth 2 backend,
     * a token that is about to expire. One call is for this connection and that of the consumers.
     *
     * Every later connect uses the new secret. A connection that is open tells its broker at once (AMQP's
     * `connection.update-secret`) and waits for the answer; one that is lost has it when it comes back. One that waits after
     * a refused login or virtual host, or is `Closed` for that (`reconnect.onRefused`), tries it at once; its state says how
     * that ends. RabbitMQ's own user database takes any secret then, and checks it at the next connect.
     *
     * `reason` is for the broker's log: at most 255 bytes, default "refreshed". The user name stays as it is.
     *
     * Fails with `AuthenticationFailed` if the broker refuses the secret: RabbitMQ closes the connection, which comes
     * back with the secret before, if that still holds; with `ReplyTimeout` if there is no answer within
     * `continuationTimeout`, for instance because the broker has blocked the connection and reads nothing: later
     * connects use the new secret all the same; with `InvalidArgument` for a secret that is empty or has a NUL, and for
     * credentials External, which are the client's certificate; and with the reason of a connection that is `Closed` for
     * anything else than a refused login or virtual host.
     *
     * `config` keeps the secret that the connection began with.
     *
     * @example
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
     * // Beside the rest of the application.
     * const refreshing = refresh.pipe(Effect.retry(Schedule.spaced("10 seconds")), Effect.schedule(Schedule.spaced("50 minutes")))
     * ```
     */
    readonly updateSecret: (
      secret: Redacted.Redacted<string>,
      reason?: string | undefined
    ) => Effect.Effect<void, AmqpError.AmqpError>
    /** For the library's own parts. A copy of the service keeps it, and one that is made by hand does without. */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpConnection") {}

/** One condition. */
export interface Condition {
  /** A stable word for programs, such as `ConsumerEnded` or `DeclarationSetAside`. It must contain no name or address. */
  readonly kind: string
  /** The full text, for logs and operators. It may name queues and exchanges, but contains no secret. */
  readonly message: string
  /** Whether the application should get no requests while the condition lasts. */
  readonly notReady: boolean
  /** When the condition began, in milliseconds since the epoch. */
  readonly since: number
}
