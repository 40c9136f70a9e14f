// Runs around `npm pack` and `npm publish` in a package's folder: builds the package again, and replaces the
// repository's manifest with the published one until the tarball is written. `npm run pack` does not change the working
// tree, and is what tests use.
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { ensureDependencies, environment, root } from "./dependencies.mjs"
import { bundles, writePublished } from "./manifest.mjs"

const folder = process.cwd()
const manifest = join(folder, "package.json")
const saved = join(folder, ".package.json.saved")
const isCore = basename(folder) === "core"

const restore = () => {
  if (!existsSync(saved)) return
  renameSync(saved, manifest)
  for (const name of ["LICENSE", "CHANGELOG.md"]) rmSync(join(folder, name), { force: true })
  const readme = join(folder, ".README.md.saved")
  if (existsSync(readme)) renameSync(readme, join(folder, "README.md"))
  else rmSync(join(folder, "README.md"), { force: true })
}

// The copies that an interrupted pack leaves are removed here.
restore()

if (!process.argv.includes("--restore")) {
  ensureDependencies()
  rmSync(join(folder, "dist"), { recursive: true, force: true })
  const { status } = spawnSync("tsc", ["-b", folder], {
    cwd: root,
    env: environment(),
    stdio: ["ignore", process.stderr, "inherit"]
  })
  if (status !== 0) process.exit(1)
  const script = bundles[basename(folder)]
  if (script !== undefined) await (await import(`./${script}`)).bundle(folder)
  writeFileSync(saved, readFileSync(manifest))
  if (!isCore) writeFileSync(join(folder, ".README.md.saved"), readFileSync(join(folder, "README.md")))
  writePublished(folder, folder)
}
