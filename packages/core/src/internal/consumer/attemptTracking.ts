/** What one consumer knows about earlier attempts at the messages of its queue. */
import { firstFailureOf, type History, historyOf, rejectionsOf, type Secrets } from "./retryHeaders.ts"
import type { AttemptMemory } from "./attemptMemory.ts"
import type { Identified } from "./messageKey.ts"

export class AttemptTracking {
  readonly queue: string
  readonly secrets: Secrets
  readonly memory: AttemptMemory
  /** The highest count that is accepted from headers: a message is not handled more often than this. */
  readonly #most: number
  readonly #timeOfDay: () => number

  constructor(options: {
    readonly queue: string
    readonly secrets: Secrets
    readonly memory: AttemptMemory
    readonly maxDeliveries: number
    readonly timeOfDay: () => number
  }) {
    this.#timeOfDay = options.timeOfDay
    this.queue = options.queue
    this.secrets = options.secrets
    this.memory = options.memory
    this.#most = options.maxDeliveries
  }

  /** The time of day, in milliseconds since 1970. */
  get time(): number {
    return this.#timeOfDay()
  }

  /** When the message was first rejected, if a dead-letter topology has brought it back. */
  firstFailedAt(message: Identified): number | undefined {
    return this.secrets.length > 0 ? undefined : firstFailureOf(this.queue, message.properties.headers)
  }

  historyOf(message: Identified): History {
    return historyOf(this.queue, this.secrets, message)
  }

  /** How often the message was handled before, according to its headers. */
  failuresOf(message: Identified, { deliveries }: History): number {
    // `x-death` is not signed, so it does not count where headers have to be signed.
    const rejections = this.secrets.length > 0 ? 0 : rejectionsOf(this.queue, message.properties.headers)
    return Math.min(deliveries + rejections, this.#most)
  }
}
