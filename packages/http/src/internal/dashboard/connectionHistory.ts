/** What connections have been through since the dashboard was there: told when it happens, whether or not anybody looks. */
import { AmqpConnection, AmqpConsumer } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Phase } from "./events.ts"

/** The phases that are remembered, at most. */
const most = 50

type Seen = Omit<Phase, "number" | "at">

const seen = (state: AmqpConnection.State, flow: AmqpConnection.Flow): Seen => {
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

/** Phases as they come, of one connection after the other: calls for each that is new, or of which more is known. */
const notesOf = (clock: Clock.Clock, told: (phase: Phase) => void) => {
  const phases: Array<Phase> = []
  const note = (now: Seen): void => {
    const last = phases.at(-1)
    const isSame = last?.name === now.name && last.generation === now.generation
    const phase: Phase = isSame
      ? { ...now, number: last.number, at: last.at }
      : { ...now, number: (last?.number ?? 0) + 1, at: clock.currentTimeMillisUnsafe() }
    if (isSame) phases.pop()
    phases.push(phase)
    if (phases.length > most) phases.shift()
    told(phase)
  }
  return { phases: phases as ReadonlyArray<Phase>, note }
}

/** Watches the connection of pool and publisher until the scope closes. */
export const watch = Effect.fnUntraced(function* (told: (phase: Phase) => void) {
  const { flow, state } = yield* AmqpConnection.AmqpConnection
  const { note, phases } = notesOf(yield* Clock.Clock, told)
  note(seen(state.value, flow.value))
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => note(seen(now, flow.value))))
  )
  // A connection that is lost is unblocked first, and this hears of it before the state has changed.
  const look = Effect.sync(() => note(seen(state.value, flow.value)))
  yield* Effect.forkScoped(
    Stream.runForEach(SubscriptionRef.changes(flow), () => Effect.andThen(Effect.yieldNow, look))
  )
  return phases
})

/** Watches the consumers' own connection, which is there while somebody consumes. They publish nothing on it. */
export const watchConsumers = Effect.fnUntraced(function* (told: (phase: Phase) => void) {
  const connection = yield* AmqpConsumer.ownConnection
  const { note, phases } = notesOf(yield* Clock.Clock, told)
  note({ name: "none" })
  yield* Effect.forkScoped(
    SubscriptionRef.changes(connection).pipe(
      Stream.switchMap((now) =>
        now === undefined
          ? Stream.succeed<Seen>({ name: "none" })
          : Stream.map(SubscriptionRef.changes(now.state), (state) => seen(state, { _tag: "Flowing" }))
      ),
      Stream.runForEach((now) => Effect.sync(() => note(now)))
    )
  )
  return phases
})
