/** What `AmqpMetrics` has registered for a connection, found in the `MetricRegistry`; without it, nothing is found. */
import { AmqpMetrics } from "@effect-amqp/core"
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Percentiles } from "./events.ts"

const operationDuration = AmqpMetrics.operationDuration.id
const processDuration = AmqpMetrics.processDuration.id
const consumedMessages = AmqpMetrics.consumedMessages.id
const settledMessages = AmqpMetrics.settledMessages.id
const names: ReadonlySet<string> = new Set([operationDuration, processDuration, consumedMessages, settledMessages])
const connectionName = "amqp.connection.name"
const operationName = "messaging.operation.name"
const outcome = "amqp.outcome"
const settlement = "amqp.settlement"

/** Measurements since the start: how many were at most so many seconds long. */
export type Durations = ReadonlyMap<number, number>

/** What was found at one moment; `undefined`: nobody counts it. Counts are since the start. */
export interface Found {
  /** Publishes that were confirmed. */
  readonly confirming: Durations | undefined
  readonly handling: Durations | undefined
  readonly delivered: number | undefined
  /** Deliveries by how they were settled. */
  readonly settled: Readonly<Record<string, number>> | undefined
}

type Series = Metric.Metric.Metadata<never, unknown>

const attributesOf = ({ attributes }: Series): Readonly<Record<string, string>> => attributes ?? {}

const isOfConfirms = (attributes: Readonly<Record<string, string>>) =>
  attributes[operationName] === "publish" && attributes[outcome] === "confirmed"

const countOf = (state: unknown) => Number((state as Metric.CounterState<number | bigint>).count)

const addTo = (durations: Map<number, number>, { buckets, count }: Metric.HistogramState) => {
  for (const [boundary, upTo] of buckets) durations.set(boundary, (durations.get(boundary) ?? 0) + upTo)
  // Whatever is longer than the longest bucket is in no bucket.
  if (buckets.at(-1)?.[0] !== Infinity) durations.set(Infinity, (durations.get(Infinity) ?? 0) + count)
}

/** Reads what there is for the connection of this name. */
export const read = (context: Context.Context<never>, name: string | undefined): Found => {
  let confirming: Map<number, number> | undefined
  let handling: Map<number, number> | undefined
  let delivered: number | undefined
  let settled: Record<string, number> | undefined
  for (const series of Context.get(context, Metric.MetricRegistry).values() as Iterable<Series>) {
    if (!names.has(series.id)) continue
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
      case settledMessages: {
        const how = attributes[settlement] ?? "settled"
        settled ??= {}
        settled[how] = (settled[how] ?? 0) + countOf(state)
      }
    }
  }
  return { confirming, handling, delivered, settled }
}

const ranks = [0.5, 0.95, 0.99]

/** Where the measurements between two moments lie, as exactly as their buckets are narrow; `null` if there were none. */
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
        // Of the last bucket it is known only where it begins.
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
