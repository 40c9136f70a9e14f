/**
 * What can be measured once per process: the time from the start of Node.js to the first confirm, the time to import a
 * package, the cost of an open, idle channel, and the size of a program. The contenders take turns here, too.
 */
import { build, buildSync } from "esbuild"
import { execFile } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { gzipSync } from "node:zlib"
import type { Broker } from "./broker.ts"
import { Contender, type Effort } from "./contest.ts"
import type { RunResult } from "./contender.ts"
import type { Name } from "./peers/index.ts"
import * as Progress from "./progress.ts"
import { type Figure, figure } from "./statistics.ts"

/** A separate table: a row for each contender, a figure for each column. */
export interface Table {
  readonly id: string
  readonly title: string
  readonly columns: ReadonlyArray<string>
  readonly rows: ReadonlyArray<{ readonly name: string; readonly figures: ReadonlyArray<Figure> }>
}

export interface Fresh {
  readonly id: string
  readonly groups?: ReadonlyArray<string>
  readonly quick: boolean
  readonly measure: (effort: Effort, broker: Broker) => Promise<Table>
}

interface Peer {
  readonly name: Name
  /** A file in `hello`. */
  readonly program: string
  readonly specifier: string
}

const peers: ReadonlyArray<Peer> = [
  { name: "amqplib", program: "amqplib.mjs", specifier: "amqplib" },
  { name: "effect-amqp", program: "effect-amqp.mjs", specifier: "@effect-amqp/core" },
  { name: "rabbitmq-client", program: "rabbitmq-client.mjs", specifier: "rabbitmq-client" },
  { name: "@cloudamqp/amqp-client", program: "cloudamqp.mjs", specifier: "@cloudamqp/amqp-client" },
  { name: "amqp-connection-manager", program: "amqp-connection-manager.mjs", specifier: "amqp-connection-manager" },
  { name: "rascal", program: "rascal.mjs", specifier: "rascal" }
]

const exec = promisify(execFile)

const here = fileURLToPath(new URL(".", import.meta.url))

const node = async (args: ReadonlyArray<string>, cwd = here) => {
  const { stdout } = await exec(process.execPath, [...process.execArgv, ...args], { cwd, timeout: 60_000 })
  return JSON.parse(stdout.trim().split("\n").at(-1)!) as Record<string, number>
}

/** Takes `rounds` samples of each after one that is discarded, in turns. */
const inTurns = async <A extends { readonly name: string }>(
  id: string,
  all: ReadonlyArray<A>,
  rounds: number,
  sample: (one: A) => Promise<ReadonlyArray<number>>
) => {
  const samples = new Map<string, Array<ReadonlyArray<number>>>(all.map(({ name }) => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < all.length; turn++) {
      const one = all[(turn + round) % all.length]!
      Progress.show(`${id}: round ${round} of ${rounds}, ${one.name}`)
      const values = await sample(one)
      if (round > 0) samples.get(one.name)!.push(values)
    }
  }
  return Array.from(samples, ([name, values]) => ({
    name,
    figures: values[0]!.map((_, column) => figure(values.map((row) => row[column]!)))
  }))
}

const startup: Fresh = {
  id: "startup",
  quick: true,
  measure: async ({ rounds }, broker) => {
    const queue = "startup"
    await broker.declare(queue)
    const rows = await inTurns("startup", peers, rounds, async ({ name, program }) => {
      const { cpu, milliseconds } = await node([`hello/${program}`, broker.url, queue])
      if ((await broker.count(queue)) !== 1) throw new Error(`${name}: expected one published message, got none`)
      await broker.purge(queue)
      return [milliseconds!, cpu!]
    })
    await broker.remove(queue)
    return {
      id: "startup",
      title: "From the start of Node.js to the first confirmed publish, one small program per library",
      columns: ["ms", "CPU ms"],
      rows
    }
  }
}

