/**
 * All of `Amqp` as an application builds it, in a scope that a test closes, with every kind of work that may be under
 * way then.
 */
import {
  Amqp,
  type AmqpChannel,
  type AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { type Context, Deferred, Effect, Exit, Fiber, Layer, Option, Cause, Schema, Scope, Stream } from "effect"

export interface Application {
  readonly context: Context.Context<Amqp.Amqp>
  /** Closes the scope of its layer, and returns how long that took, in milliseconds. */
  readonly close: Effect.Effect<number>
}

/** The layers of `Amqp.fromConfig`, with a publisher that soon has no capacity left. */
const narrow = (config: AmqpConfig.AmqpConfig): Layer.Layer<Amqp.Amqp, AmqpError.AmqpError> =>
  AmqpConsumer.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(AmqpPublisher.layerWith({ maxInFlight: 2, channels: 1 }), AmqpPool.layer, AmqpRpc.layer)
    ),
    Layer.provideMerge(AmqpConnection.layer(config))
  )

/** Builds the layer. It is closed at the end of the test, if the test has not closed it. */
export const start = Effect.fnUntraced(function* (
  config: AmqpConfig.AmqpConfig,
  layer: (config: AmqpConfig.AmqpConfig) => Layer.Layer<Amqp.Amqp, AmqpError.AmqpError> = Amqp.fromConfig
): Effect.fn.Return<Application, AmqpError.AmqpError, Scope.Scope> {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const context = yield* Layer.buildWithScope(Layer.fresh(layer(config)), scope)
  const close = Effect.suspend(() => {
    const begun = performance.now()
    return Effect.map(Scope.close(scope, Exit.void), () => Math.round(performance.now() - begun))
  })
  return { context, close }
})

export const startNarrow = (config: AmqpConfig.AmqpConfig) => start(config, narrow)

/** How an effect has ended: `"done"`, the tag of its reason, or a text that no test expects. */
export const endOf = <A, E>(exit: Exit.Exit<A, E>): string => {
  if (Exit.isSuccess(exit)) return "done"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (AmqpError.isAmqpError(error)) return error.reason._tag
  return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : `unexpected: ${Cause.pretty(exit.cause)}`
}

const procedure = (name: string) => AmqpRpc.make(name, { payload: Schema.String, success: Schema.String })

/** What an application does when it is asked to stop. Its fibers are detached: only the layer can end them. */
export interface Doing {
  /** How each fiber has ended, in the order of the ends. Waits for all. */
  readonly ends: Effect.Effect<ReadonlyArray<readonly [name: string, end: string]>>
  /** The channel of a borrower that never returns it. */
  readonly kept: AmqpChannel.AmqpChannel
  /** Starts the work that needs the broker. Call it once the condition is in force. */
  readonly ask: Effect.Effect<void>
}

/** Queues of one application. */
export const queuesOf = (name: string) => ({
  quick: `${name}.quick`,
  stuck: `${name}.stuck`,
  stream: `${name}.stream`,
  batch: `${name}.batch`,
  out: `${name}.out`,
  unserved: `${name}.unserved`,
  served: `${name}.served`
})

export type Queues = ReturnType<typeof queuesOf>

/** Longer than any shutdown of these tests. */
const veryLong = "6 seconds"

/**
 * Every kind of work at once: consumers whose handlers end in time or not at all, borrowers that wait, make requests
 * and never return, messages in flight and in the wait queue, an endless stream of them, requests without a reply.
 */
