/**
 * A `SqlClient` on Node's own SQLite, for tests and examples: development without a server.
 *
 * No driver of Effect 4 for SQLite exists: `@effect/sql-sqlite-node` 4.0.0-beta.102 imports modules that effect 4.1.0 no
 * longer has.
 *
 * - One connection per client, which one fiber has at a time: a transaction keeps it until its end.
 * - Transactions begin with `BEGIN IMMEDIATE`, so that one that reads before it writes does not fail in the middle.
 * - Several processes, and several clients in one process, may use one file: it has a write-ahead log, and a statement
 *   that finds it locked is tried again until `busyTimeout` has passed. SQLite's own wait would block the whole process,
 *   with the heartbeats of its AMQP connections, and with the fiber that holds the lock, if that is in this process.
 * - `Uint8Array`, `bigint`, `number`, `string`, `boolean` (as 0 or 1), `Date` (as text, ISO 8601) and `null` are values.
 *   Blobs are read as `Uint8Array`. An integer beyond 2^53 needs `SqlClient.SafeIntegers`.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Client from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"

export interface Options {
  /** The file, which is created if it does not exist, or `:memory:`. */
  readonly filename: string
  /** How long a statement waits for a lock of another client. Default: 5 seconds. */
  readonly busyTimeout?: Duration.Input | undefined
  /**
   * Whether a commit waits until the disk has it. Without it, a commit survives the end of the process, but may be lost
   * with the machine. Default: true.
   */
  readonly durable?: boolean | undefined
  readonly transformResultNames?: ((name: string) => string) | undefined
  readonly transformQueryNames?: ((name: string) => string) | undefined
}

/** A `SqlClient` on SQLite. */
export interface SqliteClient extends Client.SqlClient {
  /** Runs a script of several statements without parameters, such as a file with a schema. */
  readonly exec: (script: string) => Effect.Effect<void, SqlError>
}

export const SqliteClient = Context.Service<SqliteClient>("@effect-amqp/sql/test/SqliteClient")

const cachedStatements = 200

/** SQLite's code, which `node:sqlite` has under a name of its own. */
const codeOf = (cause: unknown) =>
  typeof cause === "object" && cause !== null && "errcode" in cause && typeof cause.errcode === "number"
    ? cause.errcode
    : undefined

const fromCause = (cause: unknown, operation: string) => {
  const code = codeOf(cause)
  // The classifier reads `errno`. The error itself keeps its own `code`.
  if (code !== undefined) Object.assign(cause as object, { errno: code })
  const message = cause instanceof Error ? cause.message : String(cause)
  return new SqlError({ reason: classifySqliteError(cause, { message: `SQLite: ${message}`, operation }) })
}

/** SQLITE_BUSY and SQLITE_LOCKED, with their extended codes. SQLITE_BUSY_SNAPSHOT (517) does not pass by waiting. */
const isLocked = (cause: unknown) => {
  const code = codeOf(cause) ?? 0
  return code !== 517 && ((code & 0xff) === 5 || (code & 0xff) === 6)
}

const toValue = (value: unknown): SQLInputValue => {
  switch (typeof value) {
    case "boolean":
      return value ? 1 : 0
    case "undefined":
      return null
    case "bigint":
    case "number":
    case "string":
      return value
    case "object":
      if (value === null || ArrayBuffer.isView(value)) return value as SQLInputValue
      if (value instanceof Date) return value.toISOString()
  }
  // `node:sqlite` takes any other object for named parameters, and inserts NULL.
  throw new TypeError(
    `expected a string, number, bigint, boolean, Date, Uint8Array or null as a value, got ${typeof value}`
  )
}

