/** effect-amqp, as its documentation uses it first, and in other ways where there are several. */
import { Amqp, AmqpChannel, AmqpConfig, AmqpConsumer, AmqpPool, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import {
  type Cause,
  Deferred,
  Effect,
  Exit,
  Layer,
  ManagedRuntime,
  Pool,
  References,
  Schema,
  Scope,
  Stream
} from "effect"
import { answer, type Latencies, type Peer, type Prepare, request, type Setting, verify } from "./peer.ts"

const layer = ({ ca, channels, url }: Setting) =>
  Layer.unwrap(
    Effect.map(
      AmqpConfig.fromUrl(url, {
        pool: { max: channels, acquireTimeout: "1 minute", maxWaiting: 100_000 },
        ...(ca === undefined ? {} : { tls: { ca } })
      }),
      Amqp.fromConfig
    )
  ).pipe(Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Warn")))

type Services = Amqp.Amqp | Scope.Scope

/** What is opened stays open until the contender closes. What a run opens stays open until the run is settled. */
type Program = (messages: number, latencies: Latencies) => Effect.Effect<unknown, unknown, Services>

export const by =
  (make: (setting: Setting) => Effect.Effect<Program, unknown, Services>): Prepare =>
  async (setting) => {
    const runtime = ManagedRuntime.make(layer(setting))
    const scope = Scope.makeUnsafe()
    const run = await runtime.runPromise(Scope.provide(make(setting), scope))
    return {
      run: async (messages, latencies) => {
        const scope = Scope.makeUnsafe()
        await runtime.runPromise(Scope.provide(run(messages, latencies), scope))
        return () => Effect.runPromise(Scope.close(scope, Exit.void))
      },
      close: async () => {
        await runtime.runPromise(Scope.close(scope, Exit.void))
        await runtime.dispose()
      }
    }
  }

const times = (width: number, worker: Effect.Effect<void, unknown, Services>) =>
  width === 1
    ? worker
    : Effect.all(
        Array.from({ length: width }, () => worker),
        { concurrency: "unbounded", discard: true }
      )

/** Runs `one` `messages` times, by `width` fibers. */
const share = (
  messages: number,
  width: number,
  latencies: Latencies,
  one: () => Effect.Effect<unknown, unknown, Services>
) => {
  let left = messages
  return times(
    Math.min(width, messages),
    Effect.gen(function* () {
      while (left-- > 0) {
        const start = performance.now()
        yield* one()
        latencies.record(performance.now() - start)
      }
    })
  )
}

const shareUntimed = (messages: number, width: number, one: () => Effect.Effect<unknown, unknown, Services>) => {
  let left = messages
  return times(
    Math.min(width, messages),
    Effect.gen(function* () {
      while (left-- > 0) yield* one()
    })
  )
}

const outgoing = ({ queue, size }: Setting) => {
  const content = Buffer.alloc(size, "x")
  return () => ({ routingKey: queue, content, persistent: false })
}

// --- Publishing ------------------------------------------------------------------------------------------------------

const confirm = by((setting) =>
  Effect.sync(() => {
    const message = outgoing(setting)
    return (messages, latencies) => share(messages, setting.width, latencies, () => AmqpPublisher.publish(message()))
  })
)

const publishAll = by((setting) =>
  Effect.sync(() => {
    const message = outgoing(setting)
    return (messages) =>
      Stream.runDrain(
        AmqpPublisher.publishAll({
          *[Symbol.iterator]() {
            for (let i = 0; i < messages; i++) yield message()
          }
        })
      )
  })
)

const publish = by((setting) =>
  Effect.sync(() => {
    const message = outgoing(setting)
    return (messages) =>
      Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            for (let i = 0; i < messages; i++) yield* channel.publish(message())
            yield* channel.queueDeclarePassive(setting.queue)
          })
        )
      )
  })
)

const borrowed = by((setting) =>
  Effect.gen(function* () {
    const { confirm } = yield* AmqpPool.AmqpPool
    const message = outgoing(setting)
    return (messages, latencies) =>
      share(messages, setting.width, latencies, () => confirm.use((channel) => channel.publish(message())))
  })
)

/** The messages are sent on `channels` borrowed channels in turn. */
const spread = by((setting) =>
  Effect.gen(function* () {
    const { confirm } = yield* AmqpPool.AmqpPool
    const channels = yield* Effect.all(Array.from({ length: setting.channels }, () => confirm.get))
    const message = outgoing(setting)
    let next = 0
    return (messages, latencies) =>
      share(messages, setting.width, latencies, () => channels[next++ % channels.length]!.publish(message()))
  })
)

// --- Consuming -------------------------------------------------------------------------------------------------------

/** Runs `consumer` until it has called back `messages` times. It ends with the run. */
const until = (
  messages: number,
  consumer: (handled: () => void) => Effect.Effect<unknown, unknown, Services>,
  count = 1
) =>
  Effect.gen(function* () {
    const done = yield* Deferred.make<void, unknown>()
    let left = messages
    const handled = () => {
      if (--left === 0) Deferred.doneUnsafe(done, Effect.void)
    }
    const failed = (cause: Cause.Cause<unknown>) => Deferred.failCause(done, cause)
    for (let i = 0; i < count; i++) yield* Effect.forkScoped(Effect.onError(consumer(handled), failed))
    yield* Deferred.await(done)
  })

