/**
 * A worker that dies of one message, as it would of a segmentation fault or for lack of memory: it cannot record that.
 * It consumes the queue named by its argument, prints each handled message on a line, and exits at `poison` with code
 * 9.
 */
import { AmqpConsumer, AmqpLive, AmqpMessage } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, References } from "effect"

AmqpConsumer.consume(
  process.argv[2]!,
  (delivery) =>
    Effect.suspend(() => {
      const text = AmqpMessage.text(delivery)
      // Not in the turn in which the previous message was acknowledged, because that message would be delivered again
      // too.
      if (text === "poison")
        return Effect.andThen(
          Effect.sleep("50 millis"),
          Effect.sync(() => process.exit(9))
        )
      console.log(text)
      return Effect.sleep("5 millis")
    }),
  { maxDeliveries: 3 }
).pipe(Effect.provide(AmqpLive), Effect.provideService(References.MinimumLogLevel, "None"), NodeRuntime.runMain)
