import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Result, Scope, Stream } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import { Reactivity } from "effect/reactivity"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { program } from "./support/program.ts"
import * as Sqlite from "./support/sqlite.ts"

const temporaryFile = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-sqlite-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  ),
  (folder) => join(folder, "test.db")
)

const open = (filename: string, options: Partial<Sqlite.Options> = {}) =>
  Effect.provide(Sqlite.make({ filename, ...options }), Reactivity.layer)

const table = Effect.fnUntraced(function* (sql: Sqlite.SqliteClient) {
  yield* sql`CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY)`
  return {
    insert: (n: number) => sql`INSERT INTO numbers VALUES (${n})`,
    all: Effect.map(sql<{ n: number }>`SELECT n FROM numbers ORDER BY n`, (rows) => rows.map(({ n }) => n))
  }
})

const inMemory = Effect.gen(function* () {
  const sql = yield* open(":memory:")
  return { sql, ...(yield* table(sql)) }
})

describe("sqlite", () => {
  it.effect("a commit is kept, and runs what waits for it; a rollback leaves nothing and runs nothing", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* inMemory
      const ran: Array<string> = []
      const note = (text: string) => sql.afterCommit(Effect.sync(() => ran.push(text)))
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          yield* note("committed")
          assert.deepStrictEqual(ran, [])
        })
      )
      const failed = yield* Effect.result(
        sql.withTransaction(Effect.andThen(insert(2), Effect.andThen(note("rolled back"), Effect.fail("no"))))
      )
      assert.deepStrictEqual(failed, Result.fail("no"))
      assert.deepStrictEqual(yield* all, [1])
      assert.deepStrictEqual(ran, ["committed"])
    }).pipe(Effect.scoped)
  )

  it.effect("what runs after a commit may use the client", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* inMemory
      yield* sql.withTransaction(Effect.andThen(insert(1), sql.afterCommit(Effect.orDie(Effect.asVoid(insert(2))))))
      assert.deepStrictEqual(yield* all, [1, 2])
    }).pipe(Effect.scoped)
  )

  it.effect("a savepoint rolls back alone", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* inMemory
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          yield* Effect.ignore(sql.withTransaction(Effect.andThen(insert(2), Effect.fail("no"))))
          yield* sql.withTransaction(insert(3))
        })
      )
      assert.deepStrictEqual(yield* all, [1, 3])
    }).pipe(Effect.scoped)
  )

  it.effect("a statement of another fiber stays out of a transaction", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* inMemory
      const begun = yield* Deferred.make<void>()
      // It waits for the connection, and its row survives the rollback.
      const other = yield* Effect.forkChild(Effect.andThen(Deferred.await(begun), insert(2)))
      const failed = sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          yield* Deferred.succeed(begun, undefined)
          yield* Effect.repeat(Effect.yieldNow, { times: 10 })
          assert.isUndefined(other.pollUnsafe())
          return yield* Effect.fail("no")
        })
      )
      assert.strictEqual(yield* Effect.flip(failed), "no")
      yield* Fiber.join(other)
      assert.deepStrictEqual(yield* all, [2])
    }).pipe(Effect.scoped)
  )

  it.effect("an interrupted transaction rolls back, and gives the connection back", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* inMemory
      const fiber = yield* Effect.forkChild(sql.withTransaction(Effect.andThen(insert(1), Effect.never)))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* all, [])
    }).pipe(Effect.scoped)
  )

  it.effect("transactions run one after the other", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* inMemory
      yield* insert(0)
      const increment = sql.withTransaction(
        Effect.gen(function* () {
          const [n = 0] = yield* all
          yield* Effect.yieldNow
          yield* sql`UPDATE numbers SET n = ${n + 1}`
        })
      )
      yield* Effect.all(
        Array.from({ length: 20 }, () => increment),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(yield* all, [20])
    }).pipe(Effect.scoped)
  )

  it.effect("values come back as they went in", () =>
    Effect.gen(function* () {
      const sql = yield* open(":memory:")
      yield* sql`CREATE TABLE cells (v)`
      const bytes = Uint8Array.from({ length: 256 }, (_, index) => index)
      for (const [given, expected] of [
        [bytes, bytes],
        [new Uint8Array(0), new Uint8Array(0)],
        [true, 1],
        [null, null],
        [undefined, null],
        [1.5, 1.5],
        ["ü\u{1F407}", "ü\u{1F407}"],
        [new Date(0), "1970-01-01T00:00:00.000Z"]
      ] as const) {
        yield* sql`DELETE FROM cells`
        yield* sql`INSERT INTO cells VALUES (${given as string})`
        assert.deepStrictEqual(yield* sql`SELECT v FROM cells`, [{ v: expected }])
        assert.deepStrictEqual(yield* sql`SELECT v, 1 FROM cells`.values, [[expected, 1]])
      }
      yield* sql`UPDATE cells SET v = ${2n ** 60n}`
      const safe = sql`SELECT v FROM cells`.pipe(Effect.provideService(SqlClient.SafeIntegers, true))
      assert.deepStrictEqual(yield* safe, [{ v: 2n ** 60n }])
      assert.deepStrictEqual(yield* Stream.runCollect(sql`SELECT 1 AS a UNION SELECT 2`.stream), [{ a: 1 }, { a: 2 }])
    }).pipe(Effect.scoped)
  )

  it.effect("a value of another kind, and a second statement, are refused instead of dropped", () =>
    Effect.gen(function* () {
      const { all, sql } = yield* inMemory
      const value = yield* Effect.flip(sql`INSERT INTO numbers VALUES (${{ n: 1 } as never})`)
      assert.include(value.message, "Uint8Array or null as a value, got object")
      const statements = yield* Effect.flip(sql`INSERT INTO numbers VALUES (1); INSERT INTO numbers VALUES (2)`)
      assert.include(statements.message, "expected one statement")
      assert.deepStrictEqual(yield* all, [])
      yield* sql`INSERT INTO numbers VALUES (3); `
      yield* sql.exec("INSERT INTO numbers VALUES (4); INSERT INTO numbers VALUES (5)")
      assert.deepStrictEqual(yield* all, [3, 4, 5])
    }).pipe(Effect.scoped)
  )

  it.effect("a violation of UNIQUE is a UniqueViolation, that of another constraint a ConstraintError", () =>
    Effect.gen(function* () {
      const { insert, sql } = yield* inMemory
      yield* sql`CREATE TABLE names (name TEXT NOT NULL UNIQUE)`
      const name = (text: string | null) => sql`INSERT INTO names VALUES (${text})`
      yield* name("a")
      const unique = yield* Effect.flip(name("a"))
      assert.strictEqual(unique.reason._tag, "UniqueViolation")
      assert.strictEqual((yield* Effect.flip(name(null))).reason._tag, "ConstraintError")
      // PostgreSQL has one code for both kinds of key. Effect's classifier of SQLite keeps them apart.
      yield* insert(1)
      assert.strictEqual((yield* Effect.flip(insert(1))).reason._tag, "ConstraintError")
    }).pipe(Effect.scoped)
  )

  it.effect("Effect's migrator runs on it, once", () =>
    Effect.gen(function* () {
      const sql = yield* open(":memory:")
      const migrate = Migrator.make({})({
        loader: Migrator.fromRecord({
          "0001_numbers": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE numbers (n INTEGER)`)
        })
      }).pipe(Effect.provideService(SqlClient.SqlClient, sql))
      assert.deepStrictEqual(yield* migrate, [[1, "numbers"]])
      assert.deepStrictEqual(yield* migrate, [])
    }).pipe(Effect.scoped)
  )

  it.live("a lock of another client in this process is awaited without blocking it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const one = yield* open(filename)
      const two = yield* open(filename)
      const { all, insert } = yield* table(one)
      const other = yield* table(two)
      yield* one.withTransaction(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* all, [])
          yield* Effect.forkDetach(other.insert(2), { startImmediately: true })
          // More than one attempt of the other client fails meanwhile. If one succeeded, the next statement would fail:
          // what this transaction has read would be out of date.
          yield* Effect.sleep("20 millis")
          yield* insert(1)
          assert.deepStrictEqual(yield* all, [1])
        })
      )
      while ((yield* all).length < 2) yield* Effect.sleep("1 millis")
      assert.deepStrictEqual(yield* all, [1, 2])
    }).pipe(Effect.scoped)
  )

  it.effect("a lock that stays fails as a LockTimeoutError after busyTimeout, with a TestClock too", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const one = yield* open(filename)
      const two = yield* open(filename, { busyTimeout: "50 millis" })
      const { all, insert } = yield* table(one)
      const error = yield* one.withTransaction(Effect.andThen(insert(1), Effect.flip(two.withTransaction(Effect.void))))
      assert.strictEqual(error.reason._tag, "LockTimeoutError")
      assert.isTrue(error.isRetryable)
      yield* two.withTransaction(Effect.void)
      assert.deepStrictEqual(yield* all, [1])
    }).pipe(Effect.scoped)
  )

  const increments = `
    import { Effect } from "effect"
    import { SqlClient } from "effect/sql"
    import * as Sqlite from "./test/support/sqlite.ts"
    const main = Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const increment = sql.withTransaction(Effect.gen(function* () {
        const [{ n }] = yield* sql\`SELECT n FROM numbers\`
        yield* Effect.sleep("1 millis")
        yield* sql\`UPDATE numbers SET n = \${n + 1}\`
      }))
      for (let i = 0; i < 50; i++) yield* increment
    })
    await Effect.runPromise(Effect.provide(main, Sqlite.layer({ 
      filename: process.env.FILE,
      busyTimeout: "30 seconds",
      durable: false
    })))
  `

  it.live(
    "two processes use one file: no update is lost",
    () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const { all, insert } = yield* table(yield* open(filename))
        yield* insert(0)
        const programs = yield* Effect.all([
          program(increments, { FILE: filename }),
          program(increments, { FILE: filename })
        ])
        const codes = yield* Effect.all(programs.map(({ exitCode }) => exitCode))
        assert.deepStrictEqual(codes, [0, 0])
        assert.deepStrictEqual(yield* all, [100])
      }).pipe(Effect.scoped),
    60_000
  )

  const holds = `
    import { Effect } from "effect"
    import { SqlClient } from "effect/sql"
    import * as Sqlite from "./test/support/sqlite.ts"
    const main = Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql\`INSERT INTO numbers VALUES (1)\`
      yield* sql.withTransaction(Effect.gen(function* () {
        yield* sql\`INSERT INTO numbers VALUES (2)\`
        console.log("holds")
        yield* Effect.never
      }))
    })
    setInterval(() => {}, 60_000)
    await Effect.runPromise(Effect.provide(main, Sqlite.layer({ filename: process.env.FILE })))
  `

  it.live(
    "kill -9 of a process keeps what it has committed, and frees its lock",
    () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const { all, insert } = yield* table(yield* open(filename, { busyTimeout: 0 }))
        const { kill9, line } = yield* program(holds, { FILE: filename })
        assert.strictEqual(yield* line, "holds")
        assert.strictEqual((yield* Effect.flip(insert(3))).reason._tag, "LockTimeoutError")
        yield* kill9
        yield* insert(3)
        assert.deepStrictEqual(yield* all, [1, 3])
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("the scope's end closes the file, and leaves no log beside it", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      const scope = yield* Scope.make()
      const { insert } = yield* table(yield* Scope.provide(open(filename), scope))
      yield* insert(1)
      assert.isTrue(existsSync(`${filename}-wal`))
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(existsSync(filename))
      assert.isFalse(existsSync(`${filename}-wal`))
    }).pipe(Effect.scoped)
  )
})
