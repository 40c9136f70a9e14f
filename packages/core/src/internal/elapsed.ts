/** Time as it passes, which nobody can set forward or back as the time of day. */
import type * as Clock from "effect/Clock"

/** Whole milliseconds since some moment in the past: only differences mean something. */
export const elapsed = (clock: Clock.Clock): number => Math.floor(exactly(clock))

/** The same in milliseconds with fractions: for what is measured, not for deadlines. */
export const exactly = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
