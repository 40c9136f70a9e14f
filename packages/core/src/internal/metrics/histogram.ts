/**
 * Durations in fixed buckets. Recording one only adds to numbers. The shape that collectors read is made when it is
 * read.
 */
import type * as Metric from "effect/Metric"

/**
 * Upper bounds of the buckets, in seconds: those of OpenTelemetry's conventions for messaging, and three smaller ones
 * for the times of a broker nearby.
 */
export const boundaries: ReadonlyArray<number> = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10
]

const bounds = Float64Array.from(boundaries, (seconds) => seconds * 1000)

export class Histogram {
  // The last bucket is for durations above all bounds.
  readonly #counts = new Float64Array(bounds.length + 1)
  #sum = 0
  #min = Number.MAX_VALUE
  #max = -Number.MAX_VALUE

  record(milliseconds: number): void {
    let bucket = 0
    // Most durations are short and pass few bounds, so this is cheaper than a binary search.
    while (bucket < bounds.length && milliseconds > bounds[bucket]!) bucket++
    this.#counts[bucket]!++
    this.#sum += milliseconds
    if (milliseconds < this.#min) this.#min = milliseconds
    if (milliseconds > this.#max) this.#max = milliseconds
  }

  /** In seconds. The count of a bucket includes the buckets before it. */
  get state(): Metric.HistogramState {
    let count = 0
    const buckets = boundaries.map((bound, i): [number, number] => [bound, (count += this.#counts[i]!)])
    count += this.#counts[boundaries.length]!
    const none = count === 0
    return {
      buckets,
      count,
      sum: this.#sum / 1000,
      min: none ? this.#min : this.#min / 1000,
      max: none ? this.#max : this.#max / 1000
    }
  }
}
