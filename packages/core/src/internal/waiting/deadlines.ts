/**
 * Deadlines of many things that wait, by one timer.
 *
 * Most of them end long before they are due, and most are due in the order in which they began: so they cost a place in a
 * list each, and the timer wakes up once in the time of the longest.
 *
 * A list linked through its members, which let go of one another when they leave. A `Set` would make the garbage collector
 * keep what has left: it replaces its table again and again, and each table, once it is old, holds all that came after it
 * until a full collection.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Fork } from "./fork.ts"
import { elapsed, exactly } from "./elapsed.ts"

export interface Due {
  /** Its neighbours, while it waits: only `Deadlines` sets them. */
  sooner: Due | undefined
  later: Due | undefined
  /** In milliseconds, as `now` of the deadlines. */
  readonly dueAt: number
  /** Called once, when the time has come; not after `delete`. Must not throw. */
  readonly expire: () => void
}

/** Both ends of a list: before the first and behind the last. */
class Ends implements Due {
  sooner: Due = this
  later: Due = this
  readonly dueAt = Infinity
  readonly expire = () => {}
}

export class Deadlines {
  readonly #ends = new Ends()
  #size = 0
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
    return this.#size
  }

  add(entry: Due): void {
    const ends = this.#ends
    const last = ends.sooner
    entry.sooner = last
    entry.later = ends
    last.later = ends.sooner = entry
    this.#size++
    if (entry.dueAt >= this.#wakesAt) return
    this.#timer?.interruptUnsafe()
    this.#wakesAt = entry.dueAt
    this.#timer = this.#fork(this.#sleep)
  }

  /** Whether it was still waiting. */
  delete(entry: Due): boolean {
    const { later, sooner } = entry
    if (later === undefined || sooner === undefined) return false
    sooner.later = later
    later.sooner = sooner
    entry.sooner = entry.later = undefined
    this.#size--
    return true
  }

  /** Ends the timer: nothing expires any more, unless something is added later. */
  stop(): void {
    this.#timer?.interruptUnsafe()
    this.#timer = undefined
    this.#wakesAt = Infinity
  }

  readonly #sleep: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(Effect.sleep(Math.max(0, this.#wakesAt - this.now)), this.#wake)
  )

  readonly #wake: Effect.Effect<void> = Effect.suspend(() => {
    const { now } = this
    let next = Infinity
    const due: Array<Due> = []
    for (let entry: Due = this.#ends.later; entry !== this.#ends; entry = entry.later!) {
      if (entry.dueAt <= now) due.push(entry)
      else if (entry.dueAt < next) next = entry.dueAt
    }
    // Set before anybody is told: what they start may want an earlier wake.
    this.#wakesAt = next
    if (next === Infinity) this.#timer = undefined
    const mine = this.#timer
    for (const entry of due) {
      if (this.delete(entry)) entry.expire()
    }
    return next === Infinity || this.#timer !== mine ? Effect.void : this.#sleep
  })
}
