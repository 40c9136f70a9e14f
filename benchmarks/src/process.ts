/** A contender's process, and the communication with it: over Node's channel, or in lines of JSON. */
import { type ChildProcess, fork, spawn, spawnSync } from "node:child_process"
import { EventEmitter, once } from "node:events"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { Name } from "./peers/index.ts"
import type { Kind, Setting } from "./peers/peer.ts"

export interface ProcessChannel {
  /** `message`, with its content; `exit`, with the exit code or signal. */
  readonly events: EventEmitter
  readonly send: (command: Command) => void
  /** Completes when the process has ended. */
  readonly end: () => Promise<unknown>
}

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))

const ended = async (child: ChildProcess) => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000)
  await once(child, "exit")
  clearTimeout(timer)
}

/** @param from the root of another checkout, whose contender it is to be */
export const node = (from?: string): ProcessChannel => {
  const contender = from === undefined ? file("./contender.ts") : join(resolve(from), "benchmarks/src/contender.ts")
  const child = fork(contender, {
    execArgv: [...process.execArgv, "--expose-gc"],
    serialization: "advanced",
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  return {
    events: child,
    send: (command) => void child.send(command),
    end: () => {
      if (child.connected) child.disconnect()
      return ended(child)
    }
  }
}

export const python = (command: string, program: string): ProcessChannel => {
  const child = spawn(command, [file(program)], { stdio: ["pipe", "pipe", "inherit"] })
  const events = new EventEmitter()
  createInterface(child.stdout).on("line", (line) => events.emit("message", JSON.parse(line)))
  child.on("exit", (code, signal) => events.emit("exit", code, signal))
  return {
    events,
    send: (command) => void child.stdin.write(`${JSON.stringify(command)}\n`),
    end: () => {
      child.stdin.end()
      return ended(child)
    }
  }
}

// Debian's Python comes first: another one does not find the packages that Debian has installed.
const pythons = ["/usr/bin/python3", "python3"]

/** A Python that has Pika, and the version of Pika. Undefined if there is none. */
export const pika = pythons
  .map((command) => {
    const { status, stdout } = spawnSync(command, ["-c", "import pika; print(pika.__version__)"], { encoding: "utf8" })
    return { command, version: status === 0 ? stdout.trim() : undefined }
  })
  .find(({ version }) => version !== undefined)

export type Command =
  | {
      readonly _tag: "Prepare"
      readonly name: Name | "Pika"
      readonly kind: Kind
      readonly setting: Setting
      /** The file of the CPU profile, if there is to be one. */
      readonly profile?: string | undefined
    }
  | { readonly _tag: "Run"; readonly messages: number; readonly weigh: boolean }
  | { readonly _tag: "Settle" }
  | { readonly _tag: "Close" }
