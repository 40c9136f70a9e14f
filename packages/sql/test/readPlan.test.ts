/** How PostgreSQL runs the statement that reads the outbox. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { tableMigrations } from "../src/internal/database/migrations.ts"
import { outboxStatements } from "../src/internal/outbox/statements.ts"
import { range } from "./support/outbox.ts"
import * as TestDatabase from "./support/TestDatabase.ts"

const rows = 50_000
const shards = range(32).map((_, shard) => shard)

/** Fills an outbox of its own, analyzes it when it has a number of rows, and returns the plan of a read. */
const planOf = Effect.fnUntraced(function* (prefix: string, orderKey: string, analyzedAt: number | undefined) {
  const sql = yield* SqlClient.SqlClient
  const fill = (first: number, last: number) =>
    sql.unsafe(`INSERT INTO ${prefix}outbox (shard, order_key, message_id, mandatory, exchange, routing_key, properties, content)
SELECT n % 32, ${orderKey}, n::text, true, 'orders', 'placed', decode('00', 'hex'), convert_to(repeat('x', 200), 'utf8')
FROM generate_series(${first}, ${last}) AS n`)
  for (const statement of tableMigrations[0]!.statements.pg(prefix)) yield* sql.unsafe(statement)
  if (analyzedAt === undefined) {
    yield* fill(1, rows)
  } else {
    yield* fill(1, analyzedAt)
    yield* sql.unsafe(`ANALYZE ${prefix}outbox`)
    yield* fill(analyzedAt + 1, rows)
  }
  const parameters = [shards, shards.map(() => 0), [0], [""], 125, 1000, 1_000_000]
  const lines = yield* sql.unsafe<object>(`EXPLAIN ${outboxStatements.pg(prefix).read}`, parameters)
  return lines.flatMap((line) => Object.values(line)).join("\n")
})

layer(TestDatabase.layer().pipe(Layer.orDie), { excludeTestServices: true, timeout: TestDatabase.patience })(
  "A read takes its rows from the index in their order, however many wait",
  (it) => {
    const statistics: ReadonlyArray<readonly [string, number | undefined]> = [
      ["without statistics", undefined],
      ["with the statistics of ten rows", 10],
      ["with the statistics of all rows", rows]
    ]
    for (const [keys, orderKey] of [
      ["no keys", "NULL"],
      ["a key per row", "n::text"]
    ] as const) {
      for (const [name, analyzedAt] of statistics) {
        it.effect(`${name}, ${keys}`, () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const prefix = `plan_${orderKey.length}_${analyzedAt ?? 0}_`
            // In one transaction, so that no autovacuum analyzes the table in between.
            const plan = yield* sql.withTransaction(planOf(prefix, orderKey, analyzedAt))
            assert.include(plan, `Index Scan using ${prefix}outbox_pkey`)
            assert.notMatch(plan, /Sort|Bitmap|Seq Scan/)
          })
        )
      }
    }
  }
)
