/**
 * The words of a health report.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */

/**
 * A reason why a service is not ready.
 *
 * **When to use**
 *
 * Use when you react to single reasons of a {@link Report}, for example to ignore one of them.
 *
 * **Details**
 *
 * - `NotConnected`: the connection is not open.
 * - `Blocked`: the broker does not accept messages.
 * - `PoolFull`: the pool's wait queue is full.
 * - `Stopping`: the HTTP server is stopping.
 * - `ConsumerEnded`, `ConsumerNotStarted`: a consumer has ended, or could not start.
 * - Any other string is the kind of another condition (`AmqpConnection.conditions`).
 *
 * @category models
 * @since 0.1.0
 */
export type Reason =
  | "NotConnected"
  | "Blocked"
  | "PoolFull"
  | "Stopping"
  | "ConsumerEnded"
  | "ConsumerNotStarted"
  | (string & {})

/**
 * The conditions of one kind, summed up.
 *
 * **When to use**
 *
 * Use when you read the `conditions` of a {@link Report}, for example to alert on a kind that lasts.
 *
 * **Details**
 *
 * The texts of conditions may name queues, so they are not part of a report. They are in the log and on the dashboard.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConditionReport {
  /** A stable identifier, see `AmqpConnection.conditions`. */
  readonly kind: string
  /** How many conditions of this kind last. */
  readonly count: number
  /** Whether they keep the service from being ready. */
  readonly notReady: boolean
  /** When the oldest of them began, in milliseconds of Unix time. */
  readonly since: number
}
