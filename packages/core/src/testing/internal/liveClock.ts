import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

const clock = Context.get(Context.empty(), Clock.Clock)

/**
 * Runs an effect with the real clock. Brokers need real time, but `@effect/vitest` builds its layers with a
 * `TestClock`, with which a timeout never fires and a delay never ends.
 */
export const live: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.provideService(
  Clock.Clock,
  clock
)
