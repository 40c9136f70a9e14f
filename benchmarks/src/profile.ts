/** CPU profiles of contenders (`--profile`), and the self time of each function in them. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { Session } from "node:inspector/promises"
import { root } from "./environment.ts"

interface CpuProfile {
  readonly nodes: ReadonlyArray<{
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
  }>
  readonly samples: ReadonlyArray<number>
  readonly timeDeltas: ReadonlyArray<number>
}

export const directory = `${root}benchmarks/profiles`

export const isWanted = process.argv.includes("--profile")

/**
 * Profiles until the returned function is called. What a contender does before, such as loading its modules, is not
 * included.
 */
export const begin = async (file: string) => {
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.start")
  return async () => {
    const { profile } = await session.post("Profiler.stop")
    mkdirSync(directory, { recursive: true })
    writeFileSync(`${directory}/${file}`, JSON.stringify(profile))
  }
}

export const fileName = (name: string) => `${name.replaceAll(/[^\w.-]+/g, "-")}.cpuprofile`

const short = (url: string) =>
  url
    .replace(/^file:\/\//, "")
    .replace(root, "")
    .replace(/^.*node_modules\//, "")

/** The functions with the most self time, without idle time, and their share of it. */
export const top = (name: string, count: number): ReadonlyArray<readonly [share: number, where: string]> => {
  const profile = JSON.parse(readFileSync(`${directory}/${fileName(name)}`, "utf8")) as CpuProfile
  const nodes = new Map(profile.nodes.map((node) => [node.id, node.callFrame]))
  const times = new Map<string, number>()
  let total = 0
  profile.samples.forEach((id, i) => {
    const { functionName, lineNumber, url } = nodes.get(id)!
    if (functionName === "(idle)") return
    const time = profile.timeDeltas[i]!
    const where = `${functionName || "(anonymous)"}${url === "" ? "" : ` ${short(url)}:${lineNumber + 1}`}`
    times.set(where, (times.get(where) ?? 0) + time)
    total += time
  })
  return Array.from(times, ([where, time]) => [time / total, where] as const)
    .sort(([a], [b]) => b - a)
    .slice(0, count)
}
