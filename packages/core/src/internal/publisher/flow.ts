/** A publisher's flow: computed from everything that can delay its messages, and published when it changes. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { Flow } from "../../model/publisher.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import type { PendingPublish } from "./pendingPublish.ts"
import type { PublisherChannel } from "./publisherChannel.ts"
import type { Fork } from "../waiting/fork.ts"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"

export const flowing: Flow = { _tag: "Flowing" }
const stopped: Flow = { _tag: "Stopped" }
const buffering: Flow = { _tag: "Buffering" }

// The flow becomes `Buffering` when no channel has taken more bytes for this long, in milliseconds. A busy publisher
// fills the write buffer within one turn of the event loop, and the connection empties it in the next one; that is not
// reported.
const bufferingAfterMillis = 10

export class FlowState {
  readonly #ref: SubscriptionRef.SubscriptionRef<Flow>
  readonly #internals: ConnectionInternals
  readonly #channels: ReadonlyArray<PublisherChannel<PendingPublish>>
  readonly #clock: Clock.Clock
  readonly #fork: Fork
  /** Since when no channel takes more bytes, in milliseconds; undefined while one does. */
  #fullSince: number | undefined = undefined
  #watching = false

  constructor(options: {
    readonly ref: SubscriptionRef.SubscriptionRef<Flow>
    readonly internals: ConnectionInternals
    readonly channels: ReadonlyArray<PublisherChannel<PendingPublish>>
    readonly clock: Clock.Clock
    readonly fork: Fork
  }) {
    this.#ref = options.ref
    this.#internals = options.internals
    this.#channels = options.channels
    this.#clock = options.clock
    this.#fork = options.fork
  }

  get #now(): number {
    return monotonicMillis(this.#clock)
  }

  /** Must be called when something may have changed. */
  refresh(): void {
    const now = this.#currentFlow()
    if (now !== buffering) {
      this.#fullSince = undefined
      return this.#set(now)
    }
    this.#fullSince ??= this.#now
    // An earlier state, such as `Blocked`, has ended.
    if (this.#ref.value._tag !== "Buffering") this.#set(flowing)
    if (this.#watching) return
    this.#watching = true
    this.#fork(this.#announce)
  }

  readonly #announce: Effect.Effect<void> = Effect.andThen(
    Effect.sleep(Duration.millis(bufferingAfterMillis)),
    Effect.suspend(() => {
      if (this.#fullSince !== undefined && this.#ref.value._tag !== "Buffering") {
        if (this.#now - this.#fullSince < bufferingAfterMillis) return this.#announce
        this.#set(buffering)
      }
      this.#watching = false
      return Effect.void
    })
  )

  #currentFlow(): Flow {
    const blockedBy = this.#internals.currentLink()?.blockedBy
    if (blockedBy !== undefined) return { _tag: "Blocked", reason: blockedBy }
    let open = 0
    let stoppedCount = 0
    for (const publisherChannel of this.#channels) {
      if (publisherChannel.isReady) return flowing
      if (!publisherChannel.isOpen) continue
      open++
      if (publisherChannel.channel!.isFlowStopped) stoppedCount++
    }
    if (open === 0) return flowing
    return stoppedCount === open ? stopped : buffering
  }

  // The value is set directly and not by an effect, so that the next read sees it.
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
