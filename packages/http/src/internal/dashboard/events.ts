/** The events of the stream: what the server sends, and the page reads. Types only, since the page imports them as well. */
import type { AmqpPublisher } from "@effect-amqp/core"

/** By the names that they have in the stream. */
export interface Events {
  readonly hello: Hello
  /** Of the connection of pool and publisher. */
  readonly phase: Phase
  /** Of the consumers' own connection. */
  readonly consumers: Phase
  readonly sample: Sample
  readonly totals: Totals
}

/** The first event. */
export interface Hello {
  readonly name: string | null
  /** How far back the history goes, and how often a sample comes, in milliseconds. */
  readonly window: number
  readonly interval: number
  /** Channels at most, of each kind; `null`: no limit. */
  readonly max: number | null
  readonly phases: ReadonlyArray<Phase>
  /** Of the consumers' own connection. */
  readonly consumers: ReadonlyArray<Phase>
}

/** A time in which a connection is in one state. It is sent again, with the same number, when more is known of it. */
export interface Phase {
  readonly number: number
  /** When it began: milliseconds of Unix time. */
  readonly at: number
  /**
   * The tag of the connection's state in lower case; `blocked`: it is open, and takes nothing from publishers; `none`: there
   * is no connection, since nobody needs one.
   */
  readonly name: "connecting" | "open" | "blocked" | "reconnecting" | "closed" | "none"
  /** Why: the tag of an `AmqpErrorReason`, or what the broker is short of. Messages of errors may hold names of users. */
  readonly reason?: string
  /** Attempts that have failed. */
  readonly attempt?: number
  readonly peer?: string
  readonly product?: string
  readonly generation?: number
}

/** Three of a hundred ranks, in milliseconds. */
export type Percentiles = readonly [p50: number, p95: number, p99: number]

/** A moment. Rates are per second; `null`: there is nothing to report. */
export interface Sample {
  /** Milliseconds of Unix time. */
  readonly at: number
  /** By kind: regular, confirm, transaction. */
  readonly pools: ReadonlyArray<readonly [used: number, idle: number, pending: number]>
  readonly publisher: readonly [inFlight: number, waiting: number]
  readonly published: readonly [confirmed: number, failed: number] | null
  readonly consumed: readonly [delivered: number, acknowledged: number, other: number] | null
  readonly confirming: Percentiles | null
  readonly handling: Percentiles | null
}

/** How a publish ends. */
export type Outcome = "confirmed" | "nacked" | "returned" | "unknown" | "timedOut" | "forbidden" | "refused"

/** Counts since the start. */
export interface Totals {
  /** By kind. */
  readonly pools: ReadonlyArray<readonly [created: number, recycled: number, discarded: number, timedOut: number]>
  readonly published: Readonly<Record<Outcome, number>>
  /** Deliveries by how they were settled. */
  readonly settled: Readonly<Record<string, number>> | null
  /** What holds publishers up now. */
  readonly flow: AmqpPublisher.Flow["_tag"]
  /** What needs attention, the oldest first, at most 20. */
  readonly conditions: ReadonlyArray<readonly [kind: string, message: string, since: number, notReady: boolean]>
}
