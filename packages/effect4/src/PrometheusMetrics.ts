export * from "effect/observability/PrometheusMetrics"
