/**
 * A contender, in a process of its own: `contest.ts` starts it and tells it what to do, one command at a time. What it
 * says of a run is this process's time and CPU alone, user and system, of all its threads.
 */
import { readFileSync } from "node:fs"
import * as Profile from "./profile.ts"
import { load } from "./peers/index.ts"
import { Latencies, type Prepared, type Settle } from "./peers/peer.ts"
import type { Command } from "./process.ts"

export interface Weight {
  readonly heapUsed: number
  /** Resident memory. */
  readonly rss: number
}

/** Of one run. */
export interface Ran {
  /** Seconds. */
  readonly elapsed: number
  /** Microseconds of CPU. */
  readonly cpu: number
  readonly latency?: { readonly p50: number; readonly p99: number } | undefined
  /** Bytes, each after a collection; if it was to be weighed. */
  readonly before?: Weight | undefined
  readonly after?: Weight | undefined
}

export interface Closed {
  /** The most bytes of resident memory that the process ever had. */
  readonly peak: number
}

let prepared: Prepared | undefined

let settle: Settle | undefined

let endProfile: (() => Promise<void>) | undefined

const latencies = new Latencies()

const weigh = (): Weight => {
  for (let i = 0; i < 3; i++) globalThis.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  return { heapUsed, rss }
}

/** Linux's `ru_maxrss` begins with that of the process that forked it, which `VmHWM` does not. */
const peak = () => {
  try {
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024
  } catch {
    return process.resourceUsage().maxRSS * 1024
  }
}

const obey = async (command: Command): Promise<Ran | Closed | undefined> => {
  switch (command._tag) {
    case "Prepare": {
      if (command.name === "Pika") throw new Error("that is a program of Python's")
      const prepare = (await load(command.name))[command.kind]
      if (prepare === undefined) throw new Error(`${command.name} does not do ${command.kind}`)
      prepared = await prepare(command.setting)
      if (command.profile !== undefined) endProfile = await Profile.begin(command.profile)
      return undefined
    }
    case "Run": {
      const before = command.weigh ? weigh() : undefined
      // No collection is forced: after one V8 makes the young generation small, and whoever has many in flight pays for that,
      // which no service does. What a run leaves behind is its own contender's to pay.
      const cpu = process.cpuUsage()
      const start = performance.now()
      settle = (await prepared!.run(command.messages, latencies)) ?? undefined
      const elapsed = (performance.now() - start) / 1000
      const { system, user } = process.cpuUsage(cpu)
      const after = before && weigh()
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
  obey(command).then(
    (value) => process.send!({ value }),
    (error: unknown) =>
      process.send!({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  )
})
process.on("disconnect", () => process.exit())
process.send!({ value: "ready" })
