/**
 * The places of a pool and the channels in them: opening, recycling, closing and counting. It has no borrowing logic.
 */
import type * as Clock from "effect/Clock"
import type * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import type { Link } from "../connection/link.ts"
import type { BudgetedLink } from "../connection/channelBudget.ts"
import type * as Channel from "../channel/channel.ts"
import { openChannel } from "../channel/openChannel.ts"
import { type Kind } from "../../model/channel.ts"
import * as Logging from "../telemetry/logging.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { type DiscardReason, PoolMeasures } from "../metrics/measures.ts"
import { type Fork } from "../waiting/fork.ts"
import { PoolPlace } from "./poolPlace.ts"
import { monotonicMillis, monotonicMillisExact } from "../waiting/monotonicMillis.ts"

export type Settings = Exclude<AmqpConfig["pool"], false>

// The maximum age of a channel is chosen at random between 90% and 100% of `recycle`. So channels that were opened at
// the same time, as after a reconnect, are not replaced at the same time.
const ageJitter = 0.1

const toMillis = (duration: Duration.Duration | undefined) =>
  duration === undefined ? Infinity : Duration.toMillis(duration)

/** Whether the link was lost for a reason from which a new connection recovers. */
const isLost = (link: Link, error: AmqpError): boolean => link.closedBy !== undefined && error.isRetryable

// Without another reason, a request is still unanswered: the next borrower would get that reply as its own.
const discardOf = (channel: Channel.Channel): DiscardReason => {
  if (channel.link.closedBy !== undefined || channel.closedBy?.severity === "connection") return "connection_lost"
  if (channel.closedBy !== undefined) return "channel_error"
  return channel.discardReason ?? "interrupted"
}

export class PoolPlaces<Lease> {
  /** All places. Empty without pooling, where each lease makes its own place. */
  readonly all: ReadonlyArray<PoolPlace<Lease>>
  readonly measures = new PoolMeasures()
  /** The number of channels that were opened. */
  created = 0
  /**
   * The number of reusable channels that were closed: too old, idle for too long, or reclaimed for a channel permit.
   */
  recycled = 0
  /** The number of channels that could not be leased again. */
  discarded = 0

  readonly #kind: Kind
  readonly #internals: ConnectionInternals
  readonly #config: AmqpConfig
  readonly #settings: Settings
  readonly #maxAge: number
  readonly clock: Clock.Clock
  readonly #run: Fork
  readonly #givenUp: AmqpError
  /** Fibers that are interrupted at the end: openings and timers. */
  readonly #background = new Set<Fiber.Fiber<void>>()
  /** Fibers that are awaited at the end. Each of them has a bound of its own. */
  readonly #closings = new Set<Fiber.Fiber<void>>()
  /** The subset of `#closings` that closes channels. */
  readonly #closingChannels = new Set<Fiber.Fiber<void>>()
  /** Places whose openings wait for a channel permit. */
  readonly #starving = new Set<PoolPlace<Lease>>()

  constructor(options: {
    readonly kind: Kind
    readonly connection: AmqpConnection["Service"]
    readonly settings: Settings
    readonly pooled: boolean
    readonly clock: Clock.Clock
    readonly run: Fork
    /** The error of borrowers that wait for an opening when the pool ends. */
    readonly givenUp: AmqpError
  }) {
    this.#kind = options.kind
    this.#internals = connectionInternals(options.connection)
    this.#config = options.connection.config
    this.#settings = options.settings
    this.#maxAge = toMillis(options.settings.recycle)
    this.clock = options.clock
    this.#run = options.run
    this.#givenUp = options.givenUp
    this.all = options.pooled ? Array.from({ length: options.settings.max }, () => new PoolPlace<Lease>()) : []
  }

  /** The monotonic time of the pool, in milliseconds. */
  get now(): number {
    return monotonicMillis(this.clock)
  }

  /** The same with fractions, for measurements. */
  get exact(): number {
    return monotonicMillisExact(this.clock)
  }

  /** The number of open channels that are not leased. */
  get idle(): number {
    return this.all.reduce((n, place) => (place.lease === undefined && place.channel?.isOpen === true ? n + 1 : n), 0)
  }

  /** Runs an effect until the pool ends. */
  readonly forkBackground: Fork = (effect) => this.#fork(this.#background, effect)

  /** Runs an effect that the end of the pool awaits. */
  readonly forkClosing: Fork = (effect) => this.#fork(this.#closings, effect)

