// npm run bench [-- WORKLOAD ...] [--quick] [--docs]: the benchmarks of benchmarks/src, on the built packages, as they are
// installed. `--source` measures the sources instead. See docs/performance.md.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

ensureDependencies()
const args = process.argv.slice(2)
const run = (command, args) => {
  const { status } = spawnSync(command, args, { cwd: root, env: environment(), stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
}
const fromSource = args.includes("--source")
if (!fromSource) run("tsc", ["-b", "packages/core", "packages/http"])
run(node, [...(fromSource ? ["--conditions=@effect-amqp/source"] : []), "benchmarks/src/main.ts", ...args])
