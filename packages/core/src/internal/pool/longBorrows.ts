/** Warns of channels that are borrowed for long, once each: they may have been forgotten, and others wait for them. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logging from "../telemetry/logging.ts"
import type { Fork } from "../waiting/fork.ts"
import type { Borrow } from "./borrow.ts"

/** Looks at what is borrowed from time to time, until nothing is: so a borrow costs no timer of its own. */
export class LongBorrows {
  readonly #limit: number
  readonly #fork: Fork
  readonly #borrowed: () => ReadonlyArray<Borrow>
  readonly #now: () => number
  #isLooking = false

  /** @param limit how long a borrow may be; undefined: any time */
  constructor(
    limit: Duration.Duration | undefined,
    pool: { readonly fork: Fork; readonly borrowed: () => ReadonlyArray<Borrow>; readonly now: () => number }
  ) {
    this.#limit = limit === undefined ? Infinity : Duration.toMillis(limit)
    this.#fork = pool.fork
    this.#borrowed = pool.borrowed
    this.#now = pool.now
  }

  /** A borrow has begun. */
  begun(): void {
    if (!this.#isLooking && this.#limit !== Infinity) this.#look()
  }

  #look(): void {
    this.#isLooking = true
    const interval = Duration.millis(Math.min(5000, Math.max(10, this.#limit / 4)))
    const look: Effect.Effect<void> = Effect.flatMap(Effect.sleep(interval), () => {
      const borrowed = this.#borrowed()
      if (borrowed.length === 0) {
        this.#isLooking = false
        return Effect.void
      }
      const now = this.#now()
      let warnings: Effect.Effect<void> = Effect.void
      for (const borrow of borrowed) {
        if (borrow.warned || borrow.lentAt < 0 || now - borrow.lentAt < this.#limit) continue
        borrow.warned = true
        warnings = Effect.andThen(warnings, warnOf(borrow, now - borrow.lentAt))
      }
      return Effect.andThen(warnings, look)
    })
    this.#fork(look)
  }
}

const warnOf = ({ channel, kind, origin }: Borrow, heldFor: number): Effect.Effect<void> =>
  Effect.annotateLogs(Effect.logWarning("AMQP channel borrowed for long and not given back"), {
    kind,
    heldFor: Duration.format(Duration.millis(Math.floor(heldFor))),
    ...Logging.ofOrigin(origin?.stackFrame, origin?.span),
    ...(channel === undefined ? {} : Logging.ofChannel(channel))
  })
