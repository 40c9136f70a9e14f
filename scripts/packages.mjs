// Part of npm run check: checks the tarballs as they are published, with publint and Are the Types Wrong. README and
// license have to be in them, nothing that is only for development may be, and every source map has to lead to a
// source.
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, posix } from "node:path"
import { fileURLToPath } from "node:url"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import { ensureDependencies } from "./dependencies.mjs"
import { pack } from "./pack.mjs"

// The packages are ES modules, and Node 22 can `require` these.
const ignoredResolutions = new Set(["node10", "node16-cjs"])

const requiredFiles = ["package.json", "README.md", "LICENSE", "CHANGELOG.md"]
const requiredFields = [
  "version",
  "description",
  "license",
  "author",
  "repository",
  "homepage",
  "bugs",
  "keywords",
  "publishConfig"
]

/** The mistakes in a tarball, each as a sentence. */
const mistakesOf = async (tarball) => {
  const found = []
  const bytes = readFileSync(tarball)
  const exact = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)
  const { messages, pkg } = await publint({ pack: { tarball: exact }, strict: true })
  for (const message of messages) found.push(`publint: ${formatMessage(message, pkg, { color: false })}`)

  const content = createPackageFromTarballData(new Uint8Array(exact))
  // A package without types, such as the command line, has none.
  const { problems = [] } = await checkPackage(content)
  for (const problem of problems) {
    if (!ignoredResolutions.has(problem.resolutionKind)) found.push(`attw: ${JSON.stringify(problem)}`)
  }

  const prefix = `/node_modules/${content.packageName}/`
  const files = new Set(content.listFiles().map((path) => path.slice(prefix.length)))
  const read = (path) => content.readFile(prefix + path)
  for (const path of requiredFiles) if (!files.has(path)) found.push(`${path} is missing`)
  for (const path of files) {
    if (path.includes("tsbuildinfo")) found.push(`${path} is for development`)
    if (!path.endsWith(".map")) continue
    for (const source of JSON.parse(read(path)).sources) {
      const target = posix.join(posix.dirname(path), source)
      if (!files.has(target)) found.push(`${path} leads to ${target}, which is missing`)
    }
  }
  const manifest = JSON.parse(read("package.json"))
  for (const field of requiredFields) if (manifest[field] === undefined) found.push(`package.json: ${field} is missing`)
  if (manifest.sideEffects !== false) found.push("package.json: sideEffects is not false")
  if (read("package.json").includes("@effect-amqp/source"))
    found.push("package.json: has the condition that resolves to sources")
  if (manifest.scripts !== undefined) found.push("package.json: has scripts")
  return found
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  ensureDependencies()
  const folder = mkdtempSync(join(tmpdir(), "effect-amqp-packages-"))
  try {
    for (const [name, tarball] of Object.entries(pack(folder))) {
      const found = await mistakesOf(tarball)
      for (const sentence of found) console.error(`${name}: ${sentence}`)
      console.log(`${name}: ${(readFileSync(tarball).byteLength / 1e3).toFixed(0)} kB, ${found.length} mistakes`)
      if (found.length > 0) process.exitCode = 1
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
