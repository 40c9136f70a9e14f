/**
 * `npm run bench [-- WORKLOAD ... --quick --docs --rounds=N --seconds=N --source]`: see docs/performance.md.
 */
import * as Broker from "./broker.ts"
import { type Effort, hold, type Result } from "./contest.ts"
import * as Progress from "./progress.ts"
import { table } from "./report/text.ts"
import { workloads } from "./workloads.ts"

const args = process.argv.slice(2)
const names = args.filter((arg) => !arg.startsWith("--"))
const has = (flag: string) => args.includes(flag)
const number = (flag: string) => {
  const value = args.find((arg) => arg.startsWith(`${flag}=`))
  return value === undefined ? undefined : Number(value.slice(flag.length + 1))
}

const quick = has("--quick")
const effort: Effort = {
  rounds: number("--rounds") ?? (quick ? 3 : 5),
  seconds: number("--seconds") ?? (quick ? 0.2 : 0.7)
}

const chosen = workloads.filter(({ groups, id, quick: isQuick }) =>
  names.length === 0 ? !quick || isQuick === true : names.includes(id) || groups.some((group) => names.includes(group))
)

const broker = await Broker.start()
Progress.line(`${broker.description}; ${chosen.length} workloads, ${effort.rounds} rounds of ${effort.seconds} s`)
const results: Array<Result> = []
try {
  for (const workload of chosen) {
    const start = performance.now()
    const result = await hold(workload, effort, broker)
    results.push(result)
    Progress.line("")
    console.log(table(result))
    Progress.line(`(${((performance.now() - start) / 1000).toFixed(0)} s)`)
  }
} finally {
  await broker.close()
}
if (results.some(({ failures }) => failures.length > 0)) process.exitCode = 1