/** Real time, also with a `TestClock`: the lock belongs to another client. */
const sleep = (millis: number) =>
  Effect.callback<void>((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

class SqliteConnection implements Connection {
  readonly database: DatabaseSync
  readonly busyMillis: number
  readonly #statements = new Map<string, StatementSync>()

  constructor(database: DatabaseSync, busyMillis: number) {
    this.database = database
    this.busyMillis = busyMillis
  }

  get isTransaction() {
    return this.database.isTransaction
  }

  #prepare(sql: string): StatementSync {
    const statement = this.database.prepare(sql)
    // `node:sqlite` runs the first statement, and ignores the others in silence.
    if (
      statement.sourceSQL.trimEnd().length < sql.trimEnd().length &&
      !/^[\s;]*$/.test(sql.slice(statement.sourceSQL.length))
    ) {
      throw new TypeError("expected one statement, got several. Use SqliteClient.exec for a script")
    }
    return statement
  }

  #cached(sql: string): StatementSync {
    const found = this.#statements.get(sql)
    if (found !== undefined) {
      // The least recently used statement is the first of the map.
      this.#statements.delete(sql)
      this.#statements.set(sql, found)
      return found
    }
    const statement = this.#prepare(sql)
    this.#statements.set(sql, statement)
    if (this.#statements.size > cachedStatements) {
      const [oldest = sql] = this.#statements.keys()
      this.#statements.delete(oldest)
    }
    return statement
  }

  /** Runs something on the database; again, if it has had no effect because of another client's lock. */
  attempt<A>(operation: string, run: () => A): Effect.Effect<A, SqlError> {
    return Effect.suspend(() => {
      const deadline = performance.now() + this.busyMillis
      const again = (pause: number): Effect.Effect<A, SqlError> => {
        try {
          return Effect.succeed(run())
        } catch (cause) {
          return isLocked(cause) && performance.now() < deadline
            ? Effect.flatMap(sleep(pause), () => again(Math.min(pause * 2, 20)))
            : Effect.fail(fromCause(cause, operation))
        }
      }
      return again(1)
    })
  }

  #run<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    options: { readonly arrays: boolean; readonly cached: boolean },
    use: (statement: StatementSync, values: ReadonlyArray<SQLInputValue>) => A
  ) {
    return Effect.flatMap(Client.SafeIntegers, (safeIntegers) =>
      this.attempt("execute", () => {
        const statement = options.cached ? this.#cached(sql) : this.#prepare(sql)
        statement.setReadBigInts(safeIntegers)
        statement.setReturnArrays(options.arrays)
        return use(statement, params.map(toValue))
      })
    )
  }

  #rows(sql: string, params: ReadonlyArray<unknown>, cached: boolean) {
    return this.#run(sql, params, { arrays: false, cached }, (statement, values) =>
      // Rows of `node:sqlite` have no prototype, and are equal to no object literal.
      statement.all(...values).map((row) => Object.assign({}, row))
    )
  }

  #values(sql: string, params: ReadonlyArray<unknown>, cached: boolean) {
    return this.#run(
      sql,
      params,
      { arrays: true, cached },
      // `setReturnArrays` changes what the rows are, but not their type.
      (statement, values) => statement.all(...values) as unknown as ReadonlyArray<ReadonlyArray<unknown>>
    )
  }

  execute: Connection["execute"] = (sql, params, transformRows) => {
    const rows = this.#rows(sql, params, true)
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  executeUnprepared: Connection["executeUnprepared"] = (sql, params, transformRows) => {
    const rows = this.#rows(sql, params, false)
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  /** The rows of a statement that has columns; otherwise `changes` and `lastInsertRowid`. */
  executeRaw: Connection["executeRaw"] = (sql, params) =>
    this.#run(sql, params, { arrays: false, cached: true }, (statement, values) =>
      statement.columns().length > 0 ? statement.all(...values) : statement.run(...values)
    )

  executeValues: Connection["executeValues"] = (sql, params) => this.#values(sql, params, true)

  executeValuesUnprepared: Connection["executeValuesUnprepared"] = (sql, params) => this.#values(sql, params, false)

  /** All rows are read at once: another statement may run between two of them. */
  executeStream: Connection["executeStream"] = (sql, params, transformRows) =>
    Stream.fromIterableEffect(this.execute(sql, params, transformRows))
}

const open = Effect.fnUntraced(function* ({
  busyTimeout = "5 seconds",
  durable = true,
  filename
}: Options): Effect.fn.Return<SqliteConnection, SqlError, Scope.Scope> {
  const database = yield* Effect.acquireRelease(
    Effect.try({
      try: () => new DatabaseSync(filename, { timeout: 0 }),
      catch: (cause) => fromCause(cause, `open ${filename}`)
    }),
    (database) => Effect.sync(() => database.close())
  )
  const connection = new SqliteConnection(database, Duration.toMillis(Duration.fromInputUnsafe(busyTimeout)))
  yield* connection.attempt("configure", () =>
    database.exec(
      `PRAGMA journal_mode = WAL; PRAGMA synchronous = ${durable ? "FULL" : "NORMAL"}; PRAGMA foreign_keys = ON`
    )
  )
  return connection
})

/** Opens a database, until the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<SqliteClient, SqlError, Scope.Scope | Reactivity.Reactivity> {
  const connection = yield* open(options)
  const acquirers = Client.makeSqliteAcquirers({
    connection: Effect.succeed(connection),
    semaphore: Semaphore.makeUnsafe(1),
    isTransaction: (connection) => connection.isTransaction
  })
  const client = yield* Client.make({
    ...acquirers,
    compiler: Statement.makeCompilerSqlite(options.transformQueryNames),
    driver: "sqlite-node",
    spanAttributes: [
      ["db.system.name", "sqlite"],
      ["db.namespace", options.filename]
    ],
    beginTransaction: "BEGIN IMMEDIATE",
    prepareTransactionControls: true,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    ...(options.transformResultNames && {
      transformRows: Statement.defaultTransforms(options.transformResultNames).array
    })
  })
  return Object.assign(client, {
    exec: (script: string) =>
      Effect.flatMap(Effect.serviceOption(client.transactionService), (transaction) =>
        transaction._tag === "Some"
          ? connection.attempt("exec", () => connection.database.exec(script))
          : acquirers.borrower(() => connection.attempt("exec", () => connection.database.exec(script)))
      )
  })
})

/** A client of a database. */
export const layer = (options: Options): Layer.Layer<Client.SqlClient | SqliteClient, SqlError> =>
  Layer.effectContext(
    Effect.map(make(options), (client) =>
      Context.make(SqliteClient, client).pipe(Context.add(Client.SqlClient, client))
    )
  ).pipe(Layer.provide(Reactivity.layer))
