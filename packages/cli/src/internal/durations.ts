/** Durations as flags have them. */
import * as Effect from "effect/Effect"
import { usage } from "./failure.ts"

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** A duration such as `90s`, `15m`, `2h` or `7d`, in milliseconds. */
export const durationOf = (flag: string, text: string) =>
  Effect.suspend(() => {
    const found = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text)
    const millis = found === null ? Number.NaN : Number(found[1]) * units[found[2] as keyof typeof units]
    return Number.isFinite(millis) && millis <= 3650 * units.d
      ? Effect.succeed(millis)
      : Effect.fail(usage(`--${flag}: expected a duration such as 30s, 15m, 2h or 7d, got ${JSON.stringify(text)}`))
  })
