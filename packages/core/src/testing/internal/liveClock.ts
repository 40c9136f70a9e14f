import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

const clock = Context.get(Context.empty(), Clock.Clock)

/**
 * Runs an effect on real time. Brokers live in real time, but `@effect/vitest` builds its layers under a `TestClock`,
 * where a timeout never fires and a delay never ends.
 */
export const live: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.provideService(
  Clock.Clock,
  clock
)
