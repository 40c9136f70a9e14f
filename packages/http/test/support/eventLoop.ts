/** Measures the delay of this process's event loop. */
import { monitorEventLoopDelay } from "node:perf_hooks"

/** Delay of the event loop, in milliseconds. */
export interface Delay {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

/** Time between two measurements, in milliseconds. */
const resolution = 5

/** Starts measuring. The returned function reads the result. */
export const watchEventLoop = (): (() => Delay) => {
  const delays = monitorEventLoopDelay({ resolution })
  delays.enable()
  const millis = (nanos: number) => Math.max(0, Math.round(nanos / 1e6) - resolution)
  return () => ({ p50: millis(delays.percentile(50)), p99: millis(delays.percentile(99)), max: millis(delays.max) })
}
