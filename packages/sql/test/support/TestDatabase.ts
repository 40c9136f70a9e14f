/**
 * A real PostgreSQL for tests, with faults on demand.
 *
 * The first source that works provides the server:
 *
 * 1. `url`: the server at `DATABASE_URL`, if set: each layer creates a database in it, and drops it at the end.
 * 2. `binary`: the installed PostgreSQL as a private process, on 127.0.0.1, a free port and a temporary folder, as an
 *    ordinary user. Each layer has its own server. It ends with the test process, even if that is killed with SIGKILL.
 * 3. `container`: a container of `AMQP_TEST_POSTGRES_IMAGE` (default `postgres:17`), if a Docker engine responds.
 * 4. `package`: the distribution's `postgresql`, installed automatically, as root on Debian or Ubuntu.
 *
 * `AMQP_TEST_DATABASE` restricts the sources: `AMQP_TEST_DATABASE=container` takes a container or fails.
 */
import { PgClient, PgConnection } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted, Scope } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import * as Crypto from "node:crypto"
import * as Command from "../../../core/src/testing/internal/command.ts"
import { live } from "../../../core/src/testing/internal/liveClock.ts"
import * as Container from "./postgresContainer.ts"
import * as Installation from "./postgresInstallation.ts"
import * as Package from "./postgresPackage.ts"
import * as Server from "./postgresServer.ts"
import type { Processes, ServerOptions } from "./postgresServer.ts"
import type { Command as ServerCommand } from "./postgresSupervisor.ts"
import { TestDatabaseError } from "./TestDatabaseError.ts"

export { TestDatabaseError }
export type { Processes, ServerOptions }

/** How long a layer may take to build: where PostgreSQL has to be installed first, this is the time for that. */
export const patience = 300_000

export type Origin = "url" | "binary" | "container" | "package"

/** A database on the layer's server. */
export interface Database {
  readonly name: string
  /** Its URL, with the password. */
  readonly url: Redacted.Redacted<string>
}

/** The PostgreSQL server of this layer, and the layer's database on it. */
export class TestDatabase extends Context.Service<
  TestDatabase,
  Database & {
    readonly origin: Origin
    /** A description of the server, for humans. */
    readonly description: string
    /** The process ids and the folder of a private server; otherwise `NotControllable`. */
    readonly processes: Effect.Effect<Processes, TestDatabaseError>
    /**
     * A new database, dropped when the scope closes. `template` is the name of a database to copy, to which no client
     * is connected; by default the database is empty. It takes about 0.1 seconds.
     */
    readonly fresh: (options?: {
      readonly template?: string | undefined
    }) => Effect.Effect<Database, TestDatabaseError, Scope.Scope>
    /**
     * Runs statements with `psql` in the layer's database, or another one, apart from every client, and returns their
     * output: one row per line, with `|` between the columns.
     */
    readonly psql: (sql: string, database?: Database) => Effect.Effect<string, TestDatabaseError>
    /** Kills all processes of a private server with SIGKILL, and waits for their end. */
    readonly kill9: Effect.Effect<void, TestDatabaseError>
    /** Shuts a private server down in order: it ends all connections, and writes a checkpoint. */
    readonly stop: Effect.Effect<void, TestDatabaseError>
    /** Starts a private server again, after `kill9` or `stop`: on the same data, with the same URL. */
    readonly start: Effect.Effect<void, TestDatabaseError>
    /** Stops all processes of a private server with SIGSTOP: connections stay open, and nothing is answered. */
    readonly pause: Effect.Effect<void, TestDatabaseError>
    /** Continues a private server after `pause`. */
    readonly resume: Effect.Effect<void, TestDatabaseError>
  }
>()("@effect-amqp/sql/test/TestDatabase") {}

interface Running {
  readonly origin: Origin
  readonly url: Redacted.Redacted<string>
  readonly description: string
  readonly bin?: string | undefined
  readonly server?: Server.PostgresServer | undefined
}

/** A source of a server: it fails with the reason why it is not available on this machine. */
interface Way {
  readonly origin: Origin
  readonly start: Effect.Effect<Effect.Effect<Running, TestDatabaseError, Scope.Scope>, string>
}

const unreachable = (message: string) => new TestDatabaseError({ reason: "Unreachable", message })

const commandFailed = (message: string) => new TestDatabaseError({ reason: "CommandFailed", message })

const notControllable = new TestDatabaseError({
  reason: "NotControllable",
  message:
    "The database server is not a private process, so it can be neither killed, stopped nor paused. Install PostgreSQL, " +
    "and unset DATABASE_URL"
})

const privateServer = (origin: Origin, options: ServerOptions) =>
  Effect.suspend(() => {
    const found = Installation.find()
    return typeof found === "string"
      ? Effect.fail(found)
      : Effect.succeed(
          Effect.map(Server.start(found, options), (server): Running => ({
            origin,
            url: server.url,
            description: server.description,
            bin: found.bin,
            server
          }))
        )
  })

