/** Whether the broker takes messages on a connection, by its own word (`connection.blocked`), and how long it may not. */
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
  readonly #which: () => Readonly<Record<string, unknown>>
  #timer: { readonly interruptUnsafe: () => void } | undefined

  /**
   * @param flow what applications see
   * @param timeout `blockedConnectionTimeout`
   * @param which what lines of the log say about where they belong
   */
  constructor(
    flow: SubscriptionRef.SubscriptionRef<Flow>,
    timeout: Duration.Duration | undefined,
    fork: Fork,
    which: () => Readonly<Record<string, unknown>>
  ) {
    this.#flow = flow
    this.#timeout = timeout
    this.#fork = fork
    this.#which = which
  }

  blocked(reason: string, link: Link | undefined): void {
    if (this.#flow.value._tag === "Flowing") {
      const log = Effect.logWarning("AMQP connection blocked: the broker takes no messages")
      this.#set({ _tag: "Blocked", reason }, Effect.annotateLogs(log, { reason, ...this.#which() }))
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
    this.#end(Effect.annotateLogs(Effect.logInfo("AMQP connection unblocked"), this.#which()))
  }

  /** The connection has ended, and with it what the broker said on it. */
  lost(): void {
    this.#end(Effect.void)
  }

  /** Nobody waits for anything any more. */
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
