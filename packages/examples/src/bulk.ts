/**
 * Bulk: 20,000 readings are published from a stream, and consumed in batches of up to 500, as for a database that
 * inserts many rows at once.
 *
 * Run it with `npm start -- bulk`. It ends when all readings have arrived.
 */
import { AmqpConsumer, AmqpMessage, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Duration, Effect, Schema, Stream } from "effect"
import * as ExampleBroker from "./support/ExampleBroker.ts"

const Reading = Schema.Struct({ id: Schema.Int, celsius: Schema.Finite })
type Reading = typeof Reading.Type

const queue = "readings"
const topology = AmqpTopology.make(AmqpTopology.queue(queue))

const total = 20_000

// --- Publishing --------------------------------------------------------------------------------------------------------

const readings = Stream.map(Stream.range(1, total), (id): Reading => ({ id, celsius: 15 + (id % 10) }))

const ReadingJson = AmqpMessage.json(Reading)

// The stream is read no faster than the broker confirms, and in order. The first reading that fails ends it.
const publishing = readings.pipe(
  Stream.mapEffect(ReadingJson.encode({ routingKey: queue })),
  (messages) => AmqpPublisher.publishAll(messages, { mandatory: true }),
  Stream.runCount
)

// --- Consuming ---------------------------------------------------------------------------------------------------------

const consuming = Effect.gen(function* () {
  const table = new Map<number, number>()
  const complete = yield* Deferred.make<void>()
  let batches = 0

  // A reading that is delivered twice is still one row: delivery is at least once.
  const insert = Effect.fn("insert")(function* (rows: ReadonlyArray<Reading>) {
    for (const { id, celsius } of rows) table.set(id, celsius)
    batches += 1
    if (table.size === total) yield* Deferred.succeed(complete, undefined)
  })

  const consumer = AmqpConsumer.consumeBatch(queue, insert, {
    schema: Reading,
    size: 500,
    within: "100 millis"
  })

  // It consumes forever, or fails. The batch that is being handled is finished and acknowledged.
  yield* Effect.raceFirst(consumer, Deferred.await(complete))
  return { rows: table.size, batches }
})

// --- The program -------------------------------------------------------------------------------------------------------

const count = (value: number) => value.toLocaleString("en")
const seconds = (duration: Duration.Duration) => Duration.toSeconds(duration).toFixed(1)

const program = Effect.gen(function* () {
  const [publishTime, confirmed] = yield* Effect.timed(publishing)
  yield* Console.log(`${count(confirmed)} readings confirmed in ${seconds(publishTime)} s.`)
  const [consumeTime, { batches, rows }] = yield* Effect.timed(consuming)
  yield* Console.log(`${count(rows)} rows inserted in ${count(batches)} batches in ${seconds(consumeTime)} s.`)
})

program.pipe(
  Effect.provide(AmqpTopology.layer(topology)),
  // In an application, use AmqpLive.
  Effect.provide(ExampleBroker.layer),
  NodeRuntime.runMain
)
