/**
 * The time that the parts of an application share when they stop.
 * Parts stop one after the other: consumers, then publisher, pool and client, then connections. If each had its own
 * deadline, they could take the sum of all. So time is spent while any part stops, and refills at the same rate while
 * none does. Parts that stop together, or directly after one another, share one deadline, counted from the first. A
 * consumer that was stopped an hour ago has cost nothing.
 * Closes have their own bound. After the shared time is used up, all closes together may take at most `maxCloses` times
 * that bound. So a whole shutdown ends within `shutdownTimeout` and twice `closeTimeout`, whether or not the broker
 * answers.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type { Link } from "./link.ts"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"
import { onClock } from "../waiting/onClock.ts"

const maxCloses = 2

export class Shutdown {
  readonly #clock: Clock.Clock
  readonly #shutdownTimeout: number
  readonly #closeTimeout: number
  /** Number of parts that are stopping now. */
  #stopping = 0
  /** Time spent at `#at`, in milliseconds. */
  #spent = 0
  #at: number
  /** The longest timeout of the parts that are stopping now, in milliseconds. */
  #longest: number

  constructor({ closeTimeout, shutdownTimeout }: AmqpConfig, clock: Clock.Clock) {
    this.#clock = clock
    this.#shutdownTimeout = this.#longest = Duration.toMillis(shutdownTimeout)
    this.#closeTimeout = Duration.toMillis(closeTimeout)
    this.#at = monotonicMillis(clock)
  }

  /**
   * Counts a part as stopping while `stop` runs. `stop` must be bounded by the times that are read here while it runs.
   * It waits with the connection's clock: a finalizer has the clock of whatever fiber closes its scope.
   */
  during<A, E, R>(stop: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.#count(1)
      return Effect.ensuring(
        onClock(this.#clock, stop),
        Effect.sync(() => this.#count(-1))
      )
    })
  }

  #count(by: 1 | -1): void {
    this.#spent = this.#spentNow
    this.#at = monotonicMillis(this.#clock)
    if (this.#spent === 0) this.#longest = this.#shutdownTimeout
    this.#stopping += by
  }

  get #spentNow(): number {
    const passed = monotonicMillis(this.#clock) - this.#at
    return this.#stopping > 0 ? this.#spent + passed : Math.max(0, this.#spent - passed)
  }

  /**
   * How long to wait now for the application's own work, in milliseconds. Callers with their own timeout pass it, and
   * get the rest of that.
   */
  timeLeft(timeout: number = this.#shutdownTimeout): number {
    if (timeout > this.#longest) this.#longest = timeout
    return Math.max(0, timeout - this.#spentNow)
  }

  /** Whether a part is to wait for the application's own work at all, however much of the time is left. */
  waits(timeout: number = this.#shutdownTimeout): boolean {
    return timeout > 0
  }

  /** How long something may take that must end now, in milliseconds. */
  get closeTimeLeft(): number {
    return Math.min(this.#closeTimeout, this.#left)
  }

  /** How long a close of this link, or of a channel on it, may take from now, in milliseconds. */
  closeTimeLeftOf(link: Link | undefined): number {
    return link?.isSilent === true ? 0 : this.closeTimeLeft
  }

  /** How long to wait now for something brief, in milliseconds: a confirm of the broker, or a hook. */
  answerTimeLeft(timeout?: number): number {
    return Math.max(this.timeLeft(timeout), this.closeTimeLeft)
  }

  /**
   * How long to wait now for parts that stop within the bounds above, in milliseconds. The last close is reserved for
   * what follows.
   */
  get settleTimeLeft(): number {
    return Math.max(0, this.#left - this.#closeTimeout)
  }

  /** Time until the whole shutdown must be complete, in milliseconds. */
  get #left(): number {
    return Math.max(0, this.#longest + maxCloses * this.#closeTimeout - this.#spentNow)
  }
}