const imported = async (specifier: string, cwd = here, before = "") => {
  const source = `
    ${before}
    const rss = process.memoryUsage.rss(), cpu = process.cpuUsage(), start = performance.now()
    await import("${specifier}")
    const milliseconds = performance.now() - start, { user, system } = process.cpuUsage(cpu)
    console.log(JSON.stringify({ milliseconds, cpu: (user + system) / 1000, rss: process.memoryUsage.rss() - rss }))`
  const { cpu, milliseconds, rss } = await node(["--input-type=module", "--eval", source], cwd)
  return [milliseconds!, cpu!, rss! / 1_048_576]
}

const importing: Fresh = {
  id: "import",
  quick: false,
  measure: async ({ rounds }) => ({
    id: "import",
    title: "Importing the package",
    columns: ["ms", "CPU ms", "resident MiB"],
    rows: await inTurns(
      "import",
      [...peers, { name: "effect (all of it)", specifier: "effect" }],
      rounds,
      ({ specifier }) => imported(specifier)
    )
  })
}

const bundled = async (program: string, external: ReadonlyArray<string>) => {
  const { outputFiles } = await build({
    entryPoints: [`${here}hello/${program}`],
    bundle: true,
    minify: true,
    platform: "node",
    format: "esm",
    target: "node22",
    external: [...external],
    conditions: process.execArgv.flatMap((flag) => (flag.startsWith("--conditions=") ? [flag.slice(13)] : [])),
    write: false,
    logLevel: "error"
  })
  const { contents } = outputFiles[0]!
  return [contents.length / 1024, gzipSync(contents, { level: 9 }).length / 1024].map((value) => figure([value]))
}

const size: Fresh = {
  id: "size",
  quick: true,
  measure: async () => ({
    id: "size",
    title: "The same programs, bundled and minified by esbuild, with their dependencies",
    columns: ["KiB", "KiB gzipped"],
    rows: [
      ...(await Promise.all(peers.map(async ({ name, program }) => ({ name, figures: await bundled(program, []) })))),
      {
        name: "effect-amqp, without effect",
        figures: await bundled("effect-amqp.mjs", ["effect", "effect/*"])
      },
      {
        name: "effect-amqp, only its own code",
        figures: await bundled("effect-amqp.mjs", ["effect", "effect/*", "amqplib", "amqplib/*"])
      }
    ]
  })
}

const platform = fileURLToPath(new URL("../../packages/platform", import.meta.url))

/** Importing the package for Effect 3 and the core, each after the application's Effect, and its size. */
const effect3: Fresh = {
  id: "effect3-import",
  groups: ["effect3"],
  quick: false,
  measure: async ({ rounds }) => ({
    id: "effect3-import",
    title: "On Effect 3: importing the package after Effect, and its JavaScript (effect-amqp: bundled and minified)",
    columns: ["ms", "CPU ms", "resident MiB", "kB", "kB gzipped"],
    rows: (
      await inTurns(
        "effect3-import",
        [
          { name: "effect-amqp", specifier: "@effect-amqp/core", cwd: here },
          { name: "effect-amqp on Effect 3", specifier: "@effect-amqp/platform", cwd: platform }
        ],
        rounds,
        ({ cwd, specifier }) => imported(specifier, cwd, `await import("effect")`)
      )
    ).map(({ figures, name }) => {
      const sizes = sizesOf(name === "effect-amqp" ? bundledCore() : built(`${platform}/dist`))
      return { name, figures: [...figures, ...sizes.map((bytes) => figure([bytes / 1000]))] }
    })
  })
}

const sizesOf = (contents: Uint8Array) => [contents.length, gzipSync(contents, { level: 9 }).length]

const bundledCore = (): Uint8Array =>
  buildSync({
    stdin: { contents: `export * from "@effect-amqp/core"`, resolveDir: here },
    bundle: true,
    minify: true,
    platform: "node",
    format: "esm",
    target: "node22",
    external: ["amqplib", "amqplib/*"],
    write: false,
    logLevel: "error"
  }).outputFiles[0]!.contents

