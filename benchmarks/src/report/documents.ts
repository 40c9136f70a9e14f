/** Writes findings into docs/performance.md and README.md, between their markers, and draws the plots. */
import { execFileSync } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import type { Result, Standing } from "../contest.ts"
import { type Environment, root } from "../environment.ts"
import * as Format from "./format.ts"
import { type Bar, type Panel, plot } from "./plot.ts"
import type { Finding } from "./results.ts"
import * as Tables from "./tables.ts"

interface Section {
  readonly name: string
  readonly title: string
  readonly ids: ReadonlyArray<string>
}

const sections: ReadonlyArray<Section> = [
  { name: "confirm", title: "Confirmed publishing", ids: ["confirm-1", "confirm-64", "confirm-1000", "borrowed"] },
  {
    name: "publish-consume",
    title: "Publishing without confirm, and consuming",
    ids: ["publish", "consume", "handle-1", "handle-100"]
  },
  { name: "rpc", title: "Requests and replies", ids: ["rpc-1", "rpc-64"] },
  { name: "pool", title: "Borrowing", ids: ["borrow", "contend-64", "contend-1000"] },
  { name: "http", title: "HTTP", ids: ["http", "http-alone"] },
  { name: "http-fastify", title: "Fastify, in an application without Effect", ids: ["http-fastify"] },
  {
    name: "bodies",
    title: "Larger bodies",
    ids: ["128B", "4KiB", "64KiB", "1MiB"].flatMap((size) => [`confirm-${size}`, `consume-${size}`])
  },
  { name: "tls", title: "TLS", ids: ["tls-confirm", "tls-consume"] },
  { name: "once", title: "Start-up, size, memory", ids: ["startup", "import", "size", "memory"] },
  {
    name: "flat",
    title: "Scaling",
    ids: ["flat-channels", "flat-waiters", "flat-consumers", "flat-heap", "heap"]
  }
]

const provenance = ({ broker, command, commit, date, load, machine, versions }: Environment) => {
  const all = [broker, ...Object.entries(versions).map(([name, version]) => `${name} ${version}`)]
  const half = Math.ceil(all.length / 2)
  return [
    `${command} · ${date} · commit ${commit} · ${machine} · load ${load} before`,
    all.slice(0, half).join(" · "),
    all.slice(half).join(" · ")
  ]
}

const roleOf = (name: string, base: string): Bar["role"] =>
  name.startsWith("effect-amqp") ? "ours" : name === base || /^amqplib(?:,|$)/.test(name) ? "base" : "peer"

/** The roles of a table's rows. A table that names no contender has figures of effect-amqp alone. */
const rolesOf = (names: ReadonlyArray<string>): ReadonlyArray<Bar["role"]> => {
  const roles = names.map((name) => roleOf(name, "amqplib"))
  return roles.every((role) => role === "peer") ? roles.map(() => "ours") : roles
}

const panelOf = (finding: Finding): Panel => {
  if (finding._tag === "Table") {
    const { columns, rows, title } = finding.table
    const roles = rolesOf(rows.map(({ name }) => name))
    return {
      title,
      columns,
      bars: rows.map(({ figures, name }, i) => ({ label: name, role: roles[i]!, figures }))
    }
  }
  const { base, standings, title, unit } = finding.result
  const hasLatency = standings.some(({ p50 }) => p50 !== undefined)
  const exact = (value: number | undefined) => (value === undefined ? undefined : { median: value, spread: 0 })
  return {
    title,
    columns: [
      `${unit}/s, higher is better`,
      "CPU µs each, lower is better",
      ...(hasLatency ? ["p50 ms, lower is better"] : [])
    ],
    bars: standings.map((standing) => ({
      label: standing.name,
      role: roleOf(standing.name, base),
      figures: [standing.perSecond, standing.cpu, ...(hasLatency ? [exact(standing.p50)] : [])]
    }))
  }
}

// --- The summary -----------------------------------------------------------------------------------------------------

const ours = ({ standings }: Result): Standing | undefined =>
  standings.find(({ name }) => name.startsWith("effect-amqp"))

/** The workloads of the README's table. */
const foremost = ["confirm-1", "confirm-64", "confirm-1000", "borrowed", "publish", "consume", "handle-100"].concat([
  "rpc-1",
  "rpc-64",
  "contend-64",
  "contend-1000",
  "http"
])

const everything = sections.filter(({ name }) => name !== "flat" && name !== "http-fastify").flatMap(({ ids }) => ids)

