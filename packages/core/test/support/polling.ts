/** Polling, where no event reports that a condition holds. */
import { Effect, Schedule } from "effect"
import { inspect } from "node:util"

const pause = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))

/**
 * Polls until the value is as expected, and returns it. After 10 seconds, or `seconds`, it dies with the last value. It
 * uses real time, whatever the test's clock.
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

/** Polls until the condition holds. After 20 seconds it dies with what was awaited. */
export const eventually = <E, R>(what: string, holds: Effect.Effect<boolean, E, R>) =>
  holds.pipe(
    Effect.repeat({ until: (now) => now, schedule: Schedule.spaced("3 millis") }),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.die(new Error(`${what}: not reached within 20 seconds`))
    })
  )
