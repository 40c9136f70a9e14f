import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ChildProcess from "node:child_process"

/**
 * The result of a finished command. `code` is `undefined` if the command could not be started or was ended by a signal.
 */
export interface Outcome {
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
}

/** Options of a command. */
export interface Options {
  readonly env?: NodeJS.ProcessEnv | undefined
  readonly cwd?: string | undefined
  /**
   * The time after which the command is killed, which `stderr` then reports. Real time, independent of the test's
   * clock. Default: 60 seconds.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Runs a command to its end. It never fails; it kills the command when it is interrupted or when the timeout has
 * passed.
 */
export const run = (command: string, args: ReadonlyArray<string>, options?: Options): Effect.Effect<Outcome> =>
  Effect.callback((resume) => {
    let stdout = ""
    let stderr = ""
    const child = ChildProcess.spawn(command, args, {
      ...(options?.env === undefined ? {} : { env: options.env }),
      ...(options?.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: ["ignore", "pipe", "pipe"],
      // The command has a process group of its own: `rabbitmqctl` is a script, and the processes that it starts would
      // outlive it.
      detached: true
    })
    const kill = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
      } catch {
        // The process has already ended.
      }
      // A process that has left the group may keep these pipes open, and keep this process alive.
      child.stdout.destroy()
      child.stderr.destroy()
    }
    const end = (code: number | undefined, remark = "") => {
      clearTimeout(deadline)
      resume(Effect.succeed({ code, stdout, stderr: stderr + remark }))
    }
    const timeout = Duration.fromInputUnsafe(options?.timeout ?? "60 seconds")
    const deadline = setTimeout(() => {
      kill()
      end(undefined, `killed, because it had not ended after ${Duration.format(timeout)}`)
    }, Duration.toMillis(timeout))
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("error", (error) => end(undefined, error.message))
    child.on("close", (code) => end(code ?? undefined))
    return Effect.sync(() => {
      clearTimeout(deadline)
      kill()
    })
  })
