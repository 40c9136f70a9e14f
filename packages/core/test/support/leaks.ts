/** What this process still holds, and errors that were not caught: for tests of what connections leave behind. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"

const counted = () => {
  const counts: Record<string, number> = {}
  for (const name of process.getActiveResourcesInfo()) {
    if (/Socket|TCP|TLS|Timeout/.test(name)) counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}

/** One turn of the event loop: a destroyed socket is on the list until then. */
export const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const listeners = () => Object.fromEntries(process.eventNames().map((name) => [name, process.listenerCount(name)]))

/**
 * Runs a program that must leave nothing when it has ended: no more sockets and timers than before, no listener on the
 * process, and no uncaught error.
 */
export const assertNoLeaks = <A, E, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    yield* turn
    const before = counted()
    const listening = listeners()
    const uncaught: Array<unknown> = []
    const note = (cause: unknown) => void uncaught.push(cause)
    process.on("uncaughtExceptionMonitor", note).on("unhandledRejection", note)
    const result = yield* Effect.ensuring(
      program,
      Effect.sync(() => process.off("uncaughtExceptionMonitor", note).off("unhandledRejection", note))
    )
    // Other sides of connections, and timers of this loop itself, end a moment later.
    const until = performance.now() + 3000
    const more = () => Object.entries(counted()).filter(([name, count]) => count > (before[name] ?? 0))
    yield* turn
    while (more().length > 0 && performance.now() < until) {
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(() => setImmediate(resolve))))
    }
    assert.deepStrictEqual(more(), [], "sockets and timers left, by kind")
    assert.deepStrictEqual(listeners(), listening, "listeners on the process")
    assert.deepStrictEqual(uncaught, [], "uncaught")
    return result
  })
