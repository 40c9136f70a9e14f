/** An example as its users run it: a separate process, with its output and its end. */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { resolve } from "node:path"

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Program {
  readonly pid: number | undefined
  /** Everything that it has printed, on both outputs. */
  readonly output: () => string
  /** Waits until the output matches. Fails with the output if the program ends first. */
  readonly until: (pattern: RegExp) => Effect.Effect<RegExpExecArray, Error>
  /** Sends a text to its input, as a terminal does. */
  readonly type: (text: string) => Effect.Effect<void>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Waits for the end of the program. */
  readonly ended: Effect.Effect<Exit>
}

const sources = resolve(import.meta.dirname, "..", "..", "src")

/** Variables that would lead the program to another broker or port, or that belong to the test runner. */
const foreign = /^(?:AMQP_|PORT$|NODE_|VITEST|EFFECT_AMQP_)/

/** Runs `src/<file>`, or the file at an absolute path, as this user or another one, until the scope closes at the latest. */
export const run = (
  file: string,
  env: Record<string, string>,
  args: ReadonlyArray<string> = [],
  user: { readonly uid?: number; readonly gid?: number } = {}
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function* () {
    const inherited = Object.entries(process.env).filter(([name]) => !foreign.test(name))
    const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", resolve(sources, file), ...args], {
      ...user,
      env: { ...Object.fromEntries(inherited), ...env },
      stdio: ["pipe", "pipe", "pipe"]
    })
    let output = ""
    const onOutput = (chunk: Buffer) => {
      output += chunk.toString()
    }
    child.stdout.on("data", onOutput)
    child.stderr.on("data", onOutput)
    // All output has arrived by then, which "exit" does not guarantee.
    const closed = new Promise<Exit>((resolve) => child.once("close", (code, signal) => resolve({ code, signal })))
    const program: Program = {
      pid: child.pid,
      output: () => output,
      until: (pattern) =>
        Effect.callback((resume) => {
          const look = () => {
            const match = pattern.exec(output)
            if (match !== null) resume(Effect.succeed(match))
          }
          child.stdout.on("data", look)
          child.stderr.on("data", look)
          void closed.then(() => resume(Effect.fail(new Error(`${file} ended without ${String(pattern)}:\n${output}`))))
          look()
          return Effect.sync(() => {
            child.stdout.off("data", look)
            child.stderr.off("data", look)
          })
        }),
      type: (text) => Effect.sync(() => void child.stdin.write(text)),
      kill: (signal) => Effect.sync(() => void child.kill(signal)),
      ended: Effect.promise(() => closed)
    }
    yield* Effect.addFinalizer(() => Effect.andThen(program.kill("SIGTERM"), program.ended))
    return program
  })
