/** Takes samples of the pool, the publisher and the metrics, with the changes since the previous sample. */
import { AmqpConnection, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Outcome, Sample } from "./events.ts"
import * as Metrics from "./metrics.ts"

export const outcomes: ReadonlyArray<Outcome> = [
  "confirmed",
  "nacked",
  "returned",
  "unknown",
  "timedOut",
  "forbidden",
  "refused"
]

/** What was read at one moment. */
export interface Snapshot {
  readonly nanos: bigint
  readonly pools: ReadonlyArray<AmqpPool.Stats>
  readonly published: AmqpPublisher.Stats
  readonly found: Metrics.MetricsSnapshot
  readonly statuses: ReadonlyArray<AmqpConsumer.Status>
}

export interface Taken {
  readonly sample: Sample
  readonly snapshot: Snapshot
}

const failures = (stats: AmqpPublisher.Stats) =>
  outcomes.reduce((sum, outcome) => (outcome === "confirmed" ? sum : sum + stats[outcome]), 0)

const consumedOf = ({ delivered = 0, settled = {} }: Metrics.MetricsSnapshot) => {
  const acknowledged = settled["acked"] ?? 0
  return [
    delivered,
    acknowledged,
    Object.values(settled).reduce((sum, count) => sum + count, 0) - acknowledged
  ] as const
}

/** Makes an effect that takes one sample each time it runs, which is every `interval` milliseconds, or not at all. */
export const make = Effect.fnUntraced(function* (interval: number) {
  const { config } = yield* AmqpConnection.AmqpConnection
  const pool = yield* AmqpPool.AmqpPool
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const consumer = yield* AmqpConsumer.AmqpConsumer
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  const statuses = Effect.provideService(AmqpConsumer.statuses, AmqpConsumer.AmqpConsumer, consumer)
  let before: Snapshot | undefined

  return Effect.gen(function* () {
    const pools = yield* Effect.forEach([pool, pool.confirm, pool.transaction], ({ stats }) => stats)
    const published = yield* publisher.stats
    const now: Snapshot = {
      nanos: clock.monotonicTimeNanosUnsafe(),
      pools,
      published,
      found: Metrics.read(context, config.connectionName),
      statuses: yield* statuses
    }
    const seconds = before === undefined ? Infinity : Number(now.nanos - before.nanos) / 1e9
    // After a time without viewers, rates would be averages over all of that time, so none are given.
    const last = seconds > 0 && seconds * 1000 < 3 * interval ? before : undefined
    before = now
    const rate = (from: number, to: number) => Number((Math.max(0, to - from) / seconds).toPrecision(4))
    const rates = (from: Metrics.MetricsSnapshot, to: Metrics.MetricsSnapshot) => {
      const [a, b] = [consumedOf(from), consumedOf(to)]
      return [rate(a[0], b[0]), rate(a[1], b[1]), rate(a[2], b[2])] as const
    }
    const { found } = now
    const sample: Sample = {
      at: clock.currentTimeMillisUnsafe(),
      pools: pools.map(({ idle, pending, used }) => [used, idle, pending] as const),
      publisher: [published.inFlight, published.waiting],
      published:
        last === undefined
          ? null
          : [rate(last.published.confirmed, published.confirmed), rate(failures(last.published), failures(published))],
      consumed: last === undefined || found.delivered === undefined ? null : rates(last.found, found),
      confirming: last === undefined ? null : Metrics.percentiles(last.found.confirming, found.confirming),
      handling: last === undefined ? null : Metrics.percentiles(last.found.handling, found.handling),
      outbox: found.outbox ?? null,
      counts: [
        published.returned,
        found.settled === undefined ? null : (found.settled["dead_lettered"] ?? 0),
        found.redelivered ?? null
      ]
    }
    return { sample, snapshot: now } satisfies Taken
  })
})
