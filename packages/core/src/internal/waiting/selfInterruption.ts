/** Effects of the application that interrupt themselves, for example by joining a fiber that was interrupted. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/**
 * Makes an interruption that comes from the effect itself a defect. Otherwise the library would take it for an
 * interruption by its own caller, and end silently. If the caller interrupts the fiber, no handler of it runs.
 *
 * @param what the effect, for the defect's message
 */
export const selfInterruptionAsDefect = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  what: string
): Effect.Effect<A, E, R> =>
  Effect.catchCause(effect, (cause) =>
    Cause.hasInterruptsOnly(cause)
      ? Effect.die(new Error(`${what} was interrupted before it finished, although its consumer is not stopping`))
      : Effect.failCause(cause)
  )
