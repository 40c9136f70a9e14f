/**
 * npm run bench -- dead-letters [--quick]: the throughput of a redrive beside that of plain confirmed publishes, and what
 * reasons cost a consumer whose messages are handled, with RabbitMQ on this machine.
 *
 * Everything is measured in one run and in turns, so that what disturbs one side disturbs the other too.
 */
import { NodeRuntime } from "@effect/platform-node"
import { AmqpConsumer, AmqpDeadLetters, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Console, Deferred, Effect, Fiber, References, Stream } from "effect"

const quick = process.argv.includes("--quick")
const rounds = quick ? 4 : 10
const perRound = quick ? 5000 : 20_000
const failuresPerRound = quick ? 500 : 2000
const content = "x".repeat(200)

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const rate = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.gen(function* () {
    const startedAt = performance.now()
    yield* effect
    return (count / (performance.now() - startedAt)) * 1000
  })

const publish = (queue: string, count: number, headers?: Readonly<Record<string, string | number>>) =>
  Stream.runDrain(
    AmqpPublisher.publishAll(
      Stream.map(Stream.range(1, count), (i) => ({
        routingKey: queue,
        content,
        messageId: String(i),
        ...(headers !== undefined && { headers })
      })),
      { mandatory: true }
    )
  )

const failedIn = (queue: string) => ({
  "x-failed-version": 1,
  "x-failed-queue": queue,
  "x-failed-error": "Busy",
  "x-failed-reason": "the database is down",
  "x-failed-attempt": 3,
  "x-failed-last-at": "2026-01-01T00:00:00.000Z"
})

const purge = (queue: string) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use((channel) => channel.queuePurge(queue)))

/** Handles a number of messages. */
const handled = (
  queue: string,
  count: number,
  handler: Effect.Effect<void, Error>,
  deadLettering: AmqpConsumer.DeadLettering
) =>
  Effect.gen(function* () {
    const done = yield* Deferred.make<void>()
    let left = count
    const fiber = yield* Effect.forkChild(
      AmqpConsumer.consume(
        queue,
        () =>
          Effect.suspend(() => {
            if (--left === 0) Deferred.doneUnsafe(done, Effect.void)
            return handler
          }),
        { deadLettering, onFailure: AmqpConsumer.deadLetter, prefetch: 500, concurrency: 50 }
      )
    )
    yield* Deferred.await(done)
    yield* Fiber.interrupt(fiber)
  })

const run = Effect.gen(function* () {
  const pool = yield* AmqpPool.AmqpPool
  for (const queueType of ["classic", "quorum"] as const) {
    const work = `bench.${queueType}`
    const dead = `bench.${queueType}.dead`
    yield* pool.use((channel) =>
      Effect.andThen(
        channel.queueDeclare(dead, { queueType }),
        channel.queueDeclare(work, { queueType, deadLetterExchange: "", deadLetterRoutingKey: dead })
      )
    )
    const letters = AmqpDeadLetters.of(dead)
    const failing = Effect.fail(new Error("busy"))
    const contest = <E, R, E2, R2>(
      before: Effect.Effect<void, E, R>,
      count: number,
      measured: Effect.Effect<unknown, E2, R2>
    ) => purge(work).pipe(Effect.andThen(purge(dead)), Effect.andThen(before), Effect.andThen(rate(count, measured)))
    const contests = {
      "publish, confirmed": contest(Effect.void, perRound, publish(work, perRound)),
      redrive: contest(publish(dead, perRound, failedIn(work)), perRound, letters.redrive()),
      "consume, handled": contest(publish(work, perRound), perRound, handled(work, perRound, Effect.void, "reject")),
      "consume with reasons, handled": contest(
        publish(work, perRound),
        perRound,
        handled(work, perRound, Effect.void, "publish")
      ),
      "consume, rejected": contest(
        publish(work, failuresPerRound),
        failuresPerRound,
        handled(work, failuresPerRound, failing, "reject")
      ),
      "consume with reasons, dead-lettered": contest(
        publish(work, failuresPerRound),
        failuresPerRound,
        handled(work, failuresPerRound, failing, "publish")
      )
    }
    const rates = new Map<string, Array<number>>()
    for (let round = 0; round <= rounds; round++) {
      // In turns: what one contest leaves behind in the broker disturbs the next one.
      const entries = Object.entries(contests)
      for (const [name, contest] of round % 2 === 0 ? entries : entries.toReversed()) {
        const measured = yield* contest
        // The first round warms up.
        if (round > 0) rates.set(name, [...(rates.get(name) ?? []), measured])
      }
    }
    const of = (name: string) => median(rates.get(name)!)
    yield* Console.log(`\n${queueType} queues, messages per second, median of ${rounds} rounds`)
    for (const name of Object.keys(contests)) yield* Console.log(`${name.padEnd(40)} ${Math.round(of(name))}`)
    yield* Console.log(`redrive to publish: ${(of("redrive") / of("publish, confirmed")).toFixed(2)}`)
    yield* Console.log(
      `handled with reasons to without: ${(of("consume with reasons, handled") / of("consume, handled")).toFixed(2)}`
    )
  }
})

NodeRuntime.runMain(
  Effect.provide(run, TestBroker.layerAmqp({ broker: TestBroker.layerPrivate() })).pipe(
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)
