/** The counts of a redrive or a discard. */
import type { Failed, Progress, Report } from "../../model/deadLetters.ts"
import type { Letter } from "./letter.ts"

/** Maximum number of failures that a report lists. */
const maxFailures = 100

/** Maximum number of ids that are remembered of a pass, more than there are messages whose acknowledgement can be lost. */
const maxIds = 10_000

/** Maximum number of ids that are remembered of earlier passes. */
const maxEarlier = 10 * maxIds

/** The ids that were added last. Several messages may have the same one. */
class RecentIds {
  readonly #most: number
  readonly #counts = new Map<string, number>()

  constructor(most: number) {
    this.#most = most
  }

  get isEmpty(): boolean {
    return this.#counts.size === 0
  }

  add(id: string, count = 1): void {
    const before = this.#counts.get(id) ?? 0
    this.#counts.delete(id)
    this.#counts.set(id, before + count)
    if (this.#counts.size <= this.#most) return
    for (const oldest of this.#counts.keys()) return void this.#counts.delete(oldest)
  }

  addAll(ids: RecentIds): void {
    for (const [id, count] of ids.#counts) this.add(id, count)
  }

  /** Removes one; `false` if it is not there. */
  remove(id: string): boolean {
    const count = this.#counts.get(id)
    if (count === undefined) return false
    if (count === 1) this.#counts.delete(id)
    else this.#counts.set(id, count - 1)
    return true
  }
}

/** The counts of one queue. A pass begins again with what has stayed in the queue, and keeps what has left it. */
export class QueueTally {
  redriven = 0
  discarded = 0
  duplicates = 0
  left = 0
  failed = 0
  unreadable = 0
  failures: Array<Failed> = []
  /** The ids of messages that were acknowledged last in this pass, and counted. */
  #acknowledged = new RecentIds(maxIds)
  /** Those of earlier passes: a lost acknowledgement brings them back. */
  readonly #earlier = new RecentIds(maxEarlier)
  /** Those that have come back and are not acknowledged again yet. */
  #returned = new RecentIds(maxIds)

  /** @param isUncertain whether acknowledgements of the pass before may have been lost */
  beginPass(isUncertain: boolean): void {
    if (isUncertain) this.#earlier.addAll(this.#acknowledged)
    this.#earlier.addAll(this.#returned)
    this.#acknowledged = new RecentIds(maxIds)
    this.#returned = new RecentIds(maxIds)
    this.left = 0
    this.failed = 0
    this.unreadable = 0
    this.failures = []
  }

  get settled(): number {
    return this.redriven + this.discarded
  }

  /** Whether messages may come back that were counted in an earlier pass. */
  get expectsReturns(): boolean {
    return !this.#earlier.isEmpty
  }

  /** Whether this message was counted in an earlier pass, and its acknowledgement was lost. */
  takeReturned({ id, redelivered }: Letter): boolean {
    if (!redelivered || !this.#earlier.remove(id)) return false
    this.#returned.add(id)
    return true
  }

  fail(letter: Letter, message: string): void {
    this.failed++
    this.left++
    if (this.failures.length < maxFailures) this.failures.push({ id: letter.id, queue: letter.queue, message })
  }

  /** Counts a confirmed copy. */
  confirmed(letter: Letter): void {
    if (this.#isCounted(letter)) this.duplicates++
    else this.redriven++
  }

  /** Counts a removed message. */
  removed(letter: Letter): void {
    if (!this.#isCounted(letter)) this.discarded++
  }

  #isCounted({ id, isReturned }: Letter): boolean {
    this.#acknowledged.add(id)
    return isReturned && this.#returned.remove(id)
  }
}

export class Tally {
  readonly #total: number
  readonly #queues: Array<QueueTally> = []
  #queue = ""
  #current = new QueueTally()

  constructor(total: number) {
    this.#total = total
  }

  begin(queue: string): QueueTally {
    this.#queue = queue
    this.#current = new QueueTally()
    this.#queues.push(this.#current)
    return this.#current
  }

  #sum(count: "redriven" | "discarded" | "duplicates" | "left" | "failed" | "unreadable"): number {
    return this.#queues.reduce((sum, queue) => sum + queue[count], 0)
  }

  get chosen(): number {
    return this.#sum("redriven") + this.#sum("discarded") + this.#sum("failed")
  }

  get progress(): Progress {
    const redriven = this.#sum("redriven")
    const discarded = this.#sum("discarded")
    const left = this.#sum("left")
    return {
      queue: this.#queue,
      total: this.#total,
      scanned: redriven + discarded + left,
      redriven,
      discarded,
      left,
      duplicates: this.#sum("duplicates"),
      failed: this.#sum("failed")
    }
  }

  report(dryRun: boolean): Report {
    const { queue: _, ...counts } = this.progress
    return {
      ...counts,
      dryRun,
      unreadable: this.#sum("unreadable"),
      failures: this.#queues.flatMap(({ failures }) => failures).slice(0, maxFailures)
    }
  }
}
