/**
 * Deliveries that pause before they return to their queue.
 *
 * Each of them counts towards the prefetch, and none occupies a worker. Half of the prefetch is for full pauses. Beyond
 * that, the delivery that has paused longest returns first, but not before the minimum pause: the broker may deliver it
 * again at once, so without a pause it would circulate at full speed. The longest pause is the one to end because its
 * cause has most likely passed, and another consumer may succeed.
 */
import type { Channel } from "../channel/channel.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { ConsumerDelivery, ReturnSettlement } from "./delivery.ts"
import { WaitList, type WaitingDelivery } from "./waitList.ts"

/** The shortest and the longest pause, in milliseconds. */
const minPause = 1000
const maxPause = 30_000

/** The pause after the given attempt, in milliseconds. */
export const pauseAfter = (attempt: number): number => Math.min(maxPause, minPause * 2 ** (attempt - 1))

export class PausedDeliveries {
  readonly #deadlines: Deadlines
  readonly #mostFull: () => number
  readonly #list: WaitList
  /** The pauses that last their full time, in the order in which they began. */
  readonly #full = new Set<WaitingDelivery>()
  #hasEnded = false

  /** @param mostFull how many pauses may last their full time */
  constructor(deadlines: Deadlines, mostFull: () => number) {
    this.#deadlines = deadlines
    this.#mostFull = mostFull
    this.#list = new WaitList(
      deadlines,
      (pause) => this.#giveBack(pause),
      // The channel has ended, so the broker has requeued the delivery.
      (pause) => this.#full.delete(pause)
    )
  }

  has(delivery: ConsumerDelivery): boolean {
    return this.#list.has(delivery)
  }

  /** Returns a delivery to its queue when it is due, or at once if the consumer has ended. */
  add(delivery: ConsumerDelivery, dueAt: number, how: ReturnSettlement): void {
    if (this.#hasEnded || delivery.isSettled || dueAt <= this.#deadlines.now) {
      delivery.settle(how)
      return
    }
    this.#full.add(this.#list.add(delivery, dueAt, how))
    if (this.#full.size > this.#mostFull()) this.#shorten()
  }

  #shorten(): void {
    const [oldest] = this.#full
    if (oldest === undefined) return
    this.#full.delete(oldest)
    const dueAt = oldest.since + minPause
    if (dueAt >= oldest.dueAt) return
    if (dueAt > this.#deadlines.now) return this.#list.move(oldest, dueAt)
    this.#list.remove(oldest)
    this.#giveBack(oldest)
  }

  #giveBack(pause: WaitingDelivery): void {
    this.#full.delete(pause)
    pause.delivery.settle(pause.how)
  }

  /** Returns all paused deliveries of a channel now. */
  releaseChannel(channel: Channel): void {
    for (const pause of this.#list.ofChannel(channel)) {
      this.#list.remove(pause)
      this.#giveBack(pause)
    }
  }

  /** Returns all paused deliveries now. Later ones return at once. */
  end(): void {
    this.#hasEnded = true
    this.#full.clear()
    for (const { delivery, how } of this.#list.clear()) delivery.settle(how)
  }
}
