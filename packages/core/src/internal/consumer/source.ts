/**
 * The deliveries of one queue, from one subscription after another. A lost channel ends a consumer only if its
 * `resubscribe` option says so.
 *
 * Every attempt after the first is delayed by the `minDelay` and `maxDelay` of `reconnect`: a random time below a bound
 * that doubles per attempt. The bound is reset when a subscription has lasted for `healthyAfter`.
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
import { type ChannelTimeouts } from "../channel/channelHandle.ts"
import { isMissingEntity } from "../connection/topologyRecovery.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import * as Logging from "../telemetry/logging.ts"
import type { Shutdown } from "../connection/shutdown.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { nextOf } from "./recovery.ts"
import type { SubscriptionSettings } from "./options.ts"
import type { ConsumerHealth } from "./consumerHealth.ts"
import { logIgnoredTimeout } from "./consumerTimeout.ts"
import { type Declare, Subscription } from "./subscription.ts"
import type { StreamPosition } from "./streamPosition.ts"
import type { Fork } from "../waiting/fork.ts"
import type { AttemptTracking } from "./attemptTracking.ts"
import { Backoff, fullJitter } from "../waiting/backoff.ts"

/** Opens a connection for one consumer of a queue. The connection closes with the scope. */
export type OpenDedicatedConnection = (
  queue: string
) => Effect.Effect<ConnectionInternals, AmqpError.AmqpError, Scope.Scope>

export class Source {
  /** Called when a delivery can be taken, and when the source has failed. Must not throw. */
  onChange: () => void = () => {}
  /**
   * Called when a channel delivers no more messages. Its earlier deliveries may still be settled on it. Must not throw.
   */
  onChannelEnd: (channel: Channel) => void = () => {}
  /** The reason why no more deliveries will come. */
  failure: Cause.Cause<AmqpError.AmqpError> | undefined = undefined
  readonly queue: string
  readonly #internals: ConnectionInternals
  readonly #settings: SubscriptionSettings
  readonly #timeouts: ChannelTimeouts
  readonly #measures: ConsumerMeasures
  readonly #tracking: AttemptTracking
  readonly #backoff: Backoff<AmqpError.AmqpErrorReason>
  readonly #closeTimeout: Duration.Duration
  readonly #shutdown: Shutdown
  readonly #openDedicated: OpenDedicatedConnection | undefined
  readonly #fork: Fork
  /** The log annotations while there is no channel. */
  readonly #connection: Readonly<Record<string, unknown>>
  /** The position in the stream; `undefined` if the queue is not a stream. */
  readonly #position: StreamPosition | undefined
  /** The number of deliveries that were taken. */
  taken = 0
  readonly #health: ConsumerHealth | undefined
  #current: Subscription | undefined = undefined
  /** Subscriptions that the broker has cancelled and whose deliveries are not all settled yet. */
  readonly #draining = new Set<Subscription>()
  /** The scopes of dedicated connections, by the subscriptions that use them. */
  readonly #dedicatedScopes = new Map<Subscription, Scope.Closeable>()
  #onEnded: (() => void) | undefined = undefined
  #stopping = false
  /** Whether the last loss was logged by the connection. */
  #isLossLogged = false
  /** The number of deliveries that the last subscription requeued when it ended. */
  #requeued = 0

  constructor(options: {
    readonly settings: SubscriptionSettings
    readonly internals: ConnectionInternals
    readonly timeouts: ChannelTimeouts
    readonly measures: ConsumerMeasures
    readonly tracking: AttemptTracking
    readonly clock: Clock.Clock
    readonly config: AmqpConfig
    readonly openDedicated: OpenDedicatedConnection | undefined
    readonly fork: Fork
    readonly health: ConsumerHealth | undefined
    readonly position: StreamPosition | undefined
  }) {
    const { closeTimeout, reconnect } = options.config
    this.queue = options.settings.start.queue
    this.#settings = options.settings
    this.#internals = options.internals
    this.#shutdown = options.internals.shutdown
    this.#timeouts = options.timeouts
    this.#measures = options.measures
    this.#tracking = options.tracking
    const { healthyAfter, maxDelay, minDelay } = reconnect
    this.#backoff = new Backoff(options.clock, fullJitter(minDelay, maxDelay), healthyAfter)
    this.#closeTimeout = closeTimeout
    this.#openDedicated = options.openDedicated
    this.#fork = options.fork
    this.#connection = Logging.connectionAnnotations(options.config)
    this.#health = options.health
    this.#position = options.position
  }

