/**
 * A contender, in a separate process. `contest.ts` starts it and sends it one command at a time. The results of a run
 * are this process's time and CPU only: user and system, of all its threads.
 */
import { readFileSync } from "node:fs"
import * as Profile from "./profile.ts"
import { load } from "./peers/index.ts"
import { Latencies, type Prepared, type Settle } from "./peers/peer.ts"
import type { Command } from "./process.ts"

export interface ResourceUsage {
  readonly heapUsed: number
  /** Resident memory. */
  readonly rss: number
}

/** The result of one run. */
export interface RunResult {
  /** Seconds. */
  readonly elapsed: number
  /** Microseconds of CPU. */
  readonly cpu: number
  readonly latency?: { readonly p50: number; readonly p99: number } | undefined
  /** In bytes, each after a garbage collection, if memory was to be measured. */
  readonly before?: ResourceUsage | undefined
  readonly after?: ResourceUsage | undefined
}

export interface Closed {
  /** Peak resident memory of the process, in bytes. */
  readonly peak: number
}

let prepared: Prepared | undefined

let settle: Settle | undefined

let endProfile: (() => Promise<void>) | undefined

const latencies = new Latencies()

const measureUsage = (): ResourceUsage => {
  for (let i = 0; i < 3; i++) globalThis.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  return { heapUsed, rss }
}

/** Linux's `ru_maxrss` starts with the value of the process that forked it. `VmHWM` does not. */
const peak = () => {
  try {
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024
  } catch {
    return process.resourceUsage().maxRSS * 1024
  }
}

const execute = async (command: Command): Promise<RunResult | Closed | undefined> => {
  switch (command._tag) {
    case "Prepare": {
      if (command.name === "Pika") throw new Error("Pika is a Python program, and cannot be loaded here")
      const prepare = (await load(command.name))[command.kind]
      if (prepare === undefined) throw new Error(`${command.name} does not support ${command.kind}`)
      prepared = await prepare(command.setting)
      if (command.profile !== undefined) endProfile = await Profile.begin(command.profile)
      return undefined
    }
    case "Run": {
      const before = command.weigh ? measureUsage() : undefined
      // No collection is forced: after one, V8 makes the young generation small, and a contender with many messages in
      // flight pays for that, which no service does. What a run leaves behind costs the contender that left it.
      const cpu = process.cpuUsage()
      const start = performance.now()
      settle = (await prepared!.run(command.messages, latencies)) ?? undefined
      const elapsed = (performance.now() - start) / 1000
      const { system, user } = process.cpuUsage(cpu)
      const after = before && measureUsage()
      return {
        elapsed,
        cpu: system + user,
        latency: latencies.take(),
        before,
        after
      }
    }
    case "Settle": {
      await settle?.()
      return undefined
    }
    case "Close": {
      await endProfile?.()
      await prepared?.close()
      return { peak: peak() }
    }
  }
}

process.on("message", (command: Command) => {
  execute(command).then(
    (value) => process.send!({ value }),
    (error: unknown) =>
      process.send!({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  )
})
process.on("disconnect", () => process.exit())
process.send!({ value: "ready" })
