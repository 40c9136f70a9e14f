/** By how much this process is late. */
import { monitorEventLoopDelay } from "node:perf_hooks"

/** Milliseconds by which the event loop was late. */
export interface Delay {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

/** It looks every so many milliseconds. */
const resolution = 5

/** Looks from now on; says what it has seen. */
export const watchEventLoop = (): (() => Delay) => {
  const delays = monitorEventLoopDelay({ resolution })
  delays.enable()
  const millis = (nanos: number) => Math.max(0, Math.round(nanos / 1e6) - resolution)
  return () => ({ p50: millis(delays.percentile(50)), p99: millis(delays.percentile(99)), max: millis(delays.max) })
}