  // --- Taking deliveries ---------------------------------------------------------------------------------------------

  get size(): number {
    return this.#current === undefined || this.#isPaused ? 0 : this.#current.size
  }

  /** The number of deliveries that were taken and are not settled. */
  get inFlight(): number {
    let count = this.#current?.unsettled ?? 0
    for (const subscription of this.#draining) count += subscription.unsettled
    return count
  }

  /** How long the oldest delivery in memory has waited, in milliseconds. */
  get waited(): number {
    const { now } = this.#timeouts.deadlines
    return now - (this.#current?.oldestArrivedAt ?? now)
  }

  take(): ConsumerDelivery | undefined {
    if (this.#draining.size > 0) this.#closeDrained()
    const delivery = this.#isPaused ? undefined : this.#current?.take()
    if (delivery !== undefined) this.taken++
    return delivery
  }

  /** Takes up to `most` deliveries of one channel, in their order. */
  takeUpTo(most: number): Array<ConsumerDelivery> {
    if (this.#draining.size > 0) this.#closeDrained()
    const taken = this.#isPaused || this.#current === undefined ? [] : this.#current.takeUpTo(most)
    this.taken += taken.length
    return taken
  }

  /** Whether nothing may be taken, even if there are deliveries. */
  get #isPaused(): boolean {
    return this.#stopping || this.#position?.isHeld === true
  }

  /** Calls `onChange` for each delivery that arrived while the source was paused. */
  resume(): void {
    for (let left = this.size; left > 0; left--) this.onChange()
  }

  #closeDrained(): void {
    for (const subscription of this.#draining) {
      if (!subscription.closeIfSettled()) continue
      this.#draining.delete(subscription)
      if (this.#dedicatedScopes.has(subscription)) this.#fork(this.#closeDedicated(subscription))
    }
  }

  // --- Subscribing ---------------------------------------------------------------------------------------------------

  readonly #changed = () => {
    if (this.#current?.endedBecause !== undefined) this.#onEnded?.()
    this.onChange()
  }

  readonly #awaitEnd = (subscription: Subscription): Effect.Effect<AmqpError.AmqpErrorReason> =>
    Effect.callback<AmqpError.AmqpErrorReason>((resume) => {
      const check = () => {
        if (subscription.endedBecause !== undefined) resume(Effect.succeed(subscription.endedBecause))
      }
      this.#onEnded = check
      check()
      return Effect.sync(() => {
        this.#onEnded = undefined
      })
    })

  /**
   * Subscribes, and subscribes again after a loss as `resubscribe` says. Never succeeds: fails when no further
   * subscription follows, or with the failure of `mustEnd`. `prepare` runs once, after `declare` and before the first
   * `basic.consume`.
   */
  run(
    prepare: Effect.Effect<void, AmqpError.AmqpError>,
    mustEnd: Effect.Effect<never, AmqpError.AmqpError>
  ): Effect.Effect<never, AmqpError.AmqpError> {
    const { declare, resubscribe, start } = this.#settings
    const loop = Effect.gen({ self: this }, function* () {
      const backoff = this.#backoff
      let prepared = false
      // `prepare` runs after the declaration of the queue, because it reads the queue's properties.
      const preparing: Declare = (channel) =>
        declare === undefined ? prepare : Effect.andThen(declare(channel), prepare)
      let hasEverStarted = false
      let isDedicated = false
      // The reason of the last cancel by the broker, while it is not known whether the queue still exists.
      let cancelled: AmqpError.ConsumerCancelled | undefined
      while (true) {
        // This fails if the connection is closed for good, since no other connection follows.
        yield* this.#health?.waitFor(this.#internals.nextLink) ?? this.#internals.nextLink
        yield* this.#internals.preparations.wait(this.#timeouts.continuationTimeout)
        const subscription = new Subscription(
          start,
          this.#timeouts,
          this.#measures,
          this.#tracking,
          this.#changed,
          this.#position
        )
        // This is set before the subscription opens, so that `stop` finds its channel.
        this.#current = subscription
        const internals = isDedicated ? this.#openDedicatedLinks(subscription) : Effect.succeed(this.#internals)
        const open = Effect.flatMap(internals, (internals) =>
          subscription.open(internals, prepared ? declare : preparing)
        )
        const failure = yield* Effect.match(open, {
          onFailure: ({ reason }): AmqpError.AmqpErrorReason => reason,
          onSuccess: () => undefined
        })
        const openedAt = backoff.now
        if (failure === undefined) {
          if (!hasEverStarted) yield* this.#logIgnored(subscription)
          prepared = hasEverStarted = true
          this.#health?.subscribed()
        }
        const reason = failure ?? (yield* this.#opened(subscription))
        backoff.resetIfHealthy(openedAt)
        yield* this.#leave(subscription)
        const isDeclaredHere =
          this.#internals.topologyRecovery.declares("queue", this.queue) || (declare !== undefined && hasEverStarted)
        const hadStarted = failure === undefined
        const end = {
          reason,
          attribution: subscription.attribution,
          hadStarted,
          hasEverStarted,
          cancelled,
          isDeclaredHere
        }
        const next = nextOf(end, resubscribe)
        if (next._tag === "end") return yield* fail(next.reason)
        if (reason._tag === "ConsumerCancelled") cancelled = reason
        else if (hadStarted) cancelled = undefined
        this.#health?.interrupted(reason, isMissingEntity(reason))
        // The consumer returns to the shared connection when a subscription on its dedicated connection has lasted for
        // `healthyAfter`.
        isDedicated =
          this.#openDedicated !== undefined && (next._tag === "dedicated" || (isDedicated && backoff.attempt > 0))
        const how = isDedicated ? ", subscribing again on a dedicated connection" : ", subscribing again"
        // The connection logs its own loss. A line per consumer would repeat it.
        this.#isLossLogged = reason.severity === "connection" && !isDedicated
        const log = this.#isLossLogged ? Effect.logDebug : Effect.logWarning
        yield* Effect.annotateLogs(log(`AMQP consumer interrupted${how}`), {
          queue: this.queue,
          consumerTag: start.consumerTag,
          reason: reason.message,
          ...(subscription.channel === undefined ? this.#connection : Logging.channelAnnotations(subscription.channel))
        })
        yield* this.#restore(reason)
        yield* backoff.wait(reason)
      }
    })
    const stopTakingAtEnd = Effect.tapCause(mustEnd, () =>
      Effect.sync(() => {
        // From now on no delivery is taken, not even one that has already arrived.
        this.#stopping = true
      })
    )
    return Effect.tapCause(Effect.raceFirst(loop, stopTakingAtEnd), (cause) =>
      Effect.sync(() => {
        this.failure ??= cause
        this.onChange()
      })
    )
  }

  #logIgnored({ channel }: Subscription): Effect.Effect<void> {
    return channel === undefined
      ? Effect.void
      : logIgnoredTimeout(
          channel.link.product,
          this.#timeouts.queues,
          this.#settings.start,
          Logging.channelAnnotations(channel)
        )
  }

  #opened(subscription: Subscription): Effect.Effect<AmqpError.AmqpErrorReason> {
    const isFirst = this.#backoff.attempt === 0
    const log =
      isFirst || this.#isLossLogged
        ? Effect.logDebug("AMQP consumer subscribed")
        : Effect.logInfo("AMQP consumer subscribed")
    return Effect.andThen(
      Effect.annotateLogs(log, {
        queue: this.queue,
        consumerTag: this.#settings.start.consumerTag,
        ...Logging.channelAnnotations(subscription.channel!)
      }),
      this.#awaitEnd(subscription)
    )
  }

  /**
   * Leaves a subscription that has ended, and requeues its prefetched deliveries. Deliveries that are being handled can
   * still be settled while its channel is open.
   */
  #leave(subscription: Subscription): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (subscription.channel !== undefined) this.onChannelEnd(subscription.channel)
      this.#requeued = subscription.requeuePrefetched()
      const clearCurrent = Effect.sync(() => {
        this.#current = undefined
      })
      // The subscription stays the current one until it is closed, so that `stop` closes it if this effect is
      // interrupted before that.
      if (subscription.endedBecause === undefined) {
        return subscription
          .close(this.#closeTimeout)
          .pipe(Effect.andThen(this.#closeDedicated(subscription)), Effect.andThen(clearCurrent))
      }
      if (subscription.closeIfSettled()) return Effect.andThen(this.#closeDedicated(subscription), clearCurrent)
      this.#draining.add(subscription)
      return clearCurrent
    })
  }

  /** Opens a connection for this subscription alone. `#closeDedicated` closes it; `stop` does that at the latest. */
  #openDedicatedLinks(subscription: Subscription): Effect.Effect<ConnectionInternals, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const scope = Scope.makeUnsafe()
      this.#dedicatedScopes.set(subscription, scope)
      return Scope.provide(this.#openDedicated!(this.queue), scope)
    })
  }

  #closeDedicated(subscription: Subscription): Effect.Effect<void> {
    return Effect.suspend(() => {
      const scope = this.#dedicatedScopes.get(subscription)
      if (scope === undefined) return Effect.void
      return Effect.onExit(Scope.close(scope, Exit.void), () =>
        Effect.sync(() => this.#dedicatedScopes.delete(subscription))
      )
    })
  }

  /**
   * If the queue may be missing, requests that the topology layer of this application that contains it declares it
   * again, and waits for that.
   */
  #restore(reason: AmqpError.AmqpErrorReason): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (isMissingEntity(reason)) this.#timeouts.queues.forget(this.queue)
      else if (reason._tag !== "ConsumerCancelled") return Effect.void
      return this.#internals.topologyRecovery.recover(this.queue)
    })
  }

  // --- Stopping ------------------------------------------------------------------------------------------------------

  /**
   * Stops the source: sends `basic.cancel` and waits for `settle`. When no delivery is being handled any more, the
   * prefetched ones return to the queue by one `basic.nack`. Then the channel is closed. This takes at most the time of
   * `settle` and the close timeouts of a shutdown.
   */
  stop(settle: Effect.Effect<void>): Effect.Effect<Omit<End, "queue" | "reason">> {
    return Effect.gen({ self: this }, function* () {
      this.#stopping = true
      const current = this.#current
      yield* (
        current?.cancel(Duration.millis(this.#shutdown.closeTimeLeftOf(this.#internals.currentLink()))) ?? Effect.void
      )
      current?.requeuePrefetched()
      yield* settle
      // Deliveries that are still unsettled now, and prefetched ones that could not be requeued, return to the queue
      // when their channel closes.
      const all = current === undefined ? [...this.#draining] : [current, ...this.#draining]
      let unsettled = 0
      for (const subscription of all) {
        subscription.requeuePrefetched()
        unsettled += subscription.unsettled
      }
      const requeued = current?.requeuePrefetched() ?? this.#requeued
      const timeout = Duration.millis(this.#shutdown.closeTimeLeftOf(this.#internals.currentLink()))
      yield* Effect.forEach(all, (subscription) => subscription.close(timeout), {
        concurrency: "unbounded",
        discard: true
      })
      yield* Effect.forEach(
        Array.from(this.#dedicatedScopes.keys()),
        (subscription) => this.#closeDedicated(subscription),
        {
          concurrency: "unbounded",
          discard: true
        }
      )
      return { requeued, unsettled }
    })
  }
}
