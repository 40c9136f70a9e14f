/**
 * What publishing, consuming and requests cost, beside amqplib alone, in the same run, on the same broker.
 *
 * Run by `npm run bench -- messages`; `ROUNDS` in the environment makes it longer. The figures to quote are the ratios:
 * both sides ran in one process, in turns. The broker runs on this machine too, and takes its share of it: the CPU is
 * this process's alone.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpConfig, AmqpConsumer, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { type Cause, Console, Deferred, Effect, Layer, References, Schema, Stream } from "effect"
import * as Bare from "./bare.ts"
import { type Contest, run } from "./contest.ts"

const rounds = Number(process.env["ROUNDS"] ?? 5)
const queue = "messages"
const size = 100
const prefetch = 250

const content = Buffer.alloc(size, "x")

// Not to be written to the disk, which would be all that is measured.
const persistent = false
const message = () => ({ routingKey: queue, content, persistent })

const times = <A>(count: number, make: () => A): Iterable<A> => ({
  *[Symbol.iterator]() {
    for (let i = 0; i < count; i++) yield make()
  }
})

/** Leaves nothing in the queue, and dies unless that were so many. */
const empty = (channel: Bare.Channel, expected: number) =>
  Effect.flatMap(
    Effect.promise(() => channel.purgeQueue(queue)),
    ({ messageCount }) =>
      messageCount === expected
        ? Effect.void
        : Effect.die(new Error(`the queue held ${messageCount} messages in place of ${expected}`))
  )

/** `messages` times `one`, by so many fibers. */
const share = <E, R>(messages: number, width: number, one: () => Effect.Effect<unknown, E, R>) =>
  Effect.forEach(
    Array.from({ length: width }),
    () =>
      Effect.gen(function* () {
        for (let i = 0; i < messages / width; i++) yield* one()
      }),
    { concurrency: "unbounded", discard: true }
  )

const publishing = Effect.fnUntraced(function* (bare: Bare.Bare) {
  const channel = yield* Bare.confirmChannel(bare.publishing)
  const byShare = (title: string, messages: number, width: number): Contest<AmqpPublisher.AmqpPublisher> => ({
    title,
    messages,
    after: empty(channel, messages),
    ways: {
      amqplib: Effect.promise(() =>
        Bare.share(messages, width, () => Bare.publish(channel, queue, content, { persistent }))
      ),
      "AmqpPublisher.publish": share(messages, width, () => AmqpPublisher.publish(message()))
    }
  })
  yield* run(byShare("Confirmed publishing, one at a time", 2000, 1), rounds)
  yield* run(byShare("Confirmed publishing by 1000 at a time", 30_000, 1000), rounds)

  const messages = 50_000
  yield* run<AmqpPublisher.AmqpPublisher>(
    {
      title: "Publishing all, and awaiting the confirms",
      messages,
      after: empty(channel, messages),
      ways: {
        amqplib: Effect.promise(() =>
          Bare.publishAll(
            channel,
            queue,
            times(messages, () => ({ content, options: { persistent } }))
          )
        ),
        "publishAll, iterable": Stream.runDrain(AmqpPublisher.publishAll(times(messages, message))),
        "publishAll, stream": Stream.runDrain(
          AmqpPublisher.publishAll(Stream.map(Stream.range(1, messages), () => message()))
        )
      }
    },
    rounds
  )
})

/** Runs `consumer` until it has called back so many times; it ends with the scope. */
const until = <R>(messages: number, consumer: (handled: Effect.Effect<void>) => Effect.Effect<unknown, unknown, R>) =>
  Effect.gen(function* () {
    const done = yield* Deferred.make<void, unknown>()
    let seen = 0
    const handled = Effect.sync(() => {
      if (++seen === messages) Deferred.doneUnsafe(done, Effect.void)
    })
    const failed = (cause: Cause.Cause<unknown>) => Deferred.failCause(done, cause)
    yield* Effect.forkScoped(Effect.onError(consumer(handled), failed))
    yield* Deferred.await(done)
  })

const consuming = Effect.fnUntraced(function* (bare: Bare.Bare) {
  const channel = yield* Bare.confirmChannel(bare.publishing)
  // It stays open between the turns.
  yield* (yield* AmqpConsumer.AmqpConsumer).connection
  const messages = 20_000
  yield* run<AmqpConsumer.AmqpConsumer>(
    {
      title: `Consuming and acknowledging, prefetch ${prefetch}`,
      messages,
      before: Effect.promise(() =>
        Bare.publishAll(
          channel,
          queue,
          times(messages, () => ({ content, options: { persistent } }))
        )
      ),
      after: empty(channel, 0),
      ways: {
        amqplib: Bare.consume(bare.consuming, queue, prefetch, messages),
        "AmqpConsumer.consume, 100 at a time": until(messages, (handled) =>
          AmqpConsumer.consume(queue, () => handled, { concurrency: 100 })
        ),
        "AmqpConsumer.stream, ack": until(messages, (handled) =>
          Stream.runForEach(AmqpConsumer.stream(queue), ({ ack }) => Effect.andThen(ack, handled))
        )
      }
    },
    rounds
  )
})

const Look = AmqpRpc.make("look", {
  payload: { id: Schema.Int, name: Schema.String },
  success: Schema.Struct({ found: Schema.Int })
})

const requests = Effect.fnUntraced(function* (bare: Bare.Bare) {
  const concurrency = 100
  const payload = { id: 1, name: "x".repeat(80) }
  const look = AmqpRpc.client(Look)
  yield* Effect.forkScoped(AmqpRpc.serve(Look, ({ id }) => Effect.succeed({ found: id }), { concurrency }))
  const lookBare = yield* Bare.rpc(bare, "look, bare", concurrency, (request) => ({
    found: (request as typeof payload).id
  }))
  const contest = (title: string, messages: number, width: number): Contest<AmqpRpc.AmqpRpc> => ({
    title,
    messages,
    ways: {
      amqplib: Effect.promise(() => Bare.share(messages, width, () => lookBare(payload))),
      "AmqpRpc.client and serve": share(messages, width, () => look(payload))
    }
  })
  yield* run(contest("Requests and replies, one at a time", 1500, 1), rounds)
  yield* run(contest("Requests and replies, 100 at a time", 10_000, 100), rounds)
})

const program = Effect.gen(function* () {
  const broker = yield* TestBroker.TestBroker
  yield* Console.log(`${broker.description}; contents of ${size} bytes`)
  const bare = yield* Bare.make(broker.url)
  yield* Effect.promise(async () => {
    const channel = await bare.publishing.createChannel()
    for (const name of [queue, "look", "look, bare"]) await channel.assertQueue(name)
    await channel.close()
  })
  yield* Effect.scoped(publishing(bare))
  yield* Effect.scoped(consuming(bare))
  yield* Effect.scoped(requests(bare))
})

const config = Effect.flatMap(TestBroker.TestBroker, ({ url }) => AmqpConfig.fromUrl(url))
const AmqpTest = Layer.unwrap(Effect.map(config, Amqp.fromConfig)).pipe(Layer.provideMerge(TestBroker.layer))

NodeRuntime.runMain(
  Effect.scoped(program).pipe(Effect.provide(AmqpTest), Effect.provideService(References.MinimumLogLevel, "Warn"))
)
