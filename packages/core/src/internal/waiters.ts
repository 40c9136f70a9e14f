/**
 * Borrowers in line, each with a deadline.
 *
 * All wait equally long, so the first in line is the first to be due: one timer serves them all, and costs nothing while
 * nobody waits.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { AmqpErrorReason } from "../AmqpErrorReason.ts"
import { elapsed } from "./elapsed.ts"

export interface Waiter {
  readonly dueAt: number
  /** Ends the wait. Called once, and never after `leave`. */
  readonly fail: (reason: AmqpErrorReason) => void
}

export class Waiters {
  /** How many have been sent away because their time was up. */
  timedOut = 0
  readonly #line = new Set<Waiter>()
  readonly #clock: Clock.Clock
  readonly #runFork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #late: () => AmqpErrorReason
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(
    clock: Clock.Clock,
    runFork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>,
    late: () => AmqpErrorReason
  ) {
    this.#clock = clock
    this.#runFork = runFork
    this.#late = late
  }

  get size(): number {
    return this.#line.size
  }

  enter(waiter: Waiter): void {
    this.#line.add(waiter)
    if (this.#timer === undefined) this.#timer = this.#runFork(this.#watch)
  }

  /** Whether it was still in line. */
  leave(waiter: Waiter): boolean {
    return this.#line.delete(waiter)
  }

  /** Sends everyone away. */
  failAll(reason: AmqpErrorReason): void {
    for (const waiter of Array.from(this.#line)) {
      if (this.#line.delete(waiter)) waiter.fail(reason)
    }
  }

  readonly #watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = elapsed(this.#clock)
    let late: AmqpErrorReason | undefined
    for (const waiter of this.#line) {
      if (waiter.dueAt > now) {
        // It may leave before: then this wakes up early, looks at the new first in line, and sleeps on.
        return Effect.andThen(Effect.sleep(waiter.dueAt - now), this.#watch)
      }
      this.#line.delete(waiter)
      this.timedOut++
      waiter.fail((late ??= this.#late()))
    }
    this.#timer = undefined
    return Effect.void
  })
}
