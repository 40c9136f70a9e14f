/** What one consumer knows about earlier attempts at the messages of its queue. */
import { type History, historyOf, rejectionsOf, type Secrets } from "./attempts.ts"
import type { AttemptMemory } from "./attemptMemory.ts"
import type { Identified } from "./messageKey.ts"

export class AttemptTracking {
  readonly queue: string
  readonly secrets: Secrets
  readonly memory: AttemptMemory
  /** A message is not handled more often: no more is believed of what headers say. */
  readonly #most: number

  constructor(options: {
    readonly queue: string
    readonly secrets: Secrets
    readonly memory: AttemptMemory
    readonly maxDeliveries: number
  }) {
    this.queue = options.queue
    this.secrets = options.secrets
    this.memory = options.memory
    this.#most = options.maxDeliveries
  }

  historyOf(message: Identified): History {
    return historyOf(this.queue, this.secrets, message)
  }

  /** How often the message was handled before, as its headers say. */
  failuresOf(message: Identified, { deliveries }: History): number {
    // `x-death` is not signed.
    const rejections = this.secrets.length > 0 ? 0 : rejectionsOf(this.queue, message.properties.headers)
    return Math.min(deliveries + rejections, this.#most)
  }
}
