/** The places of a pool and the channels in them: opening, recycling, closing, counting. Who borrows is not its business. */
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
import type { Budgeted } from "../connection/channelBudget.ts"
import type * as Channel from "../channel/channel.ts"
import { openChannel } from "../channel/opening.ts"
import { type Kind } from "../../model/channel.ts"
import * as Logging from "../telemetry/logging.ts"
import { type Links, linksOf } from "../connection/links.ts"
import { type Discard, PoolMeasures } from "../metrics/measures.ts"
import { type Fork } from "../waiting/fork.ts"
import { Slot } from "./slot.ts"
import { elapsed, exactly } from "../waiting/elapsed.ts"

export type Settings = Exclude<AmqpConfig["pool"], false>

// A channel's age limit is drawn from the last tenth below `recycle`, so that channels opened together, as they are after
// a reconnect, are not replaced together.
const ageJitter = 0.1

const toMillis = (duration: Duration.Duration | undefined) =>
  duration === undefined ? Infinity : Duration.toMillis(duration)

/** Whether the link is gone, by something that a new connection mends. */
const isLost = (link: Link, error: AmqpError): boolean => link.closedBy !== undefined && error.isRetryable

// A reply that nobody waits for any more would be taken for the next borrower's.
const discardOf = (channel: Channel.Channel): Discard => {
  if (channel.link.closedBy !== undefined || channel.closedBy?.severity === "connection") return "connection_lost"
  if (channel.closedBy !== undefined) return "channel_error"
  return channel.unfit ?? "interrupted"
}

export class Places<Lease> {
  /** All places; none without pooling, where each borrow makes its own. */
  readonly slots: ReadonlyArray<Slot<Lease>>
  readonly measures = new PoolMeasures()
  created = 0
  recycled = 0
  discarded = 0

  readonly #kind: Kind
  readonly #links: Links
  readonly #config: AmqpConfig
  readonly #settings: Settings
  readonly #maxAge: number
  readonly #clock: Clock.Clock
  readonly #run: Fork
  readonly #givenUp: AmqpError
  /** What is interrupted at the end: openings and timers. */
  readonly #background = new Set<Fiber.Fiber<void>>()
  /** What is waited for at the end, being bounded itself. */
  readonly #closings = new Set<Fiber.Fiber<void>>()
  /** Of these, the closes of channels. */
  readonly #closingChannels = new Set<Fiber.Fiber<void>>()
  /** Places whose openings wait until the application may open another channel. */
  readonly #starving = new Set<Slot<Lease>>()

  constructor(options: {
    readonly kind: Kind
    readonly connection: AmqpConnection["Service"]
    readonly settings: Settings
    readonly pooled: boolean
    readonly clock: Clock.Clock
    readonly run: Fork
    /** What those fail with who wait for an opening when the pool ends. */
    readonly givenUp: AmqpError
  }) {
    this.#kind = options.kind
    this.#links = linksOf(options.connection)
    this.#config = options.connection.config
    this.#settings = options.settings
    this.#maxAge = toMillis(options.settings.recycle)
    this.#clock = options.clock
    this.#run = options.run
    this.#givenUp = options.givenUp
    this.slots = options.pooled ? Array.from({ length: options.settings.max }, () => new Slot<Lease>()) : []
  }

