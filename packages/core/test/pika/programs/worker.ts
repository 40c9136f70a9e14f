/** A worker thread with its own connection. */
import { AmqpLive, AmqpPublisher } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"

AmqpPublisher.publish({ routingKey: "threads", content: "from a thread" }).pipe(
  Effect.provide(AmqpLive),
  NodeRuntime.runMain
)
