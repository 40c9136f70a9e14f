/** Ways to break the promises of the outbox and the inbox, to verify that this program notices. */
import { type AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { Effect, Layer } from "effect"
import { SqlClient, type SqlError } from "effect/sql"

export const mutants = ["remove-before-confirm", "commit-before-handler", "publish-without-order"] as const
export type Mutant = (typeof mutants)[number]

export const mutantOf = (name: string | undefined): Mutant | undefined => {
  const mutant = mutants.find((one) => one === name)
  if (name !== undefined && mutant === undefined) {
    throw new Error(`--mutant: expected one of ${mutants.join(", ")}, got ${name}`)
  }
  return mutant
}

/**
 * A publisher that reports a confirm before there is one. A relay with it removes its rows before the confirm. Its
 * publishes begin a moment later, as in a relay with many messages in flight.
 */
export const confirmsEarly = Layer.effect(
  AmqpPublisher.AmqpPublisher,
  Effect.map(AmqpPublisher.AmqpPublisher, (publisher) => ({
    ...publisher,
    publish: (message, options) =>
      Effect.as(
        Effect.forkDetach(Effect.ignore(Effect.andThen(Effect.sleep(1000), publisher.publish(message, options)))),
        { _tag: "Confirmed" as const }
      )
  }))
)

/** An inbox that commits its record before the handler runs, which then has a transaction of its own. */
export const commitsEarly = <E, R>(
  inbox: AmqpConsumer.Inbox<E, R>
): AmqpConsumer.Inbox<E | SqlError.SqlError, R | SqlClient.SqlClient> => ({
  make: (consumer) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const run = yield* inbox.make(consumer)
      return (delivery, handler) =>
        Effect.suspend(() => {
          let isNew = false
          const record = Effect.sync(() => {
            isNew = true
          })
          const handled = Effect.suspend(() => (isNew ? Effect.asVoid(sql.withTransaction(handler)) : Effect.void))
          return Effect.andThen(run(delivery, record), handled)
        })
    })
})
