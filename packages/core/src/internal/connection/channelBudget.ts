/**
 * Bounds the channels that an application opens: by the negotiated channel-max on each connection, and on all of its
 * connections together by the limit that the broker has enforced.
 * RabbitMQ limits the channels of a user (`max-channels`) and of a node (`channel_max_per_node`), and announces
 * neither. It refuses a `channel.open` beyond the limit by closing the connection (530), with every channel on it.
 * After the first refusal, an opening therefore waits until one of our channels has closed. Other processes of the same
 * user count towards the limit as well, so the allowance is the number of channels that we had open. It is the number
 * in the broker's text where our own openings exceeded it.
 * The allowance becomes outdated when other processes close channels or an operator raises the limit. A failed attempt
 * to open more costs the whole connection, so the allowance is raised only after a pause, which is eight times as long
 * after each refusal.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as AmqpError from "../../model/error.ts"
import { channelLimitIn } from "./brokerTexts.ts"
import { counted } from "../waiting/phrases.ts"

const operation = "channel.open"

// Pauses before the allowance is raised, in milliseconds.
const initialPauseMillis = 10_000

const maxPauseMillis = 3_600_000

// The broker counts channels in a separate process, which still counts a closed channel or connection for a moment. In
// milliseconds.
const channelCloseLagMillis = 100

const connectionCloseLagMillis = 1000

const maxConnectionCloseLagMillis = 5000

/** The error when every channel number of a connection (`channelMax`) is in use. */
export const allChannelsInUse = (channelMax: number) =>
  new AmqpError.ChannelMaxReached({
    message: `${operation}: all channels of this connection are in use (channelMax ${channelMax}). Lower pool.max, or raise channelMax.`,
    operation,
    channelMax
  })

/** The part of a connection that the budget uses. */
export interface BudgetedLink {
  /** The negotiated channel-max; 0: not known. */
  readonly channelMax: number
  /** Why the connection has ended; `undefined`: it is open. */
  readonly closedBy: unknown
}

/** Closes an idle channel, on the given connection if there is one. Returns whether there was an idle channel. */
export type Reclaim = (link: BudgetedLink | undefined) => boolean

/** The events of the budget, for its connection. */
export interface BudgetEvents {
  /** The broker has refused a channel; `undefined`: the limit is no longer in force. */
  readonly limited: (allowed: number | undefined, because: string) => void
  /** The monotonic clock, in milliseconds. */
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
}

/** The right to open one channel, from before `channel.open` is sent until the channel is released. */
export class ChannelPermit {
  readonly link: BudgetedLink
  /** Whether a channel owns the permit. The channel then releases it when it ends. */
  isOwned = false
  /** Whether the permit counts towards the budget. */
  isGranted = false
  /** Whether the broker has answered `channel.open`. */
  isOpen = false
  /** Ends the wait for the permit. */
  resume: ((effect: Effect.Effect<void, AmqpError.AmqpError>) => void) | undefined = undefined
  readonly #budget: ChannelBudget

  constructor(budget: ChannelBudget, link: BudgetedLink) {
    this.#budget = budget
    this.link = link
  }

  /** Records that the broker has answered `channel.open`. */
  opened(): void {
    this.#budget.opened(this)
  }

  /** The opening has ended, with any outcome. A permit that no channel owns is released. */
  openingEnded(): void {
    if (!this.isOwned) this.release()
  }

  release(): void {
    this.#budget.release(this)
  }
}

export class ChannelBudget {
  readonly #events: BudgetEvents
  /** Permits that count, by open connection. */
  readonly #granted = new Map<BudgetedLink, Set<ChannelPermit>>()
  readonly #waiting = new Set<ChannelPermit>()
  readonly #reclaims = new Set<Reclaim>()
  #total = 0
  #allowed = Infinity
  /** The limit that the broker has named. */
  #brokerLimit = Infinity
  #pause = initialPauseMillis
  #raiseAt = Infinity
  /** Time of the last connection loss. */
  #lostAt = -Infinity
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(events: BudgetEvents) {
    this.#events = events
  }

  /** Adds a source of idle channels. Returns a function that removes it. */
  reclaimBy(reclaim: Reclaim): () => void {
    this.#reclaims.add(reclaim)
    return () => this.#reclaims.delete(reclaim)
  }

  /**
   * Whether another channel on this connection would have to wait. Channels that only add speed are not opened then.
   */
  isFull(link: BudgetedLink): boolean {
    return this.#waiting.size > 0 || !this.#hasRoom(link)
  }

