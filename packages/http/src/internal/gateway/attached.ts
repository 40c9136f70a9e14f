/** What a client that is attached to a session gets, whichever way it gets it. */
import type { AmqpConsumer } from "@effect-amqp/core"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import { problemOf } from "./answers.ts"
import type { Bounds } from "./requests.ts"
import type { Attached, Ending } from "./sessions.ts"

/** What an ending says to the client. */
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

/** What comes next for a client: a delivery, nothing for as long as a heartbeat takes, or the end. */
export const nextOf = ({ ended, inbox }: Attached, { heartbeat }: Bounds): Effect.Effect<Next> => {
  const end = Effect.map(Deferred.await(ended), (ending): Next => ({ _tag: "End", ending }))
  const delivery = Effect.map(Queue.take(inbox), (delivery): Next => ({ _tag: "Delivery", delivery }))
  const wait = Effect.raceFirst(delivery, end).pipe(
    Effect.timeoutOption(heartbeat),
    Effect.map(Option.getOrElse((): Next => ({ _tag: "Heartbeat" })))
  )
  // What has been delivered by then is going back to the queue.
  return Effect.suspend(() => (Deferred.isDoneUnsafe(ended) ? end : wait))
}
