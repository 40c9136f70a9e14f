/**
 * The broker that an example runs against: the one that the environment names, or else whatever this machine offers.
 */
import { type Amqp, type AmqpError, AmqpLive } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { type Config, ConfigProvider, Console, Effect, Layer } from "effect"
import * as CompactLogger from "./CompactLogger.ts"

const isNamed = () => ["AMQP_URL", "AMQP_HOST", "AMQP_HOSTS"].some((name) => (process.env[name] ?? "") !== "")

/**
 * A connection and a pool, configured by `AMQP_URL` and the other `AMQP_*` variables. If they name no broker, one is
 * started for the lifetime of the layer, and the pool settings still apply. What is built on it logs one line per event.
 */
export const layer: Layer.Layer<Amqp.Amqp, AmqpError.AmqpError | Config.ConfigError | TestBroker.TestBrokerError> =
  Layer.unwrap(
    Effect.gen(function* () {
      if (isNamed()) return AmqpLive
      yield* Console.log("AMQP_URL is not set: getting a broker ...")
      const { description, url } = yield* TestBroker.start
      yield* Console.log(`The broker is ${description}.`)
      const environment = ConfigProvider.fromEnvRecord({ ...process.env, AMQP_URL: url })
      return Layer.provide(AmqpLive, ConfigProvider.layer(environment))
    })
  ).pipe(Layer.provideMerge(CompactLogger.layer))
