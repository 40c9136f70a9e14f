/**
 * A worker: it ships the orders of a queue, two at a time, and each order once.
 *
 * A temporary failure is retried after one second, and then after ten. A permanent failure, and a message that is not an
 * order, goes to the dead-letter queue `shipments.dlq` with its reason. Enter does what an operator does there: it shows the
 * reasons, corrects the cause, and brings back what failed because of it. `npx effect-amqp peek shipments.dlq` shows them too.
 *
 * Messages are delivered at least once. The worker records the id of each message in its database, in the transaction that
 * records the shipment. A message that is delivered again changes nothing (docs/idempotency.md).
 *
 * Run it with `npm start -- worker`. `DATABASE=shipments.db` keeps the database in a file; by default it is in memory. Ctrl-C stops it: it takes no further orders, finishes those that it has
 * begun, and leaves the others in the queue.
 */
import {
  type Amqp,
  AmqpConsumer,
  AmqpDeadLetters,
  type AmqpError,
  AmqpMessage,
  AmqpPublisher,
  AmqpTopology
} from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Config, Console, Context, Effect, Layer, Ref, Schema, Stream } from "effect"
import { createInterface } from "node:readline"
import { DatabaseSync } from "node:sqlite"
import * as ExampleBroker from "./support/ExampleBroker.ts"

const Order = Schema.Struct({ id: Schema.Int, product: Schema.NonEmptyString })
type Order = typeof Order.Type

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { message: Schema.String }) {}
class CarrierBusy extends Schema.TaggedError<CarrierBusy>()("CarrierBusy", { message: Schema.String }) {}
class DatabaseFailed extends Schema.TaggedError<DatabaseFailed>()("DatabaseFailed", { cause: Schema.Defect() }) {}
class NoMessageId extends Schema.TaggedError<NoMessageId>()("NoMessageId", { message: Schema.String }) {}

// --- Queues ------------------------------------------------------------------------------------------------------------

// The work queue, its dead-letter queue, and one queue per delay.
export const shipments: AmqpTopology.WorkQueue = AmqpTopology.workQueue("shipments", {
  retryDelays: ["1 second", "10 seconds"]
})

// --- Publishing --------------------------------------------------------------------------------------------------------

const OrderJson = AmqpMessage.json(Order)

export const place: (order: Order) => Effect.Effect<void, AmqpError.AmqpError | Schema.SchemaError, Amqp.Amqp> =
  Effect.fn("place")(function* (order: Order) {
    // The id is derived from the order, so a publisher that tries again uses the same id.
    const message = yield* OrderJson.encode(order, { routingKey: shipments.queue, messageId: `order-${order.id}` })
    // Completes when the broker has the message, and fails if no queue takes it.
    yield* AmqpPublisher.publish(message, { mandatory: true })
  })

// --- Database ----------------------------------------------------------------------------------------------------------

const tables = `
  CREATE TABLE IF NOT EXISTS handled (message_id TEXT PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS shipments (order_id INTEGER NOT NULL, product TEXT NOT NULL);
`

export class Shipments extends Context.Service<
  Shipments,
  {
    /** Records a shipment, unless the message was handled before. Returns whether it was recorded. */
    readonly record: (messageId: string, order: Order) => Effect.Effect<boolean, DatabaseFailed>
  }
>()("examples/worker/Shipments") {
  static readonly layer = Layer.effect(
    Shipments,
    Effect.gen(function* () {
      const path = yield* Config.String("DATABASE").pipe(Config.withDefault(":memory:"))
      const database = yield* Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(path, { timeout: 5000 })),
        (database) => Effect.sync(() => database.close())
      )
      database.exec(tables)
      const insertId = database.prepare("INSERT INTO handled VALUES (?) ON CONFLICT DO NOTHING")
      const insertShipment = database.prepare("INSERT INTO shipments VALUES (?, ?)")
      const record = Effect.fn("Shipments.record")((messageId: string, order: Order) =>
        Effect.try({
          try: () => {
            database.exec("BEGIN IMMEDIATE")
            try {
              const isNew = insertId.run(messageId).changes === 1
              if (isNew) insertShipment.run(order.id, order.product)
              database.exec("COMMIT")
              return isNew
            } finally {
              if (database.isTransaction) database.exec("ROLLBACK")
            }
          },
          catch: (cause) => new DatabaseFailed({ cause })
        })
      )
      return { record }
    })
  )
}

