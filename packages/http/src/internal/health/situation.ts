/** What the rules of health checks and of the dashboard judge. */
import type { AmqpConfig, AmqpConnection, AmqpConsumer } from "@effect-amqp/core"

/** The state of one application at one moment. */
export interface Situation {
  readonly state: AmqpConnection.State
  readonly flow: AmqpConnection.Flow
  /** When the connection got into its state or flow, in milliseconds of Unix time; `undefined` if it is not known. */
  readonly stateSince: number | undefined
  /** Whether the service is ready while the broker blocks publishers. */
  readonly blocked: "ready" | "notReady"
  /** The pool of regular channels; `max` is `Infinity` without pooling. */
  readonly pool: {
    readonly used: number
    readonly pending: number
    readonly max: number
    readonly maxWaiting: number
  }
  /** Whether the HTTP server is stopping. */
  readonly stopping: boolean
  readonly conditions: ReadonlyArray<AmqpConnection.Condition>
  /** Empty if they are not known: the rules then use the texts of the conditions. */
  readonly consumers: ReadonlyArray<AmqpConsumer.Status>
  /** The consumers' own connection; `undefined` if there is none, or if it is not known. */
  readonly consumersState: { readonly state: AmqpConnection.State; readonly since: number | undefined } | undefined
  /** The counts of the last minutes; `undefined` if they are not known. */
  readonly recent: Recent | undefined
  /** What the broker says about queues; `undefined` if it is not asked. */
  readonly queues: ReadonlyMap<string, QueueCounts> | undefined
}

/** Counts since the start of the process. */
export interface Counts {
  readonly delivered: number
  readonly redelivered: number
  readonly deadLettered: number
  readonly returned: number
  /** Publishes that failed, by outcome. Returned messages are not among them. */
  readonly failedPublishes: Readonly<Record<string, number>>
  /** Failures of handlers, by tag. */
  readonly failures: Readonly<Record<string, number>>
  /** Borrowers that got no channel in time. */
  readonly acquireTimeouts: number
}

/** The counts of the last minutes. */
export interface Recent extends Counts {
  /** The length of that time, in milliseconds. */
  readonly length: number
  /** When each count rose first within that time, in milliseconds of Unix time. */
  readonly since: Readonly<
    Partial<Record<"deadLettered" | "redelivered" | "returned" | "failedPublishes" | "acquireTimeouts", number>>
  >
}

/** What the broker says about a queue: `undefined` if the queue does not exist. */
export type QueueCounts = { readonly ready: number; readonly consumers: number; readonly at: number } | undefined

/** The pool with its bounds. Without pooling it is never full. */
export const poolOf = (
  { pool }: AmqpConfig.AmqpConfig,
  { pending, used }: { readonly used: number; readonly pending: number }
): Situation["pool"] =>
  pool === false
    ? { used, pending, max: Infinity, maxWaiting: Infinity }
    : { used, pending, max: pool.max, maxWaiting: pool.maxWaiting }
