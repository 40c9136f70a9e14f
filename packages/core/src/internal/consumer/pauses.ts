/**
 * Deliveries that pause before they go back to their queue.
 *
 * Each of them holds its place in the prefetch, and none holds a worker: one timer serves them all. Half of the prefetch
 * is for full pauses. Beyond that the delivery that has paused longest goes back first, but not before a shortest pause:
 * the broker may deliver it again at once, so what went back at once would go round as fast as it can. It is the one
 * whose cause has most likely passed, and another consumer may do better.
 */
import type { Channel } from "../channel.ts"
import type { Deadlines, Due } from "../deadlines.ts"
import type { ConsumerDelivery } from "./delivery.ts"

/** In milliseconds. */
const shortest = 1000
const longest = 30_000

/** The pause before the delivery after this attempt, in milliseconds. */
export const pauseAfter = (attempt: number): number => Math.min(longest, shortest * 2 ** (attempt - 1))

/** The paused deliveries of one channel, until it has ended. */
interface OfChannel {
  readonly pauses: Set<Pause>
  readonly unwatch: () => void
}

class Pause implements Due {
  sooner: Due | undefined = undefined
  later: Due | undefined = undefined
  dueAt: number
  readonly since: number
  readonly delivery: ConsumerDelivery
  readonly #ended: (pause: Pause) => void

  constructor(delivery: ConsumerDelivery, since: number, dueAt: number, ended: (pause: Pause) => void) {
    this.delivery = delivery
    this.since = since
    this.dueAt = dueAt
    this.#ended = ended
  }

  readonly expire = (): void => this.#ended(this)
}

export class Pauses {
  readonly #deadlines: Deadlines
  /** How many pauses last their full time. */
  readonly #mostFull: number
  readonly #pauses = new Map<ConsumerDelivery, Pause>()
  /** Those that are to last their full time, in the order in which they began. */
  readonly #full = new Set<Pause>()
  readonly #channels = new Map<Channel, OfChannel>()
  #hasEnded = false

  constructor(deadlines: Deadlines, prefetch: number) {
    this.#deadlines = deadlines
    this.#mostFull = Math.max(1, Math.floor(prefetch / 2))
  }

  get size(): number {
    return this.#pauses.size
  }

  has(delivery: ConsumerDelivery): boolean {
    return this.#pauses.has(delivery)
  }

  /** Gives a delivery back after a pause, or now if the consumer has ended. */
  add(delivery: ConsumerDelivery, millis: number): void {
    if (this.#hasEnded || delivery.isSettled) {
      delivery.settle("requeue")
      return
    }
    const { now } = this.#deadlines
    const pause = new Pause(delivery, now, now + millis, this.#giveBack)
    this.#pauses.set(delivery, pause)
    this.#ofChannel(delivery.channel).add(pause)
    this.#full.add(pause)
    this.#deadlines.add(pause)
    if (this.#full.size > this.#mostFull) this.#shorten()
  }

  #shorten(): void {
    const [oldest] = this.#full
    if (oldest === undefined) return
    this.#full.delete(oldest)
    const { now } = this.#deadlines
    const dueAt = Math.min(oldest.dueAt, oldest.since + shortest)
    if (dueAt <= now) return this.#giveBack(oldest)
    if (dueAt === oldest.dueAt) return
    this.#deadlines.delete(oldest)
    oldest.dueAt = dueAt
    this.#deadlines.add(oldest)
  }

  #ofChannel(channel: Channel): Set<Pause> {
    const known = this.#channels.get(channel)
    if (known !== undefined) return known.pauses
    const pauses = new Set<Pause>()
    const unwatch = channel.watch(() => {
      // The broker has requeued them.
      if (!channel.isOpen) for (const pause of Array.from(pauses)) this.#remove(pause)
    })
    this.#channels.set(channel, { pauses, unwatch })
    return pauses
  }

  #remove(pause: Pause): void {
    const { delivery } = pause
    this.#deadlines.delete(pause)
    this.#full.delete(pause)
    this.#pauses.delete(delivery)
    const of = this.#channels.get(delivery.channel)
    if (of === undefined) return
    of.pauses.delete(pause)
    if (of.pauses.size > 0) return
    of.unwatch()
    this.#channels.delete(delivery.channel)
  }

  // By `basic.nack`: since RabbitMQ 4.3 that does not count towards a quorum queue's delivery limit, `basic.reject` does.
  readonly #giveBack = (pause: Pause): void => {
    this.#remove(pause)
    pause.delivery.settle("requeue")
  }

  /** All go back now, and so does what comes later. */
  end(): void {
    this.#hasEnded = true
    for (const pause of Array.from(this.#pauses.values())) this.#giveBack(pause)
  }
}
