/**
 * Handles orders, each in a transaction with the inbox's record: it inserts a row with the order's effect. Some handlers
 * fail after that. With the argument `ordered` it handles one order at a time, and records in which order it does.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { AmqpInbox } from "@effect-amqp/sql"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { commitsEarly } from "../mutants.ts"
import { queues } from "../topology.ts"
import { BrokerLayer, DatabaseLayer, LogLayer, mutant, random, ReadyLayer, report } from "./environment.ts"

const isOrdered = process.argv[2] === "ordered"
const concurrency = isOrdered ? 1 : 8

const handle = Effect.fnUntraced(function* (delivery: AmqpConsumer.Delivery) {
  const sql = yield* SqlClient.SqlClient
  const id = AmqpMessage.text(delivery)
  if (isOrdered) {
    yield* sql`INSERT INTO ordered_effects (order_id, customer, number)
      SELECT ${id}::uuid, (SELECT customer FROM orders WHERE id = ${id}), (SELECT number FROM orders WHERE id = ${id})`
    return
  }
  yield* Effect.sleep(random.below(5))
  yield* sql`INSERT INTO effects (order_id) VALUES (${id})`
  if (random.below(100) === 0) return yield* Effect.fail(new Error("chosen at random"))
})

/** Reports repeats. The inbox runs no handler for them. */
const reporting = <E, R>(inbox: AmqpConsumer.Inbox<E, R>): AmqpConsumer.Inbox<E, R> => ({
  make: (consumer) =>
    Effect.map(
      inbox.make(consumer),
      (run): AmqpConsumer.InboxHandler<E, R> =>
        (delivery, handler) =>
          Effect.suspend(() => {
            let isNew = false
            const noticed = Effect.suspend(() => {
              isNew = true
              return handler
            })
            return Effect.tap(run(delivery, noticed), () => Effect.sync(() => (isNew ? undefined : report("repeated"))))
          })
    )
})

const sqlInbox = AmqpInbox.sql({ key: ({ properties }) => properties.messageId })

const Consumer = AmqpConsumer.layerConsume(isOrdered ? queues.ordered : queues.all, handle, {
  inbox: reporting(mutant === "commit-before-handler" ? commitsEarly(sqlInbox) : sqlInbox),
  concurrency,
  // With more, a delivery that failed would be handled after those that were sent ahead.
  prefetch: isOrdered ? 1 : 50,
  resubscribe: "always"
})

Layer.merge(Consumer, ReadyLayer).pipe(
  Layer.provide([BrokerLayer, DatabaseLayer(concurrency + 2), LogLayer]),
  Amqp.launch,
  NodeRuntime.runMain
)
