/** The machine and the versions of a run. */
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { cpus, loadavg, totalmem } from "node:os"
import { fileURLToPath } from "node:url"
import { pika } from "./process.ts"

export interface Environment {
  readonly command: string
  readonly date: string
  readonly commit: string
  readonly machine: string
  /** The machine's load when the run began: other work on the machine affects the figures. */
  readonly load: number
  readonly broker: string
  readonly versions: Readonly<Record<string, string>>
}

export const root = fileURLToPath(new URL("../..", import.meta.url))

const packages = [
  "effect",
  "amqplib",
  "rabbitmq-client",
  "@cloudamqp/amqp-client",
  "amqp-connection-manager",
  "rascal",
  "generic-pool",
  "tarn",
  "fastify"
]

const versionOf = (name: string) =>
  (JSON.parse(readFileSync(`${root}node_modules/${name}/package.json`, "utf8")) as { readonly version: string }).version

const commit = () => {
  try {
    const git = (...args: ReadonlyArray<string>) =>
      execFileSync("git", [...args], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
    return `${git("rev-parse", "--short", "HEAD")}${git("status", "--porcelain", "packages") === "" ? "" : " and changes"}`
  } catch {
    return "unknown"
  }
}

export const environment = (command: string, broker: string): Environment => {
  const cores = cpus()
  const memory = Math.round(totalmem() / 1_073_741_824)
  return {
    command,
    date: new Date().toISOString().slice(0, 10),
    commit: commit(),
    machine: `${cores.length} cores (${cores[0]?.model.trim() ?? "unknown"}), ${memory} GiB, ${process.platform}`,
    load: Math.round(loadavg()[0]! * 100) / 100,
    broker,
    versions: {
      Node: process.versions.node,
      ...Object.fromEntries(packages.map((name) => [name, versionOf(name)])),
      ...(pika?.version === undefined ? undefined : { Pika: pika.version })
    }
  }
}
