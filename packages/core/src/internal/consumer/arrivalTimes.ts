/**
 * Approximate arrival times of a channel's deliveries, for those that are still unsettled when the broker cancels their
 * consumer. A mark is recorded once per interval, so most deliveries cost nothing.
 */

/** A delivery and its arrival time. */
interface Mark {
  readonly tag: number
  readonly at: number
}

/** Minimum time between two marks, in milliseconds. It doubles whenever there are too many marks. */
const minInterval = 50
const mostMarks = 1000

export class ArrivalTimes {
  #marks: Array<Mark> = []
  #interval = minInterval
  #lastAt = -Infinity

  /** Records that a delivery has arrived. `unsettled` holds the tags that are still of interest, including this one. */
  record(tag: number, at: number, unsettled: ReadonlySet<number>): void {
    if (at - this.#lastAt < this.#interval) return
    this.#lastAt = at
    const [oldest = tag] = unsettled
    // The last mark at or before the oldest unsettled delivery gives its arrival time. Earlier marks are not needed.
    let gone = 0
    while (gone + 1 < this.#marks.length && this.#marks[gone + 1]!.tag <= oldest) gone++
    if (gone > 0) this.#marks.splice(0, gone)
    this.#marks.push({ tag, at })
    if (this.#marks.length <= mostMarks) return
    this.#interval *= 2
    this.#marks = this.#marks.filter((_, i) => i % 2 === 0)
  }

  /** The earliest time at which a delivery may have arrived. */
  timeOf(tag: number): number {
    let at = this.#marks[0]?.at ?? this.#lastAt
    for (const mark of this.#marks) {
      if (mark.tag > tag) break
      at = mark.at
    }
    return at
  }
}
