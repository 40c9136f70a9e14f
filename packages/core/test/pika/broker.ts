/** An application on the tests' broker, as a port of a Pika program is. */
import { Amqp, AmqpChannel, AmqpConfig, type AmqpError } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, flow, Layer, References } from "effect"

export { reasonOf, untilState } from "../support/amqp.ts"
export { contents, drain } from "../support/queues.ts"

/** Everything that `AmqpLive` provides, on the broker of a URL. */
export const layerOf = (url: string, options?: AmqpConfig.Options): Layer.Layer<Amqp.Amqp, AmqpError.AmqpError> =>
  Layer.unwrap(Effect.map(AmqpConfig.fromUrl(url, options), Amqp.fromConfig))

/** The log is switched off: many of these tests are about failures. */
export const quietly = Effect.provideService(References.MinimumLogLevel, "None")

/** Provides a separate layer, which is released afterwards. */
export const provided = <A, E>(layer: Layer.Layer<A, E>) => flow(Effect.provide(layer, { local: true }), quietly)

/** Runs a program on the broker of a URL. */
export const connectedTo = (url: string, options?: AmqpConfig.Options) =>
  flow(Effect.scoped, provided(layerOf(url, options)))

/** Runs a program on the test's broker. */
export const connected =
  (options?: AmqpConfig.Options) =>
  <A, E, R>(program: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => connectedTo(url, options)(program))

/** The parts of the broker's URL, with Pika's names. */
export const parameters = Effect.map(TestBroker.TestBroker, ({ url, vhost }) => {
  const { hostname, password, port, username } = new URL(url)
  return {
    host: hostname,
    port: Number(port || 5672),
    username: decodeURIComponent(username) || "guest",
    password: decodeURIComponent(password) || "guest",
    virtual_host: vhost
  }
})

/** A new queue that is deleted with its connection. */
export const ownQueue = Effect.scoped(
  AmqpChannel.use((channel) => Effect.map(channel.queueDeclare("", { exclusive: true }), ({ queue }) => queue))
)

/** A new queue of the virtual host, which is deleted with the test's broker. */
export const newQueue = (options?: AmqpChannel.QueueDeclareOptions) =>
  Effect.scoped(AmqpChannel.use((channel) => Effect.map(channel.queueDeclare("", options), ({ queue }) => queue)))

/** Puts messages into a queue. */
export const fill = (queue: string, ...texts: ReadonlyArray<string>) =>
  Effect.scoped(
    AmqpChannel.useConfirm((channel) =>
      Effect.forEach(texts, (content) => channel.publish({ routingKey: queue, content }), { discard: true })
    )
  )
