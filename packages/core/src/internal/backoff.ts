/** How long to wait before something is tried again that was lost. */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

// A random time up to a bound that doubles ("full jitter"): clients of a restarted broker do not come back all at once.
const firstBound = 100
const lastBound = 30_000

/** What has lasted for so long, in milliseconds, was well: the count of attempts begins anew. */
export const healthyAfter = 30_000

/** Waits before an attempt; the first is 0. */
export const backoff = (attempt: number): Effect.Effect<void> =>
  Effect.flatMap(Random.next, (random) =>
    Effect.sleep(random * Math.min(lastBound, firstBound * 2 ** Math.min(attempt, 20)))
  )
