/**
 * A small application: it connects, declares, publishes, consumes, handles an error, and closes. It prints its results.
 */
import { Amqp, AmqpChannel, AmqpConfig, AmqpConsumer, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { Effect, References, Stream } from "effect"

const print = (line: string) => Effect.sync(() => console.log(line))

const main = Effect.gen(function* () {
  const { queue } = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { autoDelete: true })))
  yield* print("declared")
  yield* AmqpPublisher.publish({ routingKey: queue, content: "hello" }, { mandatory: true })
  yield* print("confirmed")
  yield* AmqpConsumer.stream(queue).pipe(
    Stream.take(1),
    Stream.runForEach((delivery) => Effect.andThen(print(`consumed ${AmqpMessage.text(delivery)}`), delivery.ack))
  )
  yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("nowhere"))).pipe(
    Effect.catchReason("AmqpError", "NotFound", ({ replyCode }) => print(`not found ${replyCode}`))
  )
})

void AmqpConfig.fromUrl(process.env["AMQP_URL"] ?? "").pipe(
  Effect.flatMap((config) => Effect.provide(main, Amqp.fromConfig(config))),
  Effect.andThen(print("closed")),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  Effect.runPromise
)
