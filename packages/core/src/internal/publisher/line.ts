/**
 * Publishes that wait, first come, first served.
 *
 * A list linked through its members: a publish that gives up leaves from the middle, and thousands may at once, so
 * leaving must not cost a search.
 */
import type { Attempt } from "./attempt.ts"

export class Line {
  size = 0
  first: Attempt | undefined = undefined
  #last: Attempt | undefined = undefined

  add(attempt: Attempt): void {
    attempt.line = this
    attempt.before = this.#last
    attempt.after = undefined
    if (this.#last === undefined) this.first = attempt
    else this.#last.after = attempt
    this.#last = attempt
    this.size++
  }

  /** For one that had its turn and could not use it: it is the next again. */
  addFirst(attempt: Attempt): void {
    attempt.line = this
    attempt.before = undefined
    attempt.after = this.first
    if (this.first === undefined) this.#last = attempt
    else this.first.before = attempt
    this.first = attempt
    this.size++
  }

  remove(attempt: Attempt): void {
    if (attempt.line !== this) return
    const { after, before } = attempt
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    attempt.line = attempt.before = attempt.after = undefined
    this.size--
  }

  /** Everyone who waits now, in order: a copy, since whoever is told something may come back at once. */
  *[Symbol.iterator](): Generator<Attempt> {
    const all: Array<Attempt> = []
    for (let attempt = this.first; attempt !== undefined; attempt = attempt.after) all.push(attempt)
    yield* all
  }
}
