/** A program in a process of its own, which the test reads line by line and can kill. */
import { Effect, Queue, type Scope } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { environment } from "../../../core/test/support/environment.ts"

export interface Program {
  /** The next line that the program prints. It dies if the program ends before, or prints none for a minute. */
  readonly line: Effect.Effect<string>
  /** Kills the program with SIGKILL, and waits for its end. */
  readonly kill9: Effect.Effect<void>
  /** Waits for the program's own end, and returns its exit code. */
  readonly exitCode: Effect.Effect<number | null>
}

/** Runs the source of a module, with this package as its folder. The program is killed when the scope closes. */
export const program = Effect.fnUntraced(function* (
  source: string,
  env: Readonly<Record<string, string>> = {}
): Effect.fn.Return<Program, never, Scope.Scope> {
  const lines = yield* Queue.unbounded<string>()
  const started = Effect.sync(() => {
    const child = spawn(
      process.execPath,
      ["--conditions=@effect-amqp/source", "--no-warnings", "--input-type=module", "--eval", source],
      {
        cwd: join(import.meta.dirname, "../.."),
        env: { ...environment(), ...env },
        stdio: ["ignore", "pipe", "inherit"]
      }
    )
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
    createInterface({ input: child.stdout })
      .on("line", (line) => Queue.offerUnsafe(lines, line))
      .on("close", () => Queue.offerUnsafe(lines, "ended"))
    return { child, ended }
  })
  const { child, ended } = yield* Effect.acquireRelease(started, ({ child, ended }) =>
    Effect.promise(() => {
      child.kill("SIGKILL")
      return ended
    })
  )
  return {
    line: Queue.take(lines).pipe(
      Effect.timeoutOrElse({
        duration: "1 minute",
        orElse: () => Effect.die(new Error("the program has printed nothing for a minute"))
      }),
      Effect.filterOrElse(
        (line) => line !== "ended",
        () => Effect.die(new Error("the program has ended"))
      )
    ),
    kill9: Effect.promise(async () => {
      child.kill("SIGKILL")
      await ended
    }),
    exitCode: Effect.promise(() => ended)
  }
})
