/** The counts of a redrive or a discard. */
import type { Failed, Progress, Report } from "../../model/deadLetters.ts"
import type { Letter } from "./letter.ts"

/** Maximum number of failures that a report lists. */
const maxFailures = 100

/** Maximum number of ids that are remembered of a pass, more than there are messages in flight. */
const maxIds = 10_000

/** Maximum number of ids that are remembered of earlier passes. */
const maxEarlier = 10 * maxIds

/** Forgets the oldest one. */
const forgetFirst = (ids: Set<string>): void => {
  for (const first of ids) return void ids.delete(first)
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
  /** The ids of messages whose copies were confirmed last in this pass. */
  #confirmed = new Set<string>()
  /** Those of earlier passes: a lost acknowledgement brings them back. */
  readonly #earlier = new Set<string>()

  /** @param isUncertain whether acknowledgements of the pass before may have been lost */
  beginPass(isUncertain: boolean): void {
    for (const id of isUncertain ? this.#confirmed : []) {
      this.#earlier.delete(id)
      this.#earlier.add(id)
      if (this.#earlier.size > maxEarlier) forgetFirst(this.#earlier)
    }
    this.#confirmed = new Set()
    this.left = 0
    this.failed = 0
    this.unreadable = 0
    this.failures = []
  }

  get settled(): number {
    return this.redriven + this.discarded
  }

  fail(letter: Letter, message: string): void {
    this.failed++
    this.left++
    if (this.failures.length < maxFailures) this.failures.push({ id: letter.id, queue: letter.queue, message })
  }

  /** Counts a confirmed copy. */
  confirmed(letter: Letter): void {
    const { id } = letter
    // Its acknowledgement was lost, and its first copy was counted.
    const isCounted = letter.redelivered && this.#earlier.delete(id)
    this.#confirmed.delete(id)
    this.#confirmed.add(id)
    if (isCounted) this.duplicates++
    else this.redriven++
    if (this.#confirmed.size > maxIds) forgetFirst(this.#confirmed)
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
