/**
 * Waits for a condition on state that changes by events: the condition is checked after each change, and not by a
 * clock.
 */
import { Effect } from "effect"

export interface ConditionWatcher {
  /** Reports that something changed. */
  readonly changed: () => void
  /** Completes as soon as the condition holds, at once if it already does. */
  readonly until: (condition: () => boolean) => Effect.Effect<void>
}

export const make = (): ConditionWatcher => {
  const waiters = new Set<() => void>()
  return {
    changed: () => {
      for (const check of waiters) check()
    },
    until: (condition) =>
      Effect.callback((resume) => {
        const check = () => {
          if (!condition()) return
          waiters.delete(check)
          resume(Effect.void)
        }
        waiters.add(check)
        check()
        return Effect.sync(() => void waiters.delete(check))
      })
  }
}
