/** A lease of the pool: with its place, and its position in the wait queue while it has no place. */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type * as AmqpError from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import { Lease } from "../channel/lease.ts"
import type { WaitQueue } from "../waiting/waitQueue.ts"
import type { Waiter } from "../waiting/waiters.ts"
import type { PoolPlace } from "./poolPlace.ts"

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A lease and its pool place. It can be in the wait queue while it has no place. */
export class PoolLease extends Lease implements Waiter<PoolLease> {
  waitQueue: WaitQueue<PoolLease> | undefined = undefined
  previous: PoolLease | undefined = undefined
  next: PoolLease | undefined = undefined
  dueAt = Infinity
  awaitsHandoff = false
  /** Ends the wait of the borrower. */
  resume: ((effect: Effect.Effect<void, AmqpError.AmqpError>) => void) | undefined = undefined
  /** The fiber that waits for a place of Effect's pool on behalf of the borrower, unless a place is handed over. */
  waiting: Fiber.Fiber<PoolPlace<PoolLease>> | undefined = undefined
  place: PoolPlace<PoolLease> | undefined = undefined
  /** Closing it returns the place to Effect's pool. It is handed over with the place to the next borrower. */
  placeScope: Scope.Closeable | undefined = undefined
  /** When the wait began, in milliseconds with fractions; -1 if there was no wait. */
  waitStartedAt = -1
  /** When the lease got its channel, in milliseconds with fractions; -1 before. */
  acquiredAt = -1
  /** The borrowing fiber's stack frame and span, for the warning about a lease that lasts long. */
  origin: Fiber.Fiber.Cache | undefined = undefined
  warned = false
  /** Called after the release when the acquisition has failed. */
  onFailed: (() => void) | undefined = undefined

  fail(reason: AmqpError.AmqpErrorReason): void {
    this.resume?.(fail(reason))
    this.waiting?.interruptUnsafe()
  }
}
