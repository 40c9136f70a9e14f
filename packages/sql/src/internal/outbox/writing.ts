/** Writes messages to the outbox. */
import { AmqpError, AmqpMessage } from "@effect-amqp/core"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { explainMissingTable } from "../database/errors.ts"
import { statementsOf } from "../database/tables.ts"
import { inTransaction } from "../database/transaction.ts"
import { anyShard, lockClass, lockOf, shardOf } from "./orderKey.ts"
import { invalid } from "../input/options.ts"
import { arrayParameter, type OutboxStatements, outboxStatements } from "./statements.ts"
import { committed } from "./wakeups.ts"

const operation = "AmqpOutbox.publish"

/** Maximum number of rows in one statement: SQLite allows 32,766 parameters. */
const rowsPerInsert = 1000

/** Maximum size of the contents and properties in one statement with several rows, in bytes: PostgreSQL allows 1 GiB. */
const bytesPerInsert = 16 * 2 ** 20

/**
 * Largest content, in bytes. `@effect/sql-pg` reads rows of 16 MiB at most by default (`maxMessageSize`), and a row that a
 * relay cannot read would stop it. The properties have 128 KiB at most.
 */
const limits = { maxMessageSize: 15 * 2 ** 20 }

/** Longest order key, in characters. It is part of an index while its message is postponed. */
const maxKeyLength = 512

/** How a message is written. */
export interface WriteOptions {
  readonly mandatory: boolean
  readonly orderBy: string | undefined
}

interface Written {
  readonly messageId: string
}

const unknownOption = (options: object): string | undefined =>
  Object.keys(options).find((name) => name !== "mandatory" && name !== "orderBy")

/** Reads what the caller gave. Bad input is an error of the call: it may come from a request. */
export const readWrite = (options: unknown): WriteOptions | AmqpError.AmqpError => {
  if (options === undefined) return { mandatory: true, orderBy: undefined }
  if (typeof options !== "object" || options === null) {
    return invalid(operation, "options", "an object with mandatory and orderBy", typeof options)
  }
  const unknown = unknownOption(options)
  if (unknown !== undefined) return invalid(operation, unknown, "only mandatory and orderBy", JSON.stringify(unknown))
  const { mandatory = true, orderBy } = options as { readonly mandatory?: unknown; readonly orderBy?: unknown }
  if (typeof mandatory !== "boolean") return invalid(operation, "mandatory", "true or false", typeof mandatory)
  if (orderBy === undefined) return { mandatory, orderBy }
  if (typeof orderBy !== "string" || orderBy === "" || orderBy.length > maxKeyLength || !isStorable(orderBy)) {
    return invalid(
      operation,
      "orderBy",
      `a text of 1 to ${maxKeyLength} characters without NUL and lone surrogates`,
      typeof orderBy === "string" ? `a text of ${orderBy.length} characters` : typeof orderBy
    )
  }
  return { mandatory, orderBy }
}

// PostgreSQL's texts have no NUL, and UTF-8 has no lone surrogates.
const isStorable = (text: string): boolean => text.isWellFormed() && !text.includes("\0")

const checkNames = (
  { exchange, routingKey }: AmqpMessage.Encoded,
  messageId: string
): AmqpError.AmqpError | undefined => {
  const argument = Object.entries({ exchange, routingKey, messageId }).find(([, text]) => !isStorable(text))?.[0]
  return argument === undefined
    ? undefined
    : invalid(
        operation,
        argument,
        "a text without NUL and lone surrogates, which a database cannot store",
        "one with them"
      )
}

/** A row of the outbox before it has a position. */
interface NewRow {
  readonly shard: number
  readonly orderKey: string | undefined
  readonly messageId: string
  readonly mandatory: boolean
  readonly encoded: AmqpMessage.Encoded
}

const encode = (message: AmqpMessage.Message) => {
  const given: unknown = message
  // What is no message is refused by the check of messages.
  // An empty id identifies nothing: an inbox reads it as none.
  const isIdentified = () => message.messageId !== undefined && message.messageId !== ""
  if (typeof given !== "object" || given === null || isIdentified()) {
    return Effect.map(AmqpMessage.toEncoded(message, limits), (encoded) => ({
      encoded,
      messageId: message.messageId ?? ""
    }))
  }
  const messageId = uuidV7Unsafe()
  const prototype = Object.getPrototypeOf(message) as object | null
  const identified =
    prototype === Object.prototype
      ? { ...message, messageId }
      : // Inherited properties stay.
        (Object.create(prototype, Object.getOwnPropertyDescriptors({ ...message, messageId })) as AmqpMessage.Message)
  return Effect.map(AmqpMessage.toEncoded(identified, limits), (encoded) => ({ encoded, messageId }))
}

const rowFor = (message: AmqpMessage.Message, { mandatory, orderBy }: WriteOptions) =>
  Effect.gen(function* () {
    const { encoded, messageId } = yield* encode(message)
    const refused = checkNames(encoded, messageId)
    if (refused !== undefined) return yield* refused
    const shard = orderBy === undefined ? anyShard() : shardOf(orderBy)
    return { shard, orderKey: orderBy, messageId, mandatory, encoded } satisfies NewRow
  })

const valuesOf = ({ dialect }: OutboxStatements, { encoded, mandatory, messageId, orderKey, shard }: NewRow) => [
  shard,
  orderKey ?? null,
  messageId,
  dialect === "pg" ? mandatory : Number(mandatory),
  encoded.exchange,
  encoded.routingKey,
  encoded.properties,
  encoded.content
]

