// npm start: runs the order service of packages/examples, over HTTP, with whatever broker this machine offers. npm
// start -- <name>: runs another example.
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { ensureDependencies, root } from "./dependencies.mjs"
import { run } from "./run.mjs"

// An example on Effect 3 is where Effect 3 is installed.
const examples = new Map(
  ["packages/examples/src", "packages/platform/example"].flatMap((folder) =>
    readdirSync(join(root, folder)).flatMap((file) =>
      file.endsWith(".ts") ? [[file.slice(0, -3), `${folder}/${file}`]] : []
    )
  )
)

const [name = "orders", ...args] = process.argv.slice(2)
const path = examples.get(name)
if (path === undefined) {
  console.error(`Example: expected one of ${[...examples.keys()].join(", ")}, got "${name}"`)
  process.exit(1)
}

ensureDependencies()
run(["--conditions=@effect-amqp/source", path, ...args])