/** Runs one statement on a connection of its own. */
const execute = (url: Redacted.Redacted<string>, sql: string) =>
  Effect.scoped(Effect.flatMap(PgConnection.make({ url }), (connection) => connection.query(sql))).pipe(
    Effect.timeoutOrElse({
      duration: "1 minute",
      orElse: () => Effect.fail(new Error("no answer within a minute"))
    }),
    live
  )

// `new URL` includes its input, with the password, in its error.
const external = Effect.fnUntraced(function* (text: string): Effect.fn.Return<Running, TestDatabaseError> {
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  if (parsed === undefined || !/^postgres(?:ql)?:$/.test(parsed.protocol)) {
    return yield* unreachable("DATABASE_URL: expected a URL such as postgres://user:password@localhost:5432/postgres")
  }
  const url = Redacted.make(text, { label: "DATABASE_URL" })
  yield* Effect.mapError(execute(url, "SELECT 1"), (error) =>
    unreachable(`DATABASE_URL (${parsed.host}): ${error.message}`)
  )
  return { origin: "url", url, description: `the server at DATABASE_URL (${parsed.host})` }
})

/** The sources, in order. A server for kills and pauses is never the one at `DATABASE_URL`. */
const ways = (options: Options): ReadonlyArray<Way> => {
  const all: ReadonlyArray<Way> = [
    {
      origin: "url",
      start: Effect.suspend(() => {
        const text = process.env["DATABASE_URL"] ?? ""
        return text === "" ? Effect.fail("DATABASE_URL is not set") : Effect.succeed(external(text))
      })
    },
    { origin: "binary", start: privateServer("binary", options) },
    {
      origin: "container",
      start: Effect.as(
        Container.engine,
        Effect.map(Container.start(options), (running): Running => ({ origin: "container", ...running }))
      )
    },
    {
      origin: "package",
      start: Effect.suspend(() => {
        const installable = Package.installable()
        if (installable !== true) return Effect.fail(installable)
        return Effect.succeed(
          Effect.gen(function* () {
            yield* Effect.logInfo("Installing postgresql with apt-get, for a private server")
            yield* Package.install
            const start = yield* Effect.mapError(
              privateServer("package", options),
              (message) => new TestDatabaseError({ reason: "StartFailed", message })
            )
            return yield* start
          })
        )
      })
    }
  ]
  return all.filter(({ origin }) => !(options.exclusive === true && (origin === "url" || origin === "container")))
}

/** The reason why `AMQP_TEST_DATABASE` excludes a source, if it does. */
const excluded = (origin: Origin): string | undefined => {
  const names = (process.env["AMQP_TEST_DATABASE"] ?? "").split(/[\s,]+/).filter((name) => name !== "")
  return names.length === 0 || names.includes(origin) ? undefined : `excluded by AMQP_TEST_DATABASE=${names.join(",")}`
}

const advice = [
  "Any one of these provides a database:",
  "  - a running PostgreSQL:   export DATABASE_URL=postgres://user:password@host:5432/postgres (CREATEDB is needed)",
  "  - Debian, Ubuntu:         sudo apt-get install --no-install-recommends postgresql",
  "  - Fedora:                 sudo dnf install postgresql-server",
  "  - macOS:                  brew install postgresql@17",
  "  - another installation:   export PG_BIN=/path/to/bin",
  "  - Docker or Podman:       start the engine; the image is AMQP_TEST_POSTGRES_IMAGE, by default postgres:17"
].join("\n")

const first = Effect.fnUntraced(function* (
  candidates: ReadonlyArray<Way>
): Effect.fn.Return<Running, TestDatabaseError, Scope.Scope> {
  const reasons: Array<string> = []
  for (const way of candidates) {
    const start = excluded(way.origin) ?? (yield* way.start.pipe(Effect.catch((reason) => Effect.succeed(reason))))
    if (typeof start === "string") {
      reasons.push(`  - ${way.origin}: ${start}`)
      continue
    }
    // An explicit `DATABASE_URL` excludes the other sources, even if it fails.
    if (way.origin === "url") return yield* start
    const result = yield* start.pipe(Effect.catch((error) => Effect.succeed(error)))
    if (!(result instanceof TestDatabaseError)) return result
    reasons.push(`  - ${way.origin}: ${result.message}`)
  }
  return yield* new TestDatabaseError({
    reason: "NoDatabase",
    message: `No PostgreSQL is available:\n${reasons.join("\n")}\n${advice}`
  })
})

const withDatabase = (url: Redacted.Redacted<string>, name: string): Database => {
  const parsed = new URL(Redacted.value(url))
  parsed.pathname = `/${encodeURIComponent(name)}`
  return { name, url: Redacted.make(parsed.href, { label: "DATABASE_URL" }) }
}

