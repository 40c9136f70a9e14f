/** The names of the tables, and the database's dialect. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { SqlClient } from "effect/sql/SqlClient"

/**
 * The prefix of the names of this package's tables.
 *
 * **When to use**
 *
 * Use when two services share one schema of a database, so that each has an outbox of its own, or to keep the tables in
 * another schema.
 *
 * **Details**
 *
 * Default: `amqp_`, so the outbox is the table `amqp_outbox`. Lower-case letters, digits and underscores, at most 40,
 * optionally after the name of a schema and a dot: `messaging.amqp_`. Provide the same prefix to everything that uses
 * the tables: publishers, relays, inboxes and migrations. Any other value is a defect.
 *
 * **Example** (An outbox in a schema of its own)
 *
 * ```ts
 * import { AmqpSql } from "@effect-amqp/sql"
 * import { Layer } from "effect"
 *
 * const InSchema = Layer.succeed(AmqpSql.TablePrefix, "messaging.amqp_")
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export const TablePrefix: Context.Reference<string> = Context.Reference("@effect-amqp/sql/TablePrefix", {
  defaultValue: () => "amqp_"
})

/** The databases whose SQL this package writes. */
export type Dialect = "pg" | "sqlite"

const prefixPattern = /^(?:[a-z_][a-z0-9_]{0,39}\.)?[a-z_][a-z0-9_]{0,39}$/

/** Returns the prefix. The prefix becomes part of statements, so any other text is refused. */
export const checkPrefix = (prefix: unknown): string => {
  if (typeof prefix === "string" && prefixPattern.test(prefix)) return prefix
  throw new Error(
    `AmqpSql.TablePrefix: expected lower-case letters, digits and underscores, optionally after a schema and a dot, got ${JSON.stringify(prefix)}`
  )
}

/** The statements for a dialect and a prefix, made once for each pair. */
export const statementsOf = <Statements>(
  make: Readonly<Record<Dialect, (prefix: string) => Statements>>
): Effect.Effect<Statements, never, SqlClient> => {
  const made = new Map<string, Statements>()
  return Effect.gen(function* () {
    const sql = yield* SqlClient
    const prefix = yield* TablePrefix
    const dialect = dialectOf(sql)
    const key = `${dialect} ${prefix}`
    const known = made.get(key)
    if (known !== undefined) return known
    const statements = make[dialect](checkPrefix(prefix))
    made.set(key, statements)
    return statements
  })
}

/** The dialect of a client. A database that this package does not know is a defect. */
export const dialectOf = (sql: SqlClient): Dialect =>
  sql.onDialectOrElse({
    pg: (): Dialect => "pg",
    sqlite: (): Dialect => "sqlite",
    orElse: (): Dialect => {
      throw new Error(`@effect-amqp/sql: expected PostgreSQL or SQLite, got the driver ${JSON.stringify(sql.driver)}`)
    }
  })
