// npm run check: the lock file, formatting, types with the build they come with, lint rules, the order of imports, the dashboard's
// script, the workflows, the lists of the tests that run on the memory broker, the docstrings, the links and the examples of
// the docs, and the tarballs.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, root } from "./dependencies.mjs"

ensureDependencies()

const steps = [
  ["node", "scripts/lockFile.mjs"],
  ["oxfmt", "--check", "."],
  // Before the linter, whose rules read the types that this writes.
  ["tsc", "-b"],
  ["oxlint", "."],
  ["node", "scripts/importOrder.mjs"],
  ["node", "scripts/client.mjs", "--check"],
  ["node", "scripts/workflows.mjs"],
  ["node", "scripts/platformModel.mjs", "--check"],
  ["node", "scripts/sqlMigrations.mjs", "--check"],
  ["node", "scripts/memory.mjs", "--check"],
  ["node", "scripts/docstrings.mjs"],
  ["node", "site/pages.mjs"],
  ["node", "scripts/examples.mjs"],
  ["node", "scripts/packages.mjs"]
]

const passes = ([command, ...args]) => {
  console.error(`> ${[command, ...args].join(" ")}`)
  const { signal, status } = spawnSync(command, args, {
    cwd: root,
    env: environment(),
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32"
  })
  if (status !== 0) console.error(`${command} ended with ${signal ?? `status ${status}`}`)
  return status === 0
}

// On a busy machine oxlint 1.89 sometimes fails without a finding. A real finding appears again in the second run.
const failed = steps.filter((step) => !passes(step) && !(step[0] === "oxlint" && passes(step)))

if (failed.length > 0) {
  console.error(`Failed: ${failed.map((step) => step.join(" ")).join(", ")}`)
  process.exitCode = 1
}
