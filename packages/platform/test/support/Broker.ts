// The TestBroker of the core, for tests of Effect 3: a virtual host per layer, its census, and a proxy.
import { TestBroker } from "@effect-amqp/core/testing"
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Exit4 from "@effect-amqp/effect4/Exit"
import * as Layer4 from "@effect-amqp/effect4/Layer"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import { Context, Effect, Layer } from "effect"
import * as FaultProxy from "../../../core/test/support/FaultProxy.ts"

type Census = Partial<TestBroker.Census>

export class Broker extends Context.Tag("test/Broker")<
  Broker,
  {
    readonly url: string
    readonly vhost: string
    readonly awaitCensus: (expected: Census, timeout?: string) => Effect.Effect<TestBroker.Census>
    readonly census: Effect.Effect<TestBroker.Census>
    readonly queues: Effect.Effect<ReadonlyArray<TestBroker.QueueCensus>>
    readonly closeConnections: Effect.Effect<number>
    /** Raises the memory alarm of the whole broker: only for `layerPrivate`. */
    readonly blockPublishers: Effect.Effect<void>
    readonly unblockPublishers: Effect.Effect<void>
  }
>() {}

const promise = <A, E>(effect: Effect4.Effect<A, E>) => Effect.promise(() => Effect4.runPromise(effect))

const of = (broker: TestBroker.TestBroker["Service"]) => ({
  url: broker.url,
  vhost: broker.vhost,
  awaitCensus: (expected: Census, timeout = "10 seconds") =>
    promise(broker.awaitCensus(expected, { timeout: timeout as "10 seconds" })),
  census: promise(broker.census),
  queues: promise(broker.queues),
  closeConnections: promise(broker.closeConnections()),
  blockPublishers: promise(broker.blockPublishers),
  unblockPublishers: promise(broker.unblockPublishers)
})

/** A scope of Effect 4 that ends with the current one of Effect 3. */
const scope4 = Effect.acquireRelease(
  Effect.sync(() => Scope4.makeUnsafe()),
  (scope) => promise(Scope4.close(scope, Exit4.void))
)

const layerOf = <E>(broker: Layer4.Layer<TestBroker.TestBroker, E>): Layer.Layer<Broker> =>
  Layer.scoped(
    Broker,
    Effect.gen(function* () {
      const context = yield* promise(Layer4.buildWithScope(broker, yield* scope4))
      return of(Context4.get(context, TestBroker.TestBroker))
    })
  )

export const layer = layerOf(TestBroker.layer)

/** A broker that no other test uses. */
export const layerPrivate = layerOf(TestBroker.layerPrivate())

/** A proxy in front of the broker, until the scope ends, and its URL. */
export const proxied = Effect.gen(function* () {
  const { url } = yield* Broker
  const proxy = yield* promise(Effect4.provideService(FaultProxy.make(url), Scope4.Scope, yield* scope4))
  return {
    proxy,
    url: proxy.through(url),
    /** Completes when the client has sent something after this effect began. */
    sent: Effect.sync(() => {
      const before = proxy.stats.up.bytes
      return promise(proxy.until(({ up }) => up.bytes + up.held > before))
    })
  }
})
