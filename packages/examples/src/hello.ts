/**
 * The smallest program: it publishes one message to the broker of `AMQP_URL`, and leaves nothing open.
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