/** The consumers' connection stays open between the runs. */
const consuming = (program: (setting: Setting) => Program) =>
  by((setting) =>
    Effect.gen(function* () {
      yield* (yield* AmqpConsumer.AmqpConsumer).connection
      return program(setting)
    })
  )

const consume = consuming(
  ({ prefetch, queue }) =>
    (messages) =>
      until(messages, (handled) => AmqpConsumer.consume(queue, () => Effect.sync(handled), { prefetch }))
)

const stream = consuming(
  ({ prefetch, queue }) =>
    (messages) =>
      until(messages, (handled) =>
        Stream.runForEach(AmqpConsumer.stream(queue, { prefetch }), ({ ack }) => Effect.map(ack, handled))
      )
)

/** What the handlers of the other contenders wait for. */
const pausing = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

const handle = consuming(
  ({ concurrency, prefetch, queue }) =>
    (messages) =>
      until(messages, (handled) =>
        AmqpConsumer.consume(queue, () => Effect.map(pausing, handled), { concurrency, prefetch })
      )
)

const consumers = consuming(
  ({ concurrency, prefetch, queue }) =>
    (messages) =>
      until(messages, (handled) => AmqpConsumer.consume(queue, () => Effect.sync(handled), { prefetch }), concurrency)
)

const through = by((setting) =>
  Effect.sync(() => {
    const message = outgoing(setting)
    return (messages, latencies) =>
      Effect.all(
        [
          until(messages, (handled) =>
            AmqpConsumer.consume(setting.queue, () => Effect.sync(handled), { prefetch: setting.prefetch })
          ),
          share(messages, setting.width, latencies, () => AmqpPublisher.publish(message()))
        ],
        { concurrency: "unbounded", discard: true }
      )
  })
)

// --- Requests --------------------------------------------------------------------------------------------------------

const rpc = by((setting) =>
  Effect.gen(function* () {
    const Look = AmqpRpc.make(setting.queue, {
      payload: { id: Schema.Int, name: Schema.String },
      success: Schema.Struct({ found: Schema.Int })
    })
    const look = AmqpRpc.client(Look)
    yield* Effect.forkScoped(
      AmqpRpc.serve(Look, (payload) => Effect.succeed(answer(payload)), {
        concurrency: setting.concurrency,
        prefetch: setting.prefetch
      })
    )
    return (messages, latencies) => share(messages, setting.width, latencies, () => Effect.map(look(request), verify))
  })
)

// --- Borrowing -------------------------------------------------------------------------------------------------------

const repeat = <R>(count: number, one: Effect.Effect<unknown, unknown, R>) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) yield* one
  })

const borrow = by(() =>
  Effect.map(AmqpPool.AmqpPool, (pool) => {
    const one = AmqpPool.use(pool, () => Effect.void)
    return (messages) => repeat(messages, one)
  })
)

const borrowScoped = by(() =>
  Effect.map(AmqpPool.AmqpPool, (pool) => {
    const one = Effect.scoped(pool.get)
    return (messages) => repeat(messages, one)
  })
)

const borrowOfScope = by(() =>
  Effect.sync(() => {
    const one = Effect.scoped(AmqpChannel.use(() => Effect.void))
    return (messages) => repeat(messages, one)
  })
)

const barePool = by(({ channels }) =>
  Effect.map(Pool.make({ acquire: Effect.succeed({ channel: true }), size: channels }), (pool) => {
    const one = Pool.use(pool, () => Effect.void)
    return (messages) => repeat(messages, one)
  })
)

const contend = by((setting) =>
  Effect.map(AmqpPool.AmqpPool, (pool) => {
    const one = AmqpPool.use(pool, () => pausing)
    return (messages) => shareUntimed(messages, setting.width, () => one)
  })
)

/** Borrows all at once and returns them: they are idle then. */
const channels = by(() =>
  Effect.map(AmqpPool.AmqpPool, (pool) => {
    let open = 0
    return (count) => {
      open += count
      return Effect.scoped(Effect.forEach(Array.from({ length: open }), () => pool.get, { discard: true }))
    }
  })
)

export const peer: Peer = {
  confirm,
  publish,
  borrowed,
  consume,
  handle,
  rpc,
  borrow,
  contend,
  channels,
  spread,
  consumers,
  through
}

/** `publishAll`. */
export const all: Peer = { confirm: publishAll }

/** `AmqpConsumer.stream`, `AmqpPool.get` in a scope. */
export const streams: Peer = { consume: stream, borrow: borrowScoped }

/** `AmqpChannel.use` in a scope. */
export const ofScope: Peer = { borrow: borrowOfScope }

/** Effect's own `Pool` of empty items: the minimum cost of a borrow. */
export const bare: Peer = { borrow: barePool }
