/**
 * The clock of the library's own waits: the one with which the connection was made.
 *
 * A broker needs real time, and the library's waits belong to its connection. Applications have one clock. Tests may
 * have two: a connection with real time, and a test's fibers, handlers included, with a `TestClock`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Runs an effect of the library with this clock, whatever the clock of the calling fiber is. */
export const onClock = <A, E, R>(clock: Clock.Clock, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) =>
    fiber.getRef(Clock.Clock) === clock ? effect : Effect.provideService(effect, Clock.Clock, clock)
  )

/** Runs an effect of the application, such as a handler, with the clock of the fiber that gave it to the library. */
export type AsCaller = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const identity: AsCaller = (effect) => effect

/**
 * Runs a part of the library that runs effects of the application. Its own waits use this clock (`undefined`: that of
 * the calling fiber), and what it passes to `AsCaller` uses the clock of the calling fiber.
 */
export const withCaller = <A, E, R>(
  clock: Clock.Clock | undefined,
  make: (asCaller: AsCaller) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const caller = fiber.getRef(Clock.Clock)
    return clock === undefined || clock === caller
      ? make(identity)
      : Effect.provideService(make(Effect.provideService(Clock.Clock, caller)), Clock.Clock, clock)
  })
