/** The channel of a scope: all effects in the scope use the same channel. */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type * as AmqpError from "../../model/error.ts"
import type { PoolLease, Restore } from "./poolLease.ts"

/** The operations of a pool that this module uses to borrow. */
interface LeaseProvider<Channel> {
  readonly make: () => PoolLease
  /**
   * Acquires the lease, then runs `onAcquired`. No interruption can come between the two. A lease whose acquisition
   * fails is released.
   */
  readonly acquire: <A, E, R>(
    lease: PoolLease,
    restore: Restore,
    onAcquired: () => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AmqpError.AmqpError, R>
  readonly release: (lease: PoolLease) => Effect.Effect<void>
  /** The lease as the borrower's channel. */
  readonly handle: (lease: PoolLease) => Channel
}

/** The lease of a scope. */
class ScopeEntry {
  lease: PoolLease | undefined = undefined
  /** Whether a fiber of the scope is acquiring a lease. Only one may do so at a time. */
  acquiring = false
  /** Completes when that acquisition ends. The first other fiber that waits for it creates it. */
  acquired: Deferred.Deferred<void> | undefined = undefined
  /** Whether the scope has closed. */
  ended = false

  /** Must be called last: waiting fibers run at once and read the entry. */
  acquisitionEnded(): void {
    const { acquired } = this
    this.acquiring = false
    this.acquired = undefined
    if (acquired !== undefined) Deferred.doneUnsafe(acquired, Effect.void)
  }
}

export class ScopeChannels<Channel> {
  readonly #pool: LeaseProvider<Channel>
  /**
   * The entry of each open scope. It is removed when the scope closes. A `WeakMap`, because the tables of a `Map` that
   * it has outgrown would retain removed entries until a full garbage collection: see `deadlines`.
   */
  readonly #entries = new WeakMap<Scope.Scope, ScopeEntry>()

  constructor(pool: LeaseProvider<Channel>) {
    this.#pool = pool
  }

  /** The channel of the current scope. It is borrowed on first use, and again after it has closed. */
  readonly get: Effect.Effect<Channel, AmqpError.AmqpError, Scope.Scope> = Effect.withFiber((fiber) => {
    const scope = Context.getUnsafe(fiber.context, Scope.Scope)
    const lease = this.#entries.get(scope)?.lease
    if (lease?.channel?.isOpen === true) return Effect.succeed(this.#pool.handle(lease))
    return Effect.uninterruptibleMask((restore) => {
      // The entry is looked up here, since another fiber of this scope may have added it before this one was resumed.
      const entry = this.#entries.get(scope)
      return entry === undefined ? this.#enterScope(scope, restore) : this.#acquireFor(entry, restore)
    })
  })

  // `#enterScope` and `#acquireFor` are uninterruptible except where they wait. An entry without its finalizer would
  // borrow for a scope that never returns the channel.

  #enterScope(scope: Scope.Scope, restore: Restore): Effect.Effect<Channel, AmqpError.AmqpError> {
    const entry = new ScopeEntry()
    this.#entries.set(scope, entry)
    const leave = () => {
      entry.ended = true
      this.#entries.delete(scope)
      return entry.lease === undefined ? Effect.void : this.#pool.release(entry.lease)
    }
    return Effect.andThen(Scope.addFinalizerExit(scope, leave), () => this.#acquireFor(entry, restore))
  }

  #acquireFor(entry: ScopeEntry, restore: Restore): Effect.Effect<Channel, AmqpError.AmqpError> {
    // Another fiber of this scope is borrowing; both will use the same lease.
    if (entry.acquiring) {
      entry.acquired ??= Deferred.makeUnsafe()
      return Effect.andThen(restore(Deferred.await(entry.acquired)), () => this.#acquireFor(entry, restore))
    }
    const held = entry.lease
    if (held !== undefined) {
      if (held.channel?.isOpen === true) return Effect.succeed(this.#pool.handle(held))
      // The lease of a closed channel is released first: otherwise a pool with one place would wait for itself.
      entry.lease = undefined
      return Effect.andThen(this.#pool.release(held), () => this.#acquireFor(entry, restore))
    }
    const lease = this.#pool.make()
    entry.acquiring = true
    lease.onFailed = () => entry.acquisitionEnded()
    return this.#pool.acquire(lease, restore, () => {
      entry.lease = lease
      entry.acquisitionEnded()
      // The scope closed while its fiber was borrowing: the lease is released, and every use of the handle fails.
      const handle = this.#pool.handle(lease)
      return entry.ended ? Effect.as(this.#pool.release(lease), handle) : Effect.succeed(handle)
    })
  }
}