/** The JavaScript of a built package. */
const built = (dist: string): Uint8Array =>
  Buffer.concat(
    readdirSync(dist, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".js") && !name.startsWith("types"))
      .map((name) => readFileSync(`${dist}/${name}`))
  )

const idle = 500

const memory: Fresh = {
  id: "memory",
  quick: false,
  measure: async ({ rounds }, broker) => ({
    id: "memory",
    title: `One open, idle channel (mean of ${idle.toLocaleString("en")})`,
    columns: ["KiB of heap", "KiB resident", "µs to open"],
    rows: await inTurns(
      "memory",
      peers.filter(({ name }) => name !== "rascal"),
      // The values hardly vary.
      Math.min(rounds, 3),
      async ({ name }) => {
        const contender = new Contender({ name }, "memory")
        try {
          await contender.ready
          const setting = { url: broker.url, queue: "memory", size: 0, width: 1, prefetch: 1, concurrency: 1 }
          await contender.ask({ _tag: "Prepare", name, kind: "channels", setting: { ...setting, channels: 1200 } })
          // The first channels load and compile code, which later ones do not.
          await contender.ask<RunResult>({ _tag: "Run", messages: 100, weigh: true })
          await contender.ask({ _tag: "Settle" })
          const { after, before, elapsed } = await contender.ask<RunResult>({
            _tag: "Run",
            messages: idle,
            weigh: true
          })
          await contender.ask({ _tag: "Settle" })
          await contender.ask({ _tag: "Close" })
          const each = (total: number) => total / idle / 1024
          return [each(after!.heapUsed - before!.heapUsed), each(after!.rss - before!.rss), (elapsed / idle) * 1e6]
        } finally {
          await contender.end()
        }
      }
    )
  })
}

const batch = 100_000

/** The memory in use after 100,000 messages, and after more of them. */
const heapAfter = (id: string, messages: number): Fresh => ({
  id,
  quick: false,
  measure: async (_, broker) => {
    const contender = new Contender({ name: "effect-amqp" }, id)
    const rows: Array<Table["rows"][number]> = []
    try {
      await broker.declare(id)
      await contender.ready
      const setting = {
        url: broker.url,
        queue: id,
        size: 128,
        width: 1000,
        prefetch: 250,
        concurrency: 1,
        channels: 16
      }
      await contender.ask({ _tag: "Prepare", name: "effect-amqp", kind: "through", setting })
      let last = batch
      for (let done = batch; done <= messages; done += batch) {
        Progress.show(`${id}: ${done.toLocaleString("en")} messages of ${messages.toLocaleString("en")}`)
        const weigh = done === batch || done === messages || done === last * 10
        const { after } = await contender.ask<RunResult>({ _tag: "Run", messages: batch, weigh })
        await contender.ask({ _tag: "Settle" })
        if ((await broker.count(id)) !== 0)
          throw new Error("expected every message to be consumed, but some are left in the queue")
        if (!weigh) continue
        last = done
        rows.push({
          name: `after ${done.toLocaleString("en")} messages`,
          figures: [after!.heapUsed, after!.rss].map((bytes) => figure([bytes / 1_048_576]))
        })
      }
      await contender.ask({ _tag: "Close" })
    } finally {
      await contender.end()
      await broker.remove(id)
    }
    return {
      id,
      title: `effect-amqp: memory in use after up to ${messages.toLocaleString("en")} messages were published and consumed`,
      columns: ["MiB of heap", "MiB resident"],
      rows
    }
  }
})

/** These take minutes, and run only by name. */
export const long: ReadonlyArray<Fresh> = [heapAfter("heap", 10_000_000)]

export const fresh: ReadonlyArray<Fresh> = [
  startup,
  importing,
  size,
  memory,
  effect3,
  heapAfter("flat-heap", 1_000_000)
]
