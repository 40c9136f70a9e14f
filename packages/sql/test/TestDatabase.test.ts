import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Redacted, Result, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { until } from "../../core/test/support/polling.ts"
import { program } from "./support/program.ts"
import * as TestDatabase from "./support/TestDatabase.ts"

const { patience } = TestDatabase

const exclusive = { exclusive: true } as const

const isRunning = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** The segments of shared memory that a postmaster has created. */
const segmentsOf = (postmaster: number) =>
  existsSync("/proc/sysvipc/shm")
    ? readFileSync("/proc/sysvipc/shm", "utf8")
        .split("\n")
        .filter((line) => Number(line.trim().split(/\s+/)[4]) === postmaster)
    : []

const leftOver = ({ directory, postmaster, supervisor }: TestDatabase.Processes) => ({
  postmaster: isRunning(postmaster),
  supervisor: isRunning(supervisor),
  directory: existsSync(directory),
  segments: segmentsOf(postmaster)
})

const nothing = { postmaster: false, supervisor: false, directory: false, segments: [] }

/** Nothing is left of a server, at once or in time. */
const assertGone = (processes: TestDatabase.Processes) =>
  until(
    Effect.sync(() => leftOver(processes)),
    (left) => inspect(left) === inspect(nothing),
    "what is left of the server"
  )

const withEnvironment = (name: string, value: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = process.env[name]
      process.env[name] = value
      return before
    }),
    (before) =>
      Effect.sync(() => {
        if (before === undefined) delete process.env[name]
        else process.env[name] = before
      })
  )

