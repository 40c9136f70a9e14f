/** The test's own connection to the broker of an example, which shows what the example has left there. */
import { Amqp, AmqpChannel, AmqpConfig, type AmqpError, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Option } from "effect"

/** A connection and everything on it, to the test's broker. */
export const Broker: Layer.Layer<Amqp.Amqp, AmqpError.AmqpError, TestBroker.TestBroker> = Layer.unwrap(
  Effect.gen(function* () {
    const { url } = yield* TestBroker.TestBroker
    const config = yield* AmqpConfig.fromUrl(url)
    return Amqp.fromConfig(config)
  })
)

/** Takes everything out of a queue. */
export const drain: (
  queue: string
) => Effect.Effect<ReadonlyArray<string>, AmqpError.AmqpError, TestBroker.TestBroker> = Effect.fn("drain")(function* (
  queue: string
) {
  const contents: Array<string> = []
  const next = AmqpChannel.use((channel) =>
    Effect.tap(channel.get(queue), (delivery) => (Option.isNone(delivery) ? Effect.void : channel.ack(delivery.value)))
  )
  for (;;) {
    const delivery = yield* Effect.scoped(next)
    if (Option.isNone(delivery)) return contents
    contents.push(AmqpMessage.text(delivery.value))
  }
}, Effect.provide(Broker))
