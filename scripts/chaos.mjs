// npm run chaos [-- --short | --seed N | --messages N | --faults N | --mutant NAME]: see packages/core/chaos/chaos.ts.
// npm run chaos -- --cluster [--short | --seed N | --faults N | --mutant NAME]: see packages/core/chaos/cluster.ts.
// npm run chaos -- --memory [--short | --seed N | --programs N | --steps N]: see packages/core/chaos/memory.ts.
// npm run chaos -- --outbox [--short | --seed N | --orders N | --kills N | --mutant NAME]: see packages/sql/chaos/outbox.ts.
// npm run chaos -- --redrive [--short | --seed N | --letters N | --faults N | --mutant NAME]: see packages/core/chaos/redrive.ts.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

ensureDependencies()
const programs = {
  "--cluster": "packages/core/chaos/cluster.ts",
  "--memory": "packages/core/chaos/memory.ts",
  "--outbox": "packages/sql/chaos/outbox.ts",
  "--redrive": "packages/core/chaos/redrive.ts"
}
const given = process.argv.slice(2)
const chosen = Object.keys(programs).find((name) => given.includes(name))
const program = chosen === undefined ? "packages/core/chaos/chaos.ts" : programs[chosen]
const options = given.filter((option) => option !== chosen)
const args = ["--conditions=@effect-amqp/source", program, ...options]
const { status } = spawnSync(node, args, { cwd: root, env: environment(), stdio: "inherit" })
process.exit(status ?? 1)
