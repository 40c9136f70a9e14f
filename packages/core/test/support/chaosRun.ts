/** A chaos run as its users start it: a separate process, to its end. */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { environment } from "./environment.ts"

export interface ChaosRun {
  readonly code: number | null
  /** Everything that it has printed. */
  readonly output: string
  readonly lastLine: string
}

/** Runs a chaos program to its end. An interruption waits until the run has ended its broker and its programs. */
export const chaosRun = (program: string, ...options: ReadonlyArray<string>): Effect.Effect<ChaosRun> =>
  Effect.callback<ChaosRun>((resume) => {
    const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", program, ...options], {
      env: environment(),
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => void (output += String(bytes)))
    child.once("close", (code) =>
      resume(Effect.succeed({ code, output, lastLine: output.trim().split("\n").at(-1) ?? "" }))
    )
    return Effect.callback<void>((ended) => {
      child.once("close", () => ended(Effect.void))
      child.kill("SIGTERM")
    })
  })
