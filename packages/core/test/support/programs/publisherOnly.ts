/** A program that only publishes: its bundle contains nothing of consumers, RPC and topologies. */
import { AmqpConfig, AmqpConnection, AmqpPublisher } from "@effect-amqp/core"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const ConnectionLive = Layer.unwrap(
  Effect.map(AmqpConfig.fromUrl(process.env["AMQP_URL"] ?? "amqp://localhost"), AmqpConnection.layer)
)

void Effect.gen(function* () {
  const publisher = yield* AmqpPublisher.AmqpPublisher
  yield* publisher.publish({ exchange: "amq.fanout", routingKey: "", content: "one" })
  yield* Console.log("confirmed")
}).pipe(Effect.provide(AmqpPublisher.layer.pipe(Layer.provide(ConnectionLive))), Effect.runPromise)
