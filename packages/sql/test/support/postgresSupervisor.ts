/**
 * A separate program: the parent of a private PostgreSQL server, in a session of its own.
 *
 * It runs exactly as long as its standard input is open: when the process that started it closes the layer, exits,
 * crashes or is killed with SIGKILL, the pipe closes, and the server and its folder are removed. Standard input carries
 * the {@link Plan} as one line, and then one {@link Command} per line. Each line is answered by one line: a JSON
 * {@link Answer} on standard output.
 */
import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs"
import * as Path from "node:path"
import * as Readline from "node:readline"
import * as Timers from "node:timers/promises"

export interface Plan {
  /** The folder that the supervisor creates, and removes at the end. */
  readonly directory: string
  /**
   * The folder of an initialized cluster and its password, to copy instead of `initdb`, which takes seconds. It is made
   * if it does not exist.
   */
  readonly template: string
  /** The folder of PostgreSQL's programs. */
  readonly bin: string
  /** The user that runs the server, if not that of this process: PostgreSQL refuses root. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  readonly env: Readonly<Record<string, string>>
  /** The password of the superuser `postgres`, if the template does not exist. */
  readonly password: string
  readonly settings: Readonly<Record<string, string>>
}

export type Command = "start" | "stop" | "kill9" | "pause" | "resume"

export type Answer =
  | { readonly ok: true; readonly postmaster: number; readonly password: string }
  | { readonly ok: false; readonly message: string }

const ready = "database system is ready to accept connections"

// A parent that has died no longer reads.
process.stdout.on("error", () => {})

const isOver = (child: ChildProcess.ChildProcess) =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

const exited = (child: ChildProcess.ChildProcess) =>
  new Promise<void>((resolve) => {
    if (isOver(child)) resolve()
    else child.once("exit", () => resolve())
  })

const collect = (child: ChildProcess.ChildProcess) => {
  const said = { output: "" }
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (chunk: string) => (said.output = (said.output + chunk).slice(-16_384)))
  }
  return said
}

const signal = (pid: number, name: NodeJS.Signals) => {
  try {
    process.kill(pid, name)
  } catch {
    // The process has already ended.
  }
}

/** The state and the parent of a process; `undefined` if it has ended. */
const stat = (pid: number) => {
  try {
    const text = FileSystem.readFileSync(`/proc/${pid}/stat`, "utf8")
    const [state = "", parent] = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return /[ZX]/.test(state) ? undefined : { state, parent: Number(parent) }
  } catch {
    return undefined
  }
}

const hasProc = FileSystem.existsSync("/proc/self/stat")

/** The server processes of a postmaster. They have sessions of their own, so no process group contains them all. */
const childrenOf = (parent: number): ReadonlyArray<number> =>
  hasProc
    ? FileSystem.readdirSync("/proc").flatMap((name) =>
        /^\d+$/.test(name) && stat(Number(name))?.parent === parent ? [Number(name)] : []
      )
    : ChildProcess.spawnSync("pgrep", ["-P", String(parent)], { encoding: "utf8" })
        .stdout.split("\n")
        .flatMap((line) => (line === "" ? [] : [Number(line)]))

