/**
 * Declarations that must be on the broker before anything is published or consumed on a new connection. A message that
 * is published before its queue exists is confirmed and lost, and a consumer that starts before its queue exists fails.
 * The code that prepares marks each link as done. Waiting for a link is bounded: a preparation that fails must not
 * delay work that does not need it.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Link } from "./link.ts"

/** Work that is repeated on each new link. */
export class Preparation {
  readonly #attemptedOn = new WeakSet<Link>()
  readonly #doneOn = new WeakSet<Link>()
  readonly #changed: () => void

  constructor(changed: () => void) {
    this.#changed = changed
  }

  isDone(link: Link): boolean {
    return this.#doneOn.has(link)
  }

  /** Whether every part was attempted on this link, with or without success. */
  isAttempted(link: Link): boolean {
    return this.#attemptedOn.has(link) || this.isDone(link)
  }

  markAttempted(link: Link): void {
    this.#attemptedOn.add(link)
    this.#changed()
  }

  /** Marks the link as done: the preparation is complete, or will not succeed. */
  markDone(link: Link): void {
    this.#doneOn.add(link)
    this.#changed()
  }
}

export class Preparations {
  readonly #current: () => Link | undefined
  readonly #all = new Set<Preparation>()
  readonly #waiting = new Set<() => void>()

  constructor(current: () => Link | undefined) {
    this.#current = current
  }

  readonly #changed = () => {
    for (const check of Array.from(this.#waiting)) check()
  }

  /** Adds a preparation, which counts as done on `link`. */
  add(link: Link | undefined): Preparation {
    const preparation = new Preparation(this.#changed)
    if (link !== undefined) preparation.markDone(link)
    this.#all.add(preparation)
    return preparation
  }

  remove(preparation: Preparation): void {
    this.#all.delete(preparation)
    this.#changed()
  }

  /** Whether all preparations are done on the current link. */
  get areDone(): boolean {
    if (this.#all.size === 0) return true
    const link = this.#current()
    if (link === undefined) return false
    for (const preparation of this.#all) if (!preparation.isDone(link)) return false
    return true
  }

  /**
   * Waits until all preparations are done on the current link, or on the next one if there is none, for at most
   * `bound`.
   */
  wait(bound: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => {
      const link = this.#current()
      return Effect.map(
        this.#until(() => this.areDone, bound),
        (areDone) => {
          // Other callers on this link, and later ones, must not wait as long again. A link that was opened during this
          // wait has not had the whole time.
          if (areDone || link === undefined || link !== this.#current()) return
          for (const preparation of this.#all) preparation.markDone(link)
        }
      )
    })
  }

  /**
   * Waits until the preparations that were added before this one were attempted on the link, for at most `bound`. A
   * topology may refer to what an earlier one declares. The wait also ends when that link does and the next one is
   * prepared.
   */
  waitForEarlier(preparation: Preparation, link: Link, bound: Duration.Duration): Effect.Effect<void> {
    const isNext = () => {
      if (this.#current() !== link) return true
      for (const earlier of this.#all) {
        if (earlier === preparation) return true
        if (!earlier.isAttempted(link)) return false
      }
      return true
    }
    return Effect.asVoid(this.#until(isNext, bound))
  }

  /** Waits until the condition holds, for at most `bound`. Succeeds with whether it holds. */
  #until(condition: () => boolean, bound: Duration.Duration): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      if (condition()) return Effect.succeed(true)
      const held = Effect.callback<void>((resume) => {
        const check = () => {
          if (!condition()) return
          this.#waiting.delete(check)
          resume(Effect.void)
        }
        this.#waiting.add(check)
        check()
        return Effect.sync(() => this.#waiting.delete(check))
      })
      return Effect.map(Effect.timeoutOption(held, bound), (result) => result._tag === "Some")
    })
  }
}
