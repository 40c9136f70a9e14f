/** Deliveries that wait in memory: by one timer for all, each until it is due or its channel ends. */
import type { Channel } from "../channel/channel.ts"
import type { Deadlines, Due } from "../waiting/deadlines.ts"
import type { ConsumerDelivery, Return } from "./delivery.ts"

export class Waiting implements Due {
  sooner: Due | undefined = undefined
  later: Due | undefined = undefined
  dueAt: number
  readonly since: number
  readonly delivery: ConsumerDelivery
  /** How it goes back to its queue, if it does. */
  readonly how: Return
  readonly #due: (waiting: Waiting) => void

  constructor(delivery: ConsumerDelivery, how: Return, since: number, dueAt: number, due: (waiting: Waiting) => void) {
    this.delivery = delivery
    this.how = how
    this.since = since
    this.dueAt = dueAt
    this.#due = due
  }

  readonly expire = (): void => this.#due(this)
}

/** What waits of one channel. */
interface OfChannel {
  readonly all: Set<Waiting>
  readonly unwatch: () => void
}

export class WaitList {
  readonly #deadlines: Deadlines
  readonly #onDue: (waiting: Waiting) => void
  readonly #onLost: (waiting: Waiting) => void
  readonly #waiting = new Map<ConsumerDelivery, Waiting>()
  readonly #channels = new Map<Channel, OfChannel>()

  /** `onDue` and `onLost` are called when it waits no more: its time has come, or its channel has ended. Must not throw. */
  constructor(deadlines: Deadlines, onDue: (waiting: Waiting) => void, onLost: (waiting: Waiting) => void) {
    this.#deadlines = deadlines
    this.#onDue = onDue
    this.#onLost = onLost
  }

  has(delivery: ConsumerDelivery): boolean {
    return this.#waiting.has(delivery)
  }

  add(delivery: ConsumerDelivery, dueAt: number, how: Return = "redeliver"): Waiting {
    const waiting = new Waiting(delivery, how, this.#deadlines.now, dueAt, this.#expired)
    this.#waiting.set(delivery, waiting)
    this.#allOf(delivery.channel).add(waiting)
    this.#deadlines.add(waiting)
    return waiting
  }

  /** Makes it due at another time. */
  move(waiting: Waiting, dueAt: number): void {
    if (!this.#deadlines.delete(waiting)) return
    waiting.dueAt = dueAt
    this.#deadlines.add(waiting)
  }

  remove(waiting: Waiting): void {
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

  ofChannel(channel: Channel): ReadonlyArray<Waiting> {
    return Array.from(this.#channels.get(channel)?.all ?? [])
  }

  /** Those that are due until then, in the order in which they came here. */
  dueUntil(time: number): ReadonlyArray<Waiting> {
    return Array.from(this.#waiting.values()).filter(({ dueAt }) => dueAt <= time)
  }

  /** All of them, which wait no more. */
  clear(): ReadonlyArray<Waiting> {
    const all = Array.from(this.#waiting.values())
    for (const waiting of all) this.remove(waiting)
    return all
  }

  readonly #expired = (waiting: Waiting): void => {
    this.remove(waiting)
    this.#onDue(waiting)
  }

  #allOf(channel: Channel): Set<Waiting> {
    const known = this.#channels.get(channel)
    if (known !== undefined) return known.all
    const all = new Set<Waiting>()
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
