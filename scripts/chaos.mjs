// npm run chaos [-- --short | --seed N | --messages N | --faults N | --mutant NAME]: see packages/core/chaos/chaos.ts.
// npm run chaos -- --cluster [--short | --seed N | --faults N | --mutant NAME]: see packages/core/chaos/cluster.ts.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

ensureDependencies()
const options = process.argv.slice(2).filter((option) => option !== "--cluster")
const program = process.argv.includes("--cluster") ? "cluster.ts" : "chaos.ts"
const args = ["--conditions=@effect-amqp/source", `packages/core/chaos/${program}`, ...options]
const { status } = spawnSync(node, args, { cwd: root, env: environment(), stdio: "inherit" })
process.exit(status ?? 1)
