/** The tables: migrations, prefixes and the plain SQL files. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
import { Effect, Exit, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { databases } from "./support/databases.ts"
import * as TestDatabase from "./support/TestDatabase.ts"

const message = { routingKey: "nowhere", content: "" }

const waiting = Effect.map(AmqpOutbox.stats, (stats) => stats.waiting)

for (const [name, database] of databases) {
  layer(database, { excludeTestServices: true, timeout: "3 minutes" })(name, (it) => {
    it.effect("Migrations may run again, and keep what stands in the tables", () =>
      Effect.gen(function* () {
        yield* AmqpOutbox.publish(message)
        const before = yield* waiting
        yield* AmqpSql.migrate
        yield* AmqpSql.migrate
        assert.strictEqual(yield* waiting, before)
      })
    )

    it.effect("Outboxes with two prefixes are independent", () =>
      Effect.gen(function* () {
        const before = yield* waiting
        yield* Effect.gen(function* () {
          yield* AmqpSql.migrate
          yield* AmqpOutbox.publish(message)
          assert.strictEqual(yield* waiting, 1)
        }).pipe(Effect.provideService(AmqpSql.TablePrefix, "other_"))
        assert.strictEqual(yield* waiting, before)
      })
    )

    it.effect("A prefix may name a schema", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        // SQLite's schemas are its attached databases; its own is `main`.
        if (name === "PostgreSQL") yield* sql`CREATE SCHEMA messaging`
        const prefix = name === "PostgreSQL" ? "messaging.amqp_" : "main.second_"
        yield* Effect.gen(function* () {
          yield* AmqpSql.migrate
          yield* AmqpSql.migrate
          yield* AmqpOutbox.publish(message, { orderBy: "key" })
          assert.strictEqual(yield* waiting, 1)
        }).pipe(Effect.provideService(AmqpSql.TablePrefix, prefix))
      })
    )

    for (const prefix of ["", "Amqp_", "amqp-", "a.b.c_", 'x"; DROP TABLE orders; --', "x".repeat(41), "1_"]) {
      it.effect(`The prefix ${JSON.stringify(prefix)} is a mistake in the program`, () =>
        Effect.gen(function* () {
          for (const effect of [
            AmqpSql.migrate,
            Effect.asVoid(AmqpOutbox.publish(message)),
            Effect.asVoid(AmqpOutbox.stats)
          ]) {
            const exit = yield* Effect.exit(
              Effect.provideService(
                effect as Effect.Effect<void, unknown, SqlClient.SqlClient>,
                AmqpSql.TablePrefix,
                prefix
              )
            )
            assert.isTrue(Exit.hasDies(exit))
          }
        })
      )
    }
  })
}

layer(TestDatabase.layer(), { excludeTestServices: true, timeout: TestDatabase.patience })("PostgreSQL", (it) => {
  describe("The tables can be created", () => {
    it.effect("by several clients at the same time", () =>
      Effect.gen(function* () {
        const { fresh } = yield* TestDatabase.TestDatabase
        const database = yield* fresh()
        const migrate = Effect.provide(AmqpSql.migrate, Layer.fresh(TestDatabase.layerClient(database)), {
          local: true
        })
        yield* Effect.all([migrate, migrate, migrate], { concurrency: 3 })
      })
    )

    it.effect("by psql, from the package's files", () =>
      Effect.gen(function* () {
        const { fresh, psql } = yield* TestDatabase.TestDatabase
        const database = yield* fresh()
        for (const file of ["0001_outbox.sql", "0002_inbox.sql"]) {
          yield* psql(readFileSync(join(import.meta.dirname, "../migrations/postgresql", file), "utf8"), database)
        }
        const count = yield* Effect.andThen(AmqpOutbox.publish(message, { orderBy: "key" }), waiting).pipe(
          Effect.provide(TestDatabase.layerClient(database), { local: true })
        )
        assert.strictEqual(count, 1)
      })
    )
  })
})
