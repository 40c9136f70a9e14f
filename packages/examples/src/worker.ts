/**
 * A worker: ships the orders of a queue, two at a time.
 *
 * What may pass is tried again after a second, and then after ten. What will not pass, and what is no order, goes to the
 * dead-letter queue `shipments.dlq`, for somebody to look at.
 *
 * Run it with `npm start -- worker`. Ctrl-C stops it: it takes no
 * further orders, finishes those it has begun, and leaves the others in the queue.
 */
import { AmqpConsumer, AmqpMessage, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import * as ExampleBroker from "./support/ExampleBroker.ts"

const Order = Schema.Struct({ id: Schema.Int, product: Schema.NonEmptyString })
type Order = typeof Order.Type

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { message: Schema.String }) {}
class CarrierBusy extends Schema.TaggedError<CarrierBusy>()("CarrierBusy", { message: Schema.String }) {}

// --- Queues ------------------------------------------------------------------------------------------------------------

// The queue, one for its dead letters, and one per delay.
const shipments = AmqpTopology.workQueue("shipments", { retryDelays: ["1 second", "10 seconds"] })

// --- Publishing --------------------------------------------------------------------------------------------------------

const OrderJson = AmqpMessage.json(Order)

const place = Effect.fn("place")(function* (order: Order) {
  const message = yield* OrderJson.encode(order, { routingKey: shipments.queue, messageId: String(order.id) })
  // Completes when the broker has the message, and fails if no queue takes it.
  yield* AmqpPublisher.publish(message, { mandatory: true })
})

// --- Consuming ---------------------------------------------------------------------------------------------------------

// Deliveries come at least once: a real one would first look whether this order has been shipped.
const ship = Effect.fn("ship")(function* (order: Order, delivery: AmqpConsumer.Delivery) {
  yield* Console.log(`Order ${order.id}: shipping ${order.product}, attempt ${delivery.attempt}`)
  yield* Effect.sleep("500 millis")
  if (order.product === "unicorn") return yield* new OutOfStock({ message: "We are out of unicorns." })
  if (order.product === "piano" && delivery.attempt === 1) return yield* new CarrierBusy({ message: "Not now." })
  yield* Console.log(`Order ${order.id}: shipped`)
})

const worker = AmqpConsumer.consume(shipments.queue, ship, {
  schema: Order,
  concurrency: 2,
  onFailure: (error) => (error._tag === "CarrierBusy" ? shipments.onFailure : AmqpConsumer.deadLetter),
  onDecodeFailure: AmqpConsumer.deadLetter
})

// --- The program -------------------------------------------------------------------------------------------------------

const products = ["tea", "piano", "unicorn", "lamp", "chair"]

const program = Effect.gen(function* () {
  yield* Effect.forEach(products, (product, i) => place({ id: i + 1, product }), { concurrency: "unbounded" })
  yield* Console.log(`${products.length} orders are placed. Ctrl-C stops the worker.`)
  return yield* worker
})

program.pipe(
  Effect.provide(AmqpTopology.layer(shipments)),
  // In an application: AmqpLive.
  Effect.provide(ExampleBroker.layer),
  NodeRuntime.runMain
)
