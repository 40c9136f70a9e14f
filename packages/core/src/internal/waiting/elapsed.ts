/** Time as it passes, which nobody can set forward or back as the time of day. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"

// What Effect reads when nobody has provided another clock, such as a test's. Its time is a bigint: the same time is read as
// a number here, since this is read for each message.
const live = Context.get(Context.empty(), Clock.Clock)

/** Milliseconds since some moment in the past: only differences mean something. For what is measured, not for deadlines. */
export const exactly = (clock: Clock.Clock): number =>
  clock === live ? performance.now() : Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** The same in whole milliseconds. */
export const elapsed = (clock: Clock.Clock): number => Math.floor(exactly(clock))
