// npm run pack -- [FOLDER]: writes the tarballs of all packages, as they are published, to FOLDER (default: .pack).
//
// They are built in a copy, so the working tree does not change, and tests may run at the same time.
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { ensureDependencies, environment, root } from "./dependencies.mjs"
import { bundled, bundles, packages, unpublished, writePublished } from "./manifest.mjs"

const run = (command, args, cwd) => {
  const { status, stdout } = spawnSync(command, args, {
    cwd,
    env: environment(),
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
    shell: process.platform === "win32"
  })
  if (status !== 0) throw new Error(`${[command, ...args].join(" ")} ended with status ${status}\n${stdout}`)
  return stdout
}

/** Writes one tarball per package into `out`. Returns the path of each, by the package's folder name. */
export const pack = (out) => {
  mkdirSync(out, { recursive: true })
  mkdirSync(join(root, ".pack"), { recursive: true })
  // The copy is inside the repository, so that imports find node_modules, and outside node_modules, where TypeScript
  // emits nothing.
  const stage = mkdtempSync(join(root, ".pack", "stage-"))
  try {
    cpSync(join(root, "tsconfig.base.json"), join(stage, "tsconfig.base.json"))
    mkdirSync(join(stage, "node_modules", "@effect-amqp"), { recursive: true })
    for (const name of [...packages, ...unpublished]) {
      const folder = join(stage, "packages", name)
      for (const part of ["src", "migrations", "package.json", "tsconfig.json"]) {
        const source = join(root, "packages", name, part)
        if (existsSync(source)) cpSync(source, join(folder, part), { recursive: true })
      }
      symlinkSync(folder, join(stage, "node_modules", "@effect-amqp", name), "junction")
    }
    symlinkSync(
      join(root, "packages", bundled, "node_modules"),
      join(stage, "packages", bundled, "node_modules"),
      "junction"
    )
    run("tsc", ["-b", ...packages.map((name) => join("packages", name))], stage)
    for (const [name, script] of Object.entries(bundles)) {
      run("node", [join(root, "scripts", script), join(stage, "packages", name)], root)
    }
    const tarballs = {}
    for (const name of packages) {
      const folder = join(stage, "packages", name)
      writePublished(join(root, "packages", name), folder)
      const [{ filename }] = JSON.parse(
        run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", out], folder)
      )
      tarballs[name] = join(out, filename)
    }
    return tarballs
  } finally {
    rmSync(stage, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  ensureDependencies()
  const tarballs = pack(resolve(process.argv[2] ?? join(root, ".pack")))
  for (const path of Object.values(tarballs)) console.log(path)
}
