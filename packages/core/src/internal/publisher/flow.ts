/** What a publisher's flow is, made of all that can hold its messages up, and told when it changes. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { Flow } from "../../model/publisher.ts"
import type { Links } from "../connection/links.ts"
import type { Attempt } from "./attempt.ts"
import type { Lane } from "./lane.ts"
import type { Fork } from "../waiting/fork.ts"
import { elapsed } from "../waiting/elapsed.ts"

export const flowing: Flow = { _tag: "Flowing" }
const stopped: Flow = { _tag: "Stopped" }
const buffering: Flow = { _tag: "Buffering" }

// A busy publisher fills the write buffer within one turn of the event loop, and the connection empties it in the next:
// that is no news. In milliseconds.
const bufferingAfter = 10

export class FlowState {
  readonly #ref: SubscriptionRef.SubscriptionRef<Flow>
  readonly #links: Links
  readonly #lanes: ReadonlyArray<Lane<Attempt>>
  readonly #clock: Clock.Clock
  readonly #fork: Fork
  /** Since when no channel takes more bytes; undefined while one does. */
  #fullSince: number | undefined = undefined
  #watching = false

  constructor(options: {
    readonly ref: SubscriptionRef.SubscriptionRef<Flow>
    readonly links: Links
    readonly lanes: ReadonlyArray<Lane<Attempt>>
    readonly clock: Clock.Clock
    readonly fork: Fork
  }) {
    this.#ref = options.ref
    this.#links = options.links
    this.#lanes = options.lanes
    this.#clock = options.clock
    this.#fork = options.fork
  }

  get #now(): number {
    return elapsed(this.#clock)
  }

  /** To be called when something may have changed. */
  refresh(): void {
    const now = this.#present()
    if (now !== buffering) {
      this.#fullSince = undefined
      return this.#set(now)
    }
    this.#fullSince ??= this.#now
    // Whatever else it was before, it is not any more.
    if (this.#ref.value._tag !== "Buffering") this.#set(flowing)
    if (this.#watching) return
    this.#watching = true
    this.#fork(this.#announce)
  }

  readonly #announce: Effect.Effect<void> = Effect.andThen(
    Effect.sleep(Duration.millis(bufferingAfter)),
    Effect.suspend(() => {
      if (this.#fullSince !== undefined && this.#ref.value._tag !== "Buffering") {
        if (this.#now - this.#fullSince < bufferingAfter) return this.#announce
        this.#set(buffering)
      }
      this.#watching = false
      return Effect.void
    })
  )

  #present(): Flow {
    const blockedBy = this.#links.current()?.blockedBy
    if (blockedBy !== undefined) return { _tag: "Blocked", reason: blockedBy }
    let open = 0
    let stoppedOnes = 0
    for (const lane of this.#lanes) {
      if (lane.isReady) return flowing
      if (!lane.isOpen) continue
      open++
      if (lane.channel!.stopped) stoppedOnes++
    }
    if (open === 0) return flowing
    return stoppedOnes === open ? stopped : buffering
  }

  // In place, not by an effect: the value must be right for whoever looks at it next.
  #set(flow: Flow): void {
    const before = this.#ref.value
    if (
      before._tag === flow._tag &&
      !(before._tag === "Blocked" && flow._tag === "Blocked" && before.reason !== flow.reason)
    ) {
      return
    }
    this.#ref.value = flow
    PubSub.publishUnsafe(this.#ref.pubsub, flow)
  }
}
