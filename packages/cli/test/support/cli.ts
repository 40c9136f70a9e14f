/** The command, built as it is published, in processes of its own: with pipes, or in a pseudo terminal. */
import { Context, Deferred, Effect, Layer, type Scope } from "effect"
import { build, type BuildOptions } from "esbuild"
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { environment } from "../../../core/test/support/environment.ts"

const root = join(import.meta.dirname, "..", "..", "..", "..")

/** The path of the built command. */
export class Built extends Context.Service<Built, string>()("test/Built") {}

/** Builds the command into a folder of the repository, where it finds amqplib, until the scope closes. */
const building: Effect.Effect<string, never, Scope.Scope> = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(join(root, ".pack"), { recursive: true })
      return mkdtempSync(join(root, ".pack", "cli-"))
    }),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )
  const source = join(root, "packages", "cli")
  cpSync(join(source, "package.json"), join(folder, "package.json"))
  const { options } = yield* Effect.promise(
    (): Promise<{ readonly options: (folder: string) => BuildOptions }> =>
      import(join(root, "scripts", "cliBundle.mjs"))
  )
  yield* Effect.promise(() => build({ ...options(source), outdir: join(folder, "dist") }))
  return join(folder, "dist", "main.js")
})

export const layer = Layer.effect(Built, building)

/** A temporary folder, removed when the scope closes. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-cli-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

/** Writes a file, and returns its path. */
export const file = (name: string, content: string) =>
  Effect.map(folder, (folder) => {
    const path = join(folder, name)
    writeFileSync(path, content)
    return path
  })

export interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export interface Settings {
  readonly env?: Readonly<Record<string, string>> | undefined
  readonly cwd?: string | undefined
  /** What its standard input has. It then ends, unless `open`. Default: none. */
  readonly input?: string | undefined
  readonly open?: boolean | undefined
}

export interface Running {
  /** Waits until its output has this text, or dies with all of it if the command ends before. */
  readonly shows: (text: string) => Effect.Effect<void>
  /** Its output and errors so far. */
  readonly shown: () => string
  readonly type: (text: string) => Effect.Effect<void>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

const start = (command: string, args: ReadonlyArray<string>, { cwd, env, input, open }: Settings) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      // Without the colors of whatever runs the tests.
      const { FORCE_COLOR: _, NO_COLOR: __, ...inherited } = environment()
      const child = spawn(command, args, {
        cwd,
        env: { ...inherited, ...env },
        stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"]
      })
      const said = { out: "", err: "" }
      const listeners = new Set<() => void>()
      for (const name of ["out", "err"] as const) {
        child[name === "out" ? "stdout" : "stderr"]!.on("data", (bytes: Buffer) => {
          said[name] += bytes.toString()
          for (const listener of listeners) listener()
        })
      }
      const ended = Deferred.makeUnsafe<Ended>()
      child.once("close", (code) => {
        Deferred.doneUnsafe(ended, Effect.succeed({ code, ...said }))
        for (const listener of listeners) listener()
      })
      // A command that ends without reading its input.
      child.stdin?.on("error", () => {})
      if (input !== undefined && open !== true) child.stdin!.end(input)
      return { child, ended, listeners, said }
    }),
    ({ child, ended }) =>
      Effect.andThen(
        Effect.sync(() => void child.kill("SIGKILL")),
        Deferred.await(ended)
      )
  ).pipe(
    Effect.map(({ child, ended, listeners, said }): Running => {
      const shown = () => said.out + said.err
      return {
        shown,
        shows: (text) =>
          Effect.callback<void>((resume) => {
            const look = () => {
              if (shown().includes(text)) resume(Effect.void)
              else if (Deferred.isDoneUnsafe(ended)) resume(Effect.die(new Error(`ended without ${text}: ${shown()}`)))
            }
            listeners.add(look)
            look()
            return Effect.sync(() => void listeners.delete(look))
          }).pipe(
            Effect.timeoutOrElse({
              duration: "1 minute",
              orElse: () => Effect.die(new Error(`does not show ${text}: ${shown()}`))
            })
          ),
        type: (text) => Effect.sync(() => void child.stdin!.write(text)),
        kill: (signal) => Effect.sync(() => void child.kill(signal)),
        ended: Deferred.await(ended).pipe(
          Effect.timeoutOrElse({ duration: "1 minute", orElse: () => Effect.die(new Error(`runs on: ${shown()}`)) })
        )
      }
    })
  )

/** Starts the command with pipes. */
export const running = (args: ReadonlyArray<string>, settings: Settings = {}) =>
  Effect.flatMap(Built, (main) => start(process.execPath, [main, ...args], settings))

/** Runs the command to its end. */
export const run = (args: ReadonlyArray<string>, settings: Settings = {}) =>
  Effect.scoped(Effect.flatMap(running(args, settings), ({ ended }) => ended))

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`

/**
 * Starts the command in a pseudo terminal of so many columns, by `script` of util-linux. What is typed goes to the
 * terminal, which turns Ctrl-C into SIGINT unless a prompt reads keys; `ended` has the command's exit code.
 */
export const inTerminal = (
  args: ReadonlyArray<string>,
  { columns = 80, ...settings }: Settings & { readonly columns?: number } = {}
) =>
  Effect.flatMap(Built, (main) => {
    const command = `stty cols ${columns} rows 24; exec ${[process.execPath, main, ...args].map(quoted).join(" ")}`
    return start("script", ["--quiet", "--flush", "--return", "--command", command, "/dev/null"], {
      ...settings,
      env: { TERM: "xterm", SHELL: "/bin/sh", ...settings.env },
      input: "",
      open: true
    })
  })

/** Runs a line of bash to its end. */
export const shell = (line: string, settings: Settings = {}) =>
  Effect.scoped(Effect.flatMap(start("bash", ["-c", line], settings), ({ ended }) => ended))
