/** The events of the dashboard's stream. This module has types only, because the page imports it too. */
import type { AmqpPublisher } from "@effect-amqp/core"

/** The events, by their names in the stream. */
export interface Events {
  readonly hello: Hello
  /** A phase of the connection of pool and publisher. */
  readonly phase: Phase
  /** A phase of the consumers' own connection. */
  readonly consumers: Phase
  /** The samples of the last hour, at a low resolution. */
  readonly history: ReadonlyArray<Sample>
  /** A sample at the low resolution. */
  readonly coarse: Sample
  /** A sample at the high resolution, while there are viewers. */
  readonly sample: Sample
  readonly totals: Totals
  /** The table of consumers. It is sent when it has changed. */
  readonly table: Table
}

/** The first event. */
export interface Hello {
  /** The connection's configured name. */
  readonly name: string | null
  /** Length of the history at the high resolution, in milliseconds. */
  readonly window: number
  /** Time between two samples, in milliseconds. */
  readonly interval: number
  /** Length of the history at the low resolution, in milliseconds. */
  readonly coarseWindow: number
  /** Time between two samples of the low resolution, in milliseconds. */
  readonly coarseInterval: number
  /** The process that serves the page. */
  readonly instance: Instance
  /** Time between two counts of the queues, in milliseconds; `null` if they are not counted. */
  readonly queueCounts: number | null
  /** Maximum number of channels per kind; `null` without a limit. */
  readonly max: number | null
  /** Phases of the connection of pool and publisher. */
  readonly phases: ReadonlyArray<Phase>
  /** Phases of the consumers' own connection. */
  readonly consumers: ReadonlyArray<Phase>
}

/** One run of the service. */
export interface Instance {
  /** A random name. */
  readonly id: string
  /** When the dashboard was built, which is when the service started, in milliseconds of Unix time. */
  readonly startedAt: number
  /** `null` where processes have no id. */
  readonly pid: number | null
  /** The version of the application; `null` if it is not given. */
  readonly version: string | null
}

/**
 * A time in which a connection is in one state. It is sent again, with the same number, when more is known about it.
 */
export interface Phase {
  readonly number: number
  /** When the phase began, in milliseconds of Unix time. */
  readonly at: number
  /**
   * The tag of the connection's state in lower case. `blocked`: the connection is open, and the broker blocks
   * publishers. `none`: there is no connection, because there are no consumers. `gone`: the page adds it for the time
   * between two processes.
   */
  readonly name: "connecting" | "open" | "blocked" | "reconnecting" | "closed" | "none" | "gone"
  /**
   * The tag of an `AmqpErrorReason`, or the broker's reason for blocking. Messages of errors may contain names of
   * users, so they are not sent.
   */
  readonly reason?: string
  /** Number of attempts that have failed. */
  readonly attempt?: number
  readonly peer?: string
  readonly product?: string
  readonly generation?: number
}

/** Three percentiles of a duration, in milliseconds. */
export type Percentiles = readonly [p50: number, p95: number, p99: number]

/** The values at one moment. Rates are per second. `null` means that there is nothing to report. */
export interface Sample {
  /** When the sample was taken, in milliseconds of Unix time. */
  readonly at: number
  /** The pools by kind: regular, confirm, transaction. */
  readonly pools: ReadonlyArray<readonly [used: number, idle: number, pending: number]>
  readonly publisher: readonly [inFlight: number, waiting: number]
  readonly published: readonly [confirmed: number, failed: number] | null
  readonly consumed: readonly [delivered: number, acknowledged: number, other: number] | null
  readonly confirming: Percentiles | null
  readonly handling: Percentiles | null
  /** The outbox of `@effect-amqp/sql`, if this process has a relay. */
  readonly outbox: Outbox | null
  /** Counts since the start of the process: messages that were returned, dead-lettered and redelivered. */
  readonly counts: readonly [returned: number, deadLettered: number | null, redelivered: number | null]
}

/** What stands in an outbox; the age of the oldest message is in seconds. */
export type Outbox = readonly [waiting: number, oldestAge: number, setAside: number]

/** The outcome of a publish. */
export type Outcome = "confirmed" | "nacked" | "returned" | "unknown" | "timedOut" | "forbidden" | "refused"

/** Counts since the start of the process. */
export interface Totals {
  /** The pools by kind. */
  readonly pools: ReadonlyArray<readonly [created: number, recycled: number, discarded: number, timedOut: number]>
  readonly published: Readonly<Record<Outcome, number>>
  /** Deliveries by how they were settled. */
  readonly settled: Readonly<Record<string, number>> | null
  /** Whether publishers can send now, and if not, why. */
  readonly flow: AmqpPublisher.Flow["_tag"]
  /** Failures of handlers by queue and tag, the most frequent first, at most 10. */
  readonly failures: ReadonlyArray<readonly [queue: string, tag: string, count: number]>
  /** Dead letters that consumers have made, by queue and tag, the most frequent first, at most 10. */
  readonly deadLetters: ReadonlyArray<
    readonly [queue: string, tag: string, count: number, firstAt: number, lastAt: number]
  >
  /** What is wrong, the most important first, at most 20. */
  readonly findings: ReadonlyArray<Finding>
  /** How many further findings there are. */
  readonly moreFindings: number
  /** Since when nothing is wrong; `null` if something is. */
  readonly calmSince: number | null
}

/** A finding of a rule: see `rules.ts`. */
export interface Finding {
  readonly rule: string
  readonly subject: string | null
  readonly what: string
  readonly todo: string
  readonly since: number | null
  readonly notReady: boolean
}

/** The consumers, those that need attention first, at most 200 rows. */
export interface Table {
  readonly rows: ReadonlyArray<ConsumerRow>
  /** How many further rows there are. */
  readonly more: number
  /** The queues that are counted and have no row, at most 100, by name. */
  readonly queues: ReadonlyArray<readonly [queue: string, broker: BrokerCounts]>
}

/** What the broker says about a queue. `refused`: it does not say it, for this reason. */
export type BrokerCounts =
  | readonly [ready: number, consumers: number, at: number]
  | "missing"
  | { readonly refused: string }

/** The consumers of one queue and one name. */
export interface ConsumerRow {
  readonly queue: string
  readonly name: string
  /** The state that is the furthest from running. `stopped`: the application has ended all of them. */
  readonly state: "running" | "starting" | "reconnecting" | "waiting" | "ended" | "stopped"
  /** When the state began, in milliseconds of Unix time. */
  readonly since: number
  readonly running: number
  readonly wanted: number
  readonly inFlight: number
  /** Deliveries that wait in memory. */
  readonly buffered: number
  /** Deliveries per second, over about ten seconds; `null` if it is not known yet. */
  readonly rate: number | null
  readonly error: readonly [tag: string, at: number] | null
  readonly end: readonly [how: "failed" | "stopped", why: string, at: number] | null
  /** What the broker says about the queue; `null` if it is not counted. */
  readonly broker: BrokerCounts | null
}
