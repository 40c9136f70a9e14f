/**
 * Deliveries that must not go back to their queue, since the broker would take them out for good: see `deliveryLimits`.
 *
 * Each is handled again from memory, after a pause. While there is one, the consumer takes nothing else: what comes behind
 * it would mostly fail for the same reason, and reach the limit too.
 */
import type { Deadlines } from "../waiting/deadlines.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { WaitList } from "./waitList.ts"

/** Deliveries that failed together are handled again together, though their times differ by a little: in milliseconds. */
const together = 100

export class Kept {
  readonly #deadlines: Deadlines
  readonly #onChange: () => void
  readonly #list: WaitList
  /** Those that wait, are due or are being handled again. */
  readonly #all = new Set<ConsumerDelivery>()
  #due: Array<ConsumerDelivery> = []
  #hasEnded = false

  /** `onChange` is called when one is due, and when none is left. Must not throw. */
  constructor(deadlines: Deadlines, onChange: () => void) {
    this.#deadlines = deadlines
    this.#onChange = onChange
    this.#list = new WaitList(
      deadlines,
      ({ delivery }) => {
        this.#due.push(delivery)
        onChange()
      },
      () => this.sweep()
    )
  }

  get isEmpty(): boolean {
    return this.#all.size === 0
  }

  get isDue(): boolean {
    return this.#due.length > 0
  }

  has(delivery: ConsumerDelivery): boolean {
    return this.#all.has(delivery)
  }

  /** Keeps a delivery, to be handled again when it is due; until the end, if that has begun. */
  keep(delivery: ConsumerDelivery, dueAt: number): void {
    this.#all.add(delivery)
    if (!this.#hasEnded) this.#list.add(delivery, dueAt)
  }

  /** Lets go of one that was handled again and waits elsewhere now. */
  forget(delivery: ConsumerDelivery): void {
    if (this.#all.delete(delivery) && this.isEmpty) this.#onChange()
  }

  /** Those that are due, of one channel and in the order in which they came. */
  takeDue(most: number): ReadonlyArray<ConsumerDelivery> {
    this.sweep()
    if (this.#due.length < most) {
      for (const waiting of this.#list.dueUntil(this.#deadlines.now + together)) {
        this.#list.remove(waiting)
        this.#due.push(waiting.delivery)
      }
    }
    const channel = this.#due[0]?.channel
    const taken = this.#due.filter((delivery) => delivery.channel === channel).slice(0, most)
    this.#due = this.#due.filter((delivery) => !taken.includes(delivery))
    return taken.sort((a, b) => a.tag - b.tag)
  }

  /** Lets go of those that are settled, or whose channel has ended. */
  sweep(): void {
    if (this.isEmpty) return
    for (const delivery of this.#all) {
      if (!delivery.isSettled) continue
      this.#all.delete(delivery)
      // The broker has requeued it: how often it has failed is known here only.
      if (delivery.isLost) delivery.settle("giveBack")
    }
    this.#due = this.#due.filter((delivery) => this.#all.has(delivery))
    if (this.isEmpty) this.#onChange()
  }

  /** None is handled again any more. Those that are left stay unsettled. */
  end(): void {
    this.#hasEnded = true
    this.#list.clear()
    this.#due = []
  }

  /** Those that are left after the end. */
  get left(): ReadonlyArray<ConsumerDelivery> {
    return Array.from(this.#all).filter((delivery) => !delivery.isSettled)
  }
}
