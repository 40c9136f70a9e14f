/**
 * Limits repeated log lines. A handler that fails a thousand times per second must not write a thousand stack traces
 * per second. The first lines of a kind are written in full, the others in the same interval are counted, and one line
 * at the end of the interval gives their number. An error with another tag is another kind, so it is not hidden.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadlines, DeadlineEntry } from "../waiting/deadlines.ts"
import type { Fork } from "../waiting/fork.ts"

/** How many lines of a kind are written in full per interval. */
export const maxInFull = 5

/** The interval in milliseconds, from the first line of a kind. */
export const interval = 10_000

/**
 * Maximum number of kinds, because tags may be generated per error. Beyond it, all further lines with the same title,
 * policy and queue share one kind.
 */
const mostKinds = 100

/** What defines the kind of a line. */
export interface LogKey {
  readonly title: string
  readonly isError: boolean
  /** The tag or name of the error. */
  readonly error?: string | undefined
  /** The outcome of the delivery. */
  readonly policy?: string | undefined
  /** The queue, where one limiter serves several. */
  readonly queue?: string | undefined
}

const overflow = "of several kinds"

class LogGroup implements DeadlineEntry {
  sooner: DeadlineEntry | undefined = undefined
  later: DeadlineEntry | undefined = undefined
  readonly line: LogKey
  readonly since: number
  readonly dueAt: number
  readonly expire: () => void
  /** The number of lines that were written. */
  written = 0
  /** The number of lines that were not written. */
  suppressed = 0

  constructor(line: LogKey, since: number, ended: (kind: LogGroup) => void) {
    this.line = line
    this.since = since
    this.dueAt = since + interval
    this.expire = () => ended(this)
  }
}

export class LogLimiter {
  readonly #deadlines: Deadlines
  readonly #fork: Fork
  readonly #annotations: Readonly<Record<string, unknown>>
  readonly #kinds = new Map<string, LogGroup>()
  #hasEnded = false

  /**
   * @param fork runs the effect that writes the line at the end of an interval
   * @param annotations the annotations of that line
   */
  constructor(deadlines: Deadlines, fork: Fork, annotations: Readonly<Record<string, unknown>>) {
    this.#deadlines = deadlines
    this.#fork = fork
    this.#annotations = annotations
  }

  /** Runs `log`, which writes one line of this kind, unless enough lines of the kind were written in the interval. */
  write(line: LogKey, log: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#hasEnded) return log
      const kind = this.#kindOf(line)
      if (kind.written === maxInFull) {
        kind.suppressed++
        return Effect.void
      }
      kind.written++
      return log
    })
  }

  #kindOf(line: LogKey): LogGroup {
    const key = [line.title, line.error, line.policy, line.queue].join("\n")
    const known = this.#kinds.get(key)
    if (known !== undefined) return known
    if (this.#kinds.size >= mostKinds && line.error !== overflow) return this.#kindOf({ ...line, error: overflow })
    const kind = new LogGroup(line, this.#deadlines.now, (kind) => {
      this.#kinds.delete(key)
      if (kind.suppressed > 0) this.#fork(this.#summary(kind))
    })
    this.#kinds.set(key, kind)
    this.#deadlines.add(kind)
    return kind
  }

  #summary({ line, suppressed: more, since }: LogGroup): Effect.Effect<void> {
    const { error, isError, policy, queue, title } = line
    const passed = Duration.format(Duration.millis(Math.max(1, Math.round(this.#deadlines.now - since))))
    const text = `${title}, and ${more.toLocaleString("en-US")} more in the last ${passed}`
    return Effect.annotateLogs(isError ? Effect.logError(text) : Effect.logWarning(text), {
      ...this.#annotations,
      ...(error === undefined ? {} : { error }),
      ...(policy === undefined ? {} : { policy }),
      ...(queue === undefined ? {} : { queue }),
      repeated: more
    })
  }

  /** Ends the limiter with its owner: writes the pending summaries. Later lines are written in full. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => {
    this.#hasEnded = true
    const left = Array.from(this.#kinds.values())
    this.#kinds.clear()
    for (const kind of left) this.#deadlines.delete(kind)
    return Effect.forEach(
      left.filter(({ suppressed: more }) => more > 0),
      (kind) => this.#summary(kind),
      { discard: true }
    )
  })
}
