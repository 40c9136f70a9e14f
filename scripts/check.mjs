// npm run check: formatting, lint rules, types with the build they come with, and the examples in the docs.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, root } from "./dependencies.mjs"

ensureDependencies()

const steps = [
  ["oxfmt", "--check", "."],
  ["oxlint", "."],
  ["tsc", "-b"],
  ["node", "scripts/examples.mjs"]
]

const failed = steps.filter(([command, ...args]) => {
  console.error(`> ${[command, ...args].join(" ")}`)
  const { status } = spawnSync(command, args, {
    cwd: root,
    env: environment(),
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32"
  })
  return status !== 0
})

if (failed.length > 0) {
  console.error(`Failed: ${failed.map((step) => step.join(" ")).join(", ")}`)
  process.exitCode = 1
}
