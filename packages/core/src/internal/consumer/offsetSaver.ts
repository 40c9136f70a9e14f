/**
 * Loads the position of a stream's consumer from its store before the consumer starts, saves it periodically behind the
 * work, and saves it again at the end.
 *
 * Only one save runs at a time, so a slow store never gets two concurrent calls, and the last save to complete is the
 * last one that was started. A store that fails is called again. The consumer continues in the meantime, because its
 * position is in memory.
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
import { selfInterruptionAsDefect } from "../waiting/selfInterruption.ts"
import type { OffsetSaving } from "./streamOptions.ts"
import type { StreamPosition } from "./streamPosition.ts"

/** The pause between attempts, in milliseconds; it doubles from one attempt to the next. */
const shortestPause = 500
const longestPause = 30_000
/** The pause between attempts at the end, in milliseconds, when little time is left. */
const lastPause = 100

/** A store has returned something that is not an offset. */
class InvalidOffset extends Data.TaggedError("InvalidOffset")<{ readonly message: string }> {}

export class OffsetSaver {
  readonly #position: StreamPosition
  readonly #saving: OffsetSaving
  readonly #timeout: Duration.Duration
  readonly #conditions: Conditions
  readonly #key: string
  readonly #annotations: Readonly<Record<string, unknown>>
  /** The offset that the store has; `undefined`: none is known. */
  #saved: number | undefined = undefined
  #savedCount = 0
  #isLoaded = false
  #stopping = false
  readonly #ended = Deferred.makeUnsafe<void>()
  /** Called when the position moves, and at the end. */
  readonly #watchers = new Set<() => void>()
  /** Called when the first position has been saved. */
  readonly #onFirstSaved: () => void

  constructor(
    position: StreamPosition,
    saving: OffsetSaving,
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
    this.#onFirstSaved = pinned
  }

  /** Loads the position; retries until that succeeds. */
  readonly load: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#isLoaded) return Effect.void
    const { name, store } = this.#saving
    const loading = Effect.flatMap(
      Effect.suspend(() => store.load(name)),
      (loaded) => {
        if (Option.isNone(loaded)) return Effect.succeed(undefined)
        const offset = Number(loaded.value)
        if (Number.isSafeInteger(offset) && offset >= 0) return Effect.succeed(offset)
        const message = `store.load(${JSON.stringify(name)}): expected an offset from 0, got ${String(loaded.value)}`
        return Effect.fail(new InvalidOffset({ message }))
      }
    )
    return Effect.flatMap(
      this.#retryUntilDone(loading, "AMQP stream consumer could not load its position"),
      (offset) => {
        const position = this.#position
        this.#isLoaded = true
        if (offset === undefined) {
          this.#saved = position.next
          // After a restart, "next" would mean another position. So nothing is handled before the position where
          // reading begins is saved.
          position.isAwaitingFirstSave = position.isRelative
          return Effect.void
        }
        position.next = this.#saved = offset
        position.mayBeStale = true
        return Effect.annotateLogs(Effect.logDebug("AMQP stream consumer continues at its saved position"), {
          ...this.#annotations,
          offset
        })
      }
    )
  })

  /** Saves the position repeatedly, until `finish`. */
  readonly run: Effect.Effect<void> = Effect.suspend(() => {
    const position = this.#position
    position.onMove = this.#notify
    const isDirty = this.#until(() => this.#isDirty)
    const isDue = Effect.suspend(() =>
      Effect.timeoutOption(
        this.#until(() => position.isAwaitingFirstSave || position.count - this.#savedCount >= this.#saving.saveEvery),
        this.#saving.saveWithin
      )
    )
    const save = this.#retryUntilDone(this.#save, "AMQP stream consumer could not save its position")
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

  /** Saves a position that is not saved yet, within `timeout` milliseconds. */
  finish(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#stopping = true
      this.#notify()
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
                    "AMQP stream consumer ended before its position was saved: the next start handles the messages from the saved position again. Check the offset store"
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

  readonly #notify = () => {
    for (const watcher of Array.from(this.#watchers)) watcher()
  }

  /** Waits until the condition holds, or until the end. */
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

  // Saves the position at the time when the save starts, not at the time when it was requested.
  readonly #save: Effect.Effect<void, unknown> = Effect.suspend(() => {
    const { count, next } = this.#position
    const { name, store } = this.#saving
    if (next === undefined) return Effect.void
    return Effect.andThen(
      this.#bounded(Effect.suspend(() => store.save(name, next))),
      Effect.sync(() => {
        this.#saved = next
        this.#savedCount = count
        if (!this.#position.isAwaitingFirstSave) return
        this.#position.isAwaitingFirstSave = false
        this.#onFirstSaved()
      })
    )
  })

  #bounded<A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | Cause.TimeoutError> {
    return Effect.timeout(selfInterruptionAsDefect(effect, "the offset store"), this.#timeout)
  }

  /** Retries until the effect succeeds or is interrupted. */
  #retryUntilDone<A>(effect: Effect.Effect<A, unknown>, problem: string): Effect.Effect<A> {
    const attempt = (pause: number): Effect.Effect<A> =>
      Effect.matchCauseEffect(this.#bounded(effect), {
        onSuccess: (value) => {
          this.#conditions.clear(this.#key)
          return Effect.succeed(value)
        },
        onFailure: (cause) => {
          if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const message = `${problem} of ${JSON.stringify(this.#saving.name)}: the offset store failed. The consumer tries again. Check the offset store.`
            this.#conditions.report(this.#key, { kind: "OffsetStoreFailed", message, notReady: false }, now)
            return Effect.annotateLogs(Effect.logWarning(`${problem}: the offset store failed, trying again`, cause), {
              ...this.#annotations,
              pause
            }).pipe(
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
