/** Reads the broker's queues through a connection of the test's own. */
import { Amqp, AmqpConfig, type AmqpError } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer } from "effect"
import { contents } from "../../../core/test/support/queues.ts"

/** Provides an effect with its own connection. */
export const asClient: <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | AmqpError.AmqpError, Exclude<R, Amqp.Amqp> | TestBroker.TestBroker> = Effect.provide(
  Layer.unwrap(
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig))
  ),
  { local: true }
)

/** Takes all messages out of a queue, as text. */
export const drainQueue = (
  queue: string
): Effect.Effect<ReadonlyArray<string>, AmqpError.AmqpError, TestBroker.TestBroker> => asClient(contents(queue))
