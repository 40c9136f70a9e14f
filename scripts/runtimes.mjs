// npm run test:runtimes: runs a small application on Bun and Deno. They are installed once into a separate folder
// outside the repository, from the registry that npm uses: some 250 MB.
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

/** The versions of docs/deployment.md. */
const versions = { bun: "1.4.5", deno: "2.9.6" }

ensureDependencies()

const folder = process.env.EFFECT_AMQP_RUNTIMES_FOLDER ?? join(tmpdir(), "effect-amqp-runtimes")
const versionOf = (name) => {
  const manifest = join(folder, "node_modules", name, "package.json")
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).version : undefined
}
for (const [name, version] of Object.entries(versions)) {
  if (versionOf(name) === version) continue
  mkdirSync(folder, { recursive: true })
  const manifest = join(folder, "package.json")
  // Both packages download their program in an install script.
  if (!existsSync(manifest))
    writeFileSync(manifest, JSON.stringify({ private: true, allowScripts: { bun: true, deno: true } }))
  const args = ["install", "--no-audit", "--no-fund", "--save-exact", `${name}@${version}`]
  console.error(`> npm ${args.join(" ")}  (in ${folder})`)
  const { status } = spawnSync("npm", args, {
    cwd: folder,
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32"
  })
  if (status !== 0) console.error(`${name} could not be installed here: its tests are skipped.`)
}

process.env.EFFECT_AMQP_RUNTIMES = join(folder, "node_modules", ".bin")
const tests = ["packages/core/test/driver.otherRuntimes.test.ts", "--reporter=verbose"]
run(["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.workspace.ts", ...tests])
