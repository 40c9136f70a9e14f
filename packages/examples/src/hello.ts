/**
 * The smallest program: publishes one message, and leaves nothing open. `AMQP_URL` says to which broker.
 *
 * Run it with `npm start -- hello`.
 */
import { AmqpChannel, AmqpLive } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"

Effect.scoped(
  AmqpChannel.use((channel) =>
    Effect.andThen(channel.queueDeclare("hello"), channel.publish({ routingKey: "hello", content: "Hello, AMQP" }))
  )
).pipe(Effect.provide(AmqpLive), NodeRuntime.runMain)
