/**
 * The start of most tests: a broker, a client of it with all of `Amqp`, and the body of the test as a generator.
 *
 * The body's scope closes first, then the client, then a scripted broker. Nothing is logged, because most of these
 * tests are about failures, and metrics are counted in the test's own registry.
 */
import {
  type Amqp,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMetrics,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Metric, References } from "effect"
import { configOf, type Overrides } from "./amqp.ts"
import * as ScriptedBroker from "./ScriptedBroker.ts"

/** Settings of the client, in addition to those of its connection and pool. */
export interface Settings extends Overrides {
  readonly publisher?: AmqpPublisher.Options
}

/** Settings of the scripted broker. */
export interface ScriptedSettings extends Settings {
  readonly broker?: ScriptedBroker.Options
}

type Yielded = Effect.Effect<unknown, unknown, unknown>

/** The layers of `Amqp.fromConfig`, with a publisher's settings. */
const layerOf = (url: string, { publisher, ...overrides }: Settings): Layer.Layer<Amqp.Amqp, AmqpError.AmqpError> =>
  AmqpMetrics.layer.pipe(
    Layer.provideMerge(AmqpConsumer.layer),
    Layer.provideMerge(Layer.mergeAll(AmqpPublisher.layerWith(publisher ?? {}), AmqpPool.layer, AmqpRpc.layer)),
    Layer.provideMerge(AmqpConnection.layer(configOf(url, overrides)))
  )

const withClient = <A, E, R>(body: Effect.Effect<A, E, R>, url: string, settings: Settings) =>
  body.pipe(
    Effect.scoped,
    Effect.provide(layerOf(url, settings), { local: true }),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

/** Runs a test against its own scripted broker. */
export const onScriptedBroker = <Eff extends Yielded, A>(
  { broker: options, ...settings }: ScriptedSettings,
  body: (broker: ScriptedBroker.ScriptedBroker) => Generator<Eff, A, never>
) =>
  Effect.scoped(
    Effect.flatMap(ScriptedBroker.make(options), (broker) =>
      withClient(
        Effect.gen(() => body(broker)),
        broker.url,
        settings
      )
    )
  )

/** Runs a test against the real broker of its file. */
export const onTestBroker = <Eff extends Yielded, A>(
  settings: Settings,
  body: (broker: TestBroker.TestBroker["Service"]) => Generator<Eff, A, never>
) =>
  Effect.flatMap(TestBroker.TestBroker, (broker) =>
    withClient(
      Effect.gen(() => body(broker)),
      broker.url,
      settings
    )
  )
