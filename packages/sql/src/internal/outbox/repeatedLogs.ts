/**
 * Limits repeated log lines. When an exchange is gone, 100,000 waiting messages fail one after another: the first lines of
 * a kind are written in full, the others are counted, and one line per interval gives their number.
 */
import * as Effect from "effect/Effect"

/** Number of lines of a kind that are written in full per interval. */
const maxInFull = 5

/** The interval in milliseconds. */
const interval = 10_000

interface Kind {
  written: number
  suppressed: number
}

export class RepeatedLogs {
  readonly #kinds = new Map<string, Kind>()

  /** Runs `log`, which writes one line of this kind, unless the interval has enough of them. */
  write(kind: string, log: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      let known = this.#kinds.get(kind)
      if (known === undefined) this.#kinds.set(kind, (known = { written: 0, suppressed: 0 }))
      if (known.written === maxInFull) {
        known.suppressed++
        return Effect.void
      }
      known.written++
      return log
    })
  }

  /** Writes what was suppressed, and begins another interval. */
  readonly summarize: Effect.Effect<void> = Effect.suspend(() => {
    const kinds = Array.from(this.#kinds)
    this.#kinds.clear()
    return Effect.forEach(
      kinds.filter(([, { suppressed }]) => suppressed > 0),
      ([kind, { suppressed }]) =>
        Effect.annotateLogs(Effect.logWarning(`${kind}: ${suppressed.toLocaleString("en-US")} more of these`), {
          repeated: suppressed
        }),
      { discard: true }
    )
  })

  /** Writes summaries for as long as it runs. */
  readonly run: Effect.Effect<never> = Effect.forever(
    Effect.andThen(
      Effect.sleep(interval),
      Effect.suspend(() => this.summarize)
    )
  )
}
