/** What is in the broker's queues, as a client of the test's own sees it. */
import { Amqp, AmqpChannel, AmqpConfig, type AmqpError, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Option } from "effect"

/** A connection of the test's own, for as long as the effect runs. */
export const asClient: <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | AmqpError.AmqpError, Exclude<R, Amqp.Amqp> | TestBroker.TestBroker> = Effect.provide(
  Layer.unwrap(
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig))
  ),
  { local: true }
)

/** Takes everything out of a queue, as text. */
export const drainQueue = (
  queue: string
): Effect.Effect<ReadonlyArray<string>, AmqpError.AmqpError, TestBroker.TestBroker> =>
  Effect.scoped(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        const contents: Array<string> = []
        for (;;) {
          const delivery = yield* channel.get(queue, { noAck: true })
          if (Option.isNone(delivery)) return contents
          contents.push(AmqpMessage.text(delivery.value))
        }
      })
    )
  ).pipe(asClient)
