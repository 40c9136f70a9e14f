/**
 * Deliveries of one queue, through one subscription after the other: who consumes sees a lost channel only where that is
 * wanted.
 *
 * There is no loop without a pause: every attempt after the first waits a random time below a bound that doubles, as
 * reconnecting does by default, until a subscription has lasted.
 */
import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { AmqpConfig } from "../../model/config.ts"
import type * as AmqpError from "../../model/error.ts"
import type { End } from "../../model/consumer.ts"
import type { Channel } from "../channel/channel.ts"
import { fail } from "../../model/failures.ts"
import { type Terms } from "../channel/handle.ts"
import { isAbsence } from "../connection/keepers.ts"
import type { Links } from "../connection/links.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import * as Logging from "../telemetry/logging.ts"
import type { Shutdown } from "../connection/shutdown.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { nextOf } from "./recovery.ts"
import type { Subscribing } from "./options.ts"
import type { Presence } from "./presence.ts"
import { type Declare, Subscription } from "./subscription.ts"
import type { StreamPosition } from "./streamPosition.ts"
import type { Fork } from "../waiting/fork.ts"
import type { AttemptTracking } from "./attemptTracking.ts"
import { Backoff, fullJitter } from "../waiting/backoff.ts"

/** Makes a connection for one consumer of a queue, which is closed with the scope. */
export type Alone = (queue: string) => Effect.Effect<Links, AmqpError.AmqpError, Scope.Scope>

export class Source {
  /** Called when there is something to be taken, and when it has failed. Must not throw. */
  onChange: () => void = () => {}
  /** Called when a channel delivers no more, though what it has delivered may still be settled on it. Must not throw. */
  onLeave: (channel: Channel) => void = () => {}
  /** Why there will be no more. */
  failure: Cause.Cause<AmqpError.AmqpError> | undefined = undefined
  readonly queue: string
  readonly #links: Links
  readonly #settings: Subscribing
  readonly #terms: Terms
  readonly #measures: ConsumerMeasures
  readonly #tracking: AttemptTracking
  readonly #backoff: Backoff<AmqpError.AmqpErrorReason>
  readonly #closeTimeout: Duration.Duration
  readonly #shutdown: Shutdown
  readonly #alone: Alone | undefined
  readonly #fork: Fork
  /** What is said of it in the log while it has no channel. */
  readonly #connection: Readonly<Record<string, unknown>>
  /** Of a stream. */
  readonly #position: StreamPosition | undefined
  /** How many deliveries were taken. */
  taken = 0
  readonly #presence: Presence | undefined
  #current: Subscription | undefined = undefined
  /** Cancelled by the broker, with deliveries that are still to be settled. */
  readonly #draining = new Set<Subscription>()
  /** Connections of its own, by the subscriptions that use them. */
  readonly #owned = new Map<Subscription, Scope.Closeable>()
  #onEnded: (() => void) | undefined = undefined
  #stopping = false
  /** What the last subscription gave back when it ended by itself. */
  #requeued = 0

  constructor(options: {
    readonly settings: Subscribing
    readonly links: Links
    readonly terms: Terms
    readonly measures: ConsumerMeasures
    readonly tracking: AttemptTracking
    readonly clock: Clock.Clock
    readonly config: AmqpConfig
    readonly alone: Alone | undefined
    readonly fork: Fork
    readonly presence: Presence | undefined
    readonly position: StreamPosition | undefined
  }) {
    const { closeTimeout, reconnect } = options.config
    this.queue = options.settings.start.queue
    this.#settings = options.settings
    this.#links = options.links
    this.#shutdown = options.links.shutdown
    this.#terms = options.terms
    this.#measures = options.measures
    this.#tracking = options.tracking
    const { healthyAfter, maxDelay, minDelay } = reconnect
    this.#backoff = new Backoff(options.clock, fullJitter(minDelay, maxDelay), healthyAfter)
    this.#closeTimeout = closeTimeout
    this.#alone = options.alone
    this.#fork = options.fork
    this.#connection = Logging.ofConnection(options.config)
    this.#presence = options.presence
    this.#position = options.position
  }

  // --- What is taken -------------------------------------------------------------------------------------------------

  get size(): number {
    return this.#current === undefined || this.#isStill ? 0 : this.#current.size
  }

