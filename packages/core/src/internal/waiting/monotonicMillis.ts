/** Monotonic time: it is unaffected by changes to the system clock. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"

// Effect's default clock, which applies unless another one is provided, such as a test's. Its time is a bigint. Here
// the same time is read as a number, because it is read for each message.
const defaultClock = Context.get(Context.empty(), Clock.Clock)

/** Milliseconds since some moment in the past: only differences are meaningful. For measurements, not for deadlines. */
export const monotonicMillisExact = (clock: Clock.Clock): number =>
  clock === defaultClock ? performance.now() : Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** The same in whole milliseconds. */
export const monotonicMillis = (clock: Clock.Clock): number => Math.floor(monotonicMillisExact(clock))
