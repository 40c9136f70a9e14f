/** A consumer as a program: Ctrl-C ends it in order. */
import { AmqpConsumer, AmqpLive, AmqpMessage } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"

const handler = (delivery: AmqpConsumer.Delivery) =>
  Effect.gen(function* () {
    yield* Console.log(`begun ${AmqpMessage.text(delivery)}`)
    yield* Effect.sleep("200 millis")
    yield* Console.log(`done ${AmqpMessage.text(delivery)}`)
  })

AmqpConsumer.consume("tasks", handler).pipe(Effect.provide(AmqpLive), NodeRuntime.runMain)
