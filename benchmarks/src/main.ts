/**
 * `npm run bench [-- WORKLOAD ...] [--quick] [--docs] [--rounds=N] [--seconds=N] [--warm-up=N] [--against=CHECKOUT]`: see
 * docs/performance.md.
 */
import * as Broker from "./broker.ts"
import { type Contest, type Effort, hold } from "./contest.ts"
import { environment } from "./environment.ts"
import { type Fresh, fresh, long } from "./fresh.ts"
import * as Progress from "./progress.ts"
import * as Documents from "./report/documents.ts"
import * as Results from "./report/results.ts"
import * as Tables from "./report/tables.ts"
import { workloads } from "./workloads.ts"

const args = process.argv.slice(2)
const names = args.filter((arg) => !arg.startsWith("--"))
const flags = args.filter((arg) => arg.startsWith("--"))
const quick = flags.includes("--quick")

const known = new Set([...workloads, ...fresh, ...long].map(({ id }) => id))
const groups = new Set([...workloads, ...fresh].flatMap(({ groups }) => groups ?? []))

const refuse = (message: string): never => {
  console.error(message)
  process.exit(1)
}

for (const name of names) {
  if (!known.has(name) && !groups.has(name) && name !== "docs") {
    refuse(`Workload: expected one of ${[...known].join(", ")}, or a group (${[...groups].join(", ")}), got "${name}"`)
  }
}

const number = (flag: string, standard: number) => {
  const given = flags.find((one) => one.startsWith(`${flag}=`))
  if (given === undefined) return standard
  const value = Number(given.slice(flag.length + 1))
  return value > 0 ? value : refuse(`${flag}: expected a number above 0, got "${given.slice(flag.length + 1)}"`)
}

const effort: Effort = {
  rounds: Math.round(number("--rounds", quick ? 3 : 5)),
  seconds: number("--seconds", quick ? 0.1 : 0.5),
  // The quick form does not wait until V8 has compiled what is measured.
  warmUp: { seconds: number("--warm-up", quick ? 0.3 : 2), messages: quick ? 0 : 20_000 }
}

const isChosen = ({
  groups = [],
  id,
  quick: isQuick
}: {
  groups?: ReadonlyArray<string>
  id: string
  quick?: boolean
}) => (names.length === 0 ? !quick || isQuick === true : [id, ...groups].some((name) => names.includes(name)))

const chosen: ReadonlyArray<Contest | Fresh> = [
  ...workloads.filter(isChosen),
  ...fresh.filter(isChosen),
  ...long.filter(({ id }) => names.includes(id))
]

const ids = [...known]

const against = flags.find((flag) => flag.startsWith("--against="))?.slice("--against=".length)

/** With `--against`: each entry of effect-amqp, and the same entry from the other checkout. */
const compared = (contest: Contest): Contest => {
  if (against === undefined) return contest
  const ours = contest.entries.filter(({ name }) => name.startsWith("effect-amqp"))
  const before = ours.map((entry) => ({ ...entry, from: against, label: `${entry.label ?? entry.name}, before` }))
  return { ...contest, entries: before.flatMap((entry, i) => [entry, ours[i]!]) }
}

/** Writes the documents from the stored findings and the new ones. */
const document = (findings: ReadonlyArray<Results.Finding>) => {
  const all = Results.merge(Results.read(Results.kept), findings, ids)
  Results.write(Results.kept, all)
  Documents.write(all)
}

const run = async () => {
  const began = performance.now()
  const broker = await Broker.start()
  const findings: Array<Results.Finding> = []
  const where = environment(["npm run bench", ...(args.length === 0 ? [] : ["--", ...args])].join(" "), broker.product)
  Progress.line(
    `${where.machine}; ${broker.product}, Node ${where.versions["Node"]}; ${chosen.length} workloads, ${effort.rounds} rounds of ${effort.seconds} s`
  )
  try {
    for (const [index, one] of chosen.entries()) {
      const start = performance.now()
      const finding: Results.Finding =
        "measure" in one
          ? { _tag: "Table", environment: where, table: await one.measure(effort, broker) }
          : { _tag: "Contest", environment: where, result: await hold(compared(one), effort, broker) }
      findings.push(finding)
      Results.write(Results.last, findings)
      const [title, grid] =
        finding._tag === "Contest"
          ? [finding.result.title, Tables.ofContest(finding.result)]
          : [finding.table.title, Tables.ofTable(finding.table)]
      const seconds = ((performance.now() - start) / 1000).toFixed(0)
      Progress.line(`${index + 1} of ${chosen.length}, ${one.id}: ${seconds} s`)
      console.log(`\n${title}\n\n${Tables.text(grid)}\n`)
    }
  } finally {
    await broker.close()
  }
  Progress.line(`${((performance.now() - began) / 60_000).toFixed(1)} minutes; results in ${Results.last}`)
  return findings
}

if (names.includes("docs")) {
  document([])
} else {
  const findings = await run()
  const failures = findings.flatMap((finding) => (finding._tag === "Contest" ? finding.result.failures : []))
  for (const { message, name } of failures) console.error(`${name} FAILED: ${message}`)
  if (failures.length > 0) process.exitCode = 1
  else if (flags.includes("--docs")) document(findings)
}
