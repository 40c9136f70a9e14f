/** Errors of the database, in the words of this package. */
import * as Cause from "effect/Cause"
import * as Predicate from "effect/Predicate"
import { isSqlError, SqlError, SqlSyntaxError } from "effect/sql/SqlError"

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

/** The table that the database names, which is `table` or one beside it. */
const missingName = ({ reason: { cause } }: SqlError, table: string): string => {
  const message = cause instanceof Error ? cause.message : ""
  return /^relation "([^"]+)" does not exist|^no such table: (\S+)/.exec(message)?.slice(1).find(Boolean) ?? table
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
            message: `The table ${missingName(error, table)} does not exist. Create it with AmqpSql.migrate, AmqpSql.layerMigrate or the files in the package's folder "migrations".`
          })
        })
      : error

const maxTextLength = 300

/** Why the database has failed, in one line without a period, for operators. */
export const failureText = (cause: Cause.Cause<unknown>, table: string): string => {
  const squashed = Cause.squash(cause)
  const error = isSqlError(squashed) ? explainMissingTable(table)(squashed) : squashed
  if (!(error instanceof Error)) return "a defect"
  // The message says what a driver did, its cause what was wrong.
  const inner = isSqlError(error) && error === squashed ? error.reason.cause : undefined
  const texts = [error.message, inner instanceof Error && inner.message !== error.message ? inner.message : ""]
  return texts.filter(Boolean).join(": ").slice(0, maxTextLength).toWellFormed().replace(/\.$/, "")
}
