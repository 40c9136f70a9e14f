// The published build of @effect-amqp/platform: the core and its Effect 4 are inside, and `effect` is the application's
// Effect 3. Declarations are those that the entries reach; they mention neither the core nor Effect 4.
import { build } from "esbuild"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { root } from "./dependencies.mjs"

const entriesOf = (folder) =>
  Object.values(JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).exports).flatMap((target) => {
    const source = typeof target === "string" ? undefined : (target["@effect-amqp/source"] ?? target.types)
    return source === undefined ? [] : [source.replace(/^\.\/(src|dist)\//, "").replace(/(\.d)?\.ts$/, "")]
  })

/** What the sources of the package import is the application's; what the core imports is bundled, but for amqplib. */
const twoEffects = (folder) => {
  const own = join(folder, "src")
  return {
    name: "two-effects",
    setup({ onResolve }) {
      onResolve({ filter: /^(effect|@effect\/platform)(\/|$)/ }, ({ importer, path }) =>
        importer.startsWith(own) ? { path, external: true } : undefined
      )
      onResolve({ filter: /^(amqplib)(\/|$)/ }, ({ path }) => ({ path, external: true }))
    }
  }
}

const copyDeclarations = (folder, entries) => {
  const from = join(folder, "dist/types")
  const seen = new Set()
  const copy = (path) => {
    if (seen.has(path)) return
    seen.add(path)
    const text = readFileSync(path, "utf8")
    // Not the imports of examples.
    const code = text.replaceAll(/\/\*[\s\S]*?\*\//g, "")
    for (const [, name] of code.matchAll(/(?:from|import\()\s*"([^"]+)"/g)) {
      if (name.startsWith(".")) copy(resolve(dirname(path), name.replace(/\.[jt]s$/, ".d.ts")))
      else if (!/^(effect|@effect\/platform)(\/|$)/.test(name)) {
        throw new Error(
          `${relative(folder, path)}: expected a declaration in Effect 3's types, got an import of ${name}`
        )
      }
    }
    const target = join(folder, "dist", relative(from, path))
    mkdirSync(dirname(target), { recursive: true })
    // Their maps would lead to sources that the package does not have.
    writeFileSync(target, text.replace(/\/\/# sourceMappingURL=.*\n?$/, ""))
  }
  for (const entry of entries) copy(join(from, `${entry}.d.ts`))
}

/** Builds the package in a folder whose declarations tsc has written. */
export const bundle = async (folder, options) => {
  const dist = join(folder, "dist")
  for (const name of readdirSync(dist)) {
    if (name !== "types" && !name.startsWith(".tsbuildinfo")) rmSync(join(dist, name), { recursive: true, force: true })
  }
  const entries = entriesOf(folder)
  copyDeclarations(folder, entries)
  return build({
    absWorkingDir: folder,
    entryPoints: entries.map((entry) => join(folder, "src", `${entry}.ts`)),
    outdir: dist,
    bundle: true,
    // One copy of Effect 4, whichever entries an application imports.
    splitting: true,
    chunkNames: "internal/[name]-[hash]",
    format: "esm",
    platform: "node",
    target: "node22",
    conditions: ["@effect-amqp/source"],
    minify: true,
    legalComments: "none",
    logLevel: "warning",
    metafile: true,
    plugins: [twoEffects(folder)],
    ...options
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { metafile } = await bundle(resolve(process.argv[2] ?? join(root, "packages/platform")))
  for (const [path, { bytes }] of Object.entries(metafile.outputs))
    console.log(`${path}: ${(bytes / 1e3).toFixed(0)} kB`)
}
