/** Metric series that are read when they are collected, and their removal. */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Histogram } from "./histogram.ts"

type Attributes = Readonly<Record<string, string>>

const nothing = () => {}

export class Registry {
  readonly #context: Context.Context<never>
  readonly #common: Attributes
  readonly #registrations: Array<Metric.Registration> = []

  /** `context` holds the `MetricRegistry`; `common` are attributes of every series. */
  constructor(context: Context.Context<never>, common: Attributes) {
    this.#context = context
    this.#common = common
  }

  /** Registers a value that goes up and down. `value` is called when the metric is collected. */
  gauge(metric: Metric.Gauge<number>, attributes: Attributes, value: () => number): void {
    this.#register(metric, attributes, () => ({ value: value() }))
  }

  /** Registers a value that only grows. `count` is called when the metric is collected. */
  counter(metric: Metric.Counter<number>, attributes: Attributes, count: () => number): void {
    this.#register(metric, attributes, () => ({ count: count(), incremental: true }))
  }

  /** Registers durations that are recorded elsewhere. */
  histogram(metric: Metric.Histogram<number>, attributes: Attributes, histogram: Histogram): void {
    this.#register(metric, attributes, () => histogram.state)
  }

  #register<Input, State>(metric: Metric.Metric<Input, State>, attributes: Attributes, get: () => State): void {
    const series = Metric.withAttributes(metric, { ...this.#common, ...attributes })
    this.#registrations.push(Metric.registerUnsafe(series, this.#context, { get, update: nothing, modify: nothing }))
  }

  /** Removes all of them. A series that another registration has replaced in the meantime stays. */
  clear(): void {
    for (const registration of this.#registrations.splice(0)) registration.remove()
  }
}
