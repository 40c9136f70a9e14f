/**
 * What has to be on the broker before anything is published or consumed on a new connection: a message that comes before
 * its queue is confirmed and lost, and a consumer that does ends.
 *
 * Whoever prepares says for each link when it is done. Nobody waits longer than a bound for a link: what cannot be
 * prepared must not hold up what does not need it.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Link } from "./link.ts"

/** Something that is prepared on each link anew. */
export class Preparation {
  readonly #links = new WeakSet<Link>()
  readonly #changed: () => void

  constructor(changed: () => void) {
    this.#changed = changed
  }

  isDone(link: Link): boolean {
    return this.#links.has(link)
  }

  /** To be called when it is there, or will not be. */
  done(link: Link): void {
    this.#links.add(link)
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
    for (const look of Array.from(this.#waiting)) look()
  }

  /** Begins with `link`, on which it is done. */
  add(link: Link | undefined): Preparation {
    const preparation = new Preparation(this.#changed)
    if (link !== undefined) preparation.done(link)
    this.#all.add(preparation)
    return preparation
  }

  remove(preparation: Preparation): void {
    this.#all.delete(preparation)
    this.#changed()
  }

  /** Whether there is nothing to wait for. */
  get areDone(): boolean {
    if (this.#all.size === 0) return true
    const link = this.#current()
    if (link === undefined) return false
    for (const preparation of this.#all) if (!preparation.isDone(link)) return false
    return true
  }

  /** Waits until all is prepared on the present link, or the next one if there is none, for as long as `bound` at most. */
  wait(bound: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.areDone) return Effect.void
      const prepared = Effect.callback<void>((resume) => {
        const look = () => {
          if (!this.areDone) return
          this.#waiting.delete(look)
          resume(Effect.void)
        }
        this.#waiting.add(look)
        look()
        return Effect.sync(() => this.#waiting.delete(look))
      })
      return Effect.map(Effect.timeoutOption(prepared, bound), (result) => {
        if (result._tag === "Some") return
        // The others on this link, and those who open again, have waited long enough, too.
        const link = this.#current()
        if (link !== undefined) for (const preparation of this.#all) preparation.done(link)
      })
    })
  }
}
