/** Looking again and again, where no event tells that something is so. */
import { Effect, Schedule } from "effect"
import { inspect } from "node:util"

const pause = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))

/**
 * Looks until what is seen is as wanted, and returns it; after 10 seconds, or so many, a defect that tells what it has
 * stayed. The time is real, whatever the test's clock.
 */
export const until = <A, E, R>(
  look: Effect.Effect<A, E, R>,
  wanted: (seen: A) => boolean,
  what = "it",
  seconds = 10
): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const deadline = performance.now() + seconds * 1000
    while (true) {
      const seen = yield* look
      if (wanted(seen)) return seen
      if (performance.now() > deadline) return yield* Effect.die(new Error(`${what} stayed ${inspect(seen)}`))
      yield* pause
    }
  })

/** Looks until it holds; after 20 seconds, a defect that tells what was waited for. */
export const eventually = <E, R>(what: string, holds: Effect.Effect<boolean, E, R>) =>
  holds.pipe(
    Effect.repeat({ until: (now) => now, schedule: Schedule.spaced("3 millis") }),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.die(new Error(`${what}: it never came to that`))
    })
  )
