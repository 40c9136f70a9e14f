/** Reads the metrics that `AmqpMetrics` has registered for a connection in the `MetricRegistry`, if there are any. */
import { AmqpMetrics } from "@effect-amqp/core"
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Outbox, Percentiles } from "./events.ts"

const operationDuration = AmqpMetrics.operationDuration.id
const processDuration = AmqpMetrics.processDuration.id
const consumedMessages = AmqpMetrics.consumedMessages.id
const settledMessages = AmqpMetrics.settledMessages.id
const redeliveries = AmqpMetrics.redeliveries.id
// Relays of `@effect-amqp/sql` in this process set them, for each outbox.
const outboxWaiting = "amqp.outbox.waiting"
const outboxOldestAge = "amqp.outbox.oldest_age"
const outboxSetAside = "amqp.outbox.set_aside"
const ofOutbox: ReadonlyArray<string> = [outboxWaiting, outboxOldestAge, outboxSetAside]
const names: ReadonlySet<string> = new Set([
  operationDuration,
  processDuration,
  consumedMessages,
  settledMessages,
  redeliveries,
  ...ofOutbox
])
const connectionName = "amqp.connection.name"
const operationName = "messaging.operation.name"
const outcome = "amqp.outcome"
const settlement = "amqp.settlement"

/** Durations since the start as cumulative counts: how many were at most as long as each boundary, in seconds. */
export type Durations = ReadonlyMap<number, number>

/** The metrics at one moment; `undefined` where a metric is not registered. Counts are since the start. */
export interface MetricsSnapshot {
  /** Durations of the publishes that were confirmed. */
  readonly confirming: Durations | undefined
  /** Durations of handlers. */
  readonly handling: Durations | undefined
  readonly delivered: number | undefined
  readonly redelivered: number | undefined
  /** Deliveries by how they were settled. */
  readonly settled: Readonly<Record<string, number>> | undefined
  readonly outbox: Outbox | undefined
}

type Series = Metric.Metric.Metadata<never, unknown>

const attributesOf = ({ attributes }: Series): Readonly<Record<string, string>> => attributes ?? {}

const isOfConfirms = (attributes: Readonly<Record<string, string>>) =>
  attributes[operationName] === "publish" && attributes[outcome] === "confirmed"

const countOf = (state: unknown) => Number((state as Metric.CounterState<number | bigint>).count)

const valueOf = (state: unknown) => Number((state as Metric.GaugeState<number | bigint>).value)

const addTo = (durations: Map<number, number>, { buckets, count }: Metric.HistogramState) => {
  for (const [boundary, upTo] of buckets) durations.set(boundary, (durations.get(boundary) ?? 0) + upTo)
  // Durations above the last boundary are in no bucket, only in the count.
  if (buckets.at(-1)?.[0] !== Infinity) durations.set(Infinity, (durations.get(Infinity) ?? 0) + count)
}

/** Reads the metrics of the connection of this name. */
export const read = (context: Context.Context<never>, name: string | undefined): MetricsSnapshot => {
  let confirming: Map<number, number> | undefined
  let handling: Map<number, number> | undefined
  let delivered: number | undefined
  let redelivered: number | undefined
  let settled: Record<string, number> | undefined
  let outbox: [number, number, number] | undefined
  for (const series of Context.get(context, Metric.MetricRegistry).values() as Iterable<Series>) {
    if (!names.has(series.id)) continue
    const figure = ofOutbox.indexOf(series.id)
    if (figure >= 0) {
      const value = valueOf(series.hooks.get(context))
      outbox ??= [0, 0, 0]
      // A series per table: the numbers of messages add up, and the oldest message of all counts.
      outbox[figure] = series.id === outboxOldestAge ? Math.max(outbox[figure]!, value) : outbox[figure]! + value
      continue
    }
    const attributes = attributesOf(series)
    if (attributes[connectionName] !== name) continue
    if (series.id === operationDuration && !isOfConfirms(attributes)) continue
    const state = series.hooks.get(context)
    switch (series.id) {
      case operationDuration:
        addTo((confirming ??= new Map()), state as Metric.HistogramState)
        break
      case processDuration:
        addTo((handling ??= new Map()), state as Metric.HistogramState)
        break
      case consumedMessages:
        delivered = (delivered ?? 0) + countOf(state)
        break
      case redeliveries:
        redelivered = (redelivered ?? 0) + countOf(state)
        break
      case settledMessages: {
        const how = attributes[settlement] ?? "settled"
        settled ??= {}
        settled[how] = (settled[how] ?? 0) + countOf(state)
      }
    }
  }
  return { confirming, handling, delivered, redelivered, settled, outbox }
}

const ranks = [0.5, 0.95, 0.99]

/**
 * Percentiles of the durations between two moments, as precise as the buckets are narrow; `null` if there were none.
 */
export const percentiles = (before: Durations | undefined, now: Durations | undefined): Percentiles | null => {
  if (now === undefined) return null
  const buckets = Array.from(now, ([boundary, upTo]) => [boundary, upTo - (before?.get(boundary) ?? 0)] as const).sort(
    ([a], [b]) => a - b
  )
  const count = buckets.at(-1)?.[1] ?? 0
  if (count <= 0) return null
  const [p50 = 0, p95 = 0, p99 = 0] = ranks.map((rank) => {
    let [from, below] = [0, 0]
    for (const [boundary, upTo] of buckets) {
      if (upTo >= rank * count && upTo > below) {
        // The last bucket has no upper boundary, so its lower one is used.
        const within = boundary === Infinity ? 0 : ((rank * count - below) / (upTo - below)) * (boundary - from)
        return round((from + within) * 1000)
      }
      if (boundary !== Infinity) from = boundary
      below = upTo
    }
    return round(from * 1000)
  })
  return [p50, p95, p99]
}

const round = (milliseconds: number) => Number(milliseconds.toPrecision(3))
