/** Delays before something that was lost is tried again. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import { monotonicMillis } from "./monotonicMillis.ts"

/**
 * A random delay up to a bound that doubles ("full jitter"), so that the clients of a restarted broker do not all come
 * back at once (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 */
export const fullJitter = (least: Duration.Duration, most: Duration.Duration): Schedule.Schedule<Duration.Duration> =>
  Schedule.fromStep(
    Effect.sync(() => {
      let bound = Duration.toMillis(least)
      const last = Duration.toMillis(most)
      return () =>
        Effect.map(Random.next, (random): [Duration.Duration, Duration.Duration] => {
          const wait = Duration.millis(random * Math.min(bound, last))
          bound = Math.min(bound * 2, last)
          return [wait, wait]
        })
    })
  )

/** The delays between attempts. They restart from the first when the result of an attempt has lasted. */
export class Backoff<in Input> {
  readonly #clock: Clock.Clock
  readonly #schedule: Schedule.Schedule<unknown, Input>
  readonly #healthyAfter: number
  #step: Effect.Success<ReturnType<typeof Schedule.toStep<unknown, Input, never, never>>> | undefined = undefined
  /** Number of waits since the delays last restarted. */
  attempt = 0

  constructor(clock: Clock.Clock, schedule: Schedule.Schedule<unknown, Input>, healthyAfter: Duration.Duration) {
    this.#clock = clock
    this.#schedule = schedule
    this.#healthyAfter = Duration.toMillis(healthyAfter)
  }

  get now(): number {
    return monotonicMillis(this.#clock)
  }

  /** Restarts the delays if what was made at that time (`now`), and is lost, had lasted for `healthyAfter`. */
  resetIfHealthy(madeAt: number): void {
    if (this.now - madeAt < this.#healthyAfter) return
    this.attempt = 0
    this.#step = undefined
  }

  /**
   * Waits as long as the schedule says, but at least `least`. Returns `false` immediately if the schedule has ended.
   */
  wait(input: Input, least: Duration.Duration = Duration.zero): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function* () {
      const step = (this.#step ??= yield* Schedule.toStep(this.#schedule))
      const delay = yield* Pull.catchDone(
        Effect.map(step(this.#clock.currentTimeMillisUnsafe(), input), ([, delay]) => delay),
        () => Effect.undefined
      )
      if (delay === undefined) return false
      this.attempt++
      yield* Effect.sleep(Duration.max(delay, least))
      return true
    })
  }
}
