import * as Effect from "effect/Effect"
import * as ChildProcess from "node:child_process"

/** What a finished command left behind. `code` is `undefined` if it could not be started or died of a signal. */
export interface Outcome {
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command to its end; never fails, ends it when interrupted. */
export const run = (
  command: string,
  args: ReadonlyArray<string>,
  options?: { readonly env?: NodeJS.ProcessEnv | undefined; readonly cwd?: string | undefined }
): Effect.Effect<Outcome> =>
  Effect.callback((resume) => {
    let stdout = ""
    let stderr = ""
    const child = ChildProcess.spawn(command, args, {
      ...(options?.env === undefined ? {} : { env: options.env }),
      ...(options?.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: ["ignore", "pipe", "pipe"]
    })
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("error", (error) => resume(Effect.succeed({ code: undefined, stdout, stderr: stderr + error.message })))
    child.on("close", (code) => resume(Effect.succeed({ code: code ?? undefined, stdout, stderr })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })
