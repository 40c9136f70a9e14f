/** The steps of a stream, for server-sent events and for WebSockets: a delivery, a heartbeat or the end. */
import type { AmqpConsumer } from "@effect-amqp/core"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import { problemOf } from "./refusals.ts"
import type { Bounds } from "./requests.ts"
import type { Attachment, Ending } from "./sessions.ts"

/** The data of the event `end`, as JSON. */
export const endingAsJson = (ending: Ending): string =>
  JSON.stringify(
    ending.reason === "failed"
      ? { reason: ending.reason, problem: problemOf(ending.refusal) }
      : { reason: ending.reason }
  )

export type Next =
  | { readonly _tag: "Delivery"; readonly delivery: AmqpConsumer.Delivery }
  | { readonly _tag: "Heartbeat" }
  | { readonly _tag: "End"; readonly ending: Ending }

/** Waits for a client's next step: a delivery, the end, or a heartbeat after a silence of `heartbeatInterval`. */
export const nextOf = ({ ended, inbox }: Attachment, { heartbeatInterval: heartbeat }: Bounds): Effect.Effect<Next> => {
  const end = Effect.map(Deferred.await(ended), (ending): Next => ({ _tag: "End", ending }))
  const delivery = Effect.map(Queue.take(inbox), (delivery): Next => ({ _tag: "Delivery", delivery }))
  const wait = Effect.raceFirst(delivery, end).pipe(
    Effect.timeoutOption(heartbeat),
    Effect.map(Option.getOrElse((): Next => ({ _tag: "Heartbeat" })))
  )
  // The end is checked first, because the deliveries in the inbox return to the queue then.
  return Effect.suspend(() => (Deferred.isDoneUnsafe(ended) ? end : wait))
}
