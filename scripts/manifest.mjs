// The differences between a published package and the one in the repository.
import { readFileSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { root } from "./dependencies.mjs"

/** The published packages, each after those that it depends on. */
export const packages = ["core", "http", "sql", "cli", "platform"]

/** The package with another Effect, whose build has the core and its Effect 4 inside. */
export const bundled = "platform"

/** The packages whose published build is bundled, each with the script that does it. */
export const bundles = { platform: "platformBundle.mjs", cli: "cliBundle.mjs" }

/** What the build of that package needs, and nobody publishes. */
export const unpublished = ["effect4"]

const withoutSource = (exports) =>
  Object.fromEntries(
    Object.entries(exports).map(([path, target]) => {
      if (typeof target === "string") return [path, target]
      const { "@effect-amqp/source": _, ...published } = target
      return [path, published]
    })
  )

/**
 * The manifest to publish: without the condition that resolves to sources, and without what is needed only for
 * development.
 */
export const publishedManifest = (manifest) => {
  const { devDependencies: _, exports, scripts: __, ...published } = manifest
  return { ...published, exports: withoutSource(exports) }
}

/** The README, with links that also work outside the repository. */
const readmeOf = (folder, { homepage }) => {
  const repository = homepage.slice(0, homepage.indexOf("/tree/"))
  const own = join(folder, "README.md")
  const isCore = basename(folder) === "core"
  return readFileSync(isCore ? join(root, "README.md") : own, "utf8").replaceAll(
    /\]\((?!https?:|#|mailto:)(?:\.\.\/\.\.\/|\.\/)?([^)\s]+)/g,
    (_, path) => `](${repository}/${/\.(png|svg|gif|webp)$/.test(path) ? "raw" : "blob"}/main/${path}`
  )
}

/**
 * Writes the files of a published package: its manifest, README, license and changelog. `folder` is the package's
 * folder.
 */
export const writePublished = (folder, target) => {
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
  const readme = readmeOf(folder, manifest)
  writeFileSync(join(target, "package.json"), `${JSON.stringify(publishedManifest(manifest), undefined, 2)}\n`)
  writeFileSync(join(target, "README.md"), readme)
  for (const name of ["LICENSE", "CHANGELOG.md"]) writeFileSync(join(target, name), readFileSync(join(root, name)))
  return manifest
}
