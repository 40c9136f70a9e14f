import {
  Amqp,
  AmqpConsumer,
  AmqpHealth,
  AmqpMessage,
  AmqpPublisher,
  AmqpRpc,
  AmqpTopology
} from "@effect-amqp/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schema } from "effect"
import * as Application from "./support/application.ts"
import { Broker } from "./support/Broker.ts"

class Store extends Context.Tag("test/Store")<Store, { readonly put: (n: number) => Effect.Effect<void> }>() {}

const declare = (name: string) => AmqpTopology.declare(AmqpTopology.make(AmqpTopology.queue(name)))

const connected = Layer.unwrapEffect(Effect.map(Broker, ({ url }) => Amqp.layer({ url })))

describe("consumers as layers", () => {
  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("layerConsume stops its handlers before the services that they use are released", () =>
      Effect.gen(function* () {
        yield* declare("layered")
        const events: Array<string> = []
        const started = yield* Deferred.make<number>()
        const store = Layer.scoped(
          Store,
          Effect.acquireRelease(
            Effect.succeed({
              put: (n: number) =>
                Effect.zipRight(Deferred.succeed(started, n), Effect.never).pipe(
                  Effect.onInterrupt(() => Effect.sync(() => events.push("handler")))
                )
            }),
            () => Effect.sync(() => events.push("store"))
          )
        )
        const consumer = AmqpConsumer.layerConsume(
          "layered",
          ({ n }) => Effect.flatMap(Store, (store) => store.put(n)),
          { schema: Schema.Struct({ n: Schema.Number }), shutdownTimeout: "10 millis" }
        )
        const app = yield* Effect.fork(Amqp.launch(Layer.provide(consumer, Layer.merge(store, connected))))
        yield* AmqpPublisher.publish({ routingKey: "layered", content: '{"n":7}' }, { mandatory: true })
        assert.strictEqual(yield* Deferred.await(started), 7)
        assert(Exit.isInterrupted(yield* Fiber.interrupt(app)))
        assert.deepStrictEqual(events, ["handler", "store"])
      })
    )

    it.scoped("launch fails with the error of a consumer, after the other parts have stopped", () =>
      Effect.gen(function* () {
        yield* declare("other")
        let isReleased = false
        const other = AmqpConsumer.layerConsume("other", (delivery) => Effect.log(AmqpMessage.text(delivery)))
        const resource = Layer.scopedDiscard(
          Effect.acquireRelease(Effect.void, () => Effect.sync(() => (isReleased = true)))
        )
        const error = yield* Layer.mergeAll(
          other,
          resource,
          AmqpConsumer.layerConsume("launch-missing", () => Effect.void)
        ).pipe(Layer.provide(connected), Amqp.launch, Effect.flip)
        assert.strictEqual(error.reason._tag, "NotFound")
        assert.isTrue(isReleased)
      })
    )

    it.scoped("launch fails with the error of a layer that cannot be built", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Amqp.launch(Layer.fail("not built" as const)))
        assert.strictEqual(error, "not built")
      })
    )

    it.scoped('with whenFailed: "unready" the application continues, and is not ready', () =>
      Effect.gen(function* () {
        const reasons = yield* Deferred.make<ReadonlyArray<string>>()
        const watch = Layer.scopedDiscard(
          AmqpHealth.check().pipe(
            Effect.delay("5 millis"),
            Effect.repeat({ until: ({ ready }) => !ready }),
            Effect.flatMap((report) => Deferred.succeed(reasons, report.reasons)),
            Effect.forkScoped
          )
        )
        const app = yield* AmqpConsumer.layerConsume("unready-missing", () => Effect.void, {
          whenFailed: "unready"
        }).pipe(Layer.merge(watch), Layer.provide(connected), Amqp.launch, Effect.fork)
        assert.match((yield* Deferred.await(reasons)).join(), /^Consumer(Ended|NotStarted)$/)
        assert.isTrue((yield* Fiber.poll(app))._tag === "None")
        yield* Fiber.interrupt(app)
      })
    )

    it.scoped("launch fails with InvalidArgument for a whenFailed that is not known", () =>
      Effect.gen(function* () {
        yield* declare("unredy")
        const options = { whenFailed: "unredy" as never }
        const procedure = AmqpRpc.make("unredy")
        const layers = {
          "AmqpConsumer.layerConsume": AmqpConsumer.layerConsume("unredy", () => Effect.void, options),
          "AmqpRpc.layerServe": AmqpRpc.layerServe(procedure, () => Effect.void, options)
        }
        for (const [operation, part] of Object.entries(layers)) {
          const error = yield* part.pipe(Layer.provide(connected), Amqp.launch, Effect.flip)
          assert.strictEqual(error.reason._tag, "InvalidArgument")
          assert.strictEqual(
            error.message,
            `${operation}: whenFailed: expected "end" or "unready", got "unredy". Nothing was sent.`
          )
        }
      })
    )

    it.scoped("without launch the end of a consumer is logged, and the application continues", () =>
      Effect.gen(function* () {
        const logged = yield* Deferred.make<string>()
        const logger = Logger.make(({ logLevel, message }) => {
          const text = String(message)
          if (logLevel._tag === "Error" && text.includes("Amqp.launch"))
            Deferred.unsafeDone(logged, Effect.succeed(text))
        })
        const app = yield* AmqpConsumer.layerConsume("logged-missing", () => Effect.void).pipe(
          Layer.provide(connected),
          Layer.launch,
          Effect.provide(Logger.add(logger)),
          Effect.fork
        )
        yield* Deferred.await(logged)
        assert.isTrue((yield* Fiber.poll(app))._tag === "None")
        yield* Fiber.interrupt(app)
      })
    )
  })
})
