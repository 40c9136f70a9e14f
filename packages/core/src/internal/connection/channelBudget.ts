/**
 * How many channels an application may have open: the negotiated channel-max on each connection, and on all of its
 * connections together as many as the broker has been seen to allow.
 *
 * RabbitMQ limits the channels of a user (`max-channels`) and of a node (`channel_max_per_node`), and announces neither. It
 * refuses the `channel.open` that is one too many by closing the connection (530), and every channel on it. So the first
 * refusal is a lesson: from then on an opening waits until one of our channels has closed. Other processes of the same user
 * count towards the limit as well, so the lesson is what we had open. It is the number in the broker's text where our own
 * openings exceeded it.
 *
 * A lesson becomes outdated when others close theirs or an operator raises the limit. Another attempt costs everybody's
 * connection if it fails: the allowance is raised after a pause, which is eight times as long after each refusal.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as AmqpError from "../../model/error.ts"
import { channelLimitIn } from "./brokerTexts.ts"

const operation = "channel.open"

// In milliseconds.
const firstPause = 10_000

const longestPause = 3_600_000

// The broker counts in a process of its own: what has closed counts there for a moment longer.
const channelNotedAfter = 100

const connectionNotedAfter = 1000

const connectionNotedSurely = 5000

/** A connection, as far as it counts. */
export interface Budgeted {
  /** Channels that were agreed on; 0: not known. */
  readonly channelMax: number
  /** Why it has ended; `undefined`: it has not. */
  readonly closedBy: unknown
}

/** Closes an idle channel, on this connection if it is given; whether there was one. */
export type Reclaim = (link: Budgeted | undefined) => boolean

/** What the budget tells its connection. */
export interface BudgetEvents {
  /** The broker has refused a channel; `undefined`: the limit is no longer in force. */
  readonly limited: (allowed: number | undefined, because: string) => void
  /** In milliseconds of the monotonic clock. */
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
}

/** One channel's part of the budget: from before `channel.open` is sent until nothing of the channel is left. */
export class ChannelTicket {
  readonly link: Budgeted
  /** Set by the channel, which gives the ticket back when it has ended. */
  isOwned = false
  /** Whether it counts. */
  isGranted = false
  /** Whether `channel.open` was answered. */
  isOpen = false
  /** Ends the wait. */
  resume: ((effect: Effect.Effect<void, AmqpError.AmqpError>) => void) | undefined = undefined
  readonly #budget: ChannelBudget

  constructor(budget: ChannelBudget, link: Budgeted) {
    this.#budget = budget
    this.link = link
  }

  /** `channel.open` was answered. */
  opened(): void {
    this.#budget.opened(this)
  }

  /** The opening has ended, however. A ticket that no channel owns is given back. */
  openingEnded(): void {
    if (!this.isOwned) this.release()
  }

  release(): void {
    this.#budget.release(this)
  }
}

export class ChannelBudget {
  readonly #events: BudgetEvents
  /** Tickets that count, for each connection that is open. */
  readonly #granted = new Map<Budgeted, Set<ChannelTicket>>()
  readonly #waiting = new Set<ChannelTicket>()
  readonly #reclaims = new Set<Reclaim>()
  #total = 0
  #allowed = Infinity
  /** The limit that the broker has named. */
  #named = Infinity
  #pause = firstPause
  #raiseAt = Infinity
  /** When a connection was lost last. */
  #lostAt = -Infinity
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(events: BudgetEvents) {
    this.#events = events
  }

  /** Adds a source of idle channels; returns how to remove it. */
  reclaimBy(reclaim: Reclaim): () => void {
    this.#reclaims.add(reclaim)
    return () => this.#reclaims.delete(reclaim)
  }

  /** Whether another channel on this connection would have to wait. For channels that are opened for speed alone. */
  isFull(link: Budgeted): boolean {
    return this.#waiting.size > 0 || !this.#hasRoom(link)
  }

