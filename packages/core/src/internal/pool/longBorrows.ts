/** Logs a warning, once per lease, for channels that are held for a long time: they may be leaked. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logging from "../telemetry/logging.ts"
import type { Fork } from "../waiting/fork.ts"
import type { PoolLease } from "./poolLease.ts"

/** Checks all leases periodically while there are any, so that a lease needs no timer of its own. */
export class LongBorrows {
  readonly #limit: number
  readonly #fork: Fork
  readonly #borrowed: () => ReadonlyArray<PoolLease>
  readonly #now: () => number
  #isChecking = false

  /** @param limit how long a lease may last without a warning; undefined means no limit */
  constructor(
    limit: Duration.Duration | undefined,
    pool: { readonly fork: Fork; readonly borrowed: () => ReadonlyArray<PoolLease>; readonly now: () => number }
  ) {
    this.#limit = limit === undefined ? Infinity : Duration.toMillis(limit)
    this.#fork = pool.fork
    this.#borrowed = pool.borrowed
    this.#now = pool.now
  }

  /** Starts the periodic check unless it is running. Called when a lease begins. */
  ensureRunning(): void {
    if (!this.#isChecking && this.#limit !== Infinity) this.#startChecking()
  }

  #startChecking(): void {
    this.#isChecking = true
    const interval = Duration.millis(Math.min(5000, Math.max(10, this.#limit / 4)))
    const check: Effect.Effect<void> = Effect.flatMap(Effect.sleep(interval), () => {
      const borrowed = this.#borrowed()
      if (borrowed.length === 0) {
        this.#isChecking = false
        return Effect.void
      }
      const now = this.#now()
      let warnings: Effect.Effect<void> = Effect.void
      for (const lease of borrowed) {
        if (lease.warned || lease.acquiredAt < 0 || now - lease.acquiredAt < this.#limit) continue
        lease.warned = true
        warnings = Effect.andThen(warnings, warnOf(lease, now - lease.acquiredAt))
      }
      return Effect.andThen(warnings, check)
    })
    this.#fork(check)
  }
}

const warnOf = ({ channel, kind, origin }: PoolLease, heldFor: number): Effect.Effect<void> =>
  Effect.annotateLogs(Effect.logWarning("AMQP channel borrowed for longer than pool.longBorrow and not returned"), {
    kind,
    heldFor: Duration.format(Duration.millis(Math.floor(heldFor))),
    ...Logging.originAnnotations(origin?.stackFrame, origin?.span),
    ...(channel === undefined ? {} : Logging.channelAnnotations(channel))
  })
