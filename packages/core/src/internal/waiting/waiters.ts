/**
 * Borrowers in line, each with a deadline.
 *
 * All wait equally long, so the first in line is the first to be due: one timer serves them all, and costs nothing while
 * nobody waits.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { AmqpErrorReason } from "../../model/errorReason.ts"
import { elapsed } from "./elapsed.ts"
import { type InLine, Line } from "./line.ts"

/** One who waits: to be handed something, or for something else. */
export interface Waiter<Self extends Waiter<Self>> extends InLine<Self> {
  readonly dueAt: number
  /** Whether it is to be handed something. Not changed while it waits. */
  readonly isServed: boolean
  /** Called once, and not after `leave`, if it is sent away. */
  readonly sendAway: (reason: AmqpErrorReason) => void
}

export class Waiters<One extends Waiter<One>> {
  /** How many have been sent away because their time was up. */
  timedOut = 0
  /** How many wait to be handed something. */
  served = 0
  readonly #line = new Line<One>()
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

  enter(waiter: One): void {
    this.#line.add(waiter)
    if (waiter.isServed) this.served++
    if (this.#timer === undefined) this.#timer = this.#runFork(this.#watch)
  }

  /** Whether it was still in line. */
  leave(waiter: One): boolean {
    if (!this.#line.remove(waiter)) return false
    if (waiter.isServed) this.served--
    return true
  }

  /** Takes the first out of the line that is to be handed something. */
  next(): One | undefined {
    for (let waiter = this.#line.first; waiter !== undefined; waiter = waiter.after) {
      if (!waiter.isServed) continue
      this.leave(waiter)
      return waiter
    }
    return undefined
  }

  /** Sends everyone away. */
  failAll(reason: AmqpErrorReason): void {
    for (const waiter of this.#line) {
      if (this.leave(waiter)) waiter.sendAway(reason)
    }
  }

  readonly #watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = elapsed(this.#clock)
    let late: AmqpErrorReason | undefined
    for (let waiter = this.#line.first; waiter !== undefined; waiter = this.#line.first) {
      if (waiter.dueAt > now) {
        // It may leave before: then this wakes up early, looks at the new first in line, and sleeps on.
        return Effect.andThen(Effect.sleep(waiter.dueAt - now), this.#watch)
      }
      this.leave(waiter)
      this.timedOut++
      waiter.sendAway((late ??= this.#late()))
    }
    this.#timer = undefined
    return Effect.void
  })
}
