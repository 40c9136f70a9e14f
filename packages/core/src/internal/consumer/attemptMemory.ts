/**
 * How often the handlers of this application have failed at messages that went back to their queue.
 *
 * The broker's counts are no use for that: they include deliveries that no handler has seen. Messages that nothing tells
 * apart share a key, so a key has a list of counts, and a delivery takes the lowest of them: no message is taken for one
 * that has failed more often.
 */

/** How many counts are kept. The key that was noted first gives way. */
const capacity = 10_000

export class AttemptMemory {
  readonly #counts = new Map<string, Array<number>>()
  /** The keys of messages that are counted for other processes too. */
  readonly #shared = new Set<string>()
  /** The keys that several messages have. */
  readonly #ambiguous = new Set<string>()
  #size = 0

  /** How many counts there are. */
  get size(): number {
    return this.#size
  }

  /** Notes a message that goes back after so many failures. `isShared`: it is the one that is counted for others. */
  add(key: string, failures: number, isShared = false): void {
    const counts = this.#counts.get(key)
    if (!isShared && (counts !== undefined || this.#shared.has(key))) this.noteAmbiguous(key)
    if (counts === undefined) this.#counts.set(key, [failures])
    else counts.push(failures)
    this.#size++
    while (this.#size > capacity) {
      const [first] = this.#counts
      this.#counts.delete(first![0])
      this.#size -= first![1].length
    }
  }

  /** Takes out a message that was delivered again: how often handlers have failed at it, as far as is known. */
  take(key: string): number {
    const counts = this.#counts.get(key)
    if (counts === undefined) return 0
    const failures = Math.min(...counts)
    this.#size--
    if (counts.length === 1) this.#counts.delete(key)
    else counts.splice(counts.indexOf(failures), 1)
    return failures
  }

  /** A message of this key is counted for other processes too, from now on or no longer. */
  share(key: string, isShared: boolean): void {
    if (isShared) this.#shared.add(key)
    else this.#shared.delete(key)
  }

  /** Whether several messages have this key: one count for all of them would be too high for each. */
  isAmbiguous(key: string): boolean {
    return this.#ambiguous.has(key)
  }

  noteAmbiguous(key: string): void {
    this.#ambiguous.delete(key)
    this.#ambiguous.add(key)
    if (this.#ambiguous.size <= capacity) return
    for (const first of this.#ambiguous) return void this.#ambiguous.delete(first)
  }
}
