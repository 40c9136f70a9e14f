// npm run bench [-- WORKLOAD ...] [--quick] [--docs]: runs the benchmarks of benchmarks/src on the built packages, as
// they are installed. `npm run bench -- outbox` runs packages/sql/benchmark/outbox.ts, and `npm run bench -- dead-letters`
// runs packages/core/benchmark/deadLetters.ts, `npm run bench -- memory` memory.ts beside it. `--source` measures the sources instead. See docs/performance.md.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

ensureDependencies()
const args = process.argv.slice(2)
const run = (command, args) => {
  const { status } = spawnSync(command, args, { cwd: root, env: environment(), stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
}
const programs = {
  outbox: "packages/sql/benchmark/outbox.ts",
  "dead-letters": "packages/core/benchmark/deadLetters.ts",
  memory: "packages/core/benchmark/memory.ts"
}
const chosen = Object.keys(programs).find((name) => args.includes(name))
if (chosen !== undefined) {
  run(node, ["--conditions=@effect-amqp/source", programs[chosen], ...args])
  process.exit()
}
const fromSource = args.includes("--source")
if (!fromSource) {
  run("tsc", ["-b", "packages/core", "packages/http", "packages/platform"])
  run(node, ["scripts/platformBundle.mjs"])
}
run(node, [...(fromSource ? ["--conditions=@effect-amqp/source"] : []), "benchmarks/src/main.ts", ...args])
