/**
 * A shop that neither loses an order nor charges one twice.
 *
 * - `POST /orders` inserts the order and its event in one transaction. The outbox publishes the event after the commit.
 * - The worker charges each order. Its inbox records the message in the transaction that records the payment, so a message
 *   that comes again changes nothing, and publishes the event `OrderPaid` through the outbox.
 * - `GET /orders` shows the orders, `GET /amqp/dashboard` the broker's side. The password of the dashboard's user `shop` is
 *   `DASHBOARD_PASSWORD`, by default `shop`.
 *
 * The database is PostgreSQL if `DATABASE_URL` names one, otherwise SQLite. Run it with `npm start -- shop`.
 */
import { AmqpConsumer, AmqpEvent, AmqpTopology } from "@effect-amqp/core"
import { AmqpDashboard, AmqpHealth } from "@effect-amqp/http"
import { AmqpInbox, AmqpOutbox } from "@effect-amqp/sql"
import { Config, Console, Effect, Layer, Redacted, Schema } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { SqlClient } from "effect/sql"
import * as ExampleBroker from "./support/ExampleBroker.ts"
import * as ExampleDatabase from "./support/ExampleDatabase.ts"
import * as ExampleServer from "./support/ExampleServer.ts"
import { launch } from "./support/launch.ts"

// --- Events ------------------------------------------------------------------------------------------------------------

const Order = Schema.Struct({ id: Schema.String, product: Schema.NonEmptyString, cents: Schema.Int })

const exchange = "shop"
const OrderPlaced = AmqpEvent.make("OrderPlaced", { schema: Order, exchange, routingKey: "order.placed" })
const OrderPaid = AmqpEvent.make("OrderPaid", { schema: Order, exchange, routingKey: "order.paid" })

const topology = AmqpTopology.make(
  AmqpTopology.exchange(exchange, "topic"),
  AmqpTopology.queue("shop.payments", { queueType: "quorum" }),
  AmqpTopology.queue("shop.receipts", { queueType: "quorum" }),
  AmqpEvent.binding(OrderPlaced, "shop.payments"),
  AmqpEvent.binding(OrderPaid, "shop.receipts")
)

// --- Tables ------------------------------------------------------------------------------------------------------------

const Tables = Layer.effectDiscard(
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, product TEXT NOT NULL, cents INTEGER NOT NULL)`
    // Without a unique key, so that a second payment of an order would be seen.
    yield* sql`CREATE TABLE IF NOT EXISTS payments (order_id TEXT NOT NULL, cents INTEGER NOT NULL)`
  })
)

// --- Routes ------------------------------------------------------------------------------------------------------------

const NewOrder = Schema.Struct({ product: Schema.NonEmptyString, cents: Schema.Int.check(Schema.isGreaterThan(0)) })

const postOrder = Effect.gen(function* () {
  const order = { id: crypto.randomUUID(), ...(yield* HttpServerRequest.schemaBodyJson(NewOrder)) }
  const sql = yield* SqlClient.SqlClient
  const event = yield* AmqpEvent.encode(OrderPlaced, order)
  // Both or neither. The messages of one order keep their order.
  yield* sql.withTransaction(
    Effect.andThen(sql`INSERT INTO orders ${sql.insert(order)}`, AmqpOutbox.publish(event, { orderBy: order.id }))
  )
  return HttpServerResponse.jsonUnsafe(order, { status: 201 })
}).pipe(Effect.catchTag("SchemaError", () => Effect.succeed(HttpServerResponse.empty({ status: 400 }))))

const getOrders = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const orders = yield* sql`
    SELECT id, product, cents, CAST((SELECT count(*) FROM payments WHERE order_id = orders.id) AS INTEGER) AS payments
    FROM orders`
  const { setAside, waiting } = yield* AmqpOutbox.stats
  return HttpServerResponse.jsonUnsafe({ outbox: { waiting, setAside }, orders })
})

const Dashboard = Layer.unwrap(
  Effect.gen(function* () {
    const password = yield* Config.Redacted("DASHBOARD_PASSWORD").pipe(Config.withDefault(Redacted.make("shop")))
    const expected = `Basic ${btoa(`shop:${Redacted.value(password)}`)}`
    return AmqpDashboard.layer({
      authorize: ({ headers }) => Effect.succeed(headers["authorization"] === expected ? "allow" : "authenticate")
    })
  })
)

const Server = HttpRouter.serve(
  Layer.mergeAll(
    HttpRouter.add("POST", "/orders", postOrder),
    HttpRouter.add("GET", "/orders", getOrders),
    AmqpHealth.layer(),
    Dashboard
  ),
  { disableListenLog: true }
)

// --- The worker --------------------------------------------------------------------------------------------------------

const charge = Effect.fn("charge")(function* (order: typeof Order.Type) {
  const sql = yield* SqlClient.SqlClient
  // All of this is in the transaction of the inbox.
  yield* sql`INSERT INTO payments (order_id, cents) VALUES (${order.id}, ${order.cents})`
  yield* AmqpOutbox.publish(yield* AmqpEvent.encode(OrderPaid, order), { orderBy: order.id })
  yield* Console.log(`Order ${order.id}: charged for ${order.product}`)
})

const Worker = AmqpEvent.layerConsume(OrderPlaced, "shop.payments", charge, {
  concurrency: 4,
  inbox: AmqpInbox.sql(),
  onFailure: (error) => (error._tag === "InboxKeyMissing" ? AmqpConsumer.deadLetter : AmqpConsumer.redeliver)
})

const Receipts = AmqpEvent.layerConsume(OrderPaid, "shop.receipts", (order) =>
  Console.log(`Order ${order.id}: the receipt is on its way`)
)

// --- The program -------------------------------------------------------------------------------------------------------

const Announcement = Layer.effectDiscard(
  Effect.gen(function* () {
    const url = HttpServer.formatAddress((yield* HttpServer.HttpServer).address)
    yield* Console.log(`
The shop listens on ${url}.

  curl -i ${url}/orders -d '{"product":"tea","cents":395}'
  curl ${url}/orders

Its dashboard is at ${url}/amqp/dashboard. Ctrl-C stops it.
`)
  })
)

// The server listens before it has routes, and does not answer what arrives until then.
Layer.mergeAll(Announcement.pipe(Layer.provide(Server)), Worker, Receipts, AmqpOutbox.layerRelay()).pipe(
  Layer.provide(AmqpTopology.layer(topology)),
  Layer.provide(ExampleServer.layer),
  Layer.provide(Tables),
  // In an application, use AmqpLive and the client of your database.
  Layer.provide(ExampleBroker.layer),
  Layer.provide(ExampleDatabase.layer),
  launch
)
