// npm start: the order service of packages/examples, on HTTP, with whatever broker this machine offers.
// npm start -- <name>: another of the examples.
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { ensureDependencies, root } from "./dependencies.mjs"
import { run } from "./run.mjs"

const folder = "packages/examples/src"
const examples = readdirSync(join(root, folder)).flatMap((file) => (file.endsWith(".ts") ? file.slice(0, -3) : []))

const [name = "orders", ...args] = process.argv.slice(2)
if (!examples.includes(name)) {
  console.error(`There is no example "${name}". There are: ${examples.join(", ")}.`)
  process.exit(1)
}

ensureDependencies()
run(["--conditions=@effect-amqp/source", `${folder}/${name}.ts`, ...args])