  #countOf(link: Budgeted): number {
    return this.#granted.get(link)?.size ?? 0
  }

  #isAtChannelMax(link: Budgeted): boolean {
    return link.channelMax > 0 && this.#countOf(link) >= link.channelMax
  }

  #hasRoom(link: Budgeted): boolean {
    return this.#total < this.#allowed && !this.#isAtChannelMax(link)
  }

  /** Whether the channel may be opened now; then it counts. */
  grants(ticket: ChannelTicket): boolean {
    // What waits for an allowance comes first; a connection that has all of its numbers in use holds up no other.
    if (!this.#hasRoom(ticket.link) || (this.#waiting.size > 0 && this.#allowed !== Infinity)) return false
    this.#grant(ticket)
    return true
  }

  #grant(ticket: ChannelTicket): void {
    const { link } = ticket
    ticket.isGranted = true
    this.#total++
    const tickets = this.#granted.get(link)
    if (tickets === undefined) this.#granted.set(link, new Set([ticket]))
    else tickets.add(ticket)
  }

  /** Waits until the channel may be opened; then it counts. Fails with `ChannelMaxReached` after `patience`. */
  wait(ticket: ChannelTicket, patience: Duration.Duration): Effect.Effect<void, AmqpError.AmqpError> {
    const { link } = ticket
    const waiting = Effect.callback<void, AmqpError.AmqpError>((resume) => {
      ticket.resume = resume
      this.#waiting.add(ticket)
      const isAtChannelMax = this.#isAtChannelMax(link)
      const reclaimed = this.#reclaim(isAtChannelMax ? link : undefined)
      // Without an idle channel nobody knows when one of these numbers is free again.
      if (isAtChannelMax && !reclaimed && this.#waiting.delete(ticket)) return resume(Effect.fail(this.#full(link)))
      this.#schedule()
      return Effect.sync(() => this.#waiting.delete(ticket))
    })
    if (!Duration.isFinite(patience)) return waiting
    return Effect.timeoutOrElse(waiting, {
      duration: patience,
      orElse: () => Effect.suspend(() => Effect.fail(this.#full(link)))
    })
  }

  #reclaim(link: Budgeted | undefined): boolean {
    for (const reclaim of this.#reclaims) if (reclaim(link)) return true
    return false
  }

  /** Whether a channel that nobody needs here is wanted elsewhere. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0
  }

  /** A channel of a pool has become idle. */
  idle(): void {
    const [first] = this.#waiting
    this.#reclaim(this.#isAtChannelMax(first!.link) ? first!.link : undefined)
  }

  #full(link: Budgeted): AmqpError.AmqpError {
    const ofLink = this.#isAtChannelMax(link)
    return AmqpError.fromReason(
      new AmqpError.ChannelMaxReached({
        message: ofLink
          ? `${operation}: all ${link.channelMax} channels of this connection are in use: lower the pool's max, or raise channelMax`
          : `${operation}: the broker lets this application open ${this.#allowed} channels, and all are in use: raise the user's max-channels (or the node's channel_max_per_node), or lower the pool's max`,
        operation,
        channelMax: ofLink ? link.channelMax : this.#allowed
      })
    )
  }

  opened(ticket: ChannelTicket): void {
    if (this.#granted.get(ticket.link)?.has(ticket) === true) ticket.isOpen = true
  }

  release(ticket: ChannelTicket): void {
    this.#waiting.delete(ticket)
    if (!ticket.isGranted) return
    ticket.isGranted = false
    if (this.#allowed === Infinity) return this.#free(ticket)
    this.#later(channelNotedAfter, () => this.#free(ticket))
  }

  #later(millis: number, run: () => void): void {
    this.#events.fork(Effect.andThen(Effect.sleep(Duration.millis(millis)), Effect.sync(run)))
  }

  #free(ticket: ChannelTicket): void {
    const tickets = this.#granted.get(ticket.link)
    // Its connection has ended, and was left out of the count then.
    if (tickets?.delete(ticket) !== true) return
    this.#total--
    if (tickets.size === 0) this.#granted.delete(ticket.link)
    this.#admit()
  }

  /** A connection has ended, for this reason. */
  linkEnded(link: Budgeted, text: string): void {
    const limit = channelLimitIn(text)
    if (limit !== undefined) this.#refused(limit, text)
    const count = this.#countOf(link)
    this.#granted.delete(link)
    this.#lostAt = this.#events.now()
    const free = () => {
      this.#total -= count
      this.#admit()
    }
    if (this.#allowed === Infinity) return free()
    this.#later(connectionNotedAfter, free)
    // Openings that wait on it have nothing to wait for.
    this.#admit()
  }

  #refused(limit: number, text: string): void {
    let open = 0
    for (const tickets of this.#granted.values()) for (const ticket of tickets) if (ticket.isOpen) open++
    this.#named = limit
    // Right after a loss the channels of the lost connection may have counted as well: that teaches nothing new.
    const isStale = this.#allowed !== Infinity && this.#events.now() - this.#lostAt < connectionNotedSurely
    // More than the named limit, together with those on their way: the limit is all ours. Else others have a part of it.
    if (!isStale) this.#allowed = Math.max(1, this.#total > limit ? limit : open)
    this.#raiseAt = this.#events.now() + (this.#allowed >= limit ? longestPause : this.#pause)
    this.#pause = Math.min(this.#pause * 8, longestPause)
    this.#events.limited(this.#allowed, text)
    this.#schedule()
  }

  #admit(): void {
    for (const ticket of this.#waiting) {
      const { link } = ticket
      const hasEnded = link.closedBy !== undefined
      if (!hasEnded && !this.#hasRoom(link)) continue
      this.#waiting.delete(ticket)
      // On a connection that has ended the opening fails by itself.
      if (!hasEnded) this.#grant(ticket)
      ticket.resume?.(Effect.void)
    }
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#allowed === Infinity) return
    const left = Math.max(0, this.#raiseAt - this.#events.now())
    this.#timer = this.#events.fork(
      Effect.andThen(
        Effect.sleep(Duration.millis(left)),
        Effect.sync(() => {
          this.#timer = undefined
          this.#raise()
        })
      )
    )
  }

  /** Allows more: at first up to the limit that the broker has named, and after the longest pause without any. */
  #raise(): void {
    const now = this.#events.now()
    if (now < this.#raiseAt) return this.#schedule()
    if (this.#allowed >= this.#named) {
      this.#allowed = Infinity
      this.#raiseAt = Infinity
      this.#events.limited(undefined, "")
    } else {
      this.#allowed = Math.min(this.#named, this.#allowed * 2)
      this.#raiseAt = now + (this.#allowed >= this.#named ? longestPause : firstPause)
      this.#schedule()
    }
    this.#admit()
  }

  /** Ends its timer. */
  close(): void {
    this.#timer?.interruptUnsafe()
    this.#timer = undefined
  }
}
