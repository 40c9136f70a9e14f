/** The outcome of each message: what its publisher got, and how often a consumer has handled it. */

const pending = 0
const confirmed = 1
const unknown = 2
const refused = 3

/** The result of a run. */
export interface Balance {
  readonly published: number
  readonly confirmed: number
  /** Messages of unknown outcome that arrived, and that did not. */
  readonly unknownArrived: number
  readonly unknownLost: number
  /** Publishes that failed for certain: nothing was sent, or the broker refused the message. */
  readonly refused: number
  /** Messages that were confirmed and never handled: must be 0. */
  readonly lost: number
  /** Publishes whose outcome was reported twice or never: must be 0. */
  readonly misreported: number
  /** Messages that were refused and handled nevertheless: must be 0. */
  readonly phantoms: number
  /** Messages that were handled more than once, as at-least-once delivery allows. */
  readonly duplicated: number
}

/** A time in milliseconds, undefined until it is known. */
export interface Stopwatch {
  readonly time: number | undefined
}

/** One byte per message for each side: a million messages take two megabytes. */
export class Ledger {
  #outcomes = new Uint8Array(1 << 16)
  #handled = new Uint8Array(1 << 16)
  #published = 0
  #confirmed = 0
  #misreported = 0
  /** The time of the last confirm, and the longest time between two, in milliseconds. */
  #confirmedAt = performance.now()
  #longestGap = 0
  #firstHandled = 0
  #stopwatch: { readonly from: number; readonly at: number; time: number | undefined } | undefined = undefined

  get confirmed(): number {
    return this.#confirmed
  }

  get longestGap(): number {
    return this.#longestGap
  }

  get confirmedAt(): number {
    return this.#confirmedAt
  }

  /** The number of handled messages, each counted once. */
  get arrived(): number {
    return this.#firstHandled
  }

  /** The number of a new message. */
  publish(): number {
    if (this.#published === this.#outcomes.length) {
      this.#outcomes = doubled(this.#outcomes)
      this.#handled = doubled(this.#handled)
    }
    return this.#published++
  }

  #report(id: number, outcome: number): void {
    if (this.#outcomes[id] !== pending) this.#misreported++
    this.#outcomes[id] = outcome
  }

  /**
   * Measures from `at` to the first confirm of a message that is published from now on. Only one stopwatch runs at a
   * time.
   */
  stopwatch(at: number): Stopwatch {
    this.#stopwatch = { from: this.#published, at, time: undefined }
    return this.#stopwatch
  }

  confirm(id: number): void {
    this.#report(id, confirmed)
    this.#confirmed++
    const now = performance.now()
    const stopwatch = this.#stopwatch
    if (stopwatch !== undefined && stopwatch.time === undefined && id >= stopwatch.from) {
      stopwatch.time = now - stopwatch.at
    }
    this.#longestGap = Math.max(this.#longestGap, now - this.#confirmedAt)
    this.#confirmedAt = now
  }

  fail(id: number, mayHaveArrived: boolean): void {
    this.#report(id, mayHaveArrived ? unknown : refused)
  }

  handle(id: number): void {
    if (this.#handled[id] === 0) this.#firstHandled++
    if (this.#handled[id]! < 255) this.#handled[id]!++
  }

  /** The number of confirmed messages that are not handled yet. */
  get missing(): number {
    let missing = 0
    for (let id = 0; id < this.#published; id++) {
      if (this.#outcomes[id] === confirmed && this.#handled[id] === 0) missing++
    }
    return missing
  }

  balance(): Balance {
    const count = (wanted: (outcome: number, handled: number) => boolean) => {
      let matches = 0
      for (let id = 0; id < this.#published; id++) {
        if (wanted(this.#outcomes[id]!, this.#handled[id]!)) matches++
      }
      return matches
    }
    return {
      published: this.#published,
      confirmed: count((outcome) => outcome === confirmed),
      unknownArrived: count((outcome, handled) => outcome === unknown && handled > 0),
      unknownLost: count((outcome, handled) => outcome === unknown && handled === 0),
      refused: count((outcome) => outcome === refused),
      lost: this.missing,
      misreported: this.#misreported + count((outcome) => outcome === pending),
      phantoms: count((outcome, handled) => outcome === refused && handled > 0),
      duplicated: count((_, handled) => handled > 1)
    }
  }
}

const doubled = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const larger = new Uint8Array(bytes.length * 2)
  larger.set(bytes)
  return larger
}
