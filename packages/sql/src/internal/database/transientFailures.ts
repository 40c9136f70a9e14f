/** Failures of a transaction that say nothing about its message: another transaction was in the way. */
import * as Cause from "effect/Cause"
import * as Predicate from "effect/Predicate"
import { isSqlError, type SqlErrorReason } from "effect/sql/SqlError"
import type { Dialect } from "./tables.ts"

// SQLite has one writer. A lock that is not free in time is its form of the same failure.
const transient: Record<Dialect, ReadonlySet<SqlErrorReason["_tag"]>> = {
  pg: new Set(["SerializationError", "DeadlockError"]),
  sqlite: new Set(["SerializationError", "DeadlockError", "LockTimeoutError"])
}

/** Longest chain of causes that is read: an error may be its own cause. */
const maxDepth = 10

const isTransientError = (dialect: Dialect, error: unknown): boolean => {
  let current = error
  for (let depth = 0; depth < maxDepth && Predicate.isObject(current); depth++) {
    if (isSqlError(current)) return transient[dialect].has(current.reason._tag)
    current = Predicate.hasProperty(current, "cause") ? current.cause : undefined
  }
  return false
}

/** Whether the transaction may succeed when it runs again. An interruption ends it in any case. */
export const isTransient = (dialect: Dialect, cause: Cause.Cause<unknown>): boolean =>
  !Cause.hasInterrupts(cause) &&
  cause.reasons.some((reason) =>
    Cause.isFailReason(reason)
      ? isTransientError(dialect, reason.error)
      : Cause.isDieReason(reason) && isTransientError(dialect, reason.defect)
  )

/** A random pause before a further try, which grows from 10 ms to 1 second. In milliseconds. */
export const pauseBefore = (tries: number): number => Math.min(1000, 10 * 2 ** tries) * (0.5 + Math.random() / 2)