const isRunning = (pid: number) => {
  if (hasProc) return stat(pid) !== undefined
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Polls, since no event reports the end of a process that is not a child of this one. */
const allGone = async (pids: ReadonlyArray<number>) => {
  while (pids.some(isRunning)) await Timers.setTimeout(5)
}

/** Stops a process, and waits until it has stopped: until then it runs on, and may start another one. */
const suspend = async (pid: number) => {
  signal(pid, "SIGSTOP")
  // Without /proc nothing says so, and `stat` returns `undefined`.
  while (/[^Tt]/.test(stat(pid)?.state ?? "T")) await Timers.setTimeout(1)
}

const supervise = (plan: Plan) => {
  const data = Path.join(plan.directory, "data")
  let server: ChildProcess.ChildProcess | undefined
  let helper: ChildProcess.ChildProcess | undefined
  let password = plan.password

  const run = async (command: string, args: ReadonlyArray<string>, asOwner: boolean) => {
    helper = ChildProcess.spawn(command, args, {
      cwd: plan.directory,
      env: plan.env,
      stdio: ["ignore", "pipe", "pipe"],
      ...(asOwner && plan.owner)
    })
    const said = collect(helper)
    const child = helper
    child.on("error", (error) => (said.output += error.message))
    await new Promise<void>((resolve) => child.once("close", () => resolve()))
    helper = undefined
    if (child.exitCode !== 0) throw new Error(`${Path.basename(command)} failed: ${said.output.trim()}`)
  }

  /** Another process may make the template at the same time: the first one to rename its own wins. */
  const saveTemplate = async () => {
    const made = `${plan.template}.${Path.basename(plan.directory)}`
    try {
      FileSystem.mkdirSync(made, { recursive: true, mode: 0o700 })
      await run("cp", ["-a", data, Path.join(made, "data")], false)
      FileSystem.writeFileSync(Path.join(made, "password"), password, { mode: 0o600 })
      FileSystem.renameSync(made, plan.template)
    } catch {
      // The next server takes as long as this one.
      FileSystem.rmSync(made, { recursive: true, force: true })
    }
  }

  const initialize = async () => {
    FileSystem.mkdirSync(plan.directory, { mode: 0o700 })
    if (plan.owner !== undefined) FileSystem.chownSync(plan.directory, plan.owner.uid, plan.owner.gid)
    if (FileSystem.existsSync(plan.template)) {
      password = FileSystem.readFileSync(Path.join(plan.template, "password"), "utf8")
      // With the owner and the modes of the template.
      return run("cp", ["-a", Path.join(plan.template, "data"), data], false)
    }
    const file = Path.join(plan.directory, "password")
    FileSystem.writeFileSync(file, `${password}\n`, { mode: 0o600 })
    if (plan.owner !== undefined) FileSystem.chownSync(file, plan.owner.uid, plan.owner.gid)
    await run(
      Path.join(plan.bin, "initdb"),
      [
        `--pgdata=${data}`,
        "--username=postgres",
        `--pwfile=${file}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
        "--wal-segsize=1"
      ],
      true
    )
    FileSystem.rmSync(file)
    await saveTemplate()
  }

  const start = async () => {
    if (server !== undefined && !isOver(server)) return
    const child = ChildProcess.spawn(
      Path.join(plan.bin, "postgres"),
      ["-D", data, ...Object.entries(plan.settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
      { cwd: plan.directory, env: plan.env, stdio: ["ignore", "ignore", "pipe"], ...plan.owner }
    )
    server = child
    const said = collect(child)
    child.on("error", (error) => (said.output += error.message))
    await new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!said.output.includes(ready)) return
        child.stderr.removeListener("data", look)
        resolve()
      }
      child.stderr.on("data", look)
      child.once("close", () => reject(new Error(said.output.trim())))
    })
  }

  const running = () => {
    if (server?.pid === undefined || isOver(server)) throw new Error("the server does not run")
    return { child: server, postmaster: server.pid }
  }

  const resume = () => {
    const { postmaster } = running()
    for (const pid of [...childrenOf(postmaster), postmaster]) signal(pid, "SIGCONT")
  }

  const pause = async () => {
    const { postmaster } = running()
    // The postmaster first: it then starts no process that the list lacks.
    await suspend(postmaster)
    await Promise.all(childrenOf(postmaster).map(suspend))
  }

  const kill9 = async () => {
    const { child, postmaster } = running()
    await suspend(postmaster)
    const children = childrenOf(postmaster)
    for (const pid of [...children, postmaster]) signal(pid, "SIGKILL")
    await exited(child)
    // The server refuses to start again while a process of the old one holds its shared memory.
    await allGone(children)
  }

  const stop = async () => {
    const { child, postmaster } = running()
    resume()
    signal(postmaster, "SIGINT")
    await exited(child)
  }

  /** A server that was killed leaves a segment of System V shared memory, which only its next start removes. */
  const removeSharedMemory = () => {
    try {
      const [, id] = /^ *\d+ +(\d+)$/m.exec(FileSystem.readFileSync(Path.join(data, "postmaster.pid"), "utf8")) ?? []
      if (id !== undefined) ChildProcess.spawnSync("ipcrm", ["-m", id], { stdio: "ignore" })
    } catch {
      // The server has ended in order.
    }
  }

  /** Ends everything; `busy` is the command in progress, which then ends too. */
  const end = async (busy: Promise<void>) => {
    helper?.kill("SIGKILL")
    if (server?.pid !== undefined && !isOver(server)) {
      resume()
      // An immediate shutdown: the data is worthless, but shared memory has to be removed.
      signal(server.pid, "SIGQUIT")
      const orderly = exited(server).then(() => true)
      if (!(await Promise.race([orderly, Timers.setTimeout(7_000, false)]))) await kill9()
    }
    await Promise.race([busy, Timers.setTimeout(2_000)])
    removeSharedMemory()
    FileSystem.rmSync(plan.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }

  const commands: Readonly<Record<Command | "initialize", () => void | Promise<void>>> = {
    initialize,
    start,
    stop,
    kill9,
    pause,
    resume
  }

  return {
    end,
    run: async (command: Command | "initialize"): Promise<Answer> => {
      try {
        await commands[command]()
        return { ok: true, postmaster: server?.pid ?? 0, password }
      } catch (error) {
        return { ok: false, message: error instanceof Error ? error.message : String(error) }
      }
    }
  }
}

let supervised: ReturnType<typeof supervise> | undefined
let ending = false
let last: Promise<void> = Promise.resolve()

const answer = async (line: string): Promise<Answer> => {
  // `postgresServer.ts` has written both. No other module starts this program.
  if (supervised !== undefined) return supervised.run(line as Command)
  supervised = supervise(JSON.parse(line) as Plan)
  return supervised.run("initialize")
}

const end = async () => {
  if (ending) return
  ending = true
  await supervised?.end(last)
  process.exit(0)
}

process.on("SIGTERM", end)
process.on("SIGINT", () => {})
process.on("SIGHUP", () => {})

const input = Readline.createInterface({ input: process.stdin })
input.on("line", (line) => {
  last = last.then(async () => {
    if (ending) return
    const result = await answer(line)
    if (!ending) process.stdout.write(`${JSON.stringify(result)}\n`)
  })
})
input.once("close", end)