  #countOf(link: BudgetedLink): number {
    return this.#granted.get(link)?.size ?? 0
  }

  #isAtChannelMax(link: BudgetedLink): boolean {
    return link.channelMax > 0 && this.#countOf(link) >= link.channelMax
  }

  #hasRoom(link: BudgetedLink): boolean {
    return this.#total < this.#allowed && !this.#isAtChannelMax(link)
  }

  /** Grants the permit if the channel may be opened now. Returns whether it was granted. */
  tryAcquire(permit: ChannelPermit): boolean {
    // Openings that wait for the broker's allowance come first. A connection at its channel-max does not delay other
    // connections.
    if (!this.#hasRoom(permit.link) || (this.#waiting.size > 0 && this.#allowed !== Infinity)) return false
    this.#grant(permit)
    return true
  }

  #grant(permit: ChannelPermit): void {
    const { link } = permit
    permit.isGranted = true
    this.#total++
    const permits = this.#granted.get(link)
    if (permits === undefined) this.#granted.set(link, new Set([permit]))
    else permits.add(permit)
  }

  /** Waits until the channel may be opened, and grants the permit. Fails with `ChannelMaxReached` after `timeout`. */
  acquire(permit: ChannelPermit, timeout: Duration.Duration): Effect.Effect<void, AmqpError.AmqpError> {
    const { link } = permit
    const waiting = Effect.callback<void, AmqpError.AmqpError>((resume) => {
      permit.resume = resume
      this.#waiting.add(permit)
      const isAtChannelMax = this.#isAtChannelMax(link)
      const reclaimed = this.#reclaim(isAtChannelMax ? link : undefined)
      // Without an idle channel it is unknown when a channel number becomes free.
      if (isAtChannelMax && !reclaimed && this.#waiting.delete(permit)) return resume(Effect.fail(this.#full(link)))
      this.#schedule()
      return Effect.sync(() => this.#waiting.delete(permit))
    })
    if (!Duration.isFinite(timeout)) return waiting
    return Effect.timeoutOrElse(waiting, {
      duration: timeout,
      orElse: () => Effect.suspend(() => Effect.fail(this.#full(link)))
    })
  }

  #reclaim(link: BudgetedLink | undefined): boolean {
    for (const reclaim of this.#reclaims) if (reclaim(link)) return true
    return false
  }

  /** Whether an opening waits, so that idle channels should be closed. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0
  }

  /** A channel of a pool has become idle: it is closed for the first opening that waits. */
  idle(): void {
    const [first] = this.#waiting
    this.#reclaim(this.#isAtChannelMax(first!.link) ? first!.link : undefined)
  }

  #full(link: BudgetedLink): AmqpError.AmqpError {
    const ofLink = this.#isAtChannelMax(link)
    return AmqpError.fromReason(
      ofLink
        ? allChannelsInUse(link.channelMax)
        : new AmqpError.ChannelMaxReached({
            message: `${operation}: the broker allows this application ${counted(this.#allowed, "channel")}, and none is free: raise the user's max-channels (or the node's channel_max_per_node), or lower the pool's max`,
            operation,
            channelMax: this.#allowed
          })
    )
  }

  opened(permit: ChannelPermit): void {
    if (this.#granted.get(permit.link)?.has(permit) === true) permit.isOpen = true
  }

  release(permit: ChannelPermit): void {
    this.#waiting.delete(permit)
    if (!permit.isGranted) return
    permit.isGranted = false
    if (this.#allowed === Infinity) return this.#free(permit)
    this.#later(channelCloseLagMillis, () => this.#free(permit))
  }

  #later(millis: number, run: () => void): void {
    this.#events.fork(Effect.andThen(Effect.sleep(Duration.millis(millis)), Effect.sync(run)))
  }

  #free(permit: ChannelPermit): void {
    const permits = this.#granted.get(permit.link)
    // The connection has ended, and its permits were subtracted then.
    if (permits?.delete(permit) !== true) return
    this.#total--
    if (permits.size === 0) this.#granted.delete(permit.link)
    this.#admit()
  }

  /** A connection has ended, for the reason in `text`. */
  linkEnded(link: BudgetedLink, text: string): void {
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
    this.#later(connectionCloseLagMillis, free)
    // Openings that wait for this connection must stop waiting.
    this.#admit()
  }

  #refused(limit: number, text: string): void {
    let open = 0
    for (const permits of this.#granted.values()) for (const permit of permits) if (permit.isOpen) open++
    this.#brokerLimit = limit
    // Shortly after a loss the broker may still have counted the channels of the lost connection, so this refusal
    // states nothing new.
    const isStale = this.#allowed !== Infinity && this.#events.now() - this.#lostAt < maxConnectionCloseLagMillis
    // If our channels, including those that are opening, exceeded the named limit, the whole limit is ours. Otherwise
    // other processes use a part of it.
    if (!isStale) this.#allowed = Math.max(1, this.#total > limit ? limit : open)
    this.#raiseAt = this.#events.now() + (this.#allowed >= limit ? maxPauseMillis : this.#pause)
    this.#pause = Math.min(this.#pause * 8, maxPauseMillis)
    this.#events.limited(this.#allowed, text)
    this.#schedule()
  }

  #admit(): void {
    for (const permit of this.#waiting) {
      const { link } = permit
      const hasEnded = link.closedBy !== undefined
      if (!hasEnded && !this.#hasRoom(link)) continue
      this.#waiting.delete(permit)
      // On a connection that has ended, the opening fails without a permit.
      if (!hasEnded) this.#grant(permit)
      permit.resume?.(Effect.void)
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

  /**
   * Raises the allowance: first up to the limit that the broker has named; then, after the longest pause, without a
   * limit.
   */
  #raise(): void {
    const now = this.#events.now()
    if (now < this.#raiseAt) return this.#schedule()
    if (this.#allowed >= this.#brokerLimit) {
      this.#allowed = Infinity
      this.#raiseAt = Infinity
      this.#events.limited(undefined, "")
    } else {
      this.#allowed = Math.min(this.#brokerLimit, this.#allowed * 2)
      this.#raiseAt = now + (this.#allowed >= this.#brokerLimit ? maxPauseMillis : initialPauseMillis)
      this.#schedule()
    }
    this.#admit()
  }

  /** Stops the timer. */
  close(): void {
    this.#timer?.interruptUnsafe()
    this.#timer = undefined
  }
}
