/**
 * Borrowers in a wait queue, each with a deadline.
 *
 * All wait equally long, so the first in the queue is the first to be due. One timer serves them all, and costs nothing
 * while nothing waits.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { AmqpErrorReason } from "../../model/errorReason.ts"
import { monotonicMillis } from "./monotonicMillis.ts"
import { type QueueNode, WaitQueue } from "./waitQueue.ts"

/** A waiter: it waits for a handoff, or for something else. */
export interface Waiter<Self extends Waiter<Self>> extends QueueNode<Self> {
  readonly dueAt: number
  /** Whether it waits for a handoff. This does not change while it waits. */
  readonly awaitsHandoff: boolean
  /** Called once if the wait fails, and not after `remove`. */
  readonly fail: (reason: AmqpErrorReason) => void
}

export class Waiters<One extends Waiter<One>> {
  /** Number of waiters whose deadline has passed. */
  timedOut = 0
  /** Number of waiters that wait for a handoff. */
  awaitingHandoff = 0
  readonly #queue = new WaitQueue<One>()
  readonly #clock: Clock.Clock
  readonly #runFork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #makeTimeoutReason: () => AmqpErrorReason
  #timer: Fiber.Fiber<void> | undefined = undefined

  constructor(
    clock: Clock.Clock,
    runFork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>,
    makeTimeoutReason: () => AmqpErrorReason
  ) {
    this.#clock = clock
    this.#runFork = runFork
    this.#makeTimeoutReason = makeTimeoutReason
  }

  get size(): number {
    return this.#queue.size
  }

  add(waiter: One): void {
    this.#queue.add(waiter)
    if (waiter.awaitsHandoff) this.awaitingHandoff++
    if (this.#timer === undefined) this.#timer = this.#runFork(this.#watch)
  }

  /** Returns whether the waiter was still in the queue. */
  remove(waiter: One): boolean {
    if (!this.#queue.remove(waiter)) return false
    if (waiter.awaitsHandoff) this.awaitingHandoff--
    return true
  }

  /** Removes the first waiter that waits for a handoff, and returns it. */
  takeNext(): One | undefined {
    for (let waiter = this.#queue.first; waiter !== undefined; waiter = waiter.next) {
      if (!waiter.awaitsHandoff) continue
      this.remove(waiter)
      return waiter
    }
    return undefined
  }

  /** Fails all waiters. */
  failAll(reason: AmqpErrorReason): void {
    for (const waiter of this.#queue) {
      if (this.remove(waiter)) waiter.fail(reason)
    }
  }

  readonly #watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = monotonicMillis(this.#clock)
    let late: AmqpErrorReason | undefined
    for (let waiter = this.#queue.first; waiter !== undefined; waiter = this.#queue.first) {
      if (waiter.dueAt > now) {
        // The waiter may leave before. Then this wakes up early, looks at the new first waiter, and sleeps again.
        return Effect.andThen(Effect.sleep(waiter.dueAt - now), this.#watch)
      }
      this.remove(waiter)
      this.timedOut++
      waiter.fail((late ??= this.#makeTimeoutReason()))
    }
    this.#timer = undefined
    return Effect.void
  })
}
