/** Deliveries that wait in memory until they are due or their channel ends, with one timer for all. */
import type { Channel } from "../channel/channel.ts"
import type { Deadlines, DeadlineEntry } from "../waiting/deadlines.ts"
import type { ConsumerDelivery, ReturnSettlement } from "./delivery.ts"

export class WaitingDelivery implements DeadlineEntry {
  sooner: DeadlineEntry | undefined = undefined
  later: DeadlineEntry | undefined = undefined
  dueAt: number
  readonly since: number
  readonly delivery: ConsumerDelivery
  /** How the delivery returns to its queue, if it does. */
  readonly how: ReturnSettlement
  readonly #due: (waiting: WaitingDelivery) => void

  constructor(
    delivery: ConsumerDelivery,
    how: ReturnSettlement,
    since: number,
    dueAt: number,
    due: (waiting: WaitingDelivery) => void
  ) {
    this.delivery = delivery
    this.how = how
    this.since = since
    this.dueAt = dueAt
    this.#due = due
  }

  readonly expire = (): void => this.#due(this)
}

/** The waiting deliveries of one channel. */
interface ChannelDeliveries {
  readonly all: Set<WaitingDelivery>
  readonly unwatch: () => void
}

export class WaitList {
  readonly #deadlines: Deadlines
  readonly #onDue: (waiting: WaitingDelivery) => void
  readonly #onLost: (waiting: WaitingDelivery) => void
  readonly #waiting = new Map<ConsumerDelivery, WaitingDelivery>()
  readonly #channels = new Map<Channel, ChannelDeliveries>()

  /**
   * @param onDue called when a delivery stops waiting because it is due. Must not throw.
   * @param onLost called when a delivery stops waiting because its channel has ended. Must not throw.
   */
  constructor(
    deadlines: Deadlines,
    onDue: (waiting: WaitingDelivery) => void,
    onLost: (waiting: WaitingDelivery) => void
  ) {
    this.#deadlines = deadlines
    this.#onDue = onDue
    this.#onLost = onLost
  }

  has(delivery: ConsumerDelivery): boolean {
    return this.#waiting.has(delivery)
  }

  add(delivery: ConsumerDelivery, dueAt: number, how: ReturnSettlement = "redeliver"): WaitingDelivery {
    const waiting = new WaitingDelivery(delivery, how, this.#deadlines.now, dueAt, this.#expired)
    this.#waiting.set(delivery, waiting)
    this.#allOf(delivery.channel).add(waiting)
    this.#deadlines.add(waiting)
    return waiting
  }

  /** Changes when a delivery is due. */
  move(waiting: WaitingDelivery, dueAt: number): void {
    if (!this.#deadlines.delete(waiting)) return
    waiting.dueAt = dueAt
    this.#deadlines.add(waiting)
  }

  remove(waiting: WaitingDelivery): void {
    const { delivery } = waiting
    this.#deadlines.delete(waiting)
    this.#waiting.delete(delivery)
    const of = this.#channels.get(delivery.channel)
    if (of === undefined) return
    of.all.delete(waiting)
    if (of.all.size > 0) return
    of.unwatch()
    this.#channels.delete(delivery.channel)
  }

  ofChannel(channel: Channel): ReadonlyArray<WaitingDelivery> {
    return Array.from(this.#channels.get(channel)?.all ?? [])
  }

  /** The deliveries that are due by `time`, in the order in which they were added. */
  dueUntil(time: number): ReadonlyArray<WaitingDelivery> {
    return Array.from(this.#waiting.values()).filter(({ dueAt }) => dueAt <= time)
  }

  /** Removes and returns all waiting deliveries. */
  clear(): ReadonlyArray<WaitingDelivery> {
    const all = Array.from(this.#waiting.values())
    for (const waiting of all) this.remove(waiting)
    return all
  }

  readonly #expired = (waiting: WaitingDelivery): void => {
    this.remove(waiting)
    this.#onDue(waiting)
  }

  #allOf(channel: Channel): Set<WaitingDelivery> {
    const known = this.#channels.get(channel)
    if (known !== undefined) return known.all
    const all = new Set<WaitingDelivery>()
    const unwatch = channel.watch(() => {
      if (channel.isOpen) return
      for (const waiting of Array.from(all)) {
        this.remove(waiting)
        this.#onLost(waiting)
      }
    })
    this.#channels.set(channel, { all, unwatch })
    return all
  }
}
