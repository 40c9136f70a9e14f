/** Borrowing: places lent by Effect's `Pool`, borrowers in the wait queue, shutdown. */
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
import type { Terms } from "../channel/handle.ts"
import { type Links, linksOf } from "../connection/links.ts"
import { PoolInside, type PoolMeasures } from "../metrics/measures.ts"
import * as Logging from "../telemetry/logging.ts"
import { Borrow, type Restore } from "./borrow.ts"
import { LongBorrows } from "./longBorrows.ts"
import { ScopeChannels } from "./ofScope.ts"
import { Places, type Settings } from "./places.ts"
import { Slot } from "./slot.ts"
import { Waiters } from "../waiting/waiters.ts"

/** Without pooling: a channel a borrow, as many as there are borrowers. */
const unpooled = (config: AmqpConfig): Settings => ({
  min: 0,
  max: Infinity,
  recycle: undefined,
  idleTimeout: undefined,
  acquireTimeout: config.continuationTimeout,
  maxWaiting: Infinity,
  longBorrow: Duration.seconds(30)
})

// How many steps of Effect's interpreter lie between the look at the pool and the place taken, with some to spare.
const opsUntilPlaced = 16

/** Sees to it that a borrow is released if it cannot be had. */
type Guarded = (
  acquire: Effect.Effect<void, AmqpError.AmqpError>,
  borrow: Borrow
) => Effect.Effect<void, AmqpError.AmqpError>

/** For who releases the borrow in any case. */
const asItIs: Guarded = (acquire) => acquire

/** Takes a place from Effect's pool for as long as the borrow's `lending` is open. */
const takePlace = (pool: Pool.Pool<Slot<Borrow>>, borrow: Borrow): Effect.Effect<Slot<Borrow>> => {
  const lending = (borrow.lending = Scope.makeUnsafe())
  return Effect.updateContext(Pool.get(pool), (context: Context.Context<never>) =>
    Context.add(context, Scope.Scope, lending)
  )
}

/** A place that goes from one borrower to the next. */
interface Place {
  readonly slot: Slot<Borrow>
  readonly lending: Scope.Closeable
}

const closed = (lending: Scope.Closeable | undefined): Effect.Effect<void> =>
  (lending === undefined ? undefined : Scope.closeUnsafe(lending, Exit.void)) ?? Effect.void

const poolClosed = new AmqpError.PoolClosed({ message: "the pool is closed: the scope that made it has ended" })

/** What a borrower sees of a channel of each kind. */
interface Channels {
  readonly regular: AmqpChannel
  readonly confirm: ConfirmChannel
  readonly transaction: TransactionChannel
}

