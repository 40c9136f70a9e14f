// npm run bench [-- NAME ...]: the benchmarks of benchmarks/src, each in a process of its own, one after the other.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

const all = ["pool", "messages", "http"]

ensureDependencies()
const names = process.argv.slice(2)
for (const name of names.length === 0 ? all : names) {
  if (!all.includes(name)) {
    console.error(`There is no benchmark called ${name}: there are ${all.join(", ")}`)
    process.exit(1)
  }
  const args = ["--expose-gc", "--conditions=@effect-amqp/source", `benchmarks/src/${name}.ts`]
  const { status } = spawnSync(node, args, { cwd: root, env: environment(), stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
}