const summary = (findings: ReadonlyArray<Finding>, ids: ReadonlyArray<string>): string => {
  const rows = ids
    .flatMap((id) => findings.filter((finding) => finding._tag === "Contest" && finding.result.id === id))
    .flatMap((finding) => {
      if (finding._tag !== "Contest") return []
      const { base, best, title } = finding.result
      const mine = ours(finding.result)
      if (mine === undefined) return []
      return [
        [
          title,
          Format.count(mine.perSecond.median),
          `${Format.ratio(mine.ofBase)}${base === "amqplib" ? "" : ` (${base})`}`,
          best === undefined ? "" : `${Format.ratio(mine.ofBest)} (${best})`,
          Format.short(mine.cpu.median),
          Format.ratio(mine.cpuOfBase),
          Format.optional(mine.p50)
        ]
      ]
    })
  return Tables.markdown({
    head: ["effect-amqp", "per second", "rate × amqplib", "rate × best peer", "CPU µs", "CPU × amqplib", "p50 ms"],
    rows
  })
}

// --- Writing ---------------------------------------------------------------------------------------------------------

const images = "docs/images/performance"

const isSameRun = (one: Environment, other: Environment) => one.command === other.command && one.date === other.date

/** A table, with where it was measured if that is not the run of the page. */
const details = (finding: Finding, run: Environment): string => {
  const { failures, grid, id, title } =
    finding._tag === "Contest"
      ? { ...finding.result, grid: Tables.ofContest(finding.result) }
      : { ...finding.table, failures: [], grid: Tables.ofTable(finding.table) }
  return [
    `<details><summary>${title} (<code>npm run bench -- ${id}</code>)</summary>`,
    Tables.markdown(grid),
    ...(isSameRun(finding.environment, run) ? [] : [provenance(finding.environment)[0]!]),
    ...failures.map(({ name }) => `${name} failed.`),
    "</details>"
  ].join("\n\n")
}

const between = (name: string, text: string, content: string) => {
  const begin = `<!-- ${name}: made by npm run bench -- --docs -->`
  const end = `<!-- end of ${name} -->`
  const from = text.indexOf(begin)
  const to = text.indexOf(end)
  if (from === -1 || to === -1) return undefined
  return `${text.slice(0, from)}${begin}\n\n${content}\n\n${text.slice(to)}`
}

const edit = (file: string, name: string, content: string) => {
  const text = readFileSync(`${root}${file}`, "utf8")
  const edited = between(name, text, content)
  if (edited === undefined) throw new Error(`${file}: expected the markers of ${name}, got none`)
  writeFileSync(`${root}${file}`, edited)
}

export const write = (findings: ReadonlyArray<Finding>) => {
  mkdirSync(`${root}${images}`, { recursive: true })
  const run = (findings.find((finding) => finding._tag === "Contest") ?? findings[0]!).environment
  const chapters = sections.flatMap(({ ids, name, title }) => {
    const mine = ids.flatMap((id) =>
      findings.filter((finding) => (finding._tag === "Contest" ? finding.result.id : finding.table.id) === id)
    )
    if (mine.length === 0) return []
    const notes = provenance(mine.at(-1)!.environment)
    const panels = mine.map(panelOf)
    writeFileSync(`${root}${images}/${name}.svg`, plot(title, panels, notes, "wide"))
    writeFileSync(`${root}${images}/${name}-narrow.svg`, plot(title, panels, notes, "narrow"))
    const picture = [
      "<picture>",
      `  <source media="(max-width: 640px)" srcset="images/performance/${name}-narrow.svg">`,
      `  <img alt="${title}" src="images/performance/${name}.svg">`,
      "</picture>"
    ].join("\n")
    return [[`### ${title}`, picture, ...mine.map((one) => details(one, run))].join("\n\n")]
  })
  const from = provenance(run).join(" \\\n")
  edit("docs/performance.md", "results", [summary(findings, everything), from, ...chapters].join("\n\n"))
  edit("README.md", "speed", summary(findings, foremost))
  const fastify = findings.find((finding) => finding._tag === "Contest" && finding.result.id === "http-fastify")
  if (fastify?._tag === "Contest") {
    const table = Tables.markdown(Tables.ofContest(fastify.result))
    edit("docs/without-effect.md", "figures", [table, provenance(fastify.environment)[0]!].join("\n\n"))
  }
  execFileSync(
    `${root}node_modules/.bin/oxfmt`,
    ["docs/performance.md", "docs/without-effect.md", "README.md", "benchmarks/results.json"],
    {
      cwd: root
    }
  )
}
