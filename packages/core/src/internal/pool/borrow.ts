/** One borrow: a lease, the place it works in, and its turn in the wait queue. */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type * as AmqpError from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import { Lease } from "../channel/lease.ts"
import type { Line } from "../waiting/line.ts"
import type { Waiter } from "../waiting/waiters.ts"
import type { Slot } from "./slot.ts"

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A lease with the place it works in; in line, as long as it has none. */
export class Borrow extends Lease implements Waiter<Borrow> {
  line: Line<Borrow> | undefined = undefined
  before: Borrow | undefined = undefined
  after: Borrow | undefined = undefined
  dueAt = Infinity
  isServed = false
  /** Ends the wait. */
  resume: ((effect: Effect.Effect<void, AmqpError.AmqpError>) => void) | undefined = undefined
  /** Waits in its place for one of Effect's pool, unless it is served. */
  waiting: Fiber.Fiber<Slot<Borrow>> | undefined = undefined
  slot: Slot<Borrow> | undefined = undefined
  /** Gives the place back to Effect's pool when it is closed; goes on with the place to who waits for it. */
  lending: Scope.Closeable | undefined = undefined
  /** When it began to wait, if it had to, and when it got its channel: exactly, to be measured. */
  askedAt = -1
  lentAt = -1
  /** Who borrowed it, for a warning about a long borrow. */
  origin: Fiber.Fiber.Cache | undefined = undefined
  warned = false
  /** Called when acquiring has failed, after the release. */
  onFailed: (() => void) | undefined = undefined

  sendAway(reason: AmqpError.AmqpErrorReason): void {
    this.resume?.(fail(reason))
    this.waiting?.interruptUnsafe()
  }
}
