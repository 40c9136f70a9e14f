/**
 * Inserts orders and publishes a message for each in the same transaction. Some transactions roll back after the publish,
 * because they fail, throw, or are interrupted; and now and then the process kills itself in one.
 *
 * It inserts orders while there are fewer than allowed; each line of its input is that number.
 */
import { NodeRuntime } from "@effect/platform-node"
import { AmqpOutbox } from "@effect-amqp/sql"
import { Cause, Effect, Latch, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { customers, exchange, routes } from "../topology.ts"
import { DatabaseLayer, lines, LogLayer, mutant, random, ReadyLayer, report } from "./environment.ts"

const concurrency = 8

let allowed = 0
const isAllowed = Latch.makeUnsafe()
lines.on("line", (line) => {
  allowed = Number(line)
  isAllowed.openUnsafe()
})

class Refused extends Error {
  readonly _tag = "Refused"
}

const endings = {
  commit: Effect.void,
  fail: Effect.fail(new Refused()),
  throw: Effect.sync((): void => {
    throw new Refused()
  }),
  interrupt: Effect.interrupt,
  die: Effect.sync(() => void process.kill(process.pid, "SIGKILL"))
}

/** The number of orders after which this process kills itself. */
let left = random.between(50, 800)

const ending = (): keyof typeof endings => {
  if (left-- === 0) return "die"
  const drawn = random.below(100)
  return drawn < 90 ? "commit" : drawn < 94 ? "fail" : drawn < 97 ? "throw" : "interrupt"
}

const order = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const id = randomUUID()
  const customer = random.below(3) > 0 ? `customer ${random.below(customers)}` : undefined
  const chosen = ending()
  const transaction = Effect.gen(function* () {
    yield* sql`INSERT INTO orders (id, customer) VALUES (${id}, ${customer ?? null})`
    yield* AmqpOutbox.publish(
      { exchange, routingKey: customer === undefined ? routes.unordered : routes.ordered, content: id },
      mutant === "publish-without-order" ? {} : { orderBy: customer }
    )
    if (customer !== undefined) {
      // After the publish, which has taken the customer's lock until the end of the transaction: whatever the order of
      // the numbers is, it is that of the commits.
      yield* sql`WITH taken AS (UPDATE customers SET orders = orders + 1 WHERE name = ${customer} RETURNING orders)
        UPDATE orders SET number = taken.orders FROM taken WHERE id = ${id}`
    }
    // Positions are taken in another order than that of the commits.
    yield* Effect.sleep(random.below(40))
    yield* endings[chosen]
  })
  const exit = yield* Effect.exit(sql.withTransaction(transaction))
  if (exit._tag === "Success") return
  if (chosen !== "commit") return report("rolled back")
  yield* Effect.logWarning("an order failed", Cause.squash(exit.cause))
  // The database is away.
  yield* Effect.sleep(100)
})

const shop = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  while (true) {
    const [row] = yield* sql<{ count: number }>`SELECT count(*)::integer AS count FROM orders`
    const missing = allowed - (row?.count ?? 0)
    if (missing > 0) {
      yield* Effect.forEach(Array.from({ length: Math.min(missing, 100) }), () => order, { concurrency, discard: true })
    } else {
      isAllowed.closeUnsafe()
      yield* Effect.timeoutOption(isAllowed.await, 1000)
    }
  }
}).pipe(
  Effect.catchTag("SqlError", (error) => Effect.andThen(Effect.logWarning(error.message), Effect.sleep(200))),
  Effect.forever
)

Layer.effectDiscard(Effect.forkScoped(shop)).pipe(
  Layer.merge(ReadyLayer),
  Layer.provide([DatabaseLayer(concurrency + 1), LogLayer]),
  Layer.launch,
  NodeRuntime.runMain
)
