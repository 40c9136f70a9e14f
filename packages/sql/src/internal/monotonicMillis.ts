/** Monotonic time: it is unaffected by changes to the system clock. */
import type * as Clock from "effect/Clock"

/** Milliseconds since some moment in the past, on this clock: only differences are meaningful. */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
