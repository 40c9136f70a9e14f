// The published build of @effect-amqp/cli: the core, Effect and what they need are inside, but for amqplib. A command then
// starts in a third of the time, and npx downloads one megabyte and not sixty.
import { build } from "esbuild"
import { readdirSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { root } from "./dependencies.mjs"

/** The options of esbuild. Tests build with them too. */
export const options = (folder) => ({
  absWorkingDir: folder,
  entryPoints: [join(folder, "src/main.ts")],
  outdir: join(folder, "dist"),
  bundle: true,
  // What a command runs is a chunk of its own: --help loads no library.
  splitting: true,
  // Beside main.js: the program reads ../package.json.
  chunkNames: "[name]-[hash]",
  format: "esm",
  platform: "node",
  target: "node22",
  conditions: ["@effect-amqp/source"],
  external: ["amqplib", "amqplib/*"],
  minify: true,
  legalComments: "none",
  logLevel: "warning",
  metafile: true
})

/** Builds the package in a folder, in place of what tsc has written there. */
export const bundle = async (folder) => {
  const dist = join(folder, "dist")
  for (const name of readdirSync(dist)) {
    if (!name.startsWith(".tsbuildinfo")) rmSync(join(dist, name), { recursive: true, force: true })
  }
  return build(options(folder))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { metafile } = await bundle(resolve(process.argv[2] ?? join(root, "packages/cli")))
  for (const [path, { bytes }] of Object.entries(metafile.outputs))
    console.log(`${path}: ${(bytes / 1e3).toFixed(0)} kB`)
}
