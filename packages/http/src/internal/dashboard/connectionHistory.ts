/** The history of the connections since the dashboard was built. It is recorded whether or not there are viewers. */
import { AmqpConnection, AmqpConsumer } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Phase } from "./events.ts"

/** Maximum number of phases that are remembered. */
const most = 50

type PhaseState = Omit<Phase, "number" | "at">

const seen = (state: AmqpConnection.State, flow: AmqpConnection.Flow): PhaseState => {
  switch (state._tag) {
    case "Open": {
      const { generation, peer, product } = state
      return flow._tag === "Blocked"
        ? { name: "blocked", reason: flow.reason.slice(0, 100), peer, product, generation }
        : { name: "open", peer, product, generation }
    }
    case "Closed":
      return { name: "closed", reason: state.reason._tag }
    default:
      return {
        name: state._tag === "Connecting" ? "connecting" : "reconnecting",
        attempt: state.attempt,
        ...(state.reason === undefined ? undefined : { reason: state.reason._tag })
      }
  }
}

/**
 * Records the phases of successive connections. `onPhase` is called for each new phase, and when more is known about
 * it.
 */
const makeHistory = (clock: Clock.Clock, onPhase: (phase: Phase) => void) => {
  const phases: Array<Phase> = []
  const note = (now: PhaseState): void => {
    const last = phases.at(-1)
    const isSame = last?.name === now.name && last.generation === now.generation
    const phase: Phase = isSame
      ? { ...now, number: last.number, at: last.at }
      : { ...now, number: (last?.number ?? 0) + 1, at: clock.currentTimeMillisUnsafe() }
    if (isSame) phases.pop()
    phases.push(phase)
    if (phases.length > most) phases.shift()
    onPhase(phase)
  }
  return { phases: phases as ReadonlyArray<Phase>, note }
}

/** Watches the connection of pool and publisher until the scope closes. */
export const watch = Effect.fnUntraced(function* (onPhase: (phase: Phase) => void) {
  const { flow, state } = yield* AmqpConnection.AmqpConnection
  const { note, phases } = makeHistory(yield* Clock.Clock, onPhase)
  note(seen(state.value, flow.value))
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => note(seen(now, flow.value))))
  )
  // When a connection is lost, its flow changes before its state. The fiber yields first, so that it reads the new
  // state.
  const look = Effect.sync(() => note(seen(state.value, flow.value)))
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(flow), () => Effect.andThen(Effect.yieldNow, look))
  )
  return phases
})

/**
 * Watches the consumers' own connection until the scope closes. It exists while there are consumers, and never
 * publishes.
 */
export const watchConsumers = Effect.fnUntraced(function* (onPhase: (phase: Phase) => void) {
  const connection = yield* AmqpConsumer.ownConnection
  const { note, phases } = makeHistory(yield* Clock.Clock, onPhase)
  note({ name: "none" })
  yield* Effect.forkScoped(
    SubscriptionRef.changes(connection).pipe(
      Stream.switchMap((now) =>
        now === undefined
          ? Stream.succeed<PhaseState>({ name: "none" })
          : Stream.map(SubscriptionRef.changes(now.state), (state) => seen(state, { _tag: "Flowing" }))
      ),
      Stream.runForEach((now) => Effect.sync(() => note(now)))
    )
  )
  return phases
})
