/** Decides when a batch is complete: at `size` deliveries, or `within` milliseconds after the first of them. */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { ConsumerDelivery } from "./delivery.ts"
import type { Source } from "./source.ts"

export class Batches {
  readonly #source: Source
  readonly #size: number
  readonly #within: number
  readonly #fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #wake: () => void
  #timer: Fiber.Fiber<void> | undefined = undefined
  #due = false

  constructor(
    source: Source,
    size: number,
    within: number,
    fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>,
    wake: () => void
  ) {
    this.#source = source
    this.#size = size
    this.#within = within
    this.#fork = fork
    this.#wake = wake
  }

  get isReady(): boolean {
    const { size } = this.#source
    return size >= this.#size || (this.#due && size > 0)
  }

  /** Reacts to a change in the source. Returns whether a batch can be taken. */
  changed(): boolean {
    this.#startTimer()
    return this.isReady
  }

  take(): ReadonlyArray<ConsumerDelivery> | undefined {
    if (!this.isReady) {
      // The time limit was reached for deliveries that are gone with their channel.
      this.#due = false
      // The source closes drained channels when something is taken from it, so this takes nothing.
      this.#source.takeUpTo(0)
      return undefined
    }
    const batch = this.#source.takeUpTo(this.#size)
    this.stop()
    this.#startTimer()
    return batch
  }

  #startTimer(): void {
    if (this.#timer !== undefined || this.#due || this.#source.size === 0) return
    // Deliveries that an earlier batch left behind have waited already.
    const left = Math.max(0, this.#within - this.#source.waited)
    this.#timer = this.#fork(
      Effect.andThen(
        Effect.sleep(left),
        Effect.sync(() => {
          this.#timer = undefined
          this.#due = true
          this.#wake()
        })
      )
    )
  }

  stop(): void {
    this.#due = false
    this.#timer?.interruptUnsafe()
    this.#timer = undefined
  }
}
