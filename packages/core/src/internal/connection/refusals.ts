/** A peer that says no, as opposed to one that is away, and how long to wait before it is asked again. */
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
 * Whether a login or a virtual host was refused. The nodes of a cluster, and those behind one name, share users and virtual
 * hosts: another one would count as another failed login. A certificate, or a port where something else listens, is one
 * host's own.
 */
export const isOfLogin = (reason: AmqpErrorReason): boolean =>
  reason._tag === "AuthenticationFailed" || reason._tag === "VirtualHostRefused"

/** The bound of the pause after the first refusal, in milliseconds; half of it is random. It doubles with each. */
const firstRefusedDelay = 1000

/** Where it ends, unless `reconnect.maxDelay` is longer. */
const longestRefusedDelay = 30_000

/** The pauses between attempts to connect. */
export class Pauses {
  readonly #backoff: Backoff<AmqpErrorReason>
  readonly #longest: number
  /** Refusals without an open connection in between. */
  #refusals = 0

  constructor(clock: Clock.Clock, { healthyAfter, maxDelay, minDelay, schedule }: AmqpConfig["reconnect"]) {
    this.#backoff = new Backoff(clock, schedule ?? fullJitter(minDelay, maxDelay), healthyAfter)
    this.#longest = Math.max(longestRefusedDelay, Duration.toMillis(maxDelay))
  }

  get now(): number {
    return this.#backoff.now
  }

  /** A connection that opened at that time (`now`) has been lost. */
  lost(openedAt: number): void {
    this.#backoff.lost(openedAt)
  }

  /** What was refused may not be any more: the next refusal is the first. */
  forgetRefusals(): void {
    this.#refusals = 0
  }

  /**
   * Waits until the next attempt is due; `false`: there is none.
   *
   * @param replaced done when there is another secret, with which a refused login is tried at once
   */
  wait(reason: AmqpErrorReason, replaced: Deferred.Deferred<void>): Effect.Effect<boolean> {
    if (!isRefusal(reason)) return this.#backoff.wait(reason)
    const bound = Math.min(firstRefusedDelay * 2 ** this.#refusals++, this.#longest)
    const due = Effect.flatMap(Random.next, (random) =>
      this.#backoff.wait(reason, Duration.millis(bound * (0.5 + random / 2)))
    )
    return isOfLogin(reason) ? Effect.raceFirst(due, Effect.as(Deferred.await(replaced), true)) : due
  }
}
