/**
 * The broker's timers. One fiber sleeps until the earliest of them on Effect's `Clock`, so a `TestClock` passes days at
 * once. The fiber belongs to the broker's scope.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { Deque } from "./model/deque.ts"

interface Timer {
  readonly due: number
  action: (() => void) | undefined
}

export interface Timers {
  /** Milliseconds since 1970, on the clock of the broker. */
  readonly now: () => number
  /** Calls `action` at `due`, or at once in the next turn if that is over. Returns how to cancel it. */
  readonly at: (due: number, action: () => void) => () => void
}

export const make: Effect.Effect<Timers, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const timers = new Deque<Timer>((a, b) => a.due < b.due)
  let sleeper: Fiber.Fiber<void> | undefined
  let wakesAt = Infinity
  let isRunning = false

  const runDue = () => {
    isRunning = true
    for (
      let first = timers.first;
      first !== undefined && first.due <= clock.currentTimeMillisUnsafe();
      first = timers.first
    ) {
      timers.shift()
      first.action?.()
    }
    isRunning = false
  }

  const sleep: Effect.Effect<void> = Effect.suspend(() => {
    while (timers.first !== undefined && timers.first.action === undefined) timers.shift()
    const { first } = timers
    if (first === undefined) {
      wakesAt = Infinity
      sleeper = undefined
      return Effect.void
    }
    wakesAt = first.due
    const left = Math.max(0, first.due - clock.currentTimeMillisUnsafe())
    return Effect.andThen(
      Effect.sleep(left),
      Effect.suspend(() => {
        runDue()
        return sleep
      })
    )
  })

  const arm = () => {
    const { first } = timers
    // A running timer arms the next one itself.
    if (isRunning || first === undefined || first.due >= wakesAt) return
    const previous = sleeper
    wakesAt = first.due
    sleeper = Effect.runForkWith(context)(sleep)
    previous?.interruptUnsafe()
  }

  yield* Effect.addFinalizer(() => (sleeper === undefined ? Effect.void : Fiber.interrupt(sleeper)))

  return {
    now: () => clock.currentTimeMillisUnsafe(),
    at: (due, action) => {
      const timer: Timer = { due, action }
      timers.insert(timer)
      arm()
      return () => {
        timer.action = undefined
      }
    }
  }
})
