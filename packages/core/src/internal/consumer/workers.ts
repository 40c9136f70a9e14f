/**
 * Fibers that take work and do it, one piece after the other. There are at most `concurrency` of them, and another one
 * is started when work is waiting and none is idle. So handling costs no fiber per delivery.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Shutdown } from "../connection/shutdown.ts"
import type { Restore } from "./settling.ts"

/** How long handlers may continue at a stop before a log line says so: most end sooner. */
const quietMillis = 1000

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
    /** Whether there is work to take. */
    readonly isReady: () => boolean
    readonly take: () => Work | undefined
    /** Uninterruptible, except for the parts that it restores. */
    readonly handle: (work: Work, restore: Restore) => Effect.Effect<void>
    readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
    /** The log annotations. */
    readonly annotations: Readonly<Record<string, unknown>>
  }) {
    this.#concurrency = options.concurrency
    this.#isReady = options.isReady
    this.#take = options.take
    this.#handle = options.handle
    this.#fork = options.fork
    this.#annotations = options.annotations
  }

  /** Wakes an idle worker or starts one, because there is work to take. */
  wake(): void {
    const resume = this.#idle.pop()
    if (resume !== undefined) return resume()
    if (this.#stopping || this.#fibers.size + this.#starting >= this.#concurrency) return
    // The fiber starts to work at once, and may call this again before it is in the set.
    this.#starting++
    const fiber = this.#fork(this.#work)
    this.#starting--
    if (fiber.pollUnsafe() !== undefined) return
    this.#fibers.add(fiber)
    fiber.addObserver(() => {
      this.#fibers.delete(fiber)
      // A worker that died of a defect in this library is replaced.
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
        Effect.logError(
          "AMQP consumer left a delivery unsettled because of a defect in effect-amqp. The broker delivers it again when the channel closes: restart the consumer, and report the defect",
          cause
        ),
        this.#annotations
      )
    )
  })

  readonly #park: Effect.Effect<void> = Effect.callback<void>((resume) => {
    // This checks again: the fiber may have yielded since, and `wake` may have found no idle worker.
    if (this.#stopping || this.#isReady()) return resume(Effect.void)
    this.#idle.push(() => resume(Effect.void))
  })

  /**
   * Stops taking work. Work in progress may end within `timeout` milliseconds of the shutdown. Then it is interrupted,
   * and may take as long as a close to end.
   */
  stop(shutdown: Shutdown, timeout: number | undefined, interrupting: () => void): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#stopping = true
      for (const resume of this.#idle.splice(0)) resume()
      const ended = Effect.suspend(() => Fiber.awaitAll(Array.from(this.#fibers)))
      const log = (line: Effect.Effect<void>) =>
        Effect.annotateLogs(line, { handlers: this.#fibers.size, ...this.#annotations })
      const waitLonger = Effect.suspend(() => {
        const left = shutdown.timeLeft(timeout)
        if (this.#fibers.size === 0 || left <= 0) return Effect.void
        const within = Duration.format(Duration.millis(Math.round(left)))
        return Effect.andThen(
          log(Effect.logInfo(`AMQP consumer stopping: handlers are still running, and may finish within ${within}`)),
          Effect.timeoutOption(ended, left)
        )
      })
      return Effect.timeoutOption(ended, Math.min(quietMillis, shutdown.timeLeft(timeout))).pipe(
        Effect.andThen(waitLonger),
        Effect.andThen(
          Effect.suspend(() => {
            if (this.#fibers.size === 0) return Effect.void
            // A timeout of 0 asks for the interruption. One that others have used up does not.
            const line = shutdown.waits(timeout)
              ? log(
                  Effect.logWarning(
                    "AMQP consumer interrupted handlers that did not finish within shutdownTimeout: their deliveries return to the queue"
                  )
                )
              : Effect.void
            interrupting()
            for (const fiber of this.#fibers) fiber.interruptUnsafe()
            return Effect.andThen(line, Effect.timeoutOption(ended, shutdown.closeTimeLeft))
          })
        ),
        Effect.asVoid
      )
    })
  }
}
