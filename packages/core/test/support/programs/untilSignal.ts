/**
 * A separate process, as applications are: it connects, consumes, publishes, and ends its main effect on SIGUSR2. It
 * never ends its process: that has to happen automatically.
 *
 * It gets the broker's address from `AMQP_URL`, and prints its results, one per line.
 */
import {
  Amqp,
  AmqpChannel,
  AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpPublisher
} from "@effect-amqp/core"
import { Deferred, Effect, References, Stream, SubscriptionRef } from "effect"

const print = (line: string) => Effect.sync(() => console.log(line))

// A listener for a signal does not keep a process alive.
const signalled = Effect.callback<void>((resume) => {
  const listener = () => resume(Effect.void)
  process.once("SIGUSR2", listener)
  return Effect.sync(() => process.off("SIGUSR2", listener))
})

const session = Effect.gen(function* () {
  const { state } = yield* AmqpConnection.AmqpConnection
  const { queue } = yield* AmqpChannel.use((channel) => channel.queueDeclare("", { autoDelete: true }))
  const handled = yield* Deferred.make<void>()
  yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => Deferred.succeed(handled, undefined)))
  yield* AmqpPublisher.publish({ routingKey: queue, content: "" })
  yield* Deferred.await(handled)
  yield* Effect.forkScoped(Stream.runForEach(SubscriptionRef.changes(state), (now) => print(now._tag)))
  yield* signalled
}).pipe(Effect.scoped)

const main = Effect.gen(function* () {
  const config = yield* AmqpConfig.fromUrl(process.env["AMQP_URL"] ?? "", {
    closeTimeout: "500 millis",
    shutdownTimeout: "500 millis",
    connectionAttempts: 2,
    retryDelay: "100 millis"
  })
  yield* Effect.provide(session, Amqp.fromConfig(config))
  yield* print("ended")
}).pipe(
  Effect.catch((error: AmqpError.AmqpError) =>
    Effect.sync(() => {
      console.log(`failed: ${error.reason._tag}`)
      process.exitCode = 3
    })
  ),
  Effect.provideService(References.MinimumLogLevel, "None")
)

await Effect.runPromise(main)
