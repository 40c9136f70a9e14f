/**
 * Lines of the log that repeat. A handler that fails a thousand times a second must not write a thousand stack traces a
 * second: the first lines of a kind are written in full, the others of the same interval are counted, and one line at its end
 * says how many there were. An error of another tag is another kind, so it is seen.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadlines, Due } from "../waiting/deadlines.ts"
import type { Fork } from "../waiting/fork.ts"

/** How many lines of a kind are written in full within an interval. */
export const mostInFull = 5

/** In milliseconds, from the first line of a kind. */
export const interval = 10_000

/** How many kinds are told apart: tags may be made up for each error. What is beyond shares a kind per title. */
const mostKinds = 100

/** What makes lines alike. */
export interface Line {
  readonly title: string
  readonly isError: boolean
  /** The tag or the name of the error. */
  readonly error?: string | undefined
  /** What becomes of the delivery. */
  readonly policy?: string | undefined
}

const several = "of several kinds"

class Kind implements Due {
  sooner: Due | undefined = undefined
  later: Due | undefined = undefined
  readonly line: Line
  readonly since: number
  readonly dueAt: number
  readonly expire: () => void
  /** Lines that were written. */
  written = 0
  /** Lines that were not. */
  more = 0

  constructor(line: Line, since: number, ended: (kind: Kind) => void) {
    this.line = line
    this.since = since
    this.dueAt = since + interval
    this.expire = () => ended(this)
  }
}

export class Repeats {
  readonly #deadlines: Deadlines
  readonly #fork: Fork
  readonly #annotations: Readonly<Record<string, unknown>>
  readonly #kinds = new Map<string, Kind>()
  #hasEnded = false

  /** `fork` writes the line at the end of an interval. `annotations` are what such a line says of where it belongs. */
  constructor(deadlines: Deadlines, fork: Fork, annotations: Readonly<Record<string, unknown>>) {
    this.#deadlines = deadlines
    this.#fork = fork
    this.#annotations = annotations
  }

  /** `log` writes one line of this kind: it runs unless enough were written. */
  write(line: Line, log: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#hasEnded) return log
      const kind = this.#kindOf(line)
      if (kind.written === mostInFull) {
        kind.more++
        return Effect.void
      }
      kind.written++
      return log
    })
  }

  #kindOf(line: Line): Kind {
    const key = [line.title, line.error, line.policy].join("\n")
    const known = this.#kinds.get(key)
    if (known !== undefined) return known
    if (this.#kinds.size >= mostKinds && line.error !== several) return this.#kindOf({ ...line, error: several })
    const kind = new Kind(line, this.#deadlines.now, (kind) => {
      this.#kinds.delete(key)
      if (kind.more > 0) this.#fork(this.#summary(kind))
    })
    this.#kinds.set(key, kind)
    this.#deadlines.add(kind)
    return kind
  }

  #summary({ line, more, since }: Kind): Effect.Effect<void> {
    const { error, isError, policy, title } = line
    const passed = Duration.format(Duration.millis(Math.max(1, Math.round(this.#deadlines.now - since))))
    const text = `${title}, and ${more.toLocaleString("en-US")} more in the last ${passed}`
    return Effect.annotateLogs(isError ? Effect.logError(text) : Effect.logWarning(text), {
      ...this.#annotations,
      ...(error === undefined ? {} : { error }),
      ...(policy === undefined ? {} : { policy }),
      repeated: more
    })
  }

  /** The consumer has ended: writes what was counted since. What comes later is written in full. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => {
    this.#hasEnded = true
    const left = Array.from(this.#kinds.values())
    this.#kinds.clear()
    for (const kind of left) this.#deadlines.delete(kind)
    return Effect.forEach(
      left.filter(({ more }) => more > 0),
      (kind) => this.#summary(kind),
      { discard: true }
    )
  })
}
