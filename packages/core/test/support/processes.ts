/** A program of `test/support/programs`, or another one, run to its end in its own process. */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { environment } from "./environment.ts"

export interface Running {
  /** Waits for this line. Fails with the output if the program ends before. */
  readonly prints: (line: string) => Effect.Effect<void>
  /** The lines that the program printed, once it has ended as it should. Otherwise it dies with all the output. */
  readonly output: Effect.Effect<ReadonlyArray<string>>
}

/** Runs Node with these arguments, until the scope closes at the latest. */
export const node = (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>>,
  command = process.execPath
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(command, args, { env: { ...environment(), ...env }, stdio: ["ignore", "pipe", "pipe"] })
        const said = { output: "", errors: "" }
        child.stdout.on("data", (bytes) => void (said.output += String(bytes)))
        child.stderr.on("data", (bytes) => void (said.errors += String(bytes)))
        const closed = new Promise<number | null>((resolve) => child.once("close", resolve))
        return { child, closed, said }
      }),
      ({ child, closed }) =>
        Effect.promise(() => {
          child.kill("SIGKILL")
          return closed
        })
    ),
    ({ child, closed, said }) => {
      const lines = () => said.output.trim().split("\n")
      const failed = (what: string) => Effect.die(new Error(`${args.join(" ")} ${what}: ${said.output}${said.errors}`))
      // A process can take seconds to start on a busy machine.
      const inTime = Effect.timeoutOrElse({ duration: "1 minute", orElse: () => failed("takes too long") })
      return {
        prints: (line) =>
          Effect.callback<void>((resume) => {
            const look = () => {
              if (lines().includes(line)) resume(Effect.void)
            }
            child.stdout.on("data", look)
            void closed.then(() => resume(failed(`ended without ${line}`)))
            look()
          }).pipe(inTime),
        output: Effect.flatMap(
          Effect.promise(() => closed),
          (code) => (code === 0 ? Effect.sync(lines) : failed(`ended with ${code}`))
        ).pipe(inTime)
      }
    }
  )

/** Runs a program of `test/support/programs`. */
export const program = (name: string, args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) =>
  node(["--conditions=@effect-amqp/source", join(import.meta.dirname, "programs", name), ...args], env)
