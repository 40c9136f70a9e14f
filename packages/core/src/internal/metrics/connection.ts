/** Measures that accumulate over the states of a connection. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConnection, State } from "../../model/connection.ts"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"

export interface ConnectionMeasures {
  /** Number of connections after the first. */
  readonly reconnects: number
  /** Number of attempts that have failed since it was open. */
  readonly failedAttempts: number
  /** How long the broker has blocked publishers, in seconds. */
  readonly blockedSeconds: number
}

/** Measures a sequence of connections, each of which replaces the one before. Watches until the scope closes. */
export const watchConnections = Effect.fnUntraced(function* (
  connections: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>
): Effect.fn.Return<Omit<ConnectionMeasures, "blockedSeconds">, never, Scope.Scope> {
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

/** Measures one connection. Watches until the scope closes. */
export const watchConnection = Effect.fnUntraced(function* ({
  flow,
  state
}: AmqpConnection["Service"]): Effect.fn.Return<ConnectionMeasures, never, Scope.Scope> {
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
        if (blockedSince !== undefined) blocked += monotonicMillis(clock) - blockedSince
        blockedSince = now._tag === "Blocked" ? monotonicMillis(clock) : undefined
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
      return (blocked + (blockedSince === undefined ? 0 : monotonicMillis(clock) - blockedSince)) / 1000
    }
  }
})
