/** Notifications between processes: two clients of one database stand for two processes. */
import { assert, describe, it, layer } from "@effect/vitest"
import { PgClient } from "@effect/sql-pg"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
import { PgOutbox } from "@effect-amqp/sql/pg"
import { Effect, Layer } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { logged } from "../../core/test/support/consumers.ts"
import { until } from "../../core/test/support/polling.ts"
import { freshQueue, startRelay, texts, untilShards } from "./support/outbox.ts"
import * as TestDatabase from "./support/TestDatabase.ts"

const Database = AmqpSql.layerMigrate.pipe(Layer.provideMerge(TestDatabase.layer()), Layer.orDie)

/** A client of its own, as another process has. */
const otherProcess = Layer.unwrap(
  Effect.map(TestDatabase.TestDatabase, (database) =>
    PgOutbox.layerNotify.pipe(Layer.provideMerge(Layer.fresh(TestDatabase.layerClient(database))))
  )
)

const listeners = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ pid: number }>`SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'`
)

describe("While the database is away", () => {
  it.effect("a relay that cannot listen says so at once, and then once in some minutes", () =>
    logged((lines) =>
      Effect.gen(function* () {
        let tries = 0
        const away = new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause: "away" }) })
        const listen = () => Effect.suspend(() => Effect.fail((tries++, away)))
        const client = { listen, transactionService: {} } as unknown as PgClient.PgClient
        yield* Layer.build(PgOutbox.layerListen).pipe(Effect.provideService(PgClient.PgClient, client))
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(tries, 121)
        assert.strictEqual(lines.filter(({ text }) => text.includes("listening on amqp_outbox failed")).length, 3)
      })
    )
  )
})

layer(Layer.merge(TestBroker.layerAmqp(), Database), { excludeTestServices: true, timeout: TestDatabase.patience })(
  "PgOutbox",
  (it) => {
    describe("A commit in another process wakes a relay at once", () => {
      it.effect("also after the connection that listens was killed", () =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const queue = yield* freshQueue()
          yield* Layer.build(PgOutbox.layerListen)
          yield* startRelay({ pollInterval: "1 minute" })
          yield* untilShards(32)
          const [first] = yield* until(listeners, (found) => found.length === 1, "what listens")
          const published = Effect.fnUntraced(function* (content: string) {
            yield* Effect.scoped(
              Effect.gen(function* () {
                const other = yield* Layer.build(otherProcess)
                const startedAt = performance.now()
                // Nothing is lost if the process ends at once, but its notification may be.
                yield* Effect.provide(AmqpOutbox.publish({ routingKey: queue, content }), other)
                assert.deepStrictEqual(yield* texts(queue, 1), [content])
                assert.isBelow(performance.now() - startedAt, 5000)
              })
            )
          })
          // The pauses between the relay's own reads double: the next one takes longer than what this test allows.
          yield* Effect.sleep("7 seconds")
          yield* published("one")
          yield* sql`SELECT pg_terminate_backend(${first!.pid})`
          yield* until(listeners, (found) => found.length === 1 && found[0]!.pid !== first!.pid, "what listens", 20)
          yield* published("two")
        })
      )
    })
  }
)
