/**
 * Metrics of connection, pool, publisher, consumers and requests, as plain data and as a page for Prometheus.
 *
 * **Details**
 *
 * `Amqp.layer` and `AmqpLive` register the metrics. Counters and gauges are computed when they are read, and cost nothing
 * in between; durations are added to the fixed buckets of a histogram. They are not in the metric registry of Effect 3:
 * read them with `snapshot`.
 *
 * Metrics have OpenTelemetry's names where it defines one
 * (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/). Each attribute has a handful of values:
 * queues, exchanges and routing keys are attributes of spans, not of metrics. If a connection has a `connectionName`, its
 * metrics carry the attribute `amqp.connection.name`, which distinguishes several connections in one process. Of
 * connections without a name only the one that was built last has metrics.
 *
 * @since 0.1.0
 */
import * as Metric4 from "@effect-amqp/effect4/Metric"
import * as PrometheusMetrics4 from "@effect-amqp/effect4/PrometheusMetrics"
import * as Effect from "effect/Effect"
import { logging } from "./internal/logging.ts"

/**
 * What every metric has: its name, its meaning, and the attributes of this series.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes metrics of every type.
 *
 * @see {@link Metric} for the types of metrics
 *
 * @category models
 * @since 0.1.0
 */
export interface Series {
  /** The name, such as `messaging.client.sent.messages`. */
  readonly name: string
  /** What the metric counts or measures. */
  readonly description: string | undefined
  /** The unit: `s` for seconds; `undefined` for a number of things. */
  readonly unit: string | undefined
  /** The attributes that distinguish this series from the others of the same name. */
  readonly attributes: Readonly<Record<string, string>>
}

/**
 * A number that only grows, from the start of the service.
 *
 * **When to use**
 *
 * Use after a check of `type`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counter extends Series {
  readonly type: "counter"
  readonly value: number
}

/**
 * A number that goes up and down.
 *
 * **When to use**
 *
 * Use after a check of `type`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gauge extends Series {
  readonly type: "gauge"
  readonly value: number
}

/**
 * Durations in buckets.
 *
 * **When to use**
 *
 * Use after a check of `type`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Histogram extends Series {
  readonly type: "histogram"
  /** Number of all values. */
  readonly count: number
  /** Sum of all values. */
  readonly sum: number
  /** The least value; `undefined` without values. */
  readonly min: number | undefined
  /** The greatest value; `undefined` without values. */
  readonly max: number | undefined
  /** The buckets in ascending order. Values above the last `upTo` are in `count` only. */
  readonly buckets: ReadonlyArray<{
    /** Upper bound, which the bucket includes. */
    readonly upTo: number
    /** Number of values up to this bound: it includes the buckets before. */
    readonly count: number
  }>
}

/**
 * A metric, read at one moment.
 *
 * **When to use**
 *
 * Use as the type of the elements of a snapshot.
 *
 * @see {@link snapshot} for reading the metrics
 *
 * @category models
 * @since 0.1.0
 */
export type Metric = Counter | Gauge | Histogram

const seriesOf = ({ attributes, description, id }: Metric4.Metric.Snapshot): Series => {
  const { unit, ...own } = { ...attributes } as Readonly<Record<string, string>>
  return { name: id, description, unit, attributes: own }
}

const toMetric = (snapshot: Metric4.Metric.Snapshot): ReadonlyArray<Metric> => {
  switch (snapshot.type) {
    case "Counter":
      return [{ ...seriesOf(snapshot), type: "counter", value: Number(snapshot.state.count) }]
    case "Gauge":
      return [{ ...seriesOf(snapshot), type: "gauge", value: Number(snapshot.state.value) }]
    case "Histogram": {
      const { buckets, count, max, min, sum } = snapshot.state
      return [
        {
          ...seriesOf(snapshot),
          type: "histogram",
          count,
          sum,
          min: count === 0 ? undefined : min,
          max: count === 0 ? undefined : max,
          buckets: buckets.map(([upTo, count]) => ({ upTo, count }))
        }
      ]
    }
    // The library has none of these.
    default:
      return []
  }
}

/**
 * Reads all metrics of this process.
 *
 * **When to use**
 *
 * Use to show metrics, to alert on one, or to pass them to an exporter. `format` writes them for Prometheus.
 *
 * **Details**
 *
 * docs/observability.md lists the metrics. Counts of requests and replies are `amqp.rpc.client.calls`,
 * `amqp.rpc.client.unclaimed_replies`, `amqp.rpc.server.replies`, `amqp.rpc.unroutable_replies` and
 * `amqp.rpc.refused_replies`; the last two appear when they are first counted.
 *
 * **Example** (Reading a counter)
 *
 * ```ts
 * import { AmqpMetrics } from "@effect-amqp/platform"
 * import { Effect } from "effect"
 *
 * const nacked = Effect.map(AmqpMetrics.snapshot, (metrics) => {
 *   const found = metrics.find(
 *     ({ attributes, name }) => name === "messaging.client.sent.messages" && attributes["amqp.outcome"] === "nacked"
 *   )
 *   return found?.type === "counter" ? found.value : 0
 * })
 * ```
 *
 * @see {@link format} for Prometheus
 *
 * @category reading
 * @since 0.1.0
 */
export const snapshot: Effect.Effect<ReadonlyArray<Metric>> = Effect.sync(() =>
  Metric4.snapshotUnsafe(logging).flatMap(toMetric)
)

/**
 * Writes all metrics of this process in the text format of Prometheus.
 *
 * **When to use**
 *
 * Use for a page that Prometheus scrapes. `AmqpHttp.metrics` of `@effect-amqp/platform/http` is a handler for it.
 *
 * **Details**
 *
 * The text has the content type `text/plain; version=0.0.4; charset=utf-8`
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Names have underscores instead of dots, and a histogram
 * has the series `..._bucket`, `..._sum` and `..._count`.
 *
 * @see {@link snapshot} for plain data
 *
 * @category reading
 * @since 0.1.0
 */
export const format: Effect.Effect<string> = Effect.sync(() => PrometheusMetrics4.formatUnsafe(logging))
