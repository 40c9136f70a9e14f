/** The process of a supervisor: a program that starts a server, and ends it when its input ends. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ChildProcess from "node:child_process"
import * as Net from "node:net"
import * as Readline from "node:readline"
import { live } from "./liveClock.ts"

export type SupervisorProcess = ReturnType<typeof spawn>

/** Runs a program of Node.js, which is read line by line. Its pipes keep this process alive: see `setKeepsAlive`. */
export const spawn = (file: string) => {
  const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env
  const child = ChildProcess.spawn(process.execPath, [file], {
    cwd: "/",
    env,
    detached: true,
    stdio: ["pipe", "pipe", "ignore"]
  })
  // Errors are handled where they matter. Without these listeners they would end this process.
  child.on("error", () => {})
  child.stdin.on("error", () => {})
  return Object.assign(child, { lines: Readline.createInterface({ input: child.stdout }) })
}

export const isOver = (child: SupervisorProcess): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

/** Sets whether the child and its pipes keep this process alive. */
export const setKeepsAlive = (child: SupervisorProcess, yes: boolean): void => {
  const method = yes ? "ref" : "unref"
  child[method]()
  for (const stream of [child.stdin, child.stdout]) {
    if (stream instanceof Net.Socket) stream[method]()
  }
}

/** Ends its input, and waits for its end. Kills it when the time is up. */
export const stop = (child: SupervisorProcess, within: Duration.Input): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (isOver(child)) return resume(Effect.void)
    setKeepsAlive(child, true)
    child.once("exit", () => resume(Effect.void))
    child.stdin.end()
  }).pipe(
    Effect.timeoutOrElse({ duration: within, orElse: () => Effect.sync(() => child.kill("SIGKILL")) }),
    Effect.asVoid,
    live
  )
