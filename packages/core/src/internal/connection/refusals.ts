/**
 * Distinguishes a peer that refuses from one that is unavailable, and sets how long to wait before the next attempt.
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpErrorReason } from "../../model/errorReason.ts"
import { Backoff, fullJitter } from "../waiting/backoff.ts"

export const isRefusal = (reason: AmqpErrorReason): boolean => !reason.isRetryable

/**
 * Whether a login or a virtual host was refused. The nodes of a cluster, and those behind one name, share users and
 * virtual hosts: an attempt at another node would count as another failed login. A certificate, or a port where another
 * service listens, concerns one host only.
 */
export const isLoginRefusal = (reason: AmqpErrorReason): boolean =>
  reason._tag === "AuthenticationFailed" || reason._tag === "VirtualHostRefused"

/**
 * Upper bound of the pause after the first refusal, in milliseconds; half of it is random. It doubles with each
 * refusal.
 */
const initialRefusalDelayMillis = 1000

/** Maximum of that bound, in milliseconds, unless `reconnect.maxDelay` is longer. */
const maxRefusalDelayMillis = 30_000

/** The pauses between attempts to connect. */
export class ReconnectBackoff {
  readonly #backoff: Backoff<AmqpErrorReason>
  readonly #longest: number
  /** Number of refusals since a connection was last open. */
  #refusals = 0

  constructor(clock: Clock.Clock, { healthyAfter, maxDelay, minDelay, schedule }: AmqpConfig["reconnect"]) {
    this.#backoff = new Backoff(clock, schedule ?? fullJitter(minDelay, maxDelay), healthyAfter)
    this.#longest = Math.max(maxRefusalDelayMillis, Duration.toMillis(maxDelay))
  }

  get now(): number {
    return this.#backoff.now
  }

  /** Records the loss of a connection that opened at `openedAt`, a time of `now`. */
  lost(openedAt: number): void {
    this.#backoff.resetIfHealthy(openedAt)
  }

  /** Resets the count of refusals, because the reason for them may have passed. */
  forgetRefusals(): void {
    this.#refusals = 0
  }

  /**
   * Waits until the next attempt is due. Succeeds with `false` when there is no further attempt.
   *
   * @param replaced completed when the secret is replaced; a refused login is then retried at once
   */
  wait(reason: AmqpErrorReason, replaced: Deferred.Deferred<void>): Effect.Effect<boolean> {
    if (!isRefusal(reason)) return this.#backoff.wait(reason)
    const bound = Math.min(initialRefusalDelayMillis * 2 ** this.#refusals++, this.#longest)
    const due = Effect.flatMap(Random.next, (random) =>
      this.#backoff.wait(reason, Duration.millis(bound * (0.5 + random / 2)))
    )
    return isLoginRefusal(reason) ? Effect.raceFirst(due, Effect.as(Deferred.await(replaced), true)) : due
  }
}