export const doEverything = Effect.fnUntraced(function* (queues: Queues, { context }: Application) {
  const ends: Array<readonly [string, string]> = []
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const background = <A, E, R extends Amqp.Amqp>(name: string, effect: Effect.Effect<A, E, R>) =>
    Effect.forkDetach(
      Effect.onExit(Effect.provideContext(effect, context as Context.Context<R>), (exit) =>
        Effect.sync(() => {
          ends.push([name, endOf(exit)])
        })
      ),
      { startImmediately: true }
    ).pipe(Effect.tap((fiber) => Effect.sync(() => fibers.push(fiber))))
  const begun = {
    quick: yield* Deferred.make<void>(),
    stuck: yield* Deferred.make<void>(),
    stream: yield* Deferred.make<void>(),
    batch: yield* Deferred.make<void>(),
    served: yield* Deferred.make<void>()
  }
  const started = (name: keyof typeof begun) => Deferred.succeed(begun[name], undefined)
  const pool = yield* Effect.provideContext(AmqpPool.AmqpPool, context)
  yield* pool.use((channel) =>
    Effect.forEach(Object.values(queues), (queue) => channel.queueDeclare(queue), { discard: true })
  )
  const publisher = yield* Effect.provideContext(AmqpPublisher.AmqpPublisher, context)
  yield* Effect.forEach(
    ["quick", "stuck", "stream", "batch"] as const,
    (queue) => publisher.publish({ routingKey: queues[queue], content: queue }, { mandatory: true }),
    { concurrency: 2 }
  )
  yield* background(
    "a consumer whose handler ends in time",
    AmqpConsumer.consume(queues.quick, () => Effect.andThen(started("quick"), Effect.sleep("300 millis")))
  )
  yield* background(
    "a consumer whose handler is stuck",
    AmqpConsumer.consume(queues.stuck, () =>
      Effect.uninterruptible(Effect.andThen(started("stuck"), Effect.sleep(veryLong)))
    )
  )
  yield* background(
    "a batch consumer whose handler waits",
    AmqpConsumer.consumeBatch(queues.batch, () => Effect.andThen(started("batch"), Effect.sleep(veryLong)), {
      size: 10,
      within: "1 millis"
    })
  )
  yield* background(
    "a stream of deliveries",
    Stream.runForEach(AmqpConsumer.stream(queues.stream), () => started("stream"))
  )
  yield* background(
    "a server at work",
    AmqpRpc.serve(procedure(queues.served), () =>
      Effect.as(Effect.andThen(started("served"), Effect.sleep(veryLong)), "!")
    )
  )
  yield* background("its client", AmqpRpc.client(procedure(queues.served))("?", { timeout: "20 seconds" }))
  yield* Effect.forEach(Object.values(begun), Deferred.await, { discard: true })
  // The pool has two places: later callers go to its wait queue.
  const keptScope = yield* Scope.make()
  const kept = yield* Scope.provide(pool.get, keptScope)
  const holding = yield* Deferred.make<void>()
  const asking = yield* Deferred.make<void>()
  yield* background(
    "a borrower stuck in a request",
    Effect.uninterruptible(
      pool.use((channel) =>
        Deferred.succeed(holding, undefined).pipe(
          Effect.andThen(Deferred.await(asking)),
          Effect.andThen(channel.queueDeclare(queues.out))
        )
      )
    )
  )
  yield* Deferred.await(holding)
  const waiting = ["a borrower in the wait queue", "another borrower in the wait queue"]
  for (const name of waiting) yield* background(name, Effect.scoped(pool.get))
  const ask = Effect.gen(function* () {
    yield* Deferred.succeed(asking, undefined)
    for (const name of ["a publish", "a second publish", "a third publish", "a fourth publish"]) {
      yield* background(name, publisher.publish({ routingKey: queues.out, content: name }))
    }
    const endless = Stream.forever(Stream.make({ routingKey: queues.out, content: "endless" }))
    yield* background("publishAll without an end", Stream.runDrain(AmqpPublisher.publishAll(endless)))
    yield* background("a request", AmqpRpc.client(procedure(queues.unserved))("?", { timeout: "20 seconds" }))
  })
  const all = Effect.suspend(() => Fiber.awaitAll(fibers))
  return { ends: Effect.map(all, () => ends), kept, ask }
})
