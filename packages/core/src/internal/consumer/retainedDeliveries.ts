/**
 * Deliveries that must not return to their queue, because the broker would remove them for good: see `deliveryLimits`.
 *
 * Each of them is handled again from memory, after a pause. While there is one, the consumer handles nothing else: the
 * messages behind it would mostly fail for the same reason, and reach the limit too.
 */
import type { Deadlines } from "../waiting/deadlines.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { WaitList } from "./waitList.ts"

/**
 * Deliveries that failed together are handled again together, although their due times differ slightly; in
 * milliseconds.
 */
const coalesceWithin = 100

export class RetainedDeliveries {
  readonly #deadlines: Deadlines
  readonly #onChange: () => void
  readonly #list: WaitList
  /** All retained deliveries: those that wait, are due, or are being handled again. */
  readonly #all = new Set<ConsumerDelivery>()
  #due: Array<ConsumerDelivery> = []
  #hasEnded = false

  /** @param onChange called when a delivery is due, and when none is left. Must not throw. */
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

  /** Retains a delivery, which is handled again when it is due. After `end`, it is only kept for `remaining`. */
  retain(delivery: ConsumerDelivery, dueAt: number): void {
    this.#all.add(delivery)
    if (!this.#hasEnded) this.#list.add(delivery, dueAt)
  }

  /** Removes a delivery that was handled again and now waits elsewhere. */
  release(delivery: ConsumerDelivery): void {
    if (this.#all.delete(delivery) && this.isEmpty) this.#onChange()
  }

  /** Takes up to `most` due deliveries of one channel, in the order of their arrival. */
  takeDue(most: number): ReadonlyArray<ConsumerDelivery> {
    this.sweep()
    if (this.#due.length < most) {
      for (const waiting of this.#list.dueUntil(this.#deadlines.now + coalesceWithin)) {
        this.#list.remove(waiting)
        this.#due.push(waiting.delivery)
      }
    }
    const channel = this.#due[0]?.channel
    const taken = this.#due.filter((delivery) => delivery.channel === channel).slice(0, most)
    this.#due = this.#due.filter((delivery) => !taken.includes(delivery))
    return taken.sort((a, b) => a.tag - b.tag)
  }

  /** Removes deliveries that are settled or whose channel has ended. */
  sweep(): void {
    if (this.isEmpty) return
    for (const delivery of this.#all) {
      if (!delivery.isSettled) continue
      this.#all.delete(delivery)
      // The broker has requeued it. Only this process knows how often it has failed, so that is recorded.
      if (delivery.isLost) delivery.settle("giveBack")
    }
    this.#due = this.#due.filter((delivery) => this.#all.has(delivery))
    if (this.isEmpty) this.#onChange()
  }

  /** Ends the handling of retained deliveries. Those that are left stay unsettled. */
  end(): void {
    this.#hasEnded = true
    this.#list.clear()
    this.#due = []
  }

  /** The unsettled deliveries that are left after `end`. */
  get remaining(): ReadonlyArray<ConsumerDelivery> {
    return Array.from(this.#all).filter((delivery) => !delivery.isSettled)
  }
}
