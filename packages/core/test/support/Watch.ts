/**
 * Waiting for a condition over state that changes by events: looked at after each change, and by no clock.
 */
import { Effect } from "effect"

export interface Watch {
  /** Says that something changed. */
  readonly changed: () => void
  /** Completes as soon as the condition holds, at once if it does already. */
  readonly until: (condition: () => boolean) => Effect.Effect<void>
}

export const make = (): Watch => {
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
