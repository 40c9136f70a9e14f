/**
 * The deadlines of many entries, served by one timer.
 *
 * Most entries end long before they are due, and most are due in the order in which they began. So each costs one place
 * in a list, and the timer wakes up once per longest timeout.
 *
 * The list is linked through its entries, which drop their links when they leave. A `Set` would make the garbage
 * collector keep what has left: it replaces its table again and again, and each old table holds everything that came
 * after it until a full collection.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Fork } from "./fork.ts"
import { monotonicMillis, monotonicMillisExact } from "./monotonicMillis.ts"

export interface DeadlineEntry {
  /** Its neighbors while it waits. Only `Deadlines` sets them. */
  sooner: DeadlineEntry | undefined
  later: DeadlineEntry | undefined
  /** In milliseconds, on the same clock as `Deadlines.now`. */
  readonly dueAt: number
  /** Called once when the deadline has passed, and not after `delete`. Must not throw. */
  readonly expire: () => void
}

/** Both ends of the list: before the first entry and after the last. */
class Sentinel implements DeadlineEntry {
  sooner: DeadlineEntry = this
  later: DeadlineEntry = this
  readonly dueAt = Infinity
  readonly expire = () => {}
}

export class Deadlines {
  readonly #sentinel = new Sentinel()
  #size = 0
  readonly clock: Clock.Clock
  readonly #fork: Fork
  #timer: { readonly interruptUnsafe: () => void } | undefined = undefined
  #wakesAt = Infinity

  /** `fork` owns the timer, which runs until nothing is left to wait for. */
  constructor(clock: Clock.Clock, fork: Fork) {
    this.clock = clock
    this.#fork = fork
  }

  /** Monotonic milliseconds. The time of day could be set while an entry waits. */
  get now(): number {
    return monotonicMillis(this.clock)
  }

  /** The same with fractions, for measurements. */
  get nowExact(): number {
    return monotonicMillisExact(this.clock)
  }

  get size(): number {
    return this.#size
  }

  add(entry: DeadlineEntry): void {
    const ends = this.#sentinel
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

  /** Returns whether the entry was still waiting. */
  delete(entry: DeadlineEntry): boolean {
    const { later, sooner } = entry
    if (later === undefined || sooner === undefined) return false
    sooner.later = later
    later.sooner = sooner
    entry.sooner = entry.later = undefined
    this.#size--
    return true
  }

  /** Ends the timer. Nothing expires any more, unless an entry is added later. */
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
    const due: Array<DeadlineEntry> = []
    for (let entry: DeadlineEntry = this.#sentinel.later; entry !== this.#sentinel; entry = entry.later!) {
      if (entry.dueAt <= now) due.push(entry)
      else if (entry.dueAt < next) next = entry.dueAt
    }
    // Set before the entries expire: what they start may need an earlier wake-up.
    this.#wakesAt = next
    if (next === Infinity) this.#timer = undefined
    const mine = this.#timer
    for (const entry of due) {
      if (this.delete(entry)) entry.expire()
    }
    return next === Infinity || this.#timer !== mine ? Effect.void : this.#sleep
  })
}
