/** Progress of long work: a bar that is redrawn in a terminal, otherwise a line on standard error now and then. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { note, Output } from "./Output.ts"
import * as Text from "./text.ts"

const redrawEvery = 100
const lineEvery = 5000
const longest = 30
const shortest = 5

export interface Progress {
  /**
   * Reports the state. It writes at most ten times per second, or a line every five seconds. There is no bar if the total
   * is not known.
   */
  readonly report: (done: number, total: number | undefined, suffix?: string) => Effect.Effect<void>
}

const bar = (done: number, total: number, columns: number): string => {
  const filled = total === 0 ? columns : Math.min(columns, Math.floor((done / total) * columns))
  return `[${"#".repeat(filled)}${"-".repeat(columns - filled)}]`
}

const write = (text: string) => Effect.sync(() => void process.stderr.write(text))

/** Removes the bar. */
const erase = "\r\u001b[2K"

/** Runs work with a progress of this name. The bar is gone when it ends, however it ends. */
export const withProgress = <A, E, R>(
  name: string,
  work: (progress: Progress) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | Output> =>
  Effect.gen(function* () {
    const { canRedraw } = yield* Output
    let last: number | undefined
    let drawn = false
    const report = Effect.fnUntraced(function* (done: number, total: number | undefined, suffix = "") {
      const now = yield* Clock.currentTimeMillis
      last ??= canRedraw ? now - redrawEvery : now
      if (now - last < (canRedraw ? redrawEvery : lineEvery)) return
      last = now
      const text = total === undefined ? `${name} ${done}` : `${name} ${done} of ${total}`
      if (!canRedraw) return yield* note(text + suffix)
      // A terminal echoes Ctrl-C as ^C: a line that wraps would stay behind.
      const columns = (process.stderr.columns || 80) - 3
      const room = Math.min(longest, columns - Text.width(text) - 3)
      drawn = true
      const drawing = total === undefined || room < shortest ? "" : `${bar(done, total, room)} `
      yield* write(erase + Text.truncate(drawing + text + suffix, columns))
    })
    return yield* work({ report }).pipe(Effect.ensuring(Effect.suspend(() => (drawn ? write(erase) : Effect.void))))
  })
