// npm run chaos [-- --short | --seed N | --messages N | --faults N | --mutant NAME]: see packages/core/chaos/chaos.ts.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

ensureDependencies()
const args = ["--conditions=@effect-amqp/source", "packages/core/chaos/chaos.ts", ...process.argv.slice(2)]
const { status } = spawnSync(node, args, { cwd: root, env: environment(), stdio: "inherit" })
process.exit(status ?? 1)
