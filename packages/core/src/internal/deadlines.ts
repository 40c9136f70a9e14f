/**
 * Deadlines of many things that wait, by one timer.
 *
 * Most of them end long before they are due, and most are due in the order in which they began: so they cost an entry in
 * a set each, and the timer wakes up once in the time of the longest.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Fork } from "./slot.ts"
import { elapsed, exactly } from "./elapsed.ts"

export interface Due {
  /** In milliseconds, as `now` of the deadlines. */
  readonly dueAt: number
  /** Called once, when the time has come; not after `delete`. Must not throw. */
  readonly expire: () => void
}

export class Deadlines {
  readonly #entries = new Set<Due>()
  readonly #clock: Clock.Clock
  readonly #fork: Fork
  #timer: { readonly interruptUnsafe: () => void } | undefined = undefined
  #wakesAt = Infinity

  /** `fork` owns the timer: it runs until nothing is left to wait for. */
  constructor(clock: Clock.Clock, fork: Fork) {
    this.#clock = clock
    this.#fork = fork
  }

  /** In milliseconds, from some beginning: not the time of day, which may be set while something waits. */
  get now(): number {
    return elapsed(this.#clock)
  }

  /** The same, with fractions: for what is measured. */
  get exact(): number {
    return exactly(this.#clock)
  }

  get size(): number {
    return this.#entries.size
  }

  add(entry: Due): void {
    this.#entries.add(entry)
    if (entry.dueAt >= this.#wakesAt) return
    this.#timer?.interruptUnsafe()
    this.#wakesAt = entry.dueAt
    this.#timer = this.#fork(this.#sleep)
  }

  /** Whether it was still waiting. */
  delete(entry: Due): boolean {
    return this.#entries.delete(entry)
  }

  readonly #sleep: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(Effect.sleep(Math.max(0, this.#wakesAt - this.now)), this.#wake)
  )

  readonly #wake: Effect.Effect<void> = Effect.suspend(() => {
    const { now } = this
    let next = Infinity
    const due: Array<Due> = []
    for (const entry of this.#entries) {
      if (entry.dueAt <= now) due.push(entry)
      else if (entry.dueAt < next) next = entry.dueAt
    }
    // Set before anybody is told: what they start may want an earlier wake.
    this.#wakesAt = next
    if (next === Infinity) this.#timer = undefined
    const mine = this.#timer
    for (const entry of due) {
      if (this.#entries.delete(entry)) entry.expire()
    }
    return next === Infinity || this.#timer !== mine ? Effect.void : this.#sleep
  })
}
