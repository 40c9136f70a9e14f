/**
 * Deliveries that pause before they go back to their queue.
 *
 * Each of them holds its place in the prefetch, and none holds a worker. Half of the prefetch is for full pauses. Beyond
 * that the delivery that has paused longest goes back first, but not before a shortest pause: the broker may deliver it
 * again at once, so what went back at once would go round as fast as it can. It is the one whose cause has most likely
 * passed, and another consumer may do better.
 */
import type { Channel } from "../channel/channel.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { ConsumerDelivery, Return } from "./delivery.ts"
import { WaitList, type Waiting } from "./waitList.ts"

/** In milliseconds. */
const shortest = 1000
const longest = 30_000

/** The pause after this attempt, in milliseconds. */
export const pauseAfter = (attempt: number): number => Math.min(longest, shortest * 2 ** (attempt - 1))

export class Pauses {
  readonly #deadlines: Deadlines
  readonly #mostFull: () => number
  readonly #list: WaitList
  /** Those that are to last their full time, in the order in which they began. */
  readonly #full = new Set<Waiting>()
  #hasEnded = false

  /** @param mostFull how many pauses may last their full time */
  constructor(deadlines: Deadlines, mostFull: () => number) {
    this.#deadlines = deadlines
    this.#mostFull = mostFull
    this.#list = new WaitList(
      deadlines,
      (pause) => this.#giveBack(pause),
      // The broker has requeued it.
      (pause) => this.#full.delete(pause)
    )
  }

  has(delivery: ConsumerDelivery): boolean {
    return this.#list.has(delivery)
  }

  /** Gives a delivery back when it is due, or now if the consumer has ended. */
  add(delivery: ConsumerDelivery, dueAt: number, how: Return): void {
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
    const dueAt = oldest.since + shortest
    if (dueAt >= oldest.dueAt) return
    if (dueAt > this.#deadlines.now) return this.#list.move(oldest, dueAt)
    this.#list.remove(oldest)
    this.#giveBack(oldest)
  }

  #giveBack(pause: Waiting): void {
    this.#full.delete(pause)
    pause.delivery.settle(pause.how)
  }

  /** Those of a channel go back now. */
  endOf(channel: Channel): void {
    for (const pause of this.#list.ofChannel(channel)) {
      this.#list.remove(pause)
      this.#giveBack(pause)
    }
  }

  /** All go back now, and so does what comes later. */
  end(): void {
    this.#hasEnded = true
    this.#full.clear()
    for (const { delivery, how } of this.#list.clear()) delivery.settle(how)
  }
}
