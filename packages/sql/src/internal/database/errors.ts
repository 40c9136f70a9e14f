/** Errors of the database, in the words of this package. */
import * as Predicate from "effect/Predicate"
import { SqlError, SqlSyntaxError } from "effect/sql/SqlError"

// undefined_table and invalid_schema_name: https://www.postgresql.org/docs/current/errcodes-appendix.html
const missingTable = new Set<unknown>(["42P01", "3F000"])

const isMissingTable = ({ reason }: SqlError): boolean => {
  const { cause } = reason
  if (!Predicate.isObject(cause)) return false
  if (Predicate.hasProperty(cause, "code") && missingTable.has(cause.code)) return true
  return (
    Predicate.hasProperty(cause, "message") &&
    typeof cause.message === "string" &&
    cause.message.startsWith("no such table")
  )
}

/** Adds how to create a table that does not exist. Other errors stay as they are. */
export const explainMissingTable =
  (table: string) =>
  (error: SqlError): SqlError =>
    isMissingTable(error)
      ? new SqlError({
          reason: new SqlSyntaxError({
            cause: error.reason.cause,
            operation: error.reason.operation,
            message: `The table ${table} does not exist. Create it with AmqpSql.migrate, AmqpSql.layerMigrate or the files in the package's folder "migrations".`
          })
        })
      : error