  /** The pool's clock, in milliseconds. */
  get now(): number {
    return elapsed(this.#clock)
  }

  /** The same, with fractions: for what is measured. */
  get exact(): number {
    return exactly(this.#clock)
  }

  /** Open channels that nobody has borrowed. */
  get idle(): number {
    return this.slots.reduce((n, slot) => (slot.lease === undefined && slot.channel?.isOpen === true ? n + 1 : n), 0)
  }

  /** Runs an effect until the pool ends. */
  readonly forkBackground: Fork = (effect) => this.#fork(this.#background, effect)

  /** Runs an effect that the end of the pool waits for. */
  readonly forkClosing: Fork = (effect) => this.#fork(this.#closings, effect)

  #fork(owner: Set<Fiber.Fiber<void>>, effect: Effect.Effect<void>): Fiber.Fiber<void> {
    const fiber = this.#run(effect)
    if (fiber.pollUnsafe() === undefined) {
      owner.add(fiber)
      fiber.addObserver(() => owner.delete(fiber))
    }
    return fiber
  }

  /** Starts opening a channel in an empty place, unless that is under way. */
  open(slot: Slot<Lease>): Deferred.Deferred<void, AmqpError> {
    const open: Effect.Effect<void, AmqpError> = Effect.flatMap(
      Effect.zip(this.#links.next, Random.next),
      ([link, random]) =>
        Effect.catchIf(
          openChannel(
            link,
            this.#kind,
            this.#config.continuationTimeout,
            (channel) => {
              slot.fill(channel, this.now, this.#maxAge * (1 - ageJitter * random))
              this.created++
              this.#watch(slot, channel)
            },
            {
              left: (channel) => slot.startLeaving(this.#forkChannelClosing, channel.ended),
              // The borrower's own deadline ends the wait.
              patience: Duration.infinity,
              waiting: (isWaiting) => {
                if (isWaiting) this.#starving.add(slot)
                else this.#starving.delete(slot)
              }
            }
          ),
          // Nothing of the borrower's was on it: it goes on as if it had come after the loss.
          (error) => isLost(link, error),
          () => open
        )
    )
    return slot.startOpening(this.forkBackground, open, this.#givenUp)
  }

  #watch(slot: Slot<Lease>, channel: Channel.Channel): void {
    // While it is lent, its borrower may be told by an operation that fails: then this waits for its return.
    channel.onClosed = () => {
      if (slot.lease === undefined) this.report(channel)
    }
  }

  /** A channel that is fit to be lent has come back: it stays, unless it is wanted elsewhere. */
  returned(slot: Slot<Lease>): void {
    if (!this.#links.budget.isWaiting) return
    for (const starving of this.#starving) {
      if (starving.lease === undefined || starving === slot) continue
      this.#starving.delete(starving)
      // Before its borrower goes on, as it does in there.
      this.#watch(starving, slot.channel!)
      return starving.takeOver(slot)
    }
    this.#links.budget.idle()
  }

  /** Closes the channel that has been idle for longest, of this connection if it is given; whether there was one. */
  readonly reclaim = (link: Budgeted | undefined): boolean => {
    let found: Slot<Lease> | undefined
    for (const slot of this.slots) {
      const { channel } = slot
      if (slot.lease !== undefined || channel?.isOpen !== true) continue
      if (link !== undefined && channel.link !== link) continue
      if (found === undefined || slot.idleSince < found.idleSince) found = slot
    }
    if (found !== undefined) this.retire(found)
    return found !== undefined
  }

  /** Takes a channel that is not to be lent again out of its place, and counts why. */
  retire(slot: Slot<Lease>): void {
    if (slot.channel?.isFit === true) this.recycled++
    else {
      this.discarded++
      if (slot.channel !== undefined) this.measures.discarded[discardOf(slot.channel)]++
    }
    this.#close(slot)
  }

  #close(slot: Slot<Lease>): void {
    slot.startClosing(this.#forkChannelClosing, (channel) => channel.close(this.#config.closeTimeout))
  }

  readonly #forkChannelClosing: Fork = (close) => {
    const fiber = this.forkClosing(close)
    this.#closingChannels.add(fiber)
    fiber.addObserver(() => this.#closingChannels.delete(fiber))
    return fiber
  }

  /** A broker's error on a channel may be a lost message (a publish to a missing exchange): it must not go unseen. */
  report(channel: Channel.Channel): void {
    const reason = channel.closedBy
    if (channel.told || reason === undefined || reason.severity === "connection" || reason._tag === "ChannelClosed") {
      return
    }
    this.#run(
      Effect.logWarning("AMQP channel closed by the broker").pipe(
        Effect.annotateLogs({ reason: reason.message, ...Logging.ofChannel(channel) })
      )
    )
  }

  /** Nobody knows that these messages reached no queue. */
  reportUnread(messages: number, channel: Channel.Channel | undefined): void {
    this.#run(
      Effect.logWarning("AMQP mandatory messages came back, and nobody read channel.returns").pipe(
        Effect.annotateLogs({ messages, ...(channel === undefined ? {} : Logging.ofChannel(channel)) })
      )
    )
  }

  /** Closes idle channels that are too old or idle for too long, and keeps `min` open, for ever. */
  readonly recycle: Effect.Effect<void> = Effect.suspend(() => {
    const { idleTimeout, min } = this.#settings
    const idleLimit = toMillis(idleTimeout)
    const shortest = Math.min(this.#maxAge, idleLimit)
    if (shortest === Infinity && min === 0) return Effect.void
    const interval = Duration.millis(Math.min(5_000, Math.max(10, shortest / 10)))
    const sweep = Effect.sync(() => {
      const { now } = this
      let open = this.slots.reduce((n, slot) => (slot.channel?.isOpen === true || slot.opening ? n + 1 : n), 0)
      for (const slot of this.slots) {
        const channel = slot.channel
        if (slot.lease !== undefined || channel === undefined) continue
        const idleTooLong = open > min && now - slot.idleSince >= idleLimit
        if (channel.isFit && !slot.isOld(now) && !idleTooLong) continue
        if (channel.isOpen) open--
        this.retire(slot)
      }
      // An opening would wait for the connection, and take the turn of a borrower's.
      const link = this.#links.current()
      if (link === undefined || this.#links.budget.isFull(link)) return
      for (const slot of this.slots) {
        if (open >= min) break
        if (slot.lease !== undefined || !slot.isEmpty) continue
        this.open(slot)
        open++
      }
    })
    return Effect.forever(Effect.andThen(sweep, Effect.sleep(interval)))
  })

  /** Gives up all openings. */
  readonly interrupt: Effect.Effect<void> = Effect.suspend(() => Fiber.interruptAll(Array.from(this.#background)))

  /** Closes all channels at once, and waits for that as long as a close may take. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    for (const slot of this.slots) this.#close(slot)
    const closed = Effect.suspend(() => Fiber.awaitAll(Array.from(this.#closings)))
    return Effect.timeoutOption(closed, this.#links.shutdown.closingOf(this.#links.current())).pipe(
      // What waits for these gives the places back, and ends with them.
      Effect.andThen(Effect.suspend(() => Fiber.interruptAll(Array.from(this.#closingChannels)))),
      Effect.andThen(closed),
      Effect.asVoid
    )
  })
}
