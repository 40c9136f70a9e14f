/** Says during a long outage that it lasts. The attempts themselves are logged at Debug: there may be several per second. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"

/** Time from the last line to the next one, in milliseconds. It doubles with each line, up to the maximum. */
const firstIntervalMillis = 30_000
const maxIntervalMillis = 600_000

export class OutageLog {
  readonly #clock: Clock.Clock
  readonly #since: string
  readonly #startedAt: number
  #interval = firstIntervalMillis
  #dueAt: number

  /** Starts with the outage. */
  constructor(clock: Clock.Clock) {
    this.#clock = clock
    this.#since = new Date(clock.currentTimeMillisUnsafe()).toISOString()
    this.#startedAt = monotonicMillis(clock)
    this.#dueAt = this.#startedAt + this.#interval
  }

  /** Whether nothing has been logged for so long that the next failed attempt is. */
  get isDue(): boolean {
    return monotonicMillis(this.#clock) >= this.#dueAt
  }

  /** Logs that the outage lasts. The caller annotates the line with the attempt and its reason. */
  readonly warn: Effect.Effect<void> = Effect.suspend(() => {
    const now = monotonicMillis(this.#clock)
    this.#interval = Math.min(this.#interval * 2, maxIntervalMillis)
    this.#dueAt = now + this.#interval
    const seconds = Duration.seconds(Math.round((now - this.#startedAt) / 1000))
    return Effect.annotateLogs(Effect.logWarning("AMQP connection still not open, trying again"), {
      since: this.#since,
      for: Duration.format(seconds)
    })
  })
}
