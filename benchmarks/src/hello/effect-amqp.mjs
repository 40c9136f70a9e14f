import { Amqp, AmqpConfig, AmqpPublisher } from "@effect-amqp/core"
import { Effect, Layer, References } from "effect"
import { confirmed, queue, url } from "./confirmed.mjs"

AmqpPublisher.publish({ routingKey: queue, content: "hello", persistent: false }).pipe(
  Effect.tap(Effect.sync(confirmed)),
  Effect.provide(Layer.unwrap(Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig))),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  Effect.runPromise
)
