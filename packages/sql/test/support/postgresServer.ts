/** A private PostgreSQL server, which ends with this process however that ends. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Crypto from "node:crypto"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Ports from "../../../core/src/testing/internal/ports.ts"
import * as SupervisorProcess from "../../../core/src/testing/internal/supervisorProcess.ts"
import type { Installation } from "./postgresInstallation.ts"
import type { Answer, Command, Plan } from "./postgresSupervisor.ts"
import { TestDatabaseError } from "./TestDatabaseError.ts"

export interface ServerOptions {
  /**
   * Whether a commit waits until the disk has it. Without it commits are faster, and still survive `kill9` of the
   * processes except those of the last fraction of a second. Default: true.
   */
  readonly durable?: boolean | undefined
  /** Further settings of the server, such as `{ max_connections: "200" }`. Default: none. */
  readonly settings?: Readonly<Record<string, string>> | undefined
}

/** The process ids and the folder of a private server. */
export interface Processes {
  readonly supervisor: number
  readonly postmaster: number
  readonly directory: string
}

export interface PostgresServer {
  /** The URL of the database `postgres`, as its superuser. It stays the same over restarts. */
  readonly url: Redacted.Redacted<string>
  readonly description: string
  readonly processes: Effect.Effect<Processes>
  readonly command: (command: Command) => Effect.Effect<void, TestDatabaseError>
}

const failed = (message: string) => new TestDatabaseError({ reason: "StartFailed", message })

// Not in the temporary folder, where other users could put a template of their own.
const cache = Path.join(import.meta.dirname, "../../../../node_modules/.cache/effect-amqp")

/** Variables that would redirect the server or its tools. */
const inherited = (env: NodeJS.ProcessEnv): Record<string, string> =>
  Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      value === undefined || /^(?:PG|LC_|LANG)/.test(name) ? [] : [[name, value]]
    )
  )

const planOf = (installation: Installation, port: number, { durable = true, settings = {} }: ServerOptions): Plan => ({
  directory: Path.join(Os.tmpdir(), `effect-amqp-postgresql-${Crypto.randomBytes(6).toString("hex")}`),
  template: Path.join(
    cache,
    `postgresql-${installation.version}-${installation.owner?.uid ?? process.getuid?.() ?? "user"}`
  ),
  bin: installation.bin,
  owner: installation.owner,
  env: { ...inherited(process.env), LC_ALL: "C", TZ: "UTC" },
  password: Crypto.randomBytes(18).toString("hex"),
  settings: {
    port: String(port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    // In the data folder, and not in /dev/shm, where a killed server would leave it.
    dynamic_shared_memory_type: "mmap",
    logging_collector: "off",
    log_destination: "stderr",
    lc_messages: "C",
    ...(durable ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }),
    ...settings
  }
})

const spawn = () => SupervisorProcess.spawn(Path.join(import.meta.dirname, "postgresSupervisor.ts"))

type Supervisor = SupervisorProcess.SupervisorProcess

const close = (child: Supervisor) => SupervisorProcess.stop(child, "15 seconds")

/** Sends one line, and waits for the answer, a minute at most. */
const ask = (child: Supervisor, line: string) =>
  Effect.callback<Answer>((resume) => {
    const forget = () => {
      clearTimeout(deadline)
      child.removeListener("exit", onExit)
      child.lines.removeListener("line", onLine)
      SupervisorProcess.setKeepsAlive(child, false)
    }
    const settle = (answer: Answer) => {
      forget()
      resume(Effect.succeed(answer))
    }
    const onExit = () => settle({ ok: false, message: "its supervisor has ended" })
    // `postgresSupervisor.ts` has written this.
    const onLine = (text: string) => settle(JSON.parse(text) as Answer)
    const deadline = setTimeout(
      () => settle({ ok: false, message: "expected an answer within a minute, got none" }),
      60_000
    )
    if (SupervisorProcess.isOver(child)) return onExit()
    child.on("exit", onExit)
    child.lines.on("line", onLine)
    SupervisorProcess.setKeepsAlive(child, true)
    child.stdin.write(`${line}\n`)
    return Effect.sync(forget)
  }).pipe(
    Effect.flatMap((answer) =>
      answer.ok
        ? Effect.succeed(answer)
        : Effect.fail(failed(`PostgreSQL, ${line.startsWith("{") ? "initialize" : line}: ${answer.message}`))
    )
  )

const startOnce = Effect.fnUntraced(function* (
  installation: Installation,
  options: ServerOptions
): Effect.fn.Return<PostgresServer, TestDatabaseError, Scope.Scope> {
  const [port = 0] = yield* Effect.mapError(Ports.free(1), ({ message }) => failed(message))
  const plan = planOf(installation, port, options)
  const child = yield* Effect.acquireRelease(Effect.sync(spawn), close)
  const started = yield* ask(child, JSON.stringify(plan)).pipe(
    Effect.andThen(ask(child, "start")),
    // Before another attempt.
    Effect.tapError(() => close(child))
  )
  const lock = Semaphore.makeUnsafe(1)
  let postmaster = started.postmaster
  return {
    url: Redacted.make(`postgres://postgres:${started.password}@127.0.0.1:${port}/postgres`, { label: "DATABASE_URL" }),
    description: `a private PostgreSQL ${installation.version} from ${installation.bin}`,
    processes: Effect.sync(() => ({ supervisor: child.pid ?? 0, postmaster, directory: plan.directory })),
    command: (command) =>
      Semaphore.withPermit(
        lock,
        // The next command would take the answer of an interrupted one for its own.
        Effect.uninterruptible(
          Effect.map(ask(child, command), (answer) => {
            postmaster = answer.postmaster
          })
        )
      )
  }
})

/**
 * Starts a server on 127.0.0.1 and a free port, in a temporary folder. When the scope closes, its processes and its
 * folder are removed. This also happens when this process dies, for whatever reason.
 */
export const start = (
  installation: Installation,
  options: ServerOptions = {}
): Effect.Effect<PostgresServer, TestDatabaseError, Scope.Scope> =>
  Effect.retry(startOnce(installation, options), {
    times: 2,
    // Another process may have taken the port after the check.
    while: ({ message }) => /address already in use/i.test(message)
  })
