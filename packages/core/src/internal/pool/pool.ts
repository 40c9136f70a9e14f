/** The pool: leases pool places through Effect's `Pool`, keeps borrowers in a wait queue, and shuts down. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Pool from "effect/Pool"
import * as Scope from "effect/Scope"
import type { AmqpChannel, ConfirmChannel, TransactionChannel } from "../../model/channel.ts"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import * as AmqpError from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import { InsideId } from "../../model/inside.ts"
import type { AmqpPool, ChannelsOf, Stats } from "../../model/pool.ts"
import type { Kind } from "../../model/channel.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { onClock } from "../waiting/onClock.ts"
import { counted, isOrAre } from "../waiting/phrases.ts"
import type { ChannelTimeouts } from "../channel/channelHandle.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { PoolInside, type PoolMeasures } from "../metrics/measures.ts"
import * as Logging from "../telemetry/logging.ts"
import { PoolLease, type Restore } from "./poolLease.ts"
import { LongBorrows } from "./longBorrows.ts"
import { ScopeChannels } from "./scopeChannels.ts"
import { PoolPlaces, type Settings } from "./poolPlaces.ts"
import { PoolPlace } from "./poolPlace.ts"
import { Waiters } from "../waiting/waiters.ts"

/** Settings without pooling (`pool: false`): a new channel per lease, without a limit. */
const unpooled = (config: AmqpConfig): Settings => ({
  min: 0,
  max: Infinity,
  recycle: undefined,
  idleTimeout: undefined,
  acquireTimeout: config.continuationTimeout,
  maxWaiting: Infinity,
  longBorrow: Duration.seconds(30)
})

// Upper bound of the operations that a fiber runs between the check for a free place and the taking of that place.
const opsUntilPlaced = 16

/** Wraps the acquisition of a lease so that the lease is released if the acquisition fails. */
type Guard = (
  acquire: Effect.Effect<void, AmqpError.AmqpError>,
  lease: PoolLease
) => Effect.Effect<void, AmqpError.AmqpError>

/** The guard for callers that release the lease on every exit themselves. */
const unguarded: Guard = (acquire) => acquire

/** Takes a place from Effect's pool until the lease's `placeScope` closes. */
const takePlace = (pool: Pool.Pool<PoolPlace<PoolLease>>, lease: PoolLease): Effect.Effect<PoolPlace<PoolLease>> => {
  const placeScope = (lease.placeScope = Scope.makeUnsafe())
  return Effect.updateContext(Pool.get(pool), (context: Context.Context<never>) =>
    Context.add(context, Scope.Scope, placeScope)
  )
}

/** A place that is handed from one borrower to the next. */
interface PlaceHandover {
  readonly place: PoolPlace<PoolLease>
  readonly placeScope: Scope.Closeable
}

const closeScope = (scope: Scope.Closeable | undefined): Effect.Effect<void> =>
  (scope === undefined ? undefined : Scope.closeUnsafe(scope, Exit.void)) ?? Effect.void

const poolClosed = new AmqpError.PoolClosed({ message: "the pool is closed, because the scope that made it has ended" })

/** The type of a borrowed channel, per kind. */
interface Channels {
  readonly regular: AmqpChannel
  readonly confirm: ConfirmChannel
  readonly transaction: TransactionChannel
}

/** The pool of channels of one kind. */
class ChannelPool<K extends Kind> {
  readonly #internals: ConnectionInternals
  readonly #state: AmqpConnection["Service"]["state"]
  readonly #config: AmqpConfig
  readonly #settings: Settings
  readonly #acquireTimeout: number
  readonly #timeouts: ChannelTimeouts
  readonly #run: <A>(effect: Effect.Effect<A>) => Fiber.Fiber<A>
  readonly #places: PoolPlaces<PoolLease>
  /** Effect's pool, whose items are these places; undefined without pooling (`pool: false`). */
  readonly #placePool: Pool.Pool<PoolPlace<PoolLease>> | undefined
  readonly #waiters: Waiters<PoolLease>
  /** Returned places, while `#handOver` gives them to waiters. */
  readonly #handovers: Array<PlaceHandover> = []
  #isHandingOver = false
  /** The places of borrowers without pooling (`pool: false`), which `PoolPlaces` does not list. */
  readonly #unpooledPlaces = new Set<PoolPlace<PoolLease>>()
  readonly #longBorrows: LongBorrows
  readonly #ofScope: ScopeChannels<Channels[K]>
  #used = 0
  #timedOutWhileOpening = 0
  #shutdown = false
  #allReturned: Deferred.Deferred<void> | undefined = undefined

