/**
 * The tables of the outbox and the inbox.
 *
 * **When to use**
 *
 * Use `migrate` or `layerMigrate` to create the tables, or apply the files of the package's folder `migrations` with your
 * own tool.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Migrator from "effect/sql/Migrator"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { tableMigrations } from "./internal/database/migrations.ts"
import { checkPrefix, dialectOf, TablePrefix } from "./internal/database/tables.ts"

export { TablePrefix } from "./internal/database/tables.ts"

/**
 * The migrations that create this package's tables, as a loader for Effect's `Migrator`.
 *
 * **When to use**
 *
 * Use to run them with a `Migrator` of your own. `migrate` and `layerMigrate` do that already.
 *
 * **Gotchas**
 *
 * `Migrator` compares numbers only. Give these migrations a `table` of their own, because their numbers begin at 1.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrator.Loader<SqlClient> = Effect.gen(function* () {
  const prefix = checkPrefix(yield* TablePrefix)
  const dialect = dialectOf(yield* SqlClient)
  return tableMigrations.map(({ id, name, statements }) => {
    const run = Effect.flatMap(SqlClient, (sql) =>
      Effect.forEach(statements[dialect](prefix), (statement) => sql.unsafe(statement), { discard: true })
    )
    return [id, name, Effect.succeed(run)] as const
  })
})

/**
 * Creates the tables that do not exist yet, and changes those of an earlier version of this package.
 *
 * **When to use**
 *
 * Use where migrations of the application run. In development, use `layerMigrate`.
 *
 * **Details**
 *
 * It runs in one transaction, may run in several processes at the same time, and may run again: what was applied stands
 * in the table `amqp_migrations` (with `TablePrefix`, another name). The database's user must be allowed to create tables.
 * It fails with `SqlError` if a statement fails, and with `MigrationError` if the migrations cannot be recorded.
 *
 * **Example** (Creating the tables in a script)
 *
 * ```ts
 * import { AmqpSql } from "@effect-amqp/sql"
 * import { NodeRuntime } from "@effect/platform-node"
 * import { PgClient } from "@effect/sql-pg"
 * import { Config, Effect } from "effect"
 *
 * const Database = PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") })
 *
 * AmqpSql.migrate.pipe(Effect.provide(Database), NodeRuntime.runMain)
 * ```
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrate: Effect.Effect<void, SqlError | Migrator.MigrationError, SqlClient> = Effect.gen(function* () {
  const prefix = checkPrefix(yield* TablePrefix)
  yield* Migrator.make({})({ loader: migrations, table: `${prefix}migrations` })
})

/**
 * Creates the tables while the application starts.
 *
 * **When to use**
 *
 * Use in development, in tests, and where applications migrate their own database when they start.
 *
 * **Example** (Tables before everything that uses them)
 *
 * ```ts
 * import { AmqpSql } from "@effect-amqp/sql"
 * import { PgClient } from "@effect/sql-pg"
 * import { Config, Layer } from "effect"
 *
 * const Database = AmqpSql.layerMigrate.pipe(
 *   Layer.provideMerge(PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 * )
 * ```
 *
 * @see {@link migrate}
 *
 * @category migrations
 * @since 0.1.0
 */
export const layerMigrate: Layer.Layer<never, SqlError | Migrator.MigrationError, SqlClient> =
  Layer.effectDiscard(migrate)
