/**
 * Counts how often this application's handlers have failed at messages that went back to their queue.
 *
 * The broker's counts cannot be used for this: they include deliveries that no handler has seen. Indistinguishable
 * messages share a key. So a key has a list of counts, and a delivery takes the lowest of them: no message is credited
 * with more failures than its own.
 */

/** Maximum number of counts. Beyond it, the counts of the key that was added first are removed. */
const capacity = 10_000

export class AttemptMemory {
  readonly #counts = new Map<string, Array<number>>()
  /** When messages with these keys have failed first, in milliseconds since 1970. */
  readonly #firstAt = new Map<string, number>()
  /** The keys of messages whose attempts are also counted for other processes. */
  readonly #shared = new Set<string>()
  /** The keys that several messages share. */
  readonly #ambiguous = new Set<string>()
  #size = 0

  /** The number of counts. */
  get size(): number {
    return this.#size
  }

  /**
   * Records a message that goes back to its queue after `failures` failures. `isShared`: its attempts are also counted
   * for other processes. `firstAt`: when it has failed first.
   */
  add(key: string, failures: number, isShared = false, firstAt?: number): void {
    const counts = this.#counts.get(key)
    if (!isShared && (counts !== undefined || this.#shared.has(key))) this.noteAmbiguous(key)
    if (counts === undefined) this.#counts.set(key, [failures])
    else counts.push(failures)
    this.#size++
    if (firstAt !== undefined) this.#firstAt.set(key, Math.min(firstAt, this.#firstAt.get(key) ?? firstAt))
    while (this.#size > capacity) {
      const [first] = this.#counts
      this.#counts.delete(first![0])
      this.#firstAt.delete(first![0])
      this.#size -= first![1].length
    }
  }

  /**
   * Removes the count of a message that was delivered again and returns it: how often handlers have failed at it, as
   * far as is known.
   */
  take(key: string): number {
    const counts = this.#counts.get(key)
    if (counts === undefined) return 0
    const failures = Math.min(...counts)
    this.#size--
    if (counts.length === 1) {
      this.#counts.delete(key)
      this.#firstAt.delete(key)
    } else counts.splice(counts.indexOf(failures), 1)
    return failures
  }

  /** When a message with this key has failed first; `undefined` if that is not known. Read it before `take`. */
  firstAt(key: string): number | undefined {
    return this.#firstAt.get(key)
  }

  /** Sets whether a message with this key is also counted for other processes. */
  share(key: string, isShared: boolean): void {
    if (isShared) this.#shared.add(key)
    else this.#shared.delete(key)
  }

  /** Whether several messages share this key. One count for all of them would be too high for each. */
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
