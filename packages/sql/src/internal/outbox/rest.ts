/** The pauses of a relay after failures that are not the message's: each is longer than the one before. */
const firstMillis = 100
const longestMillis = 5000

export class Rest {
  readonly #now: () => number
  #failures = 0
  #until = -Infinity

  constructor(now: () => number) {
    this.#now = now
  }

  /** Milliseconds until the pause ends; 0 if there is none. */
  get left(): number {
    return Math.max(0, this.#until - this.#now())
  }

  /** A failure. Many at the same time begin one pause. */
  begin(): void {
    if (this.left > 0) return
    this.#until = this.#now() + Math.min(longestMillis, firstMillis * 2 ** this.#failures)
    this.#failures++
  }

  /** A success: the next pause is short again. */
  end(): void {
    this.#failures = 0
  }
}
