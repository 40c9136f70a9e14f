/**
 * The position of a stream's consumer in its store: loaded before it begins, saved behind its work, and at its end.
 *
 * Saves follow one another, so a slow store is never asked twice at once, and the last one to end is the last one that was
 * asked for. A store that fails is asked again; the consumer goes on meanwhile, since its position is in memory.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { Conditions } from "../connection/conditions.ts"
import type { Saving } from "./streamOptions.ts"
import type { StreamPosition } from "./streamPosition.ts"

/** Between attempts, in milliseconds: doubled from one to the other. */
const shortestPause = 500
const longestPause = 30_000
/** Between attempts at the end, when there is little time left. */
const lastPause = 100

/** What a store has answered that is no offset. */
class NoOffset extends Data.TaggedError("NoOffset")<{ readonly message: string }> {}

export class StreamSaving {
  readonly #position: StreamPosition
  readonly #saving: Saving
  readonly #timeout: Duration.Duration
  readonly #conditions: Conditions
  readonly #key: string
  readonly #annotations: Readonly<Record<string, unknown>>
  /** What the store has. */
  #saved: number | undefined = undefined
  #savedCount = 0
  #isLoaded = false
  #stopping = false
  readonly #ended = Deferred.makeUnsafe<void>()
  /** Those who wait for the position to move, or for the end. */
  readonly #watchers = new Set<() => void>()
  /** Called when the first position is saved. */
  readonly #pinned: () => void

  constructor(
    position: StreamPosition,
    saving: Saving,
    timeout: Duration.Duration,
    conditions: Conditions,
    pinned: () => void
  ) {
    this.#position = position
    this.#saving = saving
    this.#timeout = timeout
    this.#conditions = conditions
    this.#key = `offsets of ${position.queue} as ${saving.name}`
    this.#annotations = { queue: position.queue, name: saving.name }
    this.#pinned = pinned
  }

  /** Loads the position, for as long as that takes. */
  readonly load: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#isLoaded) return Effect.void
    const { name, store } = this.#saving
    const loading = Effect.flatMap(
      Effect.suspend(() => store.load(name)),
      (loaded) => {
        if (Option.isNone(loaded)) return Effect.succeed(undefined)
        const offset = Number(loaded.value)
        if (Number.isSafeInteger(offset) && offset >= 0) return Effect.succeed(offset)
        const message = `load of ${JSON.stringify(name)}: expected an offset from 0, got ${String(loaded.value)}`
        return Effect.fail(new NoOffset({ message }))
      }
    )
    return Effect.flatMap(this.#insisting(loading, "AMQP consumer: its position could not be loaded"), (offset) => {
      const position = this.#position
      this.#isLoaded = true
      if (offset === undefined) {
        this.#saved = position.next
        // "next" means something else after a restart: nothing is handled before it is saved where that was.
        position.isPinning = position.isRelative
        return Effect.void
      }
      position.next = this.#saved = offset
      position.isDoubtful = true
      return Effect.annotateLogs(Effect.logDebug("AMQP consumer goes on at the position that was saved"), {
        ...this.#annotations,
        offset
      })
    })
  })

  /** Saves while it runs, until `finish`. */
  readonly run: Effect.Effect<void> = Effect.suspend(() => {
    const position = this.#position
    position.onMove = this.#look
    const isDirty = this.#until(() => this.#isDirty)
    const isDue = Effect.suspend(() =>
      Effect.timeoutOption(
        this.#until(() => position.isPinning || position.count - this.#savedCount >= this.#saving.every),
        this.#saving.within
      )
    )
    const save = this.#insisting(this.#save, "AMQP consumer: its position could not be saved")
    const loop: Effect.Effect<void> = Effect.suspend(() =>
      this.#stopping ? Effect.void : Effect.andThen(Effect.andThen(Effect.andThen(isDirty, isDue), save), loop)
    )
    return Effect.ensuring(
      loop,
      Effect.sync(() => {
        this.#conditions.clear(this.#key)
        Deferred.doneUnsafe(this.#ended, Effect.void)
      })
    )
  })

  /** Saves what is not saved yet, for as long as `timeout` milliseconds. */
  finish(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#stopping = true
      this.#look()
      const last = Effect.suspend(() =>
        this.#isDirty ? Effect.retry(this.#save, { schedule: Schedule.spaced(lastPause) }) : Effect.void
      )
      return Effect.andThen(Deferred.await(this.#ended), last).pipe(
        Effect.timeoutOption(timeout),
        Effect.andThen(
          Effect.suspend(() =>
            this.#isDirty
              ? Effect.annotateLogs(
                  Effect.logError(
                    "AMQP consumer ended, and its position is not saved: what is above the saved one comes again"
                  ),
                  { ...this.#annotations, offset: this.#position.next, saved: this.#saved }
                )
              : Effect.void
          )
        ),
        Effect.orDie
      )
    })
  }

  get #isDirty(): boolean {
    const { next } = this.#position
    return this.#isLoaded && next !== undefined && next !== this.#saved
  }

  readonly #look = () => {
    for (const watcher of Array.from(this.#watchers)) watcher()
  }

  /** Waits until it is so, or until the end. */
  #until(isDone: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const look = () => {
        if (!isDone() && !this.#stopping) return
        this.#watchers.delete(look)
        resume(Effect.void)
      }
      this.#watchers.add(look)
      look()
      return Effect.sync(() => this.#watchers.delete(look))
    })
  }

  // As it is when it is saved, not as it was when that was asked for.
  readonly #save: Effect.Effect<void, unknown> = Effect.suspend(() => {
    const { count, next } = this.#position
    const { name, store } = this.#saving
    if (next === undefined) return Effect.void
    return Effect.andThen(
      this.#bounded(Effect.suspend(() => store.save(name, next))),
      Effect.sync(() => {
        this.#saved = next
        this.#savedCount = count
        if (!this.#position.isPinning) return
        this.#position.isPinning = false
        this.#pinned()
      })
    )
  })

  #bounded<A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | Cause.TimeoutError> {
    return Effect.timeout(effect, this.#timeout)
  }

  /** Tries until it succeeds, or is interrupted. */
  #insisting<A>(effect: Effect.Effect<A, unknown>, problem: string): Effect.Effect<A> {
    const attempt = (pause: number): Effect.Effect<A> =>
      Effect.matchCauseEffect(this.#bounded(effect), {
        onSuccess: (value) => {
          this.#conditions.clear(this.#key)
          return Effect.succeed(value)
        },
        onFailure: (cause) => {
          if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const message = `${problem}: the offset store failed for ${JSON.stringify(this.#saving.name)}`
            this.#conditions.report(this.#key, { kind: "OffsetStoreFailed", message, notReady: false }, now)
            return Effect.annotateLogs(Effect.logWarning(problem, cause), { ...this.#annotations, pause }).pipe(
              Effect.andThen(
                Effect.timeoutOption(
                  this.#until(() => false),
                  pause
                )
              ),
              Effect.andThen(this.#stopping ? Effect.interrupt : attempt(Math.min(longestPause, 2 * pause)))
            )
          })
        }
      })
    return attempt(shortestPause)
  }
}
