/** Both ends of a queue: publishers and consumers that record their outcomes in a ledger. */
import {
  type Amqp,
  AmqpChannel,
  AmqpConsumer,
  type AmqpError,
  type AmqpMessage,
  AmqpPublisher
} from "@effect-amqp/core"
import { Effect, Queue } from "effect"
import type { Ledger } from "./Ledger.ts"

/** Ways to break the library's promises, to verify that these programs notice. */
const mutants = ["confirm-at-publish", "consume-without-acks"] as const
export type Mutant = (typeof mutants)[number]

export const mutantOf = (name: string | undefined): Mutant | undefined => {
  const mutant = mutants.find((one) => one === name)
  if (name !== undefined && mutant === undefined)
    throw new Error(`--mutant: expected one of ${mutants.join(", ")}, got ${name}`)
  return mutant
}

const size = 100

const contentOf = (id: number): Uint8Array => {
  const bytes = Buffer.alloc(size)
  bytes.writeUInt32BE(id)
  return bytes
}

const idOf = (delivery: { readonly content: Uint8Array }): number =>
  new DataView(delivery.content.buffer, delivery.content.byteOffset).getUint32(0)

const mayHaveArrived = ({ reason }: AmqpError.AmqpError) =>
  reason._tag === "PublishUnknown" || (reason._tag === "PublishTimeout" && reason.sent)

type Publish = (
  message: AmqpMessage.Message
) => Effect.Effect<unknown, AmqpError.AmqpError, AmqpPublisher.AmqpPublisher>

const publishUnconfirmed: Publish = (message) =>
  Effect.asVoid(Effect.forkDetach(Effect.ignore(AmqpPublisher.publish(message)), { startImmediately: true }))

/** Publishes one message after the other. */
export const publisher = (queue: string, ledger: Ledger, isDone: () => boolean, mutant?: Mutant) => {
  const publish: Publish = mutant === "confirm-at-publish" ? publishUnconfirmed : AmqpPublisher.publish
  return Effect.gen(function* () {
    while (!isDone()) {
      const id = ledger.publish()
      yield* publish({ routingKey: queue, content: contentOf(id) }).pipe(
        Effect.match({
          onSuccess: () => ledger.confirm(id),
          onFailure: (error) => ledger.fail(id, mayHaveArrived(error))
        })
      )
      // The mutant's publish does not wait, so this loop does.
      if (mutant === "confirm-at-publish") yield* Effect.sleep(20)
    }
  })
}

/** Handles every delivery. */
export const consumer = (
  queue: string,
  ledger: Ledger,
  mutant?: Mutant
): Effect.Effect<never, AmqpError.AmqpError, Amqp.Amqp> =>
  mutant === "consume-without-acks"
    ? AmqpChannel.use((channel) => channel.consume(queue, { noAck: true })).pipe(
        // Slower than deliveries arrive, so that some are only in memory.
        Effect.flatMap(({ deliveries }) =>
          Queue.take(deliveries).pipe(
            Effect.tap((delivery) => Effect.sync(() => ledger.handle(idOf(delivery)))),
            Effect.andThen(Effect.sleep(1)),
            Effect.forever
          )
        ),
        Effect.scoped,
        Effect.ignore,
        Effect.forever
      )
    : AmqpConsumer.consume(queue, (delivery) => Effect.sync(() => ledger.handle(idOf(delivery))), {
        concurrency: 50,
        prefetch: 1000,
        resubscribe: "always"
      })

/** Borrows channels of the pool all the time, for a request that fails while the connection is lost. */
export const borrower = (queue: string, isDone: () => boolean) =>
  AmqpChannel.use((channel) => channel.queueDeclarePassive(queue)).pipe(
    Effect.scoped,
    Effect.ignore,
    Effect.andThen(Effect.sleep(5)),
    Effect.repeat({ until: isDone })
  )
