/** The metrics of a single application. */
import { Amqp } from "@effect-amqp/core"
import { Effect, Metric, References } from "effect"
import { configOf, type Overrides } from "./amqp.ts"

/** Runs a program with all of the library and its own registry. Nothing is logged. */
export const withAmqp =
  (url: string, overrides?: Overrides) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(
      Effect.provide(Amqp.fromConfig(configOf(url, overrides)), { local: true }),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provideService(References.MinimumLogLevel, "None")
    )

type Attributes = Readonly<Record<string, string>>

export const value = <State>(metric: Metric.Metric<never, State>, attributes: Attributes = {}) =>
  Metric.value(Metric.withAttributes(metric, attributes))

export const count = (metric: Metric.Counter<number>, attributes?: Attributes) =>
  Effect.map(value(metric, attributes), ({ count }) => count)

export const gauge = (metric: Metric.Gauge<number>, attributes?: Attributes) =>
  Effect.map(value(metric, attributes), ({ value }) => value)