  static readonly make = Effect.fnUntraced(function* <K extends Kind>(
    kind: K,
    connection: AmqpConnection["Service"],
    settings: Settings
  ): Effect.fn.Return<ChannelPool<K>, never, Scope.Scope> {
    const pooled = connection.config.pool !== false
    const clock = yield* Clock.Clock
    const run = Effect.runForkWith(yield* Effect.context())
    const givenUp = AmqpError.fromReason(poolClosed)
    const places = new PoolPlaces<PoolLease>({ kind, connection, settings, pooled, clock, run, givenUp })
    const poolScope = yield* Scope.make()
    let next = 0
    const placePool = pooled
      ? yield* Scope.provide(
          Pool.make({ acquire: Effect.sync(() => places.all[next++]!), size: settings.max }),
          poolScope
        )
      : undefined
    yield* Effect.addFinalizer(() => Scope.close(poolScope, Exit.void))
    yield* Effect.forkScoped(places.recycle)
    const { budget } = connectionInternals(connection)
    yield* Effect.acquireRelease(
      Effect.sync(() => budget.reclaimBy(places.reclaim)),
      (stop) => Effect.sync(stop)
    )
    return new ChannelPool(connection, settings, places, placePool, clock, run)
  })

  constructor(
    connection: AmqpConnection["Service"],
    settings: Settings,
    places: PoolPlaces<PoolLease>,
    placePool: Pool.Pool<PoolPlace<PoolLease>> | undefined,
    clock: Clock.Clock,
    run: <A>(effect: Effect.Effect<A>) => Fiber.Fiber<A>
  ) {
    this.#internals = connectionInternals(connection)
    this.#state = connection.state
    this.#config = connection.config
    this.#settings = settings
    this.#acquireTimeout = Duration.toMillis(settings.acquireTimeout)
    this.#places = places
    this.#placePool = placePool
    this.#waiters = new Waiters<PoolLease>(clock, places.forkBackground, this.#acquireTimedOut)
    this.#run = run
    this.#timeouts = {
      continuationTimeout: this.#config.continuationTimeout,
      publishTimeout: Duration.toMillis(this.#config.publishTimeout),
      deadlines: new Deadlines(clock, places.forkBackground),
      queues: this.#internals.queues
    }
    this.#longBorrows = new LongBorrows(settings.longBorrow, {
      fork: places.forkBackground,
      borrowed: () => Array.from(this.#borrowed()),
      now: () => places.exact
    })
    this.#ofScope = new ScopeChannels({
      make: () => new PoolLease(this.#timeouts),
      acquire: (lease, restore, onAcquired) => this.#acquire(lease, restore, this.#releaseOnError, onAcquired),
      release: (lease) => this.#release(lease),
      handle: this.#handle
    })
  }

  get measures(): PoolMeasures {
    return this.#places.measures
  }

  get channels(): ChannelsOf<Channels[K]> {
    return { get: this.#get, ofScope: this.#ofScope.get, use: this.#use, stats: this.#stats }
  }

  // --- Borrowing -----------------------------------------------------------------------------------------------------

  /**
   * Acquires a place and a channel in it, then runs `onAcquired`. No interruption can come between the two. `guarded`
   * wraps the steps before `onAcquired` that can fail or be interrupted, so that a failure releases the lease and what
   * it holds.
   */
  #acquire<A, E, R>(
    lease: PoolLease,
    restore: Restore,
    guarded: Guard,
    onAcquired: () => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AmqpError.AmqpError, R> {
    if (this.#shutdown) return Effect.flatMap(guarded(fail(poolClosed), lease), onAcquired)
    const fiber = Fiber.getCurrent()!
    lease.origin = fiber.cache
    const placePool = this.#placePool
    if (placePool === undefined) {
      const place = new PoolPlace<PoolLease>()
      this.#unpooledPlaces.add(place)
      this.#assignPlace(lease, place)
      this.#startWait(lease)
      return Effect.flatMap(guarded(restore(this.#refill(lease)), lease), onAcquired)
    }
    // The fast path: nothing is in the wait queue and a place is free, so there is no wait and no deadline. If the
    // fiber yielded before it has the place, other fibers could take the last free place. So the path is used only if
    // the fiber has enough operations left before its next yield.
    if (
      this.#waiters.size === 0 &&
      placePool.state.waiters.size === 0 &&
      placePool.state.availableHead !== undefined &&
      fiber.currentOpCount + opsUntilPlaced < fiber.cache.maxOpsBeforeYield
    ) {
      return Effect.flatMap(takePlace(placePool, lease), (place) => {
        this.#assignPlace(lease, place)
        if (this.#startLease(lease)) return onAcquired()
        this.#startWait(lease)
        return Effect.flatMap(guarded(restore(this.#refill(lease)), lease), onAcquired)
      })
    }
    this.#startWait(lease)
    return Effect.flatMap(guarded(restore(this.#waitForPlace(placePool, lease)), lease), onAcquired)
  }

  readonly #releaseOnError: Guard = (acquire, lease) =>
    Effect.onError(acquire, () => {
      const released = this.#release(lease)
      lease.onFailed?.()
      return released
    })

  #startWait(lease: PoolLease): void {
    lease.waitStartedAt = this.#places.exact
    lease.dueAt = Math.floor(lease.waitStartedAt) + this.#acquireTimeout
  }

  #assignPlace(lease: PoolLease, place: PoolPlace<PoolLease>): void {
    place.lease = lease
    lease.place = place
    this.#used++
    this.#longBorrows.ensureRunning()
  }

  /** Begins the lease if its place has a channel that can be leased. Returns whether the lease has begun. */
  #startLease(lease: PoolLease): boolean {
    const place = lease.place!
    const { channel } = place
    if (channel === undefined || !channel.isReusable) return false
    const now = this.#places.exact
    if (place.isOld(now)) return false
    this.#places.measures.waitTime.record(lease.waitStartedAt < 0 ? 0 : now - lease.waitStartedAt)
    lease.acquiredAt = now
    lease.begin(channel)
    return true
  }

  /** Waits for a place. When this succeeds, the lease has begun. */
  #waitForPlace(
    placePool: Pool.Pool<PoolPlace<PoolLease>>,
    lease: PoolLease
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.callback<void, AmqpError.AmqpError>((resume) => {
      const waiters = this.#waiters
      if (waiters.size >= this.#settings.maxWaiting) return resume(fail(this.#exhausted()))
      lease.resume = resume
      // If all places are leased, `#returnPlace` hands each returned place to the first waiter. Otherwise a place that
      // is not leased is on its way back to Effect's pool, or its channel is still closing. Then this borrower waits on
      // Effect's pool, and so do all borrowers that arrive while it waits there.
      if (this.#used === this.#settings.max && waiters.awaitingHandoff === waiters.size) {
        lease.awaitsHandoff = true
        waiters.add(lease)
        return Effect.sync(() => waiters.remove(lease))
      }
      // The wait runs in a separate fiber, so that a deadline or a shutdown can end it with its own error.
      const fiber = (lease.waiting = this.#run(takePlace(placePool, lease)))
      waiters.add(lease)
      fiber.addObserver((exit) => {
        // If the borrower gave up, it has already closed the scope of the place, and the place is back in the pool.
        if (!waiters.remove(lease)) return
        if (Exit.isSuccess(exit)) this.#endWait(lease, exit.value)
        else resume(fail(poolClosed))
      })
      return Effect.suspend(() => {
        waiters.remove(lease)
        return Fiber.interrupt(fiber)
      })
    })
  }

  /** Ends the wait of a borrower that has already left the wait queue. */
  #endWait(lease: PoolLease, place: PoolPlace<PoolLease>): void {
    const resume = lease.resume!
    lease.resume = lease.waiting = undefined
    this.#assignPlace(lease, place)
    resume(this.#startLease(lease) ? Effect.void : this.#refill(lease))
  }

  /** Replaces the channel in the place until the lease can begin or its deadline passes. */
  #refill(lease: PoolLease): Effect.Effect<void, AmqpError.AmqpError> {
    const place = lease.place!
    const loop: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() => {
      if (this.#shutdown) return fail(poolClosed)
      if (place.closing !== undefined) return Effect.andThen(Deferred.await(place.closing), loop)
      if (place.channel === undefined) return Effect.andThen(Deferred.await(this.#places.open(place)), loop)
      if (this.#startLease(lease)) return Effect.void
      this.#places.retire(place)
      return loop
    })
    const refilled = Effect.timeoutOrElse(loop, {
      duration: Duration.millis(Math.max(0, lease.dueAt - this.#places.now)),
      orElse: () => {
        this.#timedOutWhileOpening++
        return fail(this.#acquireTimedOut())
      }
    })
    return onClock(this.#places.clock, refilled)
  }

  // --- Returning -----------------------------------------------------------------------------------------------------

  /**
   * Ends a lease in any state. A second call has no effect. Never waits: channels are closed in the background.
   */
  #release(lease: PoolLease): Effect.Effect<void> {
    const { placeScope, place } = lease
    lease.placeScope = undefined
    // The lease has no place yet, but it may be about to get one from Effect's pool.
    if (place === undefined) return closeScope(placeScope)
    lease.place = undefined
    place.lease = undefined
    this.#used--
    if (this.#allReturned !== undefined && this.#used === 0) {
      Deferred.doneUnsafe(this.#allReturned, Effect.void)
    }
    const unread = lease.unreadReturns
    if (unread > 0) this.#places.reportUnread(unread, lease.channel)
    const channel = lease.end()
    if (this.#placePool === undefined) {
      this.#unpooledPlaces.delete(place)
      place.abandonOpening()
    }
    if (channel !== undefined) {
      const now = this.#places.exact
      this.#places.measures.useTime.record(now - lease.acquiredAt)
      if (channel.isReusable && !place.isOld(now) && this.#placePool !== undefined) {
        place.idleSince = now
        this.#places.returned(place)
      } else {
        this.#places.report(channel)
        this.#places.retire(place)
      }
    }
    if (placeScope === undefined) return Effect.void
    const closing = place.closing
    if (closing === undefined) return this.#returnPlace({ place, placeScope })
    // The place stays taken until its channel has closed, so that the next waiter can open a channel in it at once.
    this.#places.forkClosing(Effect.flatMap(Deferred.await(closing), () => this.#returnPlace({ place, placeScope })))
    return Effect.void
  }

  /** Hands the place to the first waiter, or returns it to Effect's pool. */
  #returnPlace(place: PlaceHandover): Effect.Effect<void> {
    if (this.#waiters.awaitingHandoff === 0) return closeScope(place.placeScope)
    this.#handovers.push(place)
    // The next borrower runs at once and may return its place within this call. A loop handles that, not recursion.
    if (!this.#isHandingOver) this.#handOver()
    return Effect.void
  }

  #handOver(): void {
    const handovers = this.#handovers
    this.#isHandingOver = true
    try {
      while (handovers.length > 0) {
        const next = this.#waiters.takeNext()
        if (next === undefined) break
        const { placeScope, place } = handovers.shift()!
        next.placeScope = placeScope
        this.#endWait(next, place)
      }
    } finally {
      this.#isHandingOver = false
      for (const { placeScope } of handovers.splice(0)) this.#places.forkClosing(closeScope(placeScope))
    }
  }

  // --- Three ways to borrow: `get`, `use` and `ofScope` --------------------------------------------------------------

  // A lease has the operations of all kinds of channels, and all channels of this pool are of kind `K`.
  readonly #handle = (lease: PoolLease) => lease as unknown as Channels[K]

  readonly #get: Effect.Effect<Channels[K], AmqpError.AmqpError, Scope.Scope> = Effect.uninterruptibleMask(
    (restore) => {
      const scope = Context.getUnsafe(Fiber.getCurrent()!.context, Scope.Scope)
      const lease = new PoolLease(this.#timeouts)
      const release = () => this.#release(lease)
      return this.#acquire(lease, restore, this.#releaseOnError, () =>
        Effect.as(Scope.addFinalizerExit(scope, release), this.#handle(lease))
      )
    }
  )

  readonly #use = <A, E, R>(
    f: (channel: Channels[K]) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AmqpError.AmqpError, R> =>
    Effect.uninterruptibleMask((restore) => {
      const lease = new PoolLease(this.#timeouts)
      const run = () => restore(Effect.suspend(() => f(this.#handle(lease))))
      return Effect.onExit(this.#acquire(lease, restore, unguarded, run), () => this.#release(lease))
    })

  // --- Closing -------------------------------------------------------------------------------------------------------

  /** Closes the pool within the time that is left of the shutdown. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.#shutdown = true
    this.#waiters.failAll(poolClosed)
    return Effect.gen({ self: this }, function* () {
      yield* this.#places.interrupt
      if (this.#used > 0) {
        this.#allReturned = Deferred.makeUnsafe()
        const returned = yield* Effect.timeoutOption(
          Deferred.await(this.#allReturned),
          this.#internals.shutdown.timeLeft()
        )
        if (returned._tag === "None") {
          yield* Effect.logWarning("AMQP pool closed while channels were still borrowed").pipe(
            Effect.annotateLogs({ channels: this.#used, ...Logging.connectionAnnotations(this.#config) })
          )
        }
        for (const lease of this.#borrowed()) yield* this.#release(lease)
      }
      yield* this.#places.close
    })
  })

  // --- Counts --------------------------------------------------------------------------------------------------------

  readonly #stats: Effect.Effect<Stats> = Effect.sync(() => ({
    idle: this.#places.idle,
    used: this.#used,
    pending: this.#waiters.size,
    min: this.#settings.min,
    max: this.#settings.max,
    created: this.#places.created,
    recycled: this.#places.recycled,
    discarded: this.#places.discarded,
    timedOut: this.#waiters.timedOut + this.#timedOutWhileOpening
  }))

  /** Why there is no connection; undefined if there is one or the reason is unknown. */
  get #disconnectReason(): AmqpError.AmqpErrorReason | undefined {
    const state = this.#state.value
    return state._tag === "Open" ? undefined : state.reason
  }

  *#borrowed(): Generator<PoolLease> {
    for (const { lease } of [...this.#places.all, ...this.#unpooledPlaces]) if (lease !== undefined) yield lease
  }

  #counts(): string {
    const link = this.#internals.currentLink()
    const connection =
      link === undefined
        ? `not connected, reconnecting${this.#disconnectReason === undefined ? "" : ` (${this.#disconnectReason.message})`}`
        : link.blockedBy === undefined
          ? `connected to ${link.peer}`
          : `blocked by the broker: ${link.blockedBy}`
    return `${this.#used} of ${this.#settings.max} in use, ${this.#places.idle} idle, ${this.#waiters.size} waiting; ${connection}`
  }

  readonly #acquireTimedOut = (): AmqpError.AmqpErrorReason =>
    new AmqpError.AcquireTimeout({
      message: `no channel within ${Duration.format(this.#settings.acquireTimeout)} (pool.acquireTimeout): ${this.#counts()}`,
      cause: this.#disconnectReason
    })

  #exhausted(): AmqpError.AmqpErrorReason {
    return new AmqpError.PoolExhausted({
      message: `no channel: ${counted(this.#settings.maxWaiting, "borrower")} ${isOrAre(this.#settings.maxWaiting)} waiting already (pool.maxWaiting): ${this.#counts()}`,
      cause: this.#disconnectReason
    })
  }
}

/**
 * Makes the pools of all kinds. Channels are opened when they are needed, so an unused kind has no cost on the broker.
 * So that this holds, `min` applies to regular channels only. The pools close concurrently, so together they take no
 * longer than one of them.
 */
export const make = Effect.fnUntraced(
  function* (connection: AmqpConnection["Service"]): Effect.fn.Return<AmqpPool["Service"], never, Scope.Scope> {
    const { config } = connection
    const settings = config.pool === false ? unpooled(config) : yield* withinChannelMax(config.pool, connection)
    const regular = yield* ChannelPool.make("regular", connection, settings)
    const confirm = yield* ChannelPool.make("confirm", connection, { ...settings, min: 0 })
    const transaction = yield* ChannelPool.make("transaction", connection, { ...settings, min: 0 })
    yield* Effect.addFinalizer(() =>
      connectionInternals(connection).shutdown.during(
        Effect.all([regular.close, confirm.close, transaction.close], { concurrency: "unbounded", discard: true })
      )
    )
    return {
      ...regular.channels,
      confirm: confirm.channels,
      transaction: transaction.channels,
      [InsideId]: new PoolInside({
        regular: regular.measures,
        confirm: confirm.measures,
        transaction: transaction.measures
      })
    }
  },
  (make, connection) => Effect.annotateLogs(make, Logging.connectionAnnotations(connection.config))
)

/** Lowers `max` and `min` to the connection's `channelMax`: a pool cannot hold more channels than that. */
const withinChannelMax = (settings: Settings, connection: AmqpConnection["Service"]) => {
  const channelMax = connectionInternals(connection).currentLink()?.channelMax ?? settings.max
  if (settings.max <= channelMax) return Effect.succeed(settings)
  return Effect.as(
    Effect.logWarning("AMQP pool limited to the connection's channel-max").pipe(
      Effect.annotateLogs({ "pool.max": settings.max, channelMax })
    ),
    { ...settings, max: channelMax, min: Math.min(settings.min, channelMax) }
  )
}
