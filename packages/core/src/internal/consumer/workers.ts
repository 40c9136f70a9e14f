/**
 * Fibers that take work and do it, each one piece after the other: as many as may be, made when there is more to do than
 * the others get done. So handling costs no fiber per delivery.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Shutdown } from "../connection/shutdown.ts"
import type { Restore } from "./settling.ts"

export class Workers<Work> {
  readonly #concurrency: number
  readonly #isReady: () => boolean
  readonly #take: () => Work | undefined
  readonly #handle: (work: Work, restore: Restore) => Effect.Effect<void>
  readonly #fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #fibers = new Set<Fiber.Fiber<void>>()
  readonly #idle: Array<() => void> = []
  readonly #annotations: Readonly<Record<string, unknown>>
  #starting = 0
  #stopping = false

  constructor(options: {
    readonly concurrency: number
    /** Whether there is something to be taken. */
    readonly isReady: () => boolean
    readonly take: () => Work | undefined
    /** Uninterruptible, save what it restores. */
    readonly handle: (work: Work, restore: Restore) => Effect.Effect<void>
    readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
    /** What the log says of where they belong. */
    readonly annotations: Readonly<Record<string, unknown>>
  }) {
    this.#concurrency = options.concurrency
    this.#isReady = options.isReady
    this.#take = options.take
    this.#handle = options.handle
    this.#fork = options.fork
    this.#annotations = options.annotations
  }

  /** There is something to be taken. */
  wake(): void {
    const resume = this.#idle.pop()
    if (resume !== undefined) return resume()
    if (this.#stopping || this.#fibers.size + this.#starting >= this.#concurrency) return
    // It begins to work at once, and may be back here before it is among the others.
    this.#starting++
    const fiber = this.#fork(this.#work)
    this.#starting--
    if (fiber.pollUnsafe() !== undefined) return
    this.#fibers.add(fiber)
    fiber.addObserver(() => {
      this.#fibers.delete(fiber)
      // One that died of a defect of ours is replaced.
      if (!this.#stopping && this.#isReady()) this.wake()
    })
  }

  readonly #work: Effect.Effect<void> = Effect.uninterruptibleMask((restore) => {
    const body = () => {
      const work = this.#take()
      return work === undefined ? this.#park : this.#handle(work, restore)
    }
    return Effect.catchCause(Effect.whileLoop({ while: () => !this.#stopping, body, step: () => {} }), (cause) =>
      Effect.annotateLogs(
        Effect.logError("AMQP consumer: a delivery was left unsettled, this is a defect of effect-amqp", cause),
        this.#annotations
      )
    )
  })

  readonly #park: Effect.Effect<void> = Effect.callback<void>((resume) => {
    // Looked at again: the fiber may have yielded since, and whoever wakes has found nobody asleep.
    if (this.#stopping || this.#isReady()) return resume(Effect.void)
    this.#idle.push(() => resume(Effect.void))
  })

  /**
   * Takes no more. Work under way may end by itself, within `timeout` milliseconds of the shutdown; then it is interrupted,
   * and may take as long as a close to end.
   */
  stop(shutdown: Shutdown, timeout: number | undefined, interrupting: () => void): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#stopping = true
      for (const resume of this.#idle.splice(0)) resume()
      const ended = Effect.suspend(() => Fiber.awaitAll(Array.from(this.#fibers)))
      return Effect.timeoutOption(ended, shutdown.patience(timeout)).pipe(
        Effect.andThen(
          Effect.suspend(() => {
            if (this.#fibers.size === 0) return Effect.void
            interrupting()
            for (const fiber of this.#fibers) fiber.interruptUnsafe()
            return Effect.timeoutOption(ended, shutdown.closing)
          })
        ),
        Effect.asVoid
      )
    })
  }
}
