/** What parts of the library count and measure while they work, for the metrics to be read from. */
import type { Kind } from "../../model/channel.ts"
import { Inside } from "../../model/inside.ts"
import { Histogram } from "./histogram.ts"

/** Why a channel is not lent again, other than by its age. */
export const discards = ["interrupted", "defect", "unclean", "refused", "channel_error", "connection_lost"] as const
export type Discard = (typeof discards)[number]

/** Of the channels of one kind. */
export class PoolMeasures {
  /** How long borrowers waited who got a channel. */
  readonly waits = new Histogram()
  /** How long they had it. */
  readonly uses = new Histogram()
  readonly discarded: Record<Discard, number> = {
    interrupted: 0,
    defect: 0,
    unclean: 0,
    refused: 0,
    channel_error: 0,
    connection_lost: 0
  }
}

/** What became of deliveries. */
export const settlements = ["acked", "requeued", "dead_lettered", "dropped", "retried", "skipped", "lost"] as const
export type Settled = (typeof settlements)[number]

/** What a server has replied with. */
export const replies = ["success", "failure", "defect"] as const

/** Of all consumers of one service. */
export class ConsumerMeasures {
  deliveries = 0
  redeliveries = 0
  readonly settled: Record<Settled, number> = {
    acked: 0,
    requeued: 0,
    dead_lettered: 0,
    dropped: 0,
    retried: 0,
    skipped: 0,
    lost: 0
  }
  /** How long handlers took that have succeeded, and others. */
  readonly succeeded = new Histogram()
  readonly failed = new Histogram()
  readonly replies: Record<(typeof replies)[number], number> = { success: 0, failure: 0, defect: 0 }
}

/** The inside of an `AmqpPool`. */
export class PoolInside extends Inside<Readonly<Record<Kind, PoolMeasures>>> {}
