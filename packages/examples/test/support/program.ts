/** An example as its users run it: a process of its own, with its output and its end. */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Program {
  /** All that it has printed, on both outputs. */
  readonly output: () => string
  /** Waits until the output matches. Fails with the output if the program ends before. */
  readonly until: (pattern: RegExp) => Effect.Effect<RegExpExecArray, Error>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Waits for its end. */
  readonly ended: Effect.Effect<Exit>
}

const sources = join(import.meta.dirname, "..", "..", "src")

/** What would lead the program to another broker or port, or is the test runner's own. */
const foreign = /^(?:AMQP_|PORT$|NODE_|VITEST|EFFECT_AMQP_)/

/** Runs `src/<file>` until the scope closes at the latest. */
export const run = (
  file: string,
  env: Record<string, string>,
  args: ReadonlyArray<string> = []
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function* () {
    const inherited = Object.entries(process.env).filter(([name]) => !foreign.test(name))
    const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", join(sources, file), ...args], {
      env: { ...Object.fromEntries(inherited), ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    const onOutput = (chunk: Buffer) => {
      output += chunk.toString()
    }
    child.stdout.on("data", onOutput)
    child.stderr.on("data", onOutput)
    // All output has come by then, which "exit" does not promise.
    const closed = new Promise<Exit>((resolve) => child.once("close", (code, signal) => resolve({ code, signal })))
    const program: Program = {
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
      kill: (signal) => Effect.sync(() => void child.kill(signal)),
      ended: Effect.promise(() => closed)
    }
    yield* Effect.addFinalizer(() => Effect.andThen(program.kill("SIGTERM"), program.ended))
    return program
  })