  #fork(owner: Set<Fiber.Fiber<void>>, effect: Effect.Effect<void>): Fiber.Fiber<void> {
    const fiber = this.#run(effect)
    if (fiber.pollUnsafe() === undefined) {
      owner.add(fiber)
      fiber.addObserver(() => owner.delete(fiber))
    }
    return fiber
  }

  /** Starts opening a channel in an empty place, unless an opening is in progress. */
  open(place: PoolPlace<Lease>): Deferred.Deferred<void, AmqpError> {
    const open: Effect.Effect<void, AmqpError> = Effect.flatMap(
      Effect.zip(this.#internals.nextLink, Random.next),
      ([link, random]) =>
        Effect.catchIf(
          openChannel(
            link,
            this.#kind,
            this.#config.continuationTimeout,
            (channel) => {
              place.fill(channel, this.now, this.#maxAge * (1 - ageJitter * random))
              this.created++
              this.#watch(place, channel)
            },
            {
              onAbandoned: (channel) => place.startLeaving(this.#forkChannelClosing, channel.ended),
              // The wait for a permit has no bound of its own; the borrower's deadline bounds it.
              budgetTimeout: Duration.infinity,
              onBudgetWait: (isWaiting) => {
                if (isWaiting) this.#starving.add(place)
                else this.#starving.delete(place)
              }
            }
          ),
          // The borrower has not used the lost link, so it continues as if it had arrived after the loss.
          (error) => isLost(link, error),
          () => open
        )
    )
    return place.startOpening(this.forkBackground, open, this.#givenUp)
  }

  #watch(place: PoolPlace<Lease>, channel: Channel.Channel): void {
    // While the channel is leased, an operation of the borrower may fail with the reason. So this waits for its return.
    channel.onClosed = () => {
      if (place.lease === undefined) this.report(channel)
    }
  }

  /** A reusable channel was returned. It stays in its place unless a channel permit is needed elsewhere. */
  returned(place: PoolPlace<Lease>): void {
    if (!this.#internals.budget.isWaiting) return
    for (const starving of this.#starving) {
      if (starving.lease === undefined || starving === place) continue
      this.#starving.delete(starving)
      // Must come before `takeOver`, which resumes the borrower at once.
      this.#watch(starving, place.channel!)
      return starving.takeOver(place)
    }
    this.#internals.budget.idle()
  }

  /** Closes the channel that has been idle longest, on `link` if it is given. Returns whether there was one. */
  readonly reclaim = (link: BudgetedLink | undefined): boolean => {
    let found: PoolPlace<Lease> | undefined
    for (const place of this.all) {
      const { channel } = place
      if (place.lease !== undefined || channel?.isOpen !== true) continue
      if (link !== undefined && channel.link !== link) continue
      if (found === undefined || place.idleSince < found.idleSince) found = place
    }
    if (found !== undefined) this.retire(found)
    return found !== undefined
  }

  /** Removes and closes a channel that must not be leased again, and counts the reason. */
  retire(place: PoolPlace<Lease>): void {
    if (place.channel?.isReusable === true) this.recycled++
    else {
      this.discarded++
      if (place.channel !== undefined) this.measures.discarded[discardOf(place.channel)]++
    }
    this.#close(place)
  }

  #close(place: PoolPlace<Lease>): void {
    place.startClosing(this.#forkChannelClosing, (channel) => channel.close(this.#config.closeTimeout))
  }

  readonly #forkChannelClosing: Fork = (close) => {
    const fiber = this.forkClosing(close)
    this.#closingChannels.add(fiber)
    fiber.addObserver(() => this.#closingChannels.delete(fiber))
    return fiber
  }

  /**
   * Logs why the broker closed a channel, unless an operation has already failed with that reason. The error may mean a
   * lost message, such as a publish to a missing exchange.
   */
  report(channel: Channel.Channel): void {
    const reason = channel.closedBy
    if (
      channel.isReported ||
      reason === undefined ||
      reason.severity === "connection" ||
      reason._tag === "ChannelClosed"
    ) {
      return
    }
    this.#run(
      Effect.logWarning("AMQP channel closed by the broker").pipe(
        Effect.annotateLogs({ reason: reason.message, ...Logging.channelAnnotations(channel) })
      )
    )
  }

  /**
   * Logs that returned messages were not read. Without this, nothing would show that they reached no queue.
   */
  reportUnread(messages: number, channel: Channel.Channel | undefined): void {
    this.#run(
      Effect.logWarning("AMQP mandatory messages were returned, and channel.returns was not read").pipe(
        Effect.annotateLogs({ messages, ...(channel === undefined ? {} : Logging.channelAnnotations(channel)) })
      )
    )
  }

  /** Runs forever: closes idle channels that are too old or idle for too long, and keeps `min` channels open. */
  readonly recycle: Effect.Effect<void> = Effect.suspend(() => {
    const { idleTimeout, min } = this.#settings
    const idleLimit = toMillis(idleTimeout)
    const shortest = Math.min(this.#maxAge, idleLimit)
    if (shortest === Infinity && min === 0) return Effect.void
    const interval = Duration.millis(Math.min(5_000, Math.max(10, shortest / 10)))
    const sweep = Effect.sync(() => {
      const { now } = this
      let open = this.all.reduce((n, place) => (place.channel?.isOpen === true || place.opening ? n + 1 : n), 0)
      for (const place of this.all) {
        const channel = place.channel
        if (place.lease !== undefined || channel === undefined) continue
        const idleTooLong = open > min && now - place.idleSince >= idleLimit
        if (channel.isReusable && !place.isOld(now) && !idleTooLong) continue
        if (channel.isOpen) open--
        this.retire(place)
      }
      // Without a connection or a free permit, an opening would wait and delay the openings for borrowers.
      const link = this.#internals.currentLink()
      if (link === undefined || this.#internals.budget.isFull(link)) return
      for (const place of this.all) {
        if (open >= min) break
        if (place.lease !== undefined || !place.isEmpty) continue
        this.open(place)
        open++
      }
    })
    return Effect.forever(Effect.andThen(sweep, Effect.sleep(interval)))
  })

  /** Interrupts all openings and timers. */
  readonly interrupt: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(Array.from(this.#background)))

  /** Closes all channels concurrently, and waits at most for the time of one close. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    for (const place of this.all) this.#close(place)
    const closed = Effect.suspend(() => Fiber.awaitAll(Array.from(this.#closings)))
    return Effect.timeoutOption(closed, this.#internals.shutdown.closeTimeLeftOf(this.#internals.currentLink())).pipe(
      // The other fibers of `#closings` wait for these closes, return the places, and then end.
      Effect.andThen(Effect.suspend(() => Fiber.interruptAll(Array.from(this.#closingChannels)))),
      Effect.andThen(closed),
      Effect.asVoid
    )
  })
}