  /** How long the first of these has waited, in milliseconds. */
  get waited(): number {
    const { now } = this.#terms.deadlines
    return now - (this.#current?.since ?? now)
  }

  take(): ConsumerDelivery | undefined {
    if (this.#draining.size > 0) this.#closeDrained()
    const delivery = this.#isStill ? undefined : this.#current?.take()
    if (delivery !== undefined) this.taken++
    return delivery
  }

  /** Deliveries of one channel, in their order. */
  takeUpTo(most: number): Array<ConsumerDelivery> {
    if (this.#draining.size > 0) this.#closeDrained()
    const taken = this.#isStill || this.#current === undefined ? [] : this.#current.takeUpTo(most)
    this.taken += taken.length
    return taken
  }

  /** Whether nothing is handed out, whatever has come. */
  get #isStill(): boolean {
    return this.#stopping || this.#position?.isHeld === true
  }

  /** What has come while nothing was handed out can be taken now. */
  resume(): void {
    for (let left = this.size; left > 0; left--) this.onChange()
  }

  #closeDrained(): void {
    for (const subscription of this.#draining) {
      if (!subscription.closeIfSettled()) continue
      this.#draining.delete(subscription)
      if (this.#owned.has(subscription)) this.#fork(this.#disown(subscription))
    }
  }

  // --- Subscribing ---------------------------------------------------------------------------------------------------

  readonly #changed = () => {
    if (this.#current?.endedBecause !== undefined) this.#onEnded?.()
    this.onChange()
  }

  readonly #ended = (subscription: Subscription): Effect.Effect<AmqpError.AmqpErrorReason> =>
    Effect.callback<AmqpError.AmqpErrorReason>((resume) => {
      const look = () => {
        if (subscription.endedBecause !== undefined) resume(Effect.succeed(subscription.endedBecause))
      }
      this.#onEnded = look
      look()
      return Effect.sync(() => {
        this.#onEnded = undefined
      })
    })

  /**
   * Subscribes, and again as often as is wanted; ends with a failure only, that of `ended` at the latest. `prepare` runs
   * before the first subscription, after `declare`.
   */
  run(
    prepare: Effect.Effect<void, AmqpError.AmqpError>,
    ended: Effect.Effect<never, AmqpError.AmqpError>
  ): Effect.Effect<never, AmqpError.AmqpError> {
    const { declare, resubscribe, start } = this.#settings
    const loop = Effect.gen({ self: this }, function* () {
      const backoff = this.#backoff
      let prepared = false
      // After the queue has been declared: what is prepared depends on what it is.
      const preparing: Declare = (channel) =>
        declare === undefined ? prepare : Effect.andThen(declare(channel), prepare)
      let hasWorked = false
      let isAlone = false
      // Why the last subscription ended, while it is not known whether the queue is still there.
      let cancelled: AmqpError.ConsumerCancelled | undefined
      while (true) {
        // What no waiting changes: the connection is closed for good.
        yield* this.#presence?.waitFor(this.#links.next) ?? this.#links.next
        yield* this.#links.preparations.wait(this.#terms.continuationTimeout)
        const subscription = new Subscription(
          start,
          this.#terms,
          this.#measures,
          this.#tracking,
          this.#changed,
          this.#position
        )
        // Known before it opens, so that whoever stops the source finds its channel.
        this.#current = subscription
        const links = isAlone ? this.#ownLinks(subscription) : Effect.succeed(this.#links)
        const open = Effect.flatMap(links, (links) => subscription.open(links, prepared ? declare : preparing))
        const failure = yield* Effect.match(open, {
          onFailure: ({ reason }): AmqpError.AmqpErrorReason => reason,
          onSuccess: () => undefined
        })
        const openedAt = backoff.now
        if (failure === undefined) {
          prepared = hasWorked = true
          this.#presence?.subscribed()
        }
        const reason = failure ?? (yield* this.#opened(subscription))
        backoff.lost(openedAt)
        yield* this.#leave(subscription)
        const isOurs = this.#links.keepers.keeps("queue", this.queue) || (declare !== undefined && hasWorked)
        const hadStarted = failure === undefined
        const ended = { reason, blame: subscription.blame, hadStarted, hasWorked, cancelled, isOurs }
        const next = nextOf(ended, resubscribe)
        if (next._tag === "end") return yield* fail(next.reason)
        if (reason._tag === "ConsumerCancelled") cancelled = reason
        else if (hadStarted) cancelled = undefined
        this.#presence?.interrupted(reason.message)
        // It goes back to the connection of all others when a subscription on its own has lasted.
        isAlone = this.#alone !== undefined && (next._tag === "alone" || (isAlone && backoff.attempt > 0))
        const how = isAlone ? ", subscribing again by a connection of its own" : ", subscribing again"
        yield* Effect.annotateLogs(Effect.logWarning(`AMQP consumer interrupted${how}`), {
          queue: this.queue,
          reason: reason.message,
          ...(subscription.channel === undefined ? this.#connection : Logging.ofChannel(subscription.channel))
        })
        yield* this.#restore(reason)
        yield* backoff.wait(reason)
      }
    })
    const endedByOthers = Effect.tapCause(ended, () =>
      Effect.sync(() => {
        // Nothing more is taken, though it may be here already.
        this.#stopping = true
      })
    )
    return Effect.tapCause(Effect.raceFirst(loop, endedByOthers), (cause) =>
      Effect.sync(() => {
        this.failure ??= cause
        this.onChange()
      })
    )
  }

  #opened(subscription: Subscription): Effect.Effect<AmqpError.AmqpErrorReason> {
    const isFirst = this.#backoff.attempt === 0
    const log = isFirst ? Effect.logDebug("AMQP consumer subscribed") : Effect.logInfo("AMQP consumer subscribed")
    return Effect.andThen(
      Effect.annotateLogs(log, { queue: this.queue, ...Logging.ofChannel(subscription.channel!) }),
      this.#ended(subscription)
    )
  }

  /** What was delivered ahead goes back; what is in hand may still be settled, as long as the channel lives. */
  #leave(subscription: Subscription): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (subscription.channel !== undefined) this.onLeave(subscription.channel)
      this.#requeued = subscription.requeueAhead()
      const left = Effect.sync(() => {
        this.#current = undefined
      })
      // It stays the current one until it is closed: interrupted before, `stop` closes it.
      if (subscription.endedBecause === undefined) {
        return subscription
          .close(this.#closeTimeout)
          .pipe(Effect.andThen(this.#disown(subscription)), Effect.andThen(left))
      }
      if (subscription.closeIfSettled()) return Effect.andThen(this.#disown(subscription), left)
      this.#draining.add(subscription)
      return left
    })
  }

  /** A connection for this subscription alone, until `#disown` closes it, which `stop` does at the latest. */
  #ownLinks(subscription: Subscription): Effect.Effect<Links, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const scope = Scope.makeUnsafe()
      this.#owned.set(subscription, scope)
      return Scope.provide(this.#alone!(this.queue), scope)
    })
  }

  #disown(subscription: Subscription): Effect.Effect<void> {
    return Effect.suspend(() => {
      const scope = this.#owned.get(subscription)
      if (scope === undefined) return Effect.void
      return Effect.onExit(Scope.close(scope, Exit.void), () => Effect.sync(() => this.#owned.delete(subscription)))
    })
  }

  /** The queue may be missing: a topology layer of this application that has it declares it again. */
  #restore(reason: AmqpError.AmqpErrorReason): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (isAbsence(reason)) this.#terms.queues.forget(this.queue)
      else if (reason._tag !== "ConsumerCancelled") return Effect.void
      return this.#links.keepers.restore(this.queue)
    })
  }

