/**
 * Tracks whether the broker has blocked publishing on a connection (`connection.blocked`), and ends the connection
 * after `blockedConnectionTimeout`.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Flow } from "../../model/connection.ts"
import { ConnectionClosed } from "../../model/errorReason.ts"
import type { Fork } from "../waiting/fork.ts"
import type { Link } from "./link.ts"

export class Blocking {
  readonly #flow: SubscriptionRef.SubscriptionRef<Flow>
  readonly #timeout: Duration.Duration | undefined
  readonly #fork: Fork
  readonly #annotations: () => Readonly<Record<string, unknown>>
  #timer: { readonly interruptUnsafe: () => void } | undefined

  /**
   * @param flow the state that applications observe
   * @param timeout `blockedConnectionTimeout`
   * @param annotations returns the log annotations of the current link
   */
  constructor(
    flow: SubscriptionRef.SubscriptionRef<Flow>,
    timeout: Duration.Duration | undefined,
    fork: Fork,
    annotations: () => Readonly<Record<string, unknown>>
  ) {
    this.#flow = flow
    this.#timeout = timeout
    this.#fork = fork
    this.#annotations = annotations
  }

  blocked(reason: string, link: Link | undefined): void {
    if (this.#flow.value._tag === "Flowing") {
      const log = Effect.logWarning(
        "AMQP connection blocked: the broker accepts no messages on it until it sends connection.unblocked"
      )
      this.#set({ _tag: "Blocked", reason }, Effect.annotateLogs(log, { reason, ...this.#annotations() }))
    }
    const timeout = this.#timeout
    if (timeout === undefined || this.#timer !== undefined) return
    this.#timer = this.#fork(
      Effect.andThen(
        Effect.sleep(timeout),
        Effect.sync(() =>
          link?.destroy(
            new ConnectionClosed({
              message: `the broker blocked this connection for longer than ${Duration.format(timeout)} (blockedConnectionTimeout): ${reason}`
            })
          )
        )
      )
    )
  }

  unblocked(): void {
    this.#end(
      Effect.annotateLogs(
        Effect.logInfo("AMQP connection unblocked: the broker accepts messages on it again"),
        this.#annotations()
      )
    )
  }

  /** The connection has ended, so the block on it is over. */
  lost(): void {
    this.#end(Effect.void)
  }

  /** Stops the timer. No log line follows. */
  stop(): void {
    this.#timer?.interruptUnsafe()
  }

  #end(log: Effect.Effect<void>): void {
    this.#timer?.interruptUnsafe()
    this.#timer = undefined
    if (this.#flow.value._tag === "Blocked") this.#set({ _tag: "Flowing" }, log)
  }

  #set(value: Flow, log: Effect.Effect<void>): void {
    this.#fork(Effect.andThen(SubscriptionRef.set(this.#flow, value), log))
  }
}
