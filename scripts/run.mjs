import { spawn } from "node:child_process"
import { constants } from "node:os"
import { environment, node, root } from "./dependencies.mjs"

const tether = new URL("./tether.mjs", import.meta.url).href

/**
 * Runs a program with the installed Node, and ends with its exit code.
 *
 * A Ctrl-C reaches every process of the terminal's group, and npm passes the signals that it gets on to its script, so an
 * ordinary child would get one Ctrl-C up to three times. This child has its own group, and gets each signal from this
 * process, once. In return, the tether has to notify it when this process is killed without a signal handler.
 */
export const run = (args) => {
  console.error(`> node ${args.join(" ")}`)
  const child = spawn(node, ["--import", tether, ...args], {
    cwd: root,
    env: environment(),
    detached: true,
    stdio: ["ignore", "inherit", "inherit", "pipe"]
  })
  child.stdio[3].on("error", () => {})
  let passedOn = 0
  const passOn = (signal) => {
    const now = Date.now()
    // The same Ctrl-C may arrive in more than one way. A second Ctrl-C, of an impatient user, comes later.
    if (now - passedOn < 500) return
    passedOn = now
    child.kill(signal)
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, passOn)
  // When npm gets a signal, it sends the signal to the shell between npm and this process. The shell dies without
  // passing it on.
  const parent = process.ppid
  if (process.env.npm_lifecycle_event !== undefined) {
    setInterval(() => process.ppid !== parent && passOn("SIGTERM"), 500).unref()
  }
  child.on("error", (error) => {
    console.error(`${node} could not be started: ${error.message}`)
    process.exit(1)
  })
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)))
}
