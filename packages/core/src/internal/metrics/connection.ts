/** What a connection's states add up to. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConnection, State } from "../../model/connection.ts"
import { elapsed } from "../waiting/elapsed.ts"

export interface Watched {
  /** Connections after the first. */
  readonly reconnects: number
  /** Attempts that have failed since it was open. */
  readonly failedAttempts: number
  /** How long the broker has blocked publishers. */
  readonly blockedSeconds: number
}

/** What becomes of a connection that comes and goes, from one to the next. Watches until the scope closes. */
export const watchConnections = Effect.fnUntraced(function* (
  connections: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>
): Effect.fn.Return<Omit<Watched, "blockedSeconds">, never, Scope.Scope> {
  let reconnects = 0
  yield* Effect.forkScoped(
    SubscriptionRef.changes(connections).pipe(
      Stream.switchMap((connection) =>
        connection === undefined ? Stream.empty : SubscriptionRef.changes(connection.state)
      ),
      Stream.runForEach((now) =>
        Effect.sync(() => {
          if (now._tag === "Open" && now.generation > 1) reconnects++
        })
      )
    )
  )
  return {
    get reconnects() {
      return reconnects
    },
    get failedAttempts() {
      return failedAttemptsOf(connections.value?.state.value)
    }
  }
})

const failedAttemptsOf = (state: State | undefined): number =>
  state?._tag === "Connecting" || state?._tag === "Reconnecting" ? state.attempt : 0

/** Watches until the scope closes. */
export const watchConnection = Effect.fnUntraced(function* ({
  flow,
  state
}: AmqpConnection["Service"]): Effect.fn.Return<Watched, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  let reconnects = 0
  let blocked = 0
  let blockedSince: number | undefined
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) =>
      Effect.sync(() => {
        if (now._tag === "Open") reconnects = now.generation - 1
      })
    )
  )
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(flow), (now) =>
      Effect.sync(() => {
        if (blockedSince !== undefined) blocked += elapsed(clock) - blockedSince
        blockedSince = now._tag === "Blocked" ? elapsed(clock) : undefined
      })
    )
  )
  return {
    get reconnects() {
      return reconnects
    },
    get failedAttempts() {
      return failedAttemptsOf(state.value)
    },
    get blockedSeconds() {
      return (blocked + (blockedSince === undefined ? 0 : elapsed(clock) - blockedSince)) / 1000
    }
  }
})
