/**
 * The time that the parts of an application share when they stop.
 *
 * They stop one after the other: consumers, then publisher, pool and client, then connections. Each with a deadline of
 * its own, they would take the sum of all. So time is spent while any of them stops, and comes back as fast while none
 * does: whoever stops together, or right after one another, has one deadline between them, counted from the first, and a
 * consumer that was stopped an hour ago has cost nothing.
 *
 * Closes have their own bound, and together no more than `mostCloses` times that when everybody else's time is up. So a
 * whole shutdown ends within `shutdownTimeout` and twice `closeTimeout`, whatever answers and whatever does not.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type { Link } from "./link.ts"
import { elapsed } from "../waiting/elapsed.ts"

const mostCloses = 2

export class Shutdown {
  readonly #clock: Clock.Clock
  readonly #shutdownTimeout: number
  readonly #closeTimeout: number
  /** How many parts are stopping now. */
  #stopping = 0
  /** Milliseconds, as they were at `#at`. */
  #spent = 0
  #at: number
  /** The longest that anybody may wait, of those that stop now. */
  #longest: number

  constructor({ closeTimeout, shutdownTimeout }: AmqpConfig, clock: Clock.Clock) {
    this.#clock = clock
    this.#shutdownTimeout = this.#longest = Duration.toMillis(shutdownTimeout)
    this.#closeTimeout = Duration.toMillis(closeTimeout)
    this.#at = elapsed(clock)
  }

  /** For as long as `stop` runs, a part is stopping. `stop` must be bounded by what is read here while it runs. */
  during<A, E, R>(stop: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.#turn(1)
      return Effect.ensuring(
        stop,
        Effect.sync(() => this.#turn(-1))
      )
    })
  }

  #turn(by: 1 | -1): void {
    this.#spent = this.#spentNow
    this.#at = elapsed(this.#clock)
    if (this.#spent === 0) this.#longest = this.#shutdownTimeout
    this.#stopping += by
  }

  get #spentNow(): number {
    const passed = elapsed(this.#clock) - this.#at
    return this.#stopping > 0 ? this.#spent + passed : Math.max(0, this.#spent - passed)
  }

  /** How long may be waited now for what the application does, in milliseconds: for those with a timeout of their own, of that. */
  patience(timeout: number = this.#shutdownTimeout): number {
    if (timeout > this.#longest) this.#longest = timeout
    return Math.max(0, timeout - this.#spentNow)
  }

  /** How long something may take that is to end now, in milliseconds. */
  get closing(): number {
    return Math.min(this.#closeTimeout, this.#left)
  }

  /** How long a close of this link, or of a channel on it, may take that begins now, in milliseconds. */
  closingOf(link: Link | undefined): number {
    return link?.isSilent === true ? 0 : this.closing
  }

  /** How long may be waited now for what takes a moment only: a confirm of the broker, a hook. */
  answering(timeout?: number): number {
    return Math.max(this.patience(timeout), this.closing)
  }

  /** How long may be waited now for parts that stop within the bounds above; the last close is kept for what follows. */
  get settling(): number {
    return Math.max(0, this.#left - this.#closeTimeout)
  }

  /** Until everything has to be over. */
  get #left(): number {
    return Math.max(0, this.#longest + mostCloses * this.#closeTimeout - this.#spentNow)
  }
}
