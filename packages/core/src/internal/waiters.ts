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
import { type InLine, Line } from "./line.ts"

/** One who waits: to be handed a `Thing`, or for something else. One of its functions is called, once, and not after `leave`. */
export class Waiter<Thing> implements InLine<Waiter<Thing>> {
  line: Line<Waiter<Thing>> | undefined = undefined
  before: Waiter<Thing> | undefined = undefined
  after: Waiter<Thing> | undefined = undefined
  readonly dueAt: number
  readonly fail: (reason: AmqpErrorReason) => void
  /** Undefined: it waits for something else. */
  readonly take: ((thing: Thing) => void) | undefined

  constructor(dueAt: number, fail: (reason: AmqpErrorReason) => void, take?: (thing: Thing) => void) {
    this.dueAt = dueAt
    this.fail = fail
    this.take = take
  }
}

export class Waiters<Thing> {
  /** How many have been sent away because their time was up. */
  timedOut = 0
  /** How many wait to be handed something. */
  served = 0
  readonly #line = new Line<Waiter<Thing>>()
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

  enter(waiter: Waiter<Thing>): void {
    this.#line.add(waiter)
    if (waiter.take !== undefined) this.served++
    if (this.#timer === undefined) this.#timer = this.#runFork(this.#watch)
  }

  /** Whether it was still in line. */
  leave(waiter: Waiter<Thing>): boolean {
    if (!this.#line.remove(waiter)) return false
    if (waiter.take !== undefined) this.served--
    return true
  }

  /** Hands it to the first who waits for one: nothing happens if nobody does. */
  serve(thing: Thing): void {
    for (let waiter = this.#line.first; waiter !== undefined; waiter = waiter.after) {
      if (waiter.take === undefined) continue
      this.leave(waiter)
      return waiter.take(thing)
    }
  }

  /** Sends everyone away. */
  failAll(reason: AmqpErrorReason): void {
    for (const waiter of this.#line) {
      if (this.leave(waiter)) waiter.fail(reason)
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
      waiter.fail((late ??= this.#late()))
    }
    this.#timer = undefined
    return Effect.void
  })
}
