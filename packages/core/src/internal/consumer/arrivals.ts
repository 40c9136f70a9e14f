/**
 * When the deliveries of a channel have arrived, roughly: for those that are still unsettled when the broker ends their
 * consumer. A mark now and then costs nothing per delivery.
 */

/** A delivery, and when it arrived. */
interface Mark {
  readonly tag: number
  readonly at: number
}

/** Between two marks, in milliseconds. Doubled when there are too many of them. */
const finest = 50
const mostMarks = 1000

export class Arrivals {
  #marks: Array<Mark> = []
  #grain = finest
  #lastAt = -Infinity

  /** A delivery has arrived. `unsettled` are those that are still of interest, this one among them. */
  note(tag: number, at: number, unsettled: ReadonlySet<number>): void {
    if (at - this.#lastAt < this.#grain) return
    this.#lastAt = at
    const [oldest = tag] = unsettled
    // The last mark before the oldest one says when that arrived.
    let gone = 0
    while (gone + 1 < this.#marks.length && this.#marks[gone + 1]!.tag <= oldest) gone++
    if (gone > 0) this.#marks.splice(0, gone)
    this.#marks.push({ tag, at })
    if (this.#marks.length <= mostMarks) return
    this.#grain *= 2
    this.#marks = this.#marks.filter((_, i) => i % 2 === 0)
  }

  /** When a delivery arrived, at the earliest. */
  of(tag: number): number {
    let at = this.#marks[0]?.at ?? this.#lastAt
    for (const mark of this.#marks) {
      if (mark.tag > tag) break
      at = mark.at
    }
    return at
  }
}
