/**
 * The broker that the example runs against: the one that the environment names, or else whatever this machine offers.
 * What finds a broker is written in Effect 4; an application needs none of this.
 */
import { type AmqpError, type Amqp, AmqpLive } from "@effect-amqp/platform"
import { TestBroker } from "@effect-amqp/core/testing"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Exit4 from "@effect-amqp/effect4/Exit"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import { type ConfigError, ConfigProvider, Console, Effect, Layer } from "effect"

const isNamed = () => ["AMQP_URL", "AMQP_HOST", "AMQP_HOSTS"].some((name) => (process.env[name] ?? "") !== "")

const broker = Effect.gen(function* () {
  const scope = yield* Effect.acquireRelease(Effect.sync(Scope4.makeUnsafe), (scope) =>
    Effect.promise(() => Effect4.runPromise(Scope4.close(scope, Exit4.void)))
  )
  return yield* Effect.promise((signal) =>
    Effect4.runPromise(Effect4.provideService(TestBroker.start, Scope4.Scope, scope), { signal })
  )
})

/**
 * A connection and a pool, configured by `AMQP_URL` and the other `AMQP_*` variables. If they name no broker, one is
 * started for the lifetime of the layer, and the other settings still apply.
 */
export const layer: Layer.Layer<Amqp.Amqp, AmqpError.AmqpError | ConfigError.ConfigError> = Layer.unwrapScoped(
  Effect.gen(function* () {
    if (isNamed()) return AmqpLive
    yield* Console.log("AMQP_URL is not set: getting a broker ...")
    const { description, url } = yield* broker
    yield* Console.log(`The broker is ${description}.`)
    const environment = Object.entries({ ...process.env, AMQP_URL: url })
    return Layer.provide(
      AmqpLive,
      Layer.setConfigProvider(ConfigProvider.fromMap(new Map(environment.map(([name, value = ""]) => [name, value]))))
    )
  })
)
