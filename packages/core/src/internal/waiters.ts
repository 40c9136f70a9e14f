/**
 * Borrowers in line, each with a deadline.
 *
 * All wait equally long, so the first in line is the first to be due: one timer serves them all, and costs nothing while
 * nobody waits. A list linked through its members, for the reasons that `deadlines` gives.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { AmqpErrorReason } from "../AmqpErrorReason.ts"
import { elapsed } from "./elapsed.ts"

/** One who waits: to be handed a `Thing`, or for something else. */
export abstract class Waiter<Thing> {
  readonly dueAt: number
  /** Its neighbours, while it waits: only `Waiters` sets them. */
  before: Waiter<Thing> | undefined = undefined
  after: Waiter<Thing> | undefined = undefined
  isWaiting = false

  constructor(dueAt: number) {
    this.dueAt = dueAt
  }

  /** Whether it waits to be handed something; if not, it is told otherwise. */
  abstract readonly isServed: boolean
  /** Ends the wait. One of these is called, once, and never after `leave`. */
  abstract take(thing: Thing): void
  abstract fail(reason: AmqpErrorReason): void
}

export class Waiters<Thing> {
  /** How many have been sent away because their time was up. */
  timedOut = 0
  size = 0
  /** Of these, how many are not served from here. */
  others = 0
  #first: Waiter<Thing> | undefined = undefined
  #last: Waiter<Thing> | undefined = undefined
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

  enter(waiter: Waiter<Thing>): void {
    waiter.isWaiting = true
    waiter.before = this.#last
    if (this.#last === undefined) this.#first = waiter
    else this.#last.after = waiter
    this.#last = waiter
    this.size++
    if (!waiter.isServed) this.others++
    if (this.#timer === undefined) this.#timer = this.#runFork(this.#watch)
  }

  /** Whether it was still in line. */
  leave(waiter: Waiter<Thing>): boolean {
    if (!waiter.isWaiting) return false
    const { after, before } = waiter
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    waiter.before = waiter.after = undefined
    waiter.isWaiting = false
    this.size--
    if (!waiter.isServed) this.others--
    return true
  }

  /** The first who waits to be handed something, out of line. */
  next(): Waiter<Thing> | undefined {
    for (let waiter = this.#first; waiter !== undefined; waiter = waiter.after) {
      if (!waiter.isServed) continue
      this.leave(waiter)
      return waiter
    }
    return undefined
  }

  /** Sends everyone away. */
  failAll(reason: AmqpErrorReason): void {
    const all: Array<Waiter<Thing>> = []
    for (let waiter = this.#first; waiter !== undefined; waiter = waiter.after) all.push(waiter)
    for (const waiter of all) {
      if (this.leave(waiter)) waiter.fail(reason)
    }
  }

  readonly #watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = elapsed(this.#clock)
    let late: AmqpErrorReason | undefined
    for (let waiter = this.#first; waiter !== undefined; waiter = this.#first) {
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
