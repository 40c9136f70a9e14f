/**
 * An OpenTelemetry collector on the loopback: accepts exports over OTLP/HTTP as JSON, as long as the scope is open.
 */
import { Effect } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string; readonly intValue?: string | number }
}

export interface OtlpSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly attributes: ReadonlyArray<Attribute>
  readonly links: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
  readonly status: { readonly code: number }
}

interface DataPoint {
  readonly attributes: ReadonlyArray<Attribute>
  readonly asInt?: string | number
  readonly asDouble?: number
  /** Of a histogram. */
  readonly count?: number
  readonly bucketCounts?: ReadonlyArray<number>
}

interface OtlpMetric {
  readonly name: string
  readonly unit?: string
  readonly sum?: { readonly dataPoints: ReadonlyArray<DataPoint> }
  readonly gauge?: { readonly dataPoints: ReadonlyArray<DataPoint> }
  readonly histogram?: { readonly dataPoints: ReadonlyArray<DataPoint> }
}

/** A series as it was last exported. */
export interface OtlpSeries {
  readonly name: string
  readonly kind: "sum" | "gauge" | "histogram"
  readonly unit: string | undefined
  readonly attributes: Readonly<Record<string, string>>
  /** For a histogram, its count. */
  readonly value: number
}

const seriesOf = (metric: OtlpMetric): ReadonlyArray<OtlpSeries> =>
  (["sum", "gauge", "histogram"] as const).flatMap((kind) =>
    (metric[kind]?.dataPoints ?? []).map(({ asDouble, asInt, attributes, bucketCounts, count }) => ({
      name: metric.name,
      kind,
      unit: metric.unit,
      // Effect's exporter also sends the unit as an attribute.
      attributes: Object.fromEntries(
        attributes.filter(({ key }) => key !== "unit").map(({ key, value }) => [key, value.stringValue ?? ""])
      ),
      // The buckets add up to the count, or the export is wrong.
      value: Number(
        kind === "histogram" && bucketCounts?.reduce((sum, each) => sum + each, 0) === count
          ? count
          : (asInt ?? asDouble ?? Number.NaN)
      )
    }))
  )

export interface Collector {
  readonly url: string
  /** The paths to which something has been exported so far. */
  readonly paths: ReadonlySet<string>
  readonly spans: ReadonlyArray<OtlpSpan>
  /** The content of the last export of metrics. */
  readonly series: () => ReadonlyArray<OtlpSeries>
  /** The number of exports of metrics so far. */
  readonly exports: () => number
}

export const collector = Effect.gen(function* () {
  const paths = new Set<string>()
  const spans: Array<OtlpSpan> = []
  let series: ReadonlyArray<OtlpSeries> = []
  let exports = 0
  const take = (path: string, body: string) => {
    paths.add(path)
    if (path === "/v1/traces") {
      const { resourceSpans } = JSON.parse(body) as {
        readonly resourceSpans: ReadonlyArray<{
          readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<OtlpSpan> }>
        }>
      }
      for (const { scopeSpans } of resourceSpans) for (const each of scopeSpans) spans.push(...each.spans)
    }
    if (path === "/v1/metrics") {
      const { resourceMetrics } = JSON.parse(body) as {
        readonly resourceMetrics: ReadonlyArray<{
          readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<OtlpMetric> }>
        }>
      }
      series = resourceMetrics.flatMap(({ scopeMetrics }) =>
        scopeMetrics.flatMap(({ metrics }) => metrics.flatMap(seriesOf))
      )
      exports++
    }
  }
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      take(request.url ?? "", Buffer.concat(chunks).toString())
      response.writeHead(200, { "content-type": "application/json" }).end("{}")
    })
  })
  yield* Effect.acquireRelease(
    Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))),
    () =>
      Effect.promise(() => {
        server.closeAllConnections()
        return new Promise((resolve) => server.close(resolve))
      })
  )
  const { port } = server.address() as AddressInfo
  const taken: Collector = {
    url: `http://127.0.0.1:${port}`,
    paths,
    spans,
    series: () => series,
    exports: () => exports
  }
  return taken
})