const table = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE numbers (n integer PRIMARY KEY)`
  const insert = (n: number) => sql`INSERT INTO numbers VALUES (${n})`
  const all = Effect.map(sql<{ n: number }>`SELECT n FROM numbers ORDER BY n`, (rows) => rows.map(({ n }) => n))
  return { all, insert, sql }
})

const onFresh = Effect.provide(TestDatabase.layerFresh(), { local: true })

layer(TestDatabase.layer(exclusive), { timeout: patience })("TestDatabase", (it) => {
  it.effect("a commit is kept, and runs what waits for it; a rollback leaves nothing and runs nothing", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* table
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
    }).pipe(onFresh)
  )

  it.effect("transactions run at the same time, and wait for each other's locks", () =>
    Effect.gen(function* () {
      const { all, insert, sql } = yield* table
      yield* insert(0)
      const increment = sql.withTransaction(
        Effect.gen(function* () {
          const [row] = yield* sql<{ n: number }>`SELECT n FROM numbers FOR UPDATE`
          yield* sql`UPDATE numbers SET n = ${(row?.n ?? 0) + 1}`
        })
      )
      yield* Effect.all(
        Array.from({ length: 20 }, () => increment),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(yield* all, [20])
    }).pipe(onFresh)
  )

  it.effect("kill -9 and a start keep what was committed, and nothing else", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const { all, insert, sql } = yield* table
      yield* insert(1)
      const before = yield* database.processes
      const open = yield* sql
        .withTransaction(
          Effect.gen(function* () {
            yield* insert(2)
            yield* database.kill9
            assert.isFalse(isRunning(before.postmaster))
            yield* insert(3)
          })
        )
        .pipe(Effect.exit)
      assert.isTrue(Exit.isFailure(open))
      assert.strictEqual((yield* Effect.flip(all))._tag, "SqlError")
      yield* database.start
      assert.deepStrictEqual(yield* all, [1])
      assert.notStrictEqual((yield* database.processes).postmaster, before.postmaster)
      assert.strictEqual((yield* sql<{ fsync: string }>`SHOW fsync`)[0]?.fsync, "on")
      yield* sql`DROP TABLE numbers`
    })
  )

  it.effect("stop is a shutdown in order: the next start recovers nothing", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const sql = yield* SqlClient.SqlClient
      yield* sql`SELECT 1`
      const { directory } = yield* database.processes
      yield* database.stop
      const bin = database.description.split(" from ")[1] ?? ""
      const state = execFileSync(join(bin, "pg_controldata"), [join(directory, "data")], {
        encoding: "utf8",
        env: { LC_ALL: "C" }
      })
      assert.match(state, /^Database cluster state: +shut down$/m)
      yield* database.start
      yield* sql`SELECT 1`
    })
  )

  it.effect("a paused server keeps its connections and answers nothing until it is resumed", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const sql = yield* SqlClient.SqlClient
      const pid = Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row?.pid)
      const before = yield* pid
      yield* Effect.acquireRelease(database.pause, () => Effect.ignore(database.resume))
      const waiting = yield* Effect.forkChild(pid)
      const stat = readFileSync(`/proc/${before}/stat`, "utf8")
      assert.match(stat, /\) T /)
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.isUndefined(waiting.pollUnsafe())
      yield* database.resume
      assert.strictEqual(yield* Fiber.join(waiting), before)
    }).pipe(Effect.scoped)
  )

  it.effect("psql runs several statements in any database, and says what the server refuses", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const other = yield* database.fresh()
      assert.strictEqual(yield* database.psql("SELECT 1, 'a'; SELECT current_database()"), "1|a\npostgres")
      assert.strictEqual(yield* database.psql("SELECT current_database()", other), other.name)
      const error = yield* Effect.flip(database.psql("SELECT missing"))
      assert.strictEqual(error.reason, "CommandFailed")
      assert.include(error.message, 'column "missing" does not exist')
    }).pipe(Effect.scoped)
  )

  it.effect("a fresh database is apart from others, copies its template, and is gone with its scope", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const names = Effect.map(database.psql("SELECT datname FROM pg_database"), (text) => text.split("\n"))
      const scope = yield* Scope.make()
      const template = yield* Scope.provide(database.fresh(), scope)
      yield* database.psql("CREATE TABLE numbers (n integer); INSERT INTO numbers VALUES (7)", template)
      const copy = yield* Scope.provide(database.fresh({ template: template.name }), scope)
      assert.strictEqual(yield* database.psql("SELECT n FROM numbers", copy), "7")
      yield* database.psql("DELETE FROM numbers", copy)
      assert.strictEqual(yield* database.psql("SELECT n FROM numbers", template), "7")
      assert.includeMembers(yield* names, [template.name, copy.name])
      yield* Scope.close(scope, Exit.void)
      const left = yield* names
      assert.notInclude(left, template.name)
      assert.notInclude(left, copy.name)
    })
  )

  it.effect("DATABASE_URL: a layer has a database of its own there, and drops it, and never kills that server", () =>
    Effect.gen(function* () {
      const server = yield* TestDatabase.TestDatabase
      yield* withEnvironment("DATABASE_URL", Redacted.value(server.url))
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Layer.fresh(TestDatabase.layer()), scope)
      const name = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const database = yield* TestDatabase.TestDatabase
        assert.strictEqual(database.origin, "url")
        const [row] = yield* sql<{ name: string }>`SELECT current_database() AS name`
        assert.strictEqual(row?.name, database.name)
        assert.match(database.name, /^test_/)
        for (const command of ["kill9", "start", "stop", "pause", "resume", "processes"] as const) {
          assert.strictEqual((yield* Effect.flip(Effect.asVoid(database[command]))).reason, "NotControllable")
        }
        return database.name
      }).pipe(Effect.provide(context))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* server.psql(`SELECT count(*) FROM pg_database WHERE datname = '${name}'`), "0")
    }).pipe(Effect.scoped)
  )

  it.effect("the password is in no error and in nothing that is printed", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const url = new URL(Redacted.value(database.url))
      const secret = url.password
      assert.isAtLeast(secret.length, 30)
      assert.notInclude(inspect(database, { depth: 5 }), secret)
      url.pathname = "/missing"
      for (const text of [url.href, url.href.replace("postgres:", "mysql:"), `${secret} is no URL`]) {
        const error = yield* withEnvironment("DATABASE_URL", text).pipe(
          Effect.andThen(Effect.flip(Layer.build(Layer.fresh(TestDatabase.layer())))),
          Effect.scoped
        )
        assert.strictEqual(error._tag === "TestDatabaseError" ? error.reason : error._tag, "Unreachable")
        assert.notInclude(inspect(error, { depth: 5 }), secret)
      }
    })
  )
})

describe("TestDatabase.layer", () => {
  const build = (options: TestDatabase.Options) => {
    const scope = Scope.makeUnsafe()
    return Effect.map(
      Layer.buildWithScope(Layer.fresh(TestDatabase.layer({ ...exclusive, ...options })), scope),
      (context) => ({
        close: Scope.close(scope, Exit.void),
        context
      })
    )
  }

  it.live(
    "nothing is left when the layer closes, also of a server that was killed or is paused",
    () =>
      Effect.gen(function* () {
        for (const fault of [undefined, "kill9", "pause"] as const) {
          const { close, context } = yield* build({})
          const processes = yield* Effect.gen(function* () {
            const database = yield* TestDatabase.TestDatabase
            yield* (yield* SqlClient.SqlClient)`SELECT 1`
            const processes = yield* database.processes
            assert.strictEqual(segmentsOf(processes.postmaster).length, existsSync("/proc/sysvipc/shm") ? 1 : 0)
            if (fault !== undefined) yield* database[fault]
            return processes
          }).pipe(Effect.provide(context))
          yield* close
          assert.deepStrictEqual(leftOver(processes), nothing, fault)
        }
      }),
    patience
  )

  it.live(
    "durable: false turns fsync off, and settings reach the server",
    () =>
      Effect.gen(function* () {
        const { close, context } = yield* build({ durable: false, settings: { max_connections: "23" } })
        const { psql } = yield* Effect.provide(TestDatabase.TestDatabase, context)
        assert.strictEqual(yield* psql("SELECT current_setting('fsync'), current_setting('max_connections')"), "off|23")
        yield* close
      }),
    patience
  )

  it.live("without a source, the error lists what was tried and what to do", () =>
    Effect.gen(function* () {
      yield* withEnvironment("AMQP_TEST_DATABASE", "none")
      const error = yield* Effect.flip(Layer.build(Layer.fresh(TestDatabase.layer())))
      assert.strictEqual(error._tag === "TestDatabaseError" ? error.reason : error._tag, "NoDatabase")
      for (const text of ["url: ", "binary: ", "container: ", "package: ", "apt-get install", "DATABASE_URL"]) {
        assert.include(error.message, text)
      }
    }).pipe(Effect.scoped)
  )

  const stays = `
    import { Effect } from "effect"
    import { SqlClient } from "effect/sql"
    import * as TestDatabase from "./test/support/TestDatabase.ts"
    const main = Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql\`SELECT 1\`
      const database = yield* TestDatabase.TestDatabase
      console.log(JSON.stringify(yield* database.processes))
      return yield* Effect.never
    })
    setInterval(() => {}, 60_000)
    console.log("begins")
    await Effect.runPromise(Effect.provide(main, TestDatabase.layer({ exclusive: true })))
  `

  it.live(
    "nothing is left after kill -9 of the process that uses it",
    () =>
      Effect.gen(function* () {
        const { kill9, line } = yield* program(stays)
        assert.strictEqual(yield* line, "begins")
        const processes = JSON.parse(yield* line) as TestDatabase.Processes
        assert.isTrue(isRunning(processes.postmaster))
        yield* kill9
        yield* assertGone(processes)
      }).pipe(Effect.scoped),
    patience
  )

  it.live(
    "nothing is left after kill -9 while the server starts",
    () =>
      Effect.gen(function* () {
        const folders = () => readdirSync(tmpdir()).filter((name) => name.startsWith("effect-amqp-postgresql-"))
        const before = new Set(folders())
        const temporary = Effect.sync(() => folders().filter((name) => !before.has(name)))
        const { kill9, line } = yield* program(stays)
        assert.strictEqual(yield* line, "begins")
        yield* until(temporary, (names) => names.length > 0, "the folder")
        yield* kill9
        yield* until(temporary, (names) => names.length === 0, "the folder")
      }).pipe(Effect.scoped),
    patience
  )
})