// --- Consuming ---------------------------------------------------------------------------------------------------------

/** Number of unicorns in the warehouse. */
const unicorns = Ref.makeUnsafe(0)

const ship = Effect.fn("ship")(function* (order: Order, { attempt, properties }: AmqpConsumer.Delivery) {
  const { messageId } = properties
  if (messageId === undefined || messageId === "")
    return yield* new NoMessageId({ message: "The message has no messageId." })
  yield* Console.log(`Order ${order.id}: shipping ${order.product}, attempt ${attempt}`)
  yield* Effect.sleep("500 millis")
  if (order.product === "unicorn" && (yield* Ref.get(unicorns)) === 0)
    return yield* new OutOfStock({ message: "We are out of unicorns." })
  if (order.product === "piano" && attempt === 1) return yield* new CarrierBusy({ message: "Not now." })
  // The delivery is acknowledged after the commit. If the process dies in between, the message is delivered again.
  const isNew = yield* Shipments.use(({ record }) => record(messageId, order))
  yield* Console.log(`Order ${order.id}: ${isNew ? "shipped" : "was shipped before"}`)
})

const isTemporary = (error: { readonly _tag: string }) =>
  error._tag === "CarrierBusy" || error._tag === "DatabaseFailed"

/** It runs until it fails. */
export const worker: Effect.Effect<never, AmqpError.AmqpError, Amqp.Amqp | Shipments> = AmqpConsumer.consume(
  shipments.queue,
  ship,
  {
    schema: Order,
    concurrency: 2,
    onFailure: (error) => (isTemporary(error) ? shipments.onFailure : AmqpConsumer.deadLetter),
    onDecodeFailure: AmqpConsumer.deadLetter
  }
)

// --- Dead letters --------------------------------------------------------------------------------------------------------

const deadLetters = AmqpDeadLetters.of(shipments)

const written = (count: number) => count.toLocaleString("en")

export const bringBack: Effect.Effect<void, AmqpError.AmqpError, Amqp.Amqp> = Effect.gen(function* () {
  const { groups, total } = yield* deadLetters.peek()
  yield* Console.log(`Dead letters: ${written(total)}`)
  for (const { count, error, lastAt, origin } of groups) {
    yield* Console.log(`  ${written(count)} of ${origin}: ${error}, last at ${lastAt?.toISOString()}`)
  }
  yield* Ref.set(unicorns, 10)
  const report = yield* deadLetters.redrive({ where: ({ reason }) => reason.error === "OutOfStock" })
  yield* Console.log(
    `Unicorns are in stock again: ${written(report.redriven)} orders are back, ${written(report.left)} dead letters stay`
  )
})

/** Brings back with each line of the terminal. */
const operator = Stream.suspend(() =>
  Stream.fromAsyncIterable(createInterface({ input: process.stdin }), (error) => error)
).pipe(Stream.runForEach(() => bringBack))

// --- The program -------------------------------------------------------------------------------------------------------

export const products = ["tea", "piano", "unicorn", "lamp", "chair"]

const program = Effect.gen(function* () {
  yield* Effect.forEach(products, (product, i) => place({ id: i + 1, product }), { concurrency: "unbounded" })
  yield* Console.log(`${products.length} orders are placed. Enter shows dead letters, Ctrl-C stops the worker.`)
  yield* Effect.forkScoped(operator)
  return yield* worker
}).pipe(Effect.scoped)

if (import.meta.main) {
  program.pipe(
    Effect.provide(AmqpTopology.layer(shipments)),
    Effect.provide(Shipments.layer),
    // In an application, use AmqpLive.
    Effect.provide(ExampleBroker.layer),
    NodeRuntime.runMain
  )
}
