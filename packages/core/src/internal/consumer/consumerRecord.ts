/** What is known of one consumer for its status: its state, its counts and its last failures. */
import type * as Clock from "effect/Clock"
import type { Status } from "../../model/consumer.ts"

/** Maximum number of tags that are counted one by one. Tags are the application's, so there must be a bound. */
const mostTags = 10
const mostCharacters = 100
/** The name under which the failures of all further tags are counted. */
const otherTags = "_OTHER"

/** What is counted under a tag: the tag, or the name for all further ones. */
const countedAs = (tag: string, counts: ReadonlyMap<string, unknown>): string => {
  const cut = tag.slice(0, mostCharacters)
  return counts.has(cut) || counts.size < mostTags ? cut : otherTags
}

/** The part of a source that is counted while it is read. */
export interface CountedSource {
  readonly taken: number
  readonly size: number
  readonly inFlight: number
}

export class ConsumerRecord {
  readonly name: string
  readonly queue: string
  readonly requiredForReadiness: boolean
  readonly #clock: Clock.Clock
  /** Deliveries of the earlier consumers of this name. */
  readonly #takenBefore: number
  readonly #failures: Map<string, number>
  readonly #deadLetters: Map<string, { count: number; firstAt: number; lastAt: number }>
  #state: Status["state"] = "Starting"
  #since: number
  #source: CountedSource | undefined
  #lastError: Status["lastError"]
  #lastEnd: Status["lastEnd"]

  /** @param before the consumer of the same name that this one replaces */
  constructor(
    clock: Clock.Clock,
    queue: string,
    name: string,
    requiredForReadiness: boolean,
    before: ConsumerRecord | undefined
  ) {
    this.#clock = clock
    this.queue = queue
    this.name = name
    this.requiredForReadiness = requiredForReadiness
    this.#since = this.#now
    this.#takenBefore = before === undefined ? 0 : before.#taken
    this.#failures = before === undefined ? new Map<string, number>() : before.#failures
    this.#deadLetters = before === undefined ? new Map() : before.#deadLetters
    this.#lastError = before === undefined ? undefined : before.#lastError
    this.#lastEnd = before === undefined ? undefined : before.#lastEnd
  }

  get #now(): number {
    return this.#clock.currentTimeMillisUnsafe()
  }

  get #taken(): number {
    return this.#takenBefore + (this.#source?.taken ?? 0)
  }

  get hasFailed(): boolean {
    return this.#state === "Ended" && this.#lastEnd?.how === "failed"
  }

  /** Counts the deliveries of a source from now on. */
  attach(source: CountedSource): void {
    this.#source = source
  }

  enter(state: Status["state"]): void {
    if (this.#state === state) return
    this.#state = state
    this.#since = this.#now
  }

  /** A subscription was lost or refused. */
  failedWith(tag: string): void {
    this.#lastError = { tag, at: this.#now }
  }

  /** A handler has failed, or a message could not be decoded. */
  handlerFailed(type: string): void {
    const counted = countedAs(type, this.#failures)
    this.#failures.set(counted, (this.#failures.get(counted) ?? 0) + 1)
    this.failedWith(type.slice(0, mostCharacters))
  }

  /** A message was dead-lettered because of a failure. */
  deadLettered(type: string): void {
    const at = this.#now
    const tag = countedAs(type, this.#deadLetters)
    const known = this.#deadLetters.get(tag)
    if (known === undefined) this.#deadLetters.set(tag, { count: 1, firstAt: at, lastAt: at })
    else {
      known.count++
      known.lastAt = at
    }
  }

  end(how: "failed" | "stopped", tag: string | undefined): void {
    this.enter("Ended")
    this.#lastEnd = { how, tag, at: this.#now }
    // The record outlives the consumer, so it must not keep its deliveries and its connection in memory.
    this.#source = { taken: this.#source?.taken ?? 0, size: 0, inFlight: 0 }
  }

  get status(): Status {
    return {
      name: this.name,
      queue: this.queue,
      requiredForReadiness: this.requiredForReadiness,
      state: this.#state,
      since: this.#since,
      delivered: this.#taken,
      buffered: this.#source?.size ?? 0,
      inFlight: this.#source?.inFlight ?? 0,
      failures: Object.fromEntries(this.#failures),
      deadLetters: Object.fromEntries(Array.from(this.#deadLetters, ([tag, counts]) => [tag, { ...counts }])),
      lastError: this.#lastError,
      lastEnd: this.#lastEnd
    }
  }
}