  // --- The end -------------------------------------------------------------------------------------------------------

  /**
   * Ends it: `basic.cancel`, and `settle` is waited for. What was delivered ahead goes back to the queue by one
   * `basic.nack` as soon as nothing is in hand, before the channel is closed. Bounded by what `settle` takes and the closes
   * of a shutdown.
   */
  stop(settle: Effect.Effect<void>): Effect.Effect<Omit<End, "queue" | "reason">> {
    return Effect.gen({ self: this }, function* () {
      this.#stopping = true
      const current = this.#current
      yield* current?.cancel(Duration.millis(this.#shutdown.closingOf(this.#links.current()))) ?? Effect.void
      current?.requeueAhead()
      yield* settle
      // What is still in hand goes back when its channel closes, and so does what is ahead of it.
      const all = current === undefined ? [...this.#draining] : [current, ...this.#draining]
      let unsettled = 0
      for (const subscription of all) {
        subscription.requeueAhead()
        unsettled += subscription.unsettled
      }
      const requeued = current?.requeueAhead() ?? this.#requeued
      const timeout = Duration.millis(this.#shutdown.closingOf(this.#links.current()))
      yield* Effect.forEach(all, (subscription) => subscription.close(timeout), {
        concurrency: "unbounded",
        discard: true
      })
      yield* Effect.forEach(Array.from(this.#owned.keys()), (subscription) => this.#disown(subscription), {
        concurrency: "unbounded",
        discard: true
      })
      return { requeued, unsettled }
    })
  }
}
