/** The names that the programs share, the tables, and the queues. */
import { AmqpChannel, type AmqpError, type AmqpPool } from "@effect-amqp/core"
import { AmqpSql } from "@effect-amqp/sql"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

export const exchange = "orders"
/** Orders of a customer are ordered by the customer; orders of guests are not ordered. */
export const routes = { ordered: "customer", unordered: "guest" }
export const queues = { all: "all", ordered: "ordered" }
export const customers = 20

export const createTables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* AmqpSql.migrate
  yield* sql`CREATE TABLE orders (id uuid PRIMARY KEY, customer text, number integer)`
  yield* sql`CREATE TABLE customers (name text PRIMARY KEY, orders integer NOT NULL)`
  yield* sql`INSERT INTO customers SELECT 'customer ' || n, 0 FROM generate_series(0, ${customers - 1}) AS s (n)`
  // Without keys and references: effects that must not be are recorded too.
  yield* sql`CREATE TABLE effects (order_id uuid NOT NULL)`
  yield* sql`CREATE TABLE ordered_effects (
    position bigint GENERATED ALWAYS AS IDENTITY, order_id uuid NOT NULL, customer text, number integer
  )`
})

export const declareQueues: Effect.Effect<void, AmqpError.AmqpError, AmqpPool.AmqpPool> = Effect.scoped(
  AmqpChannel.use((channel) =>
    Effect.gen(function* () {
      yield* channel.exchangeDeclare(exchange, "direct")
      yield* channel.queueDeclare(queues.all, { queueType: "quorum" })
      // A quorum queue may deliver what was returned after what follows.
      yield* channel.queueDeclare(queues.ordered, { queueType: "classic", singleActiveConsumer: true })
      yield* channel.queueBind(queues.all, exchange, routes.ordered)
      yield* channel.queueBind(queues.all, exchange, routes.unordered)
      yield* channel.queueBind(queues.ordered, exchange, routes.ordered)
    })
  )
)
