/** The channel of a scope: whatever runs in it works with the same one. */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type * as AmqpError from "../../model/error.ts"
import type { Borrow, Restore } from "./borrow.ts"

/** Borrowing, as a pool does it. */
interface Lending<Channel> {
  readonly make: () => Borrow
  /** Goes on with `lent`, which nothing can interrupt before it has begun. A borrow that cannot be had is released. */
  readonly acquire: <A, E, R>(
    borrow: Borrow,
    restore: Restore,
    lent: () => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | AmqpError.AmqpError, R>
  readonly release: (borrow: Borrow) => Effect.Effect<void>
  /** What the borrower sees. */
  readonly handle: (borrow: Borrow) => Channel
}

/** What a scope has borrowed. */
class ScopeEntry {
  borrow: Borrow | undefined = undefined
  /** While one of the scope's fibers is borrowing: two must not. */
  acquiring = false
  /** What its other fibers wait for then; made by the first that has to. */
  acquired: Deferred.Deferred<void> | undefined = undefined
  ended = false

  /** To be called last: it runs those who wait at once, and they look at the entry. */
  acquisitionEnded(): void {
    const { acquired } = this
    this.acquiring = false
    this.acquired = undefined
    if (acquired !== undefined) Deferred.doneUnsafe(acquired, Effect.void)
  }
}

export class ScopeChannels<Channel> {
  readonly #pool: Lending<Channel>
  // Weak for the garbage collector's sake: see `deadlines`.
  /** What each open scope has borrowed; a scope leaves when it closes. */
  readonly #entries = new WeakMap<Scope.Scope, ScopeEntry>()

  constructor(pool: Lending<Channel>) {
    this.#pool = pool
  }

  /** The channel of the current scope: borrowed by the first of its fibers that asks, and again when it has died. */
  readonly get: Effect.Effect<Channel, AmqpError.AmqpError, Scope.Scope> = Effect.withFiber((fiber) => {
    const scope = Context.getUnsafe(fiber.context, Scope.Scope)
    const borrow = this.#entries.get(scope)?.borrow
    if (borrow?.channel?.isOpen === true) return Effect.succeed(this.#pool.handle(borrow))
    return Effect.uninterruptibleMask((restore) => {
      // Looked up here: another fiber of this scope may have entered it before this one was resumed.
      const entry = this.#entries.get(scope)
      return entry === undefined ? this.#enterScope(scope, restore) : this.#borrowFor(entry, restore)
    })
  })

  // Uninterruptible, both: an entry without its finalizer would borrow for a scope that gives nothing back, and only what
  // waits is restored.

  #enterScope(scope: Scope.Scope, restore: Restore): Effect.Effect<Channel, AmqpError.AmqpError> {
    const entry = new ScopeEntry()
    this.#entries.set(scope, entry)
    const leave = () => {
      entry.ended = true
      this.#entries.delete(scope)
      return entry.borrow === undefined ? Effect.void : this.#pool.release(entry.borrow)
    }
    return Effect.andThen(Scope.addFinalizerExit(scope, leave), () => this.#borrowFor(entry, restore))
  }

  #borrowFor(entry: ScopeEntry, restore: Restore): Effect.Effect<Channel, AmqpError.AmqpError> {
    // Another fiber of this scope is borrowing: what it gets is for both.
    if (entry.acquiring) {
      entry.acquired ??= Deferred.makeUnsafe()
      return Effect.andThen(restore(Deferred.await(entry.acquired)), () => this.#borrowFor(entry, restore))
    }
    const held = entry.borrow
    if (held !== undefined) {
      if (held.channel?.isOpen === true) return Effect.succeed(this.#pool.handle(held))
      // The place of a channel that has died is given back first: else a pool of one would wait for itself.
      entry.borrow = undefined
      return Effect.andThen(this.#pool.release(held), () => this.#borrowFor(entry, restore))
    }
    const borrow = this.#pool.make()
    entry.acquiring = true
    borrow.onFailed = () => entry.acquisitionEnded()
    return this.#pool.acquire(borrow, restore, () => {
      entry.borrow = borrow
      entry.acquisitionEnded()
      // The scope ended while its fiber went on: the handle fails, and nothing is held.
      const handle = this.#pool.handle(borrow)
      return entry.ended ? Effect.as(this.#pool.release(borrow), handle) : Effect.succeed(handle)
    })
  }
}
