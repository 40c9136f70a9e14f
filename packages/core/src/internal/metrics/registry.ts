/** Series that are read when they are collected, and their end. */
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

  /** A value that goes up and down. Called when somebody collects it. */
  gauge(metric: Metric.Gauge<number>, attributes: Attributes, value: () => number): void {
    this.#register(metric, attributes, () => ({ value: value() }))
  }

  /** A value that only grows. Called when somebody collects it. */
  counter(metric: Metric.Counter<number>, attributes: Attributes, count: () => number): void {
    this.#register(metric, attributes, () => ({ count: count(), incremental: true }))
  }

  /** Times that are added up elsewhere. */
  histogram(metric: Metric.Histogram<number>, attributes: Attributes, histogram: Histogram): void {
    this.#register(metric, attributes, () => histogram.state)
  }

  #register<Input, State>(metric: Metric.Metric<Input, State>, attributes: Attributes, get: () => State): void {
    const series = Metric.withAttributes(metric, { ...this.#common, ...attributes })
    this.#registrations.push(Metric.registerUnsafe(series, this.#context, { get, update: nothing, modify: nothing }))
  }

  /** Takes all of them away. One that another has replaced in the meantime stays. */
  clear(): void {
    for (const registration of this.#registrations.splice(0)) registration.remove()
  }
}
