/** The lanes of a publisher: which of them takes a message, and opening them, as many as are of use. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as AmqpError from "../../model/error.ts"
import type { Channel } from "../channel/channel.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { Links } from "../connection/links.ts"
import type { Attempt } from "./attempt.ts"
import { Lane, type Timeouts } from "./lane.ts"
import * as Logging from "../telemetry/logging.ts"
import type { Fork } from "../waiting/fork.ts"

/** What lanes tell their publisher. */
export interface LanesEvents {
  /** What decides about waiting has changed. */
  readonly changed: () => void
  /** A channel has died. */
  readonly lost: (lane: Lane<Attempt>) => void
  /** A channel could not be opened, and is not tried again until somebody asks. `alone`: no other lane is there. */
  readonly failed: (lane: Lane<Attempt>, reason: AmqpError.AmqpErrorReason, alone: boolean) => void
}

// A lane that could not be opened, beside one that is open, is not tried again with every message. In milliseconds.
const retryAfter = 1000

export class Lanes {
  readonly all: ReadonlyArray<Lane<Attempt>>
  readonly #links: Links
  readonly #deadlines: Deadlines
  readonly #fork: Fork
  readonly #events: LanesEvents
  #closed = false

  constructor(options: {
    readonly count: number
    readonly links: Links
    readonly timeouts: Timeouts
    readonly deadlines: Deadlines
    readonly fork: Fork
    readonly events: LanesEvents
  }) {
    this.all = Array.from(
      { length: options.count },
      () => new Lane<Attempt>(options.links, options.timeouts, options.deadlines)
    )
    this.#links = options.links
    this.#deadlines = options.deadlines
    this.#fork = options.fork
    this.#events = options.events
  }

  /** How many are open. */
  get open(): number {
    return this.all.reduce((n, lane) => n + lane.channels.filter((channel) => channel.isOpen).length, 0)
  }

  /** What would take a message now: this lane or, of all, the least busy one. */
  ready(only: Lane<Attempt> | undefined): Lane<Attempt> | undefined {
    if (only !== undefined) return only.isReadyInOrder ? only : undefined
    let found: Lane<Attempt> | undefined
    for (const lane of this.all) {
      if (lane.isReady && (found === undefined || lane.load < found.load)) found = lane
    }
    return found
  }

  /** A lane for messages that must stay in order, open if there is one. */
  choose(): Lane<Attempt> {
    const best = this.ready(undefined)
    if (best?.isReadyInOrder === true) return best
    return this.all.find((lane) => lane.isReadyInOrder) ?? this.all.find((lane) => lane.isOpen) ?? this.all[0]!
  }

  /** Sees to it that there is something to wait for. */
  ensure(only: Lane<Attempt> | undefined): void {
    if (only !== undefined) return this.reopen(only)
    if (!this.all.some((lane) => lane.isOpen || lane.opening)) this.reopen(this.all[0]!)
  }

  /** There is more to do than one channel has done: opens another, if there may be more. */
  widen(): void {
    const link = this.#links.current()
    if (link === undefined || this.#links.budget.isFull(link)) return
    for (const lane of this.all) {
      if (lane.channel !== undefined || lane.opening || lane.retryAt > this.#deadlines.now) continue
      return this.reopen(lane)
    }
  }

  /** Opens a channel where there is none. */
  reopen(lane: Lane<Attempt>): void {
    if (this.#closed || lane.channel !== undefined || lane.opening) return
    lane.opening = true
    const opening = lane.open({
      opened: this.#events.changed,
      changed: this.#events.changed,
      lost: (channel) => {
        this.#report(channel)
        this.#events.lost(lane)
      }
    })
    this.#fork(Effect.map(Effect.exit(opening), (exit) => this.#opened(lane, exit)))
  }

  #opened(lane: Lane<Attempt>, exit: Exit.Exit<void, AmqpError.AmqpError>): void {
    lane.opening = false
    if (Exit.isSuccess(exit)) {
      // Lost while it was opening: then nobody could open it again.
      if (lane.channel === undefined) this.#events.lost(lane)
      return
    }
    lane.retryAt = this.#deadlines.now + retryAfter
    const error = Exit.findErrorOption(exit)
    if (error._tag === "None") return
    const alone = !this.all.some((other) => other.isOpen || other.opening)
    this.#events.failed(lane, error.value.reason, alone)
  }

  /** A broker's error that no publish has failed with must not go unseen. */
  #report(channel: Channel): void {
    const reason = channel.closedBy
    if (this.#closed || channel.told || reason === undefined || reason.severity === "connection") return
    if (reason._tag === "ChannelClosed") return
    this.#fork(
      Effect.logWarning("AMQP publisher's channel closed by the broker").pipe(
        Effect.annotateLogs({ reason: reason.message, ...Logging.ofChannel(channel) })
      )
    )
  }

  /** From now on none is opened. */
  stop(): void {
    this.#closed = true
  }
}