/** The pool of channels of one kind. */
class ChannelPool<K extends Kind> {
  readonly #links: Links
  readonly #state: AmqpConnection["Service"]["state"]
  readonly #config: AmqpConfig
  readonly #settings: Settings
  readonly #acquireTimeout: number
  readonly #terms: Terms
  readonly #run: <A>(effect: Effect.Effect<A>) => Fiber.Fiber<A>
  readonly #places: Places<Borrow>
  /** The same places as Effect's pool lends them; undefined without pooling. */
  readonly #lending: Pool.Pool<Slot<Borrow>> | undefined
  readonly #waiters: Waiters<Borrow>
  /** Places that are being handed over. */
  readonly #handing: Array<Place> = []
  #isHanding = false
  /** Places without pooling, which no list holds otherwise. */
  readonly #unpooled = new Set<Slot<Borrow>>()
  readonly #longBorrows: LongBorrows
  readonly #ofScope: ScopeChannels<Channels[K]>
  #used = 0
  #openedTooLate = 0
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
    const places = new Places<Borrow>({ kind, connection, settings, pooled, clock, run, givenUp })
    const lendingScope = yield* Scope.make()
    let next = 0
    const lending = pooled
      ? yield* Scope.provide(
          Pool.make({ acquire: Effect.sync(() => places.slots[next++]!), size: settings.max }),
          lendingScope
        )
      : undefined
    yield* Effect.addFinalizer(() => Scope.close(lendingScope, Exit.void))
    yield* Effect.forkScoped(places.recycle)
    const { budget } = linksOf(connection)
    yield* Effect.acquireRelease(
      Effect.sync(() => budget.reclaimBy(places.reclaim)),
      (stop) => Effect.sync(stop)
    )
    return new ChannelPool(connection, settings, places, lending, clock, run)
  })

  constructor(
    connection: AmqpConnection["Service"],
    settings: Settings,
    places: Places<Borrow>,
    lending: Pool.Pool<Slot<Borrow>> | undefined,
    clock: Clock.Clock,
    run: <A>(effect: Effect.Effect<A>) => Fiber.Fiber<A>
  ) {
    this.#links = linksOf(connection)
    this.#state = connection.state
    this.#config = connection.config
    this.#settings = settings
    this.#acquireTimeout = Duration.toMillis(settings.acquireTimeout)
    this.#places = places
    this.#lending = lending
    this.#waiters = new Waiters<Borrow>(clock, places.forkBackground, this.#late)
    this.#run = run
    this.#terms = {
      continuationTimeout: this.#config.continuationTimeout,
      publishTimeout: Duration.toMillis(this.#config.publishTimeout),
      deadlines: new Deadlines(clock, places.forkBackground),
      queues: this.#links.queues
    }
    this.#longBorrows = new LongBorrows(settings.longBorrow, {
      fork: places.forkBackground,
      borrowed: () => Array.from(this.#borrowed()),
      now: () => places.exact
    })
    this.#ofScope = new ScopeChannels({
      make: () => new Borrow(this.#terms),
      acquire: (borrow, restore, lent) => this.#acquire(borrow, restore, this.#orRelease, lent),
      release: (borrow) => this.#release(borrow),
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
   * Gets a place and a channel in it, then goes on with `lent`, which nothing can interrupt before it has begun. What may
   * fail or be interrupted before that is `guarded`, so that the borrow is released, whatever it holds by then.
   */
  #acquire<A, E, R>(
    borrow: Borrow,
    restore: Restore,
    guarded: Guarded,
    lent: () => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AmqpError.AmqpError, R> {
    if (this.#shutdown) return Effect.flatMap(guarded(fail(poolClosed), borrow), lent)
    const fiber = Fiber.getCurrent()!
    borrow.origin = fiber.cache
    const lending = this.#lending
    if (lending === undefined) {
      const slot = new Slot<Borrow>()
      this.#unpooled.add(slot)
      this.#placed(borrow, slot)
      this.#waitBegins(borrow)
      return Effect.flatMap(guarded(restore(this.#refill(borrow)), borrow), lent)
    }
    // Nobody in line and a place free: this will not wait, so it needs no deadline. Unless the fiber yields before it has
    // the place, and others take them all meanwhile: hence the look at what is left of its turn.
    if (
      this.#waiters.size === 0 &&
      lending.state.waiters.size === 0 &&
      lending.state.availableHead !== undefined &&
      fiber.currentOpCount + opsUntilPlaced < fiber.cache.maxOpsBeforeYield
    ) {
      return Effect.flatMap(takePlace(lending, borrow), (slot) => {
        this.#placed(borrow, slot)
        if (this.#lend(borrow)) return lent()
        this.#waitBegins(borrow)
        return Effect.flatMap(guarded(restore(this.#refill(borrow)), borrow), lent)
      })
    }
    this.#waitBegins(borrow)
    return Effect.flatMap(guarded(restore(this.#waitForPlace(lending, borrow)), borrow), lent)
  }

  readonly #orRelease: Guarded = (acquire, borrow) =>
    Effect.onError(acquire, () => {
      const released = this.#release(borrow)
      borrow.onFailed?.()
      return released
    })

  #waitBegins(borrow: Borrow): void {
    borrow.askedAt = this.#places.exact
    borrow.dueAt = Math.floor(borrow.askedAt) + this.#acquireTimeout
  }

  #placed(borrow: Borrow, slot: Slot<Borrow>): void {
    slot.lease = borrow
    borrow.slot = slot
    this.#used++
    this.#longBorrows.begun()
  }

  /** Begins the lease if the place holds a channel fit to be lent. */
  #lend(borrow: Borrow): boolean {
    const slot = borrow.slot!
    const { channel } = slot
    if (channel === undefined || !channel.isFit) return false
    const now = this.#places.exact
    if (slot.isOld(now)) return false
    this.#places.measures.waits.record(borrow.askedAt < 0 ? 0 : now - borrow.askedAt)
    borrow.lentAt = now
    borrow.begin(channel)
    return true
  }

  /** Ends with a lease that has begun. */
  #waitForPlace(lending: Pool.Pool<Slot<Borrow>>, borrow: Borrow): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.callback<void, AmqpError.AmqpError>((resume) => {
      const waiters = this.#waiters
      if (waiters.size >= this.#settings.maxWaiting) return resume(fail(this.#exhausted()))
      borrow.resume = resume
      // All places have borrowers, each of whom will hand over to the first in line. Else one is on its way back to Effect's
      // pool, or held by a channel that is closing: who waits for that, and all who come while he does, wait there.
      if (this.#used === this.#settings.max && waiters.served === waiters.size) {
        borrow.isServed = true
        waiters.enter(borrow)
        return Effect.sync(() => waiters.leave(borrow))
      }
      // In a fiber of its own, so that a deadline and a shutdown can end the wait with an error of theirs.
      const fiber = (borrow.waiting = this.#run(takePlace(lending, borrow)))
      waiters.enter(borrow)
      fiber.addObserver((exit) => {
        // Too late: who gave up has closed the scope of the place, and so given it back.
        if (!waiters.leave(borrow)) return
        if (Exit.isSuccess(exit)) this.#arrived(borrow, exit.value)
        else resume(fail(poolClosed))
      })
      return Effect.suspend(() => {
        waiters.leave(borrow)
        return Fiber.interrupt(fiber)
      })
    })
  }

  /** Ends the wait of a borrower that is in line no more. */
  #arrived(borrow: Borrow, slot: Slot<Borrow>): void {
    const resume = borrow.resume!
    borrow.resume = borrow.waiting = undefined
    this.#placed(borrow, slot)
    resume(this.#lend(borrow) ? Effect.void : this.#refill(borrow))
  }

  /** Replaces what is in the place, until the lease can begin or its time is up. */
  #refill(borrow: Borrow): Effect.Effect<void, AmqpError.AmqpError> {
    const slot = borrow.slot!
    const loop: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() => {
      if (this.#shutdown) return fail(poolClosed)
      if (slot.closing !== undefined) return Effect.andThen(Deferred.await(slot.closing), loop)
      if (slot.channel === undefined) return Effect.andThen(Deferred.await(this.#places.open(slot)), loop)
      if (this.#lend(borrow)) return Effect.void
      this.#places.retire(slot)
      return loop
    })
    return Effect.timeoutOrElse(loop, {
      duration: Duration.millis(Math.max(0, borrow.dueAt - this.#places.now)),
      orElse: () => {
        this.#openedTooLate++
        return fail(this.#late())
      }
    })
  }

  // --- Returning -----------------------------------------------------------------------------------------------------

  /**
   * Ends a borrow in whatever state it is. Twice does no harm. Ends at once: what has to be closed is closed in the
   * background.
   */
  #release(borrow: Borrow): Effect.Effect<void> {
    const { lending, slot } = borrow
    borrow.lending = undefined
    // It has none yet, but may be about to get one from Effect's pool.
    if (slot === undefined) return closed(lending)
    borrow.slot = undefined
    slot.lease = undefined
    this.#used--
    if (this.#allReturned !== undefined && this.#used === 0) {
      Deferred.doneUnsafe(this.#allReturned, Effect.void)
    }
    const unread = borrow.unreadReturns
    if (unread > 0) this.#places.reportUnread(unread, borrow.channel)
    const channel = borrow.end()
    if (this.#lending === undefined) {
      this.#unpooled.delete(slot)
      slot.abandonOpening()
    }
    if (channel !== undefined) {
      const now = this.#places.exact
      this.#places.measures.uses.record(now - borrow.lentAt)
      if (channel.isFit && !slot.isOld(now) && this.#lending !== undefined) {
        slot.idleSince = now
        this.#places.returned(slot)
      } else {
        this.#places.report(channel)
        this.#places.retire(slot)
      }
    }
    if (lending === undefined) return Effect.void
    const closing = slot.closing
    if (closing === undefined) return this.#giveBack({ slot, lending })
    // The place stays taken until its channel has closed: the next in line gets one that can be used at once.
    this.#places.forkClosing(Effect.flatMap(Deferred.await(closing), () => this.#giveBack({ slot, lending })))
    return Effect.void
  }

  /** To the first in line, or to Effect's pool. */
  #giveBack(place: Place): Effect.Effect<void> {
    if (this.#waiters.served === 0) return closed(place.lending)
    this.#handing.push(place)
    // The next borrower runs at once, and may be here again before he has returned: in a loop, not on the stack.
    if (!this.#isHanding) this.#handOver()
    return Effect.void
  }

  #handOver(): void {
    const handing = this.#handing
    this.#isHanding = true
    try {
      while (handing.length > 0) {
        const next = this.#waiters.next()
        if (next === undefined) break
        const { lending, slot } = handing.shift()!
        next.lending = lending
        this.#arrived(next, slot)
      }
    } finally {
      this.#isHanding = false
      for (const { lending } of handing.splice(0)) this.#places.forkClosing(closed(lending))
    }
  }

  // --- Three ways to borrow: these two, and `ofScope` -------------------------------------------------------------------

  // The channels of this pool are all of one kind, and a lease can do what each kind can.
  readonly #handle = (borrow: Borrow) => borrow as unknown as Channels[K]

  readonly #get: Effect.Effect<Channels[K], AmqpError.AmqpError, Scope.Scope> = Effect.uninterruptibleMask(
    (restore) => {
      const scope = Context.getUnsafe(Fiber.getCurrent()!.context, Scope.Scope)
      const borrow = new Borrow(this.#terms)
      const release = () => this.#release(borrow)
      return this.#acquire(borrow, restore, this.#orRelease, () =>
        Effect.as(Scope.addFinalizerExit(scope, release), this.#handle(borrow))
      )
    }
  )

  readonly #use = <A, E, R>(
    f: (channel: Channels[K]) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AmqpError.AmqpError, R> =>
    Effect.uninterruptibleMask((restore) => {
      const borrow = new Borrow(this.#terms)
      const run = () => restore(Effect.suspend(() => f(this.#handle(borrow))))
      return Effect.onExit(this.#acquire(borrow, restore, asItIs, run), () => this.#release(borrow))
    })

  // --- The end --------------------------------------------------------------------------------------------------------

  /** Ends the pool, within the bounds of a shutdown. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.#shutdown = true
    this.#waiters.failAll(poolClosed)
    return Effect.gen({ self: this }, function* () {
      yield* this.#places.interrupt
      if (this.#used > 0) {
        this.#allReturned = Deferred.makeUnsafe()
        const returned = yield* Effect.timeoutOption(Deferred.await(this.#allReturned), this.#links.shutdown.patience())
        if (returned._tag === "None") {
          yield* Effect.logWarning("AMQP pool closed over channels that were not given back").pipe(
            Effect.annotateLogs({ channels: this.#used, ...Logging.ofConnection(this.#config) })
          )
        }
        for (const borrow of this.#borrowed()) yield* this.#release(borrow)
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
    timedOut: this.#waiters.timedOut + this.#openedTooLate
  }))

  /** Why there is no connection, as far as that is known. */
  get #away(): AmqpError.AmqpErrorReason | undefined {
    const state = this.#state.value
    return state._tag === "Open" ? undefined : state.reason
  }

  *#borrowed(): Generator<Borrow> {
    for (const { lease } of [...this.#places.slots, ...this.#unpooled]) if (lease !== undefined) yield lease
  }

  #counts(): string {
    const link = this.#links.current()
    const connection =
      link === undefined
        ? `not connected, reconnecting${this.#away === undefined ? "" : ` (${this.#away.message})`}`
        : link.blockedBy === undefined
          ? `connected to ${link.peer}`
          : `blocked by the broker: ${link.blockedBy}`
    return `${this.#used} of ${this.#settings.max} in use, ${this.#places.idle} idle, ${this.#waiters.size} waiting; ${connection}`
  }

  readonly #late = (): AmqpError.AmqpErrorReason =>
    new AmqpError.AcquireTimeout({
      message: `no channel within ${Duration.format(this.#settings.acquireTimeout)} (pool.acquireTimeout): ${this.#counts()}`,
      cause: this.#away
    })

  #exhausted(): AmqpError.AmqpErrorReason {
    return new AmqpError.PoolExhausted({
      message: `turned away, ${this.#settings.maxWaiting} borrowers wait already (pool.maxWaiting): ${this.#counts()}`,
      cause: this.#away
    })
  }
}

/**
 * The pools of all kinds. Channels are opened at first need, so a kind that nobody uses costs nothing on the broker; for
 * the same reason `min` is the regular kind's alone. They close at the same time, within the deadlines of one.
 */
export const make = Effect.fnUntraced(
  function* (connection: AmqpConnection["Service"]): Effect.fn.Return<AmqpPool["Service"], never, Scope.Scope> {
    const { config } = connection
    const settings = config.pool === false ? unpooled(config) : yield* withinChannelMax(config.pool, connection)
    const regular = yield* ChannelPool.make("regular", connection, settings)
    const confirm = yield* ChannelPool.make("confirm", connection, { ...settings, min: 0 })
    const transaction = yield* ChannelPool.make("transaction", connection, { ...settings, min: 0 })
    yield* Effect.addFinalizer(() =>
      linksOf(connection).shutdown.during(
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
  (make, connection) => Effect.annotateLogs(make, Logging.ofConnection(connection.config))
)

/** A pool cannot hold more channels than the connection may have. */
const withinChannelMax = (settings: Settings, connection: AmqpConnection["Service"]) => {
  const channelMax = linksOf(connection).current()?.channelMax ?? settings.max
  if (settings.max <= channelMax) return Effect.succeed(settings)
  return Effect.as(
    Effect.logWarning("AMQP pool limited to the connection's channel-max").pipe(
      Effect.annotateLogs({ "pool.max": settings.max, channelMax })
    ),
    { ...settings, max: channelMax, min: Math.min(settings.min, channelMax) }
  )
}