const create = (url: Redacted.Redacted<string>, template: string) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const database = withDatabase(url, `test_${Crypto.randomBytes(8).toString("hex")}`)
      return execute(url, `CREATE DATABASE "${database.name}" TEMPLATE "${template.replaceAll('"', '""')}"`).pipe(
        Effect.mapError((error) => commandFailed(`CREATE DATABASE from ${template}: ${causeOf(error)}`)),
        Effect.as(database)
      )
    }),
    // It fails if the server has ended, and the database with it.
    ({ name }) => Effect.ignore(execute(url, `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`))
  )

/** The server's own words, which an `SqlError` carries in its cause. */
const causeOf = (error: SqlError.SqlError | Error): string => {
  const cause = "reason" in error ? error.reason.cause : undefined
  return cause instanceof Error && cause.message !== "" ? cause.message : error.message
}

const runPsql = Effect.fnUntraced(function* (running: Running, { name, url }: Database, sql: string) {
  const psql = Installation.psql(running.bin)
  if (psql === undefined) {
    return yield* commandFailed("psql: expected a psql on the PATH, got none. Install postgresql-client")
  }
  const { hash: _, hostname, password, port, searchParams, username } = new URL(Redacted.value(url))
  const { code, stderr, stdout } = yield* Command.run(psql, ["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql], {
    // By variables, since every user of the machine can read a process's arguments.
    env: {
      PATH: process.env["PATH"],
      LC_ALL: "C",
      PGHOST: hostname.replace(/^\[(.*)\]$/, "$1"),
      PGPORT: port === "" ? "5432" : port,
      PGUSER: decodeURIComponent(username),
      PGPASSWORD: decodeURIComponent(password),
      PGDATABASE: name,
      PGCONNECT_TIMEOUT: "10",
      ...(searchParams.has("sslmode") && { PGSSLMODE: searchParams.get("sslmode") ?? "" })
    }
  })
  if (code !== 0) return yield* commandFailed(`psql: ${stderr.trim()}`)
  return stdout.trimEnd()
})

const make = Effect.fnUntraced(function* (options: Options) {
  const running = yield* first(ways(options))
  const { server } = running
  // A private server is for this layer alone, so its own database is as fresh as another one.
  const database =
    server === undefined ? yield* create(running.url, "template0") : withDatabase(running.url, "postgres")
  const command = (name: ServerCommand) => (server === undefined ? Effect.fail(notControllable) : server.command(name))
  return TestDatabase.of({
    ...database,
    origin: running.origin,
    description: running.description,
    processes: server === undefined ? Effect.fail(notControllable) : server.processes,
    fresh: (options) => create(running.url, options?.template ?? "template0"),
    psql: (sql, other = database) => runPsql(running, other, sql),
    kill9: command("kill9"),
    stop: command("stop"),
    start: command("start"),
    pause: command("pause"),
    resume: command("resume")
  })
})

/** Options of a layer: the server's, and those of the client except its address. */
export interface Options extends ServerOptions {
  /** Takes a private server also if `DATABASE_URL` is set, for tests that kill, stop or pause it. Default: false. */
  readonly exclusive?: boolean | undefined
  readonly client?: ClientOptions | undefined
}

export type ClientOptions = Omit<PgClient.PgPoolConfig, "url">

/** The server alone, without a client. */
export const layerServer = (options: Options = {}): Layer.Layer<TestDatabase, TestDatabaseError> =>
  Layer.effect(TestDatabase, live(make(options)))

/**
 * A pool of clients of a database. It uses the real clock, also in a test with a `TestClock`: otherwise the timeout of a
 * connection never fires.
 */
export const layerClient = (
  { url }: Database,
  options: ClientOptions = {}
): Layer.Layer<SqlClient.SqlClient | PgClient.PgClient, SqlError.SqlError> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => live(Scope.close(scope, exit)))
      return yield* live(Layer.buildWithScope(PgClient.layer({ ...options, url }), scope))
    })
  )

/** The server, and a client of its database. */
export const layer = (
  options: Options = {}
): Layer.Layer<TestDatabase | SqlClient.SqlClient | PgClient.PgClient, TestDatabaseError | SqlError.SqlError> =>
  Layer.provideMerge(
    Layer.unwrap(Effect.map(TestDatabase, (database) => layerClient(database, options.client))),
    layerServer(options)
  )

/** A client of a new database on the layer's server, for one test. The database is dropped when the scope closes. */
export const layerFresh = (
  options: ClientOptions & { readonly template?: string | undefined } = {}
): Layer.Layer<SqlClient.SqlClient | PgClient.PgClient, TestDatabaseError | SqlError.SqlError, TestDatabase> => {
  const { template, ...client } = options
  return Layer.unwrap(
    Effect.gen(function* () {
      const { fresh } = yield* TestDatabase
      return layerClient(yield* fresh({ template }), client)
    })
  )
}
