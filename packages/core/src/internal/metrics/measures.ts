/** What parts of the library count and measure while they work. The metrics are read from it. */
import type { Kind } from "../../model/channel.ts"
import { Inside } from "../../model/inside.ts"
import { Histogram } from "./histogram.ts"

/** Discard reasons: why a returned channel is not reused, other than because of its age. */
export const discardReasons = [
  "interrupted",
  "defect",
  "unclean",
  "refused",
  "channel_error",
  "connection_lost"
] as const
export type DiscardReason = (typeof discardReasons)[number]

/** Measures of the channels of one kind. */
export class PoolMeasures {
  /** Wait times of the borrowers that got a channel. */
  readonly waitTime = new Histogram()
  /** Times for which borrowers had the channel. */
  readonly useTime = new Histogram()
  readonly discarded: Record<DiscardReason, number> = {
    interrupted: 0,
    defect: 0,
    unclean: 0,
    refused: 0,
    channel_error: 0,
    connection_lost: 0
  }
}

/** Outcomes of deliveries. */
export const settlements = ["acked", "requeued", "dead_lettered", "dropped", "retried", "skipped", "lost"] as const
export type SettlementOutcome = (typeof settlements)[number]

/** Outcomes of the requests that a server has replied to. */
export const replyOutcomes = ["success", "failure", "defect"] as const

/** Measures of all consumers of one service. */
export class ConsumerMeasures {
  deliveries = 0
  redeliveries = 0
  readonly settled: Record<SettlementOutcome, number> = {
    acked: 0,
    requeued: 0,
    dead_lettered: 0,
    dropped: 0,
    retried: 0,
    skipped: 0,
    lost: 0
  }
  /** Durations of the handlers that succeeded, and of the others. */
  readonly succeeded = new Histogram()
  readonly failed = new Histogram()
  readonly replies: Record<(typeof replyOutcomes)[number], number> = { success: 0, failure: 0, defect: 0 }
}

/** The inside of an `AmqpPool`. */
export class PoolInside extends Inside<Readonly<Record<Kind, PoolMeasures>>> {}
