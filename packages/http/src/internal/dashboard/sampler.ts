/** One look at everything, and what has changed since the one before. */
import { AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Outcome, Sample, Totals } from "./events.ts"
import * as Metrics from "./metrics.ts"

/** How often it looks while somebody watches, in milliseconds. */
export const interval = 1000

const mostConditions = 20

const outcomes: ReadonlyArray<Outcome> = [
  "confirmed",
  "nacked",
  "returned",
  "unknown",
  "timedOut",
  "forbidden",
  "refused"
]

interface Counted {
  readonly nanos: bigint
  readonly published: AmqpPublisher.Stats
  readonly found: Metrics.Found
}

const failures = (stats: AmqpPublisher.Stats) =>
  outcomes.reduce((sum, outcome) => (outcome === "confirmed" ? sum : sum + stats[outcome]), 0)

const consumedOf = ({ delivered = 0, settled = {} }: Metrics.Found) => {
  const acknowledged = settled["acked"] ?? 0
  return [
    delivered,
    acknowledged,
    Object.values(settled).reduce((sum, count) => sum + count, 0) - acknowledged
  ] as const
}

/** Looks, each time it is run. */
export const make = Effect.gen(function* () {
  const connection = yield* AmqpConnection.AmqpConnection
  const { config } = connection
  const pool = yield* AmqpPool.AmqpPool
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const clock = yield* Clock.Clock
  const context = yield* Effect.context()
  let before: Counted | undefined

  return Effect.gen(function* () {
    const channels = yield* Effect.forEach([pool, pool.confirm, pool.transaction], ({ stats }) => stats)
    const published = yield* publisher.stats
    const conditions = yield* Effect.provideService(
      AmqpConnection.conditions,
      AmqpConnection.AmqpConnection,
      connection
    )
    const now = {
      nanos: clock.monotonicTimeNanosUnsafe(),
      published,
      found: Metrics.read(context, config.connectionName)
    }
    const seconds = before === undefined ? Infinity : Number(now.nanos - before.nanos) / 1e9
    // After a time in which nobody has looked there is no telling what happened when.
    const last = seconds > 0 && seconds * 1000 < 3 * interval ? before : undefined
    before = now
    const rate = (from: number, to: number) => Number((Math.max(0, to - from) / seconds).toPrecision(4))
    const rates = (from: Metrics.Found, to: Metrics.Found) => {
      const [a, b] = [consumedOf(from), consumedOf(to)]
      return [rate(a[0], b[0]), rate(a[1], b[1]), rate(a[2], b[2])] as const
    }
    const sample: Sample = {
      at: clock.currentTimeMillisUnsafe(),
      pools: channels.map(({ idle, pending, used }) => [used, idle, pending] as const),
      publisher: [published.inFlight, published.waiting],
      published:
        last === undefined
          ? null
          : [rate(last.published.confirmed, published.confirmed), rate(failures(last.published), failures(published))],
      consumed: last === undefined || now.found.delivered === undefined ? null : rates(last.found, now.found),
      confirming: last === undefined ? null : Metrics.percentiles(last.found.confirming, now.found.confirming),
      handling: last === undefined ? null : Metrics.percentiles(last.found.handling, now.found.handling)
    }
    const totals: Totals = {
      pools: channels.map(({ created, discarded, recycled, timedOut }) => [created, recycled, discarded, timedOut]),
      published: Object.fromEntries(outcomes.map((outcome) => [outcome, published[outcome]])) as Totals["published"],
      settled: now.found.settled ?? null,
      flow: publisher.flow.value._tag,
      conditions: conditions
        .toSorted((a, b) => a.since - b.since)
        .slice(0, mostConditions)
        .map(({ kind, message, notReady, since }) => [kind, message, since, notReady] as const)
    }
    return { sample, totals }
  })
})
