/** Consumers and servers as layers: they run alongside the application, end in order with it, and end it when they fail. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpConnection, AmqpConsumer, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Option, Schema } from "effect"
import { declareQueue, deleteQueue, logged, untilQueue, withConsumers } from "./support/consumers.ts"
import { configOf } from "./support/amqp.ts"
import { until } from "./support/polling.ts"

const procedure = (queue: string) => AmqpRpc.make(queue, { payload: Schema.String, success: Schema.String })

/** What runs as a layer, each on a queue that exists. */
const ways: Record<
  string,
  (queue: string, options?: AmqpConsumer.LayerOptions) => Layer.Layer<never, never, AmqpConsumer.AmqpConsumer>
> = {
  "AmqpConsumer.layerConsume": (queue, options) => AmqpConsumer.layerConsume(queue, () => Effect.void, options),
  "AmqpRpc.layerServe": (queue, options) => AmqpRpc.layerServe(procedure(queue), () => Effect.succeed("!"), options)
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  /** An application of its own, with its layers around the parts that it is given. */
  const application = <E>(part: Layer.Layer<never, E, Amqp.Amqp>) =>
    Effect.map(TestBroker.TestBroker, ({ url }) => part.pipe(Layer.provide(Amqp.fromConfig(configOf(url)))))
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) => withConsumers(url)(effect))

  for (const [way, make] of Object.entries(ways)) {
    describe(way, () => {
      it.effect("consumes until the application is interrupted, and no error is logged", () =>
        logged((lines) =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            const app = yield* Effect.forkChild(Amqp.launch(yield* application(make(queue))))
            yield* untilQueue(queue, { consumers: 1 })
            yield* Fiber.interrupt(app)
            yield* untilQueue(queue, { consumers: 0 })
            assert.deepStrictEqual(
              lines.filter(({ level }) => level === "Error"),
              []
            )
          })
        ).pipe(run)
      )

      it.effect("ends the application with its error, after the other parts have been released", () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          let released = false
          const other = Layer.effectDiscard(
            Effect.acquireRelease(Effect.void, () => Effect.sync(() => void (released = true)))
          )
          const app = yield* Effect.forkChild(Amqp.launch(yield* application(Layer.mergeAll(make(queue), other))))
          yield* untilQueue(queue, { consumers: 1 })
          yield* deleteQueue(queue)
          const exit = yield* Fiber.await(app)
          assert.isTrue(released)
          assert.isTrue(Exit.isFailure(exit))
          const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
          assert.strictEqual(error?._tag, "AmqpError")
          assert.include(["ConsumerCancelled", "NotFound"], error?.reason._tag)
        }).pipe(run)
      )

      it.effect('with whenFailed: "unready" leaves the application running, and health is not ready', () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const ready = yield* Deferred.make<ReadonlyArray<AmqpConnection.Condition>>()
          const watch = Layer.effectDiscard(
            Effect.forkScoped(
              Effect.flatMap(
                until(AmqpConnection.conditions, (all) => all.some(({ notReady }) => notReady), "a condition"),
                (all) => Deferred.succeed(ready, all)
              )
            )
          )
          const app = yield* Effect.forkChild(
            Amqp.launch(yield* application(Layer.mergeAll(make(queue, { whenFailed: "unready" }), watch)))
          )
          yield* untilQueue(queue, { consumers: 1 })
          yield* deleteQueue(queue)
          assert.strictEqual((yield* Deferred.await(ready))[0]?.kind, "ConsumerEnded")
          assert.isUndefined(app.pollUnsafe())
          yield* Fiber.interrupt(app)
        }).pipe(run)
      )

      it.effect("refuses a whenFailed that it does not know: the application ends with InvalidArgument", () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const app = Amqp.launch(yield* application(make(queue, { whenFailed: "unredy" as never })))
          const error = yield* Effect.flip(app)
          assert.strictEqual(
            error.message,
            `${way}: whenFailed: expected "end" or "unready", got "unredy". Nothing was sent.`
          )
          assert.strictEqual(error.reason._tag, "InvalidArgument")
        }).pipe(run)
      )

      it.effect("without Amqp.launch logs an error that says how to end the application", () =>
        logged((lines) =>
          Effect.gen(function* () {
            const queue = yield* declareQueue()
            const app = yield* Effect.forkChild(Layer.launch(yield* application(make(queue))))
            yield* untilQueue(queue, { consumers: 1 })
            yield* deleteQueue(queue)
            yield* until(
              Effect.sync(() => lines.filter(({ level }) => level === "Error")),
              (errors) => errors.some(({ text }) => text.includes("Amqp.launch")),
              "the error"
            )
            assert.isUndefined(app.pollUnsafe())
            yield* Fiber.interrupt(app)
          })
        ).pipe(run)
      )
    })
  }

  describe("AmqpConsumer.layerConsume", () => {
    it.effect("finishes a running handler before the services that the handler uses are released", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const started = yield* Deferred.make<void>()
        const finish = yield* Deferred.make<void>()
        const order: Array<string> = []
        const service = Layer.effectDiscard(
          Effect.acquireRelease(Effect.void, () => Effect.sync(() => void order.push("service released")))
        )
        const consumer = AmqpConsumer.layerConsume(queue, () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Deferred.await(finish)),
            Effect.andThen(Effect.sync(() => void order.push("handled")))
          )
        ).pipe(Layer.provide(service))
        const app = yield* Effect.forkChild(Amqp.launch(yield* application(consumer)))
        yield* AmqpPublisher.publish({ routingKey: queue, content: "" }, { mandatory: true })
        yield* Deferred.await(started)
        const interrupted = yield* Effect.forkChild(Fiber.interrupt(app))
        yield* Effect.yieldNow
        yield* Deferred.succeed(finish, undefined)
        yield* Fiber.join(interrupted)
        assert.deepStrictEqual(order, ["handled", "service released"])
      }).pipe(run)
    )

    it.effect("ends the application while another layer is still being built, and releases what that one has", () =>
      Effect.gen(function* () {
        let released = false
        const waiting = Layer.effectDiscard(
          Effect.andThen(
            Effect.acquireRelease(Effect.void, () => Effect.sync(() => void (released = true))),
            Effect.never
          )
        )
        const consumer = AmqpConsumer.layerConsume("missing", () => Effect.void, { resubscribe: "never" })
        const exit = yield* Effect.exit(Amqp.launch(yield* application(Layer.mergeAll(consumer, waiting))))
        assert.isTrue(released)
        const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
        assert.strictEqual(error?._tag === "AmqpError" ? error.reason._tag : undefined, "NotFound")
      }).pipe(run)
    )

    it.effect("whose declare interrupts itself ends the application with a defect, not silently", () =>
      Effect.gen(function* () {
        const consumer = AmqpConsumer.layerConsume("q", () => Effect.void, { declare: () => Effect.interrupt })
        const exit = yield* Effect.exit(Amqp.launch(yield* application(consumer)))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }).pipe(run)
    )

    it.effect("whose options are refused ends the application before anything is sent", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          Amqp.launch(yield* application(AmqpConsumer.layerConsume("q", () => Effect.void, { prefetch: -1 })))
        )
        const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
        assert.strictEqual(error?._tag === "AmqpError" ? error.reason._tag : undefined, "InvalidArgument")
      }).pipe(run)
    )
  })

  describe("AmqpRpc.serve", () => {
    it.effect("whose procedure is refused, such as a copy, is logged and not ready", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const copy = { ...procedure("copied") } as ReturnType<typeof procedure>
          const error = yield* Effect.flip(AmqpRpc.serve(copy, () => Effect.succeed("!")))
          assert.strictEqual(error.reason._tag, "InvalidArgument")
          assert.lengthOf(
            lines.filter(({ level }) => level === "Error"),
            1
          )
          assert.isTrue((yield* AmqpConnection.conditions).some(({ notReady }) => notReady))
        })
      ).pipe(run)
    )
  })
})