/** The parameters of `insertMany` on PostgreSQL: an array per column. */
const columnsOf = (statements: OutboxStatements, rows: ReadonlyArray<NewRow>) => [
  arrayParameter(
    statements,
    rows.map(({ shard }) => shard)
  ),
  rows.map(({ orderKey }) => orderKey ?? ""),
  rows.map(({ messageId }) => messageId),
  rows.map(({ mandatory }) => mandatory),
  rows.map(({ encoded }) => encoded.exchange),
  rows.map(({ encoded }) => encoded.routingKey),
  rows.map(({ encoded }) => encoded.properties),
  rows.map(({ encoded }) => encoded.content)
]

const insert = (row: NewRow) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient
    const statements = yield* statementsFor
    const { orderKey } = row
    const values = valuesOf(statements, row)
    const insertion =
      orderKey === undefined || statements.dialect !== "pg"
        ? sql.unsafe(statements.insert, values)
        : sql.unsafe(statements.insertOrdered, [...values, lockClass, lockOf(orderKey)])
    yield* Effect.mapError(insertion.raw, explainMissingTable(statements.table))
    yield* wakeAfterCommit(sql, statements.table)
    return { messageId: row.messageId }
  })

/** Writes a message, and wakes the relays of this process after the commit. */
export const write = (
  message: AmqpMessage.Message,
  options?: unknown
): Effect.Effect<Written, AmqpError.AmqpError | SqlError, SqlClient> =>
  Effect.suspend(() => {
    const settings = readWrite(options)
    return AmqpError.isAmqpError(settings)
      ? Effect.fail(settings)
      : AmqpMessage.withCreateSpan(message, (traced) => Effect.flatMap(rowFor(traced, settings), insert))
  })

/** Takes the locks of keys in one order, so that two transactions that do so cannot deadlock. Only on PostgreSQL. */
export const lockKeys = (keys: ReadonlyArray<string | undefined>): Effect.Effect<void, SqlError, SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient
    const statements = yield* statementsFor
    const locks = new Set(keys.flatMap((key) => (key === undefined ? [] : lockOf(key))))
    for (const lock of [...locks].sort((a, b) => a - b)) yield* sql.unsafe(statements.lock, [lockClass, lock])
  })

/** Divides rows into those of one statement each. */
export const groupsOf = <Row extends Pick<NewRow, "encoded">>(
  rows: ReadonlyArray<Row>
): ReadonlyArray<ReadonlyArray<Row>> => {
  const groups: Array<Array<Row>> = []
  let bytes = Infinity
  for (const row of rows) {
    const size = row.encoded.content.byteLength + row.encoded.properties.byteLength
    const last = groups.at(-1)
    if (last === undefined || last.length === rowsPerInsert || bytes + size > bytesPerInsert) {
      groups.push([row])
      bytes = size
    } else {
      last.push(row)
      bytes += size
    }
  }
  return groups
}

const insertAll = (rows: ReadonlyArray<NewRow>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient
    const statements = yield* statementsFor
    const inserted = inTransaction(
      sql,
      Effect.gen(function* () {
        if (statements.dialect === "pg") yield* lockKeys(rows.map(({ orderKey }) => orderKey))
        for (const some of groupsOf(rows)) {
          const text = statements.insertMany(some.length)
          yield* statements.dialect === "pg"
            ? sql.unsafe(text, columnsOf(statements, some)).raw
            : // Every number of rows is a text of its own.
              sql.unsafe(
                text,
                some.flatMap((row) => valuesOf(statements, row))
              ).unprepared
        }
        yield* wakeAfterCommit(sql, statements.table)
      })
    )
    yield* Effect.mapError(inserted, explainMissingTable(statements.table))
    return rows.map(({ messageId }): Written => ({ messageId }))
  })

/** Writes messages in their order, all or none. */
export const writeAll = (
  messages: ReadonlyArray<AmqpMessage.Message>,
  options?: { readonly mandatory?: unknown; readonly orderBy?: unknown }
): Effect.Effect<ReadonlyArray<Written>, AmqpError.AmqpError | SqlError, SqlClient> =>
  Effect.gen(function* () {
    const orderBy = options?.orderBy
    if (orderBy !== undefined && typeof orderBy !== "function") {
      return yield* invalid("AmqpOutbox.publishAll", "orderBy", "a function from a message to its key", typeof orderBy)
    }
    const common = readWrite(options === undefined ? options : { ...options, orderBy: undefined })
    if (AmqpError.isAmqpError(common)) return yield* common
    const rows: Array<NewRow> = []
    for (const message of messages) {
      const settings = readWrite({ ...options, orderBy: orderBy?.(message) })
      if (AmqpError.isAmqpError(settings)) return yield* settings
      rows.push(yield* AmqpMessage.withCreateSpan(message, (traced) => rowFor(traced, settings)))
    }
    return rows.length === 0 ? [] : yield* insertAll(rows)
  })

/** The statements of the outbox for the client and the prefix in the context. */
export const statementsFor = statementsOf(outboxStatements)

/** Wakes the relays once the transaction has committed. */
export const wakeAfterCommit = (sql: SqlClient, table: string): Effect.Effect<void> => {
  const wake = committed(sql, table)
  return wake === undefined ? Effect.void : sql.afterCommit(Effect.sync(wake))
}
