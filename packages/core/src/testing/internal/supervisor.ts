/**
 * A separate program: the parent of a private node's two processes, in a session of its own.
 *
 * It runs exactly as long as its standard input is open: when the process that started it stops the node, exits,
 * crashes or is killed with SIGKILL, the pipe closes, and the node, its epmd and its folder are removed. Standard input
 * carries the {@link Plan} as one line, and another line for each restart of a server that has ended, in the same
 * folder. Standard output carries one JSON {@link Event} per line.
 */
import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs"
import * as Path from "node:path"
import * as Readline from "node:readline"

export interface Plan {
  /** The folder that the supervisor creates, with `files` in it, and removes at the end. */
  readonly directory: string
  readonly files: Readonly<Record<string, { readonly content: string; readonly mode: number }>>
  readonly env: Readonly<Record<string, string>>
  /** The epmd command; `undefined` for a node that uses another node's epmd. */
  readonly epmd?: ReadonlyArray<string> | undefined
  readonly server: ReadonlyArray<string>
  /**
   * A regular expression: the node is up when its output matches. The first group is the port of its evaluation server.
   */
  readonly ready: string
}

export type Event =
  | { readonly type: "ready"; readonly port: number; readonly server: number; readonly epmd: number }
  | { readonly type: "exit"; readonly output: string }

const emit = (event: Event) => process.stdout.write(`${JSON.stringify(event)}\n`)

// A parent that has died no longer reads.
process.stdout.on("error", () => {})

const exited = (child: ChildProcess.ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) resolve()
    else child.once("exit", () => resolve())
  })

interface Started {
  readonly plan: Plan
  readonly epmd: ChildProcess.ChildProcess | undefined
  server: ChildProcess.ChildProcess
}

let started: Started | undefined
let ending = false

const end = async () => {
  if (ending) return
  ending = true
  if (started !== undefined) {
    // SIGKILL and not SIGTERM: the data of a private broker is worthless, and a clean stop takes seconds.
    const children = [started.server, ...(started.epmd === undefined ? [] : [started.epmd])]
    for (const child of children) child.kill("SIGKILL")
    await Promise.all(children.map(exited))
    FileSystem.rmSync(started.plan.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }
  process.exit(0)
}

const spawn = (
  plan: Plan,
  [command, ...args]: ReadonlyArray<string>,
  stdin: "ignore" | "pipe",
  read: (chunk: string) => string
) => {
  const child = ChildProcess.spawn(command ?? "", args, {
    cwd: plan.directory,
    env: plan.env,
    stdio: [stdin, "pipe", "pipe"]
  })
  child.stdin?.on("error", () => {})
  child.stdout?.setEncoding("utf8").on("data", read)
  child.stderr?.setEncoding("utf8").on("data", read)
  child.on("error", (error) => emit({ type: "exit", output: `${child.spawnfile}: ${error.message}` }))
  child.on("close", () => emit({ type: "exit", output: `${Path.basename(child.spawnfile)} ended\n${read("")}` }))
  return child
}

/** Keeps the last 16,384 characters of an output. */
const tail = () => {
  let output = ""
  return (chunk: string) => (output = (output + chunk).slice(-16_384))
}

const startServer = (plan: Plan, epmd: ChildProcess.ChildProcess | undefined, print: (chunk: string) => string) => {
  const ready = new RegExp(plan.ready, "m")
  let isReady = false
  const server = spawn(plan, plan.server, "pipe", (chunk) => {
    const output = print(chunk)
    const match = isReady ? null : ready.exec(output)
    if (match !== null) {
      isReady = true
      emit({ type: "ready", port: Number(match[1]), server: server.pid ?? 0, epmd: epmd?.pid ?? 0 })
    }
    return output
  })
  return server
}

const start = (plan: Plan) => {
  FileSystem.mkdirSync(plan.directory, { mode: 0o700 })
  for (const [name, file] of Object.entries(plan.files)) {
    const path = Path.join(plan.directory, name)
    FileSystem.mkdirSync(Path.dirname(path), { recursive: true, mode: 0o700 })
    FileSystem.writeFileSync(path, file.content, { mode: file.mode })
  }
  // The output of both processes: epmd may print the reason why the server does not start.
  const print = tail()
  const epmd = plan.epmd === undefined ? undefined : spawn(plan, plan.epmd, "ignore", print)
  started = { plan, epmd, server: startServer(plan, epmd, print) }
}

const startAgain = async ({ epmd, plan, server }: Started) => {
  await exited(server)
  if (!ending && started !== undefined) started.server = startServer(plan, epmd, tail())
}

process.on("SIGTERM", end)
process.on("SIGINT", () => {})
process.on("SIGHUP", () => {})

const input = Readline.createInterface({ input: process.stdin })
input.on("line", (line) => {
  if (started !== undefined) return void startAgain(started)
  try {
    // `privateNode.ts` of the same version has written this. No other module starts this program.
    start(JSON.parse(line) as Plan)
  } catch (error) {
    emit({ type: "exit", output: String(error) })
  }
})
input.once("close", end)
