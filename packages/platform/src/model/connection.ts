/**
 * The states of a connection.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type { AmqpErrorReason } from "./errorReason.ts"

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
      readonly reason: AmqpErrorReason | undefined
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
      readonly reason: AmqpErrorReason
    }
  | {
      /** The connection is closed for good. See the details of `State` for the exception. */
      readonly _tag: "Closed"
      /** Why the connection is closed. */
      readonly reason: AmqpErrorReason
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
