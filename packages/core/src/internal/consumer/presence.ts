/**
 * Whether the consumers run that should: as conditions of the application, for health checks.
 *
 * A consumer has a name, by default its queue. One that has ended by itself leaves its condition behind, which the next
 * consumer of the same name takes over. So a consumer that an application starts again and again is one condition.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Conditions } from "../connection/conditions.ts"

/** How long a first subscription may wait for a connection before that is reported. */
const grace = "5 seconds"

/** Ended consumers that are reported, at most: names of queues may be made up for each request. */
const mostEnded = 100

/** What one consumer reports of itself. */
export class Presence {
  readonly #owner: Presences
  readonly #name: string
  readonly #key: string
  #hasSubscribed = false
  #hasFailed = false

  constructor(owner: Presences, name: string, key: string) {
    this.#owner = owner
    this.#name = name
    this.#key = key
  }

  /** It gets deliveries. */
  subscribed(): void {
    this.#hasSubscribed = true
    this.#owner.clear(this.#key)
  }

  /** It gets none at the moment, and subscribes again. */
  interrupted(why: string): void {
    if (this.#hasSubscribed) this.#report("ConsumerInterrupted", `subscribes again: ${why}`, false)
    else this.#report("ConsumerNotStarted", `could not subscribe yet: ${why}`, true)
  }

  /** Waits for a connection, and reports it if that is long and nothing was consumed before. */
  waitFor<A, E>(connection: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.suspend(() =>
      this.#hasSubscribed
        ? connection
        : Effect.flatMap(Effect.timeoutOption(connection, grace), (found) => {
            if (found._tag === "Some") return Effect.succeed(found.value)
            this.interrupted("there is no connection")
            return connection
          })
    )
  }

  /** It has ended, and nobody has asked it to. */
  failed(why: string): void {
    this.#hasFailed = true
    this.#report("ConsumerEnded", `has ended: ${why}`, true)
    this.#owner.leave(this.#name, this.#key)
  }

  /** It is gone, whatever the way. */
  left(): void {
    // Else another consumer of this name may have taken over what it has left behind.
    if (!this.#hasFailed) this.#owner.clear(this.#key)
  }

  #report(kind: string, what: string, notReady: boolean): void {
    this.#owner.report(this.#key, { kind, message: `the consumer ${JSON.stringify(this.#name)} ${what}`, notReady })
  }
}

/** What the consumers of one service report. */
export class Presences {
  readonly #conditions: Conditions
  readonly #clock: Clock.Clock
  readonly #reported = new Set<string>()
  /** The names of those that have ended by themselves, by key, the oldest first. */
  readonly #ended = new Map<string, string>()
  #isOver = false

  constructor(conditions: Conditions, clock: Clock.Clock) {
    this.#conditions = conditions
    this.#clock = clock
  }

  /** A consumer begins. */
  enter(name: string): Presence {
    for (const [key, other] of this.#ended) {
      if (other !== name) continue
      this.#ended.delete(key)
      return new Presence(this, name, key)
    }
    return new Presence(this, name, `consumer ${++keys}`)
  }

  /** The service has ended: nothing is reported any more. */
  end(): void {
    this.#isOver = true
    for (const key of this.#reported) this.#conditions.clear(key)
    this.#reported.clear()
    this.#ended.clear()
  }

  report(
    key: string,
    condition: { readonly kind: string; readonly message: string; readonly notReady: boolean }
  ): void {
    if (this.#isOver) return
    this.#reported.add(key)
    this.#conditions.report(key, condition, this.#clock.currentTimeMillisUnsafe())
  }

  clear(key: string): void {
    if (this.#reported.delete(key)) this.#conditions.clear(key)
  }

  leave(name: string, key: string): void {
    if (this.#isOver) return
    this.#ended.set(key, name)
    const [oldest] = this.#ended.keys()
    if (this.#ended.size <= mostEnded || oldest === undefined) return
    this.#ended.delete(oldest)
    this.clear(oldest)
  }
}

// Of the process: several services may report to the same connection.
let keys = 0
