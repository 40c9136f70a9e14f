/**
 * The database of an example: PostgreSQL if `DATABASE_URL` names one, otherwise SQLite, in the file that `DATABASE` names or
 * in a temporary one. It has the tables of `@effect-amqp/sql`.
 */
import { AmqpSql } from "@effect-amqp/sql"
import { PgClient } from "@effect/sql-pg"
import { Config, Console, Effect, Layer, Option, Redacted } from "effect"
import type { Migrator, SqlClient, SqlError } from "effect/sql"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
// Until Effect 4 has a driver for SQLite on Node.js.
import * as Sqlite from "../../../sql/test/support/sqlite.ts"

const temporaryFile = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  ),
  (folder) => join(folder, "example.db")
)

const client = Layer.unwrap(
  Effect.gen(function* () {
    const url = yield* Config.option(Config.Redacted("DATABASE_URL"))
    if (Option.isSome(url) && Redacted.value(url.value) !== "") {
      yield* Console.log("The database is PostgreSQL (DATABASE_URL).")
      return PgClient.layer({ url: url.value, maxConnections: 20 })
    }
    const path = yield* Config.option(Config.String("DATABASE"))
    const filename = Option.isSome(path) ? path.value : yield* temporaryFile
    yield* Console.log("The database is SQLite. DATABASE_URL chooses a PostgreSQL.")
    return Sqlite.layer({ filename })
  })
)

export const layer: Layer.Layer<SqlClient.SqlClient, SqlError.SqlError | Config.ConfigError | Migrator.MigrationError> =
  AmqpSql.layerMigrate.pipe(Layer.provideMerge(client))
