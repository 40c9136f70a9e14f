// Part of npm run check: imports between folders follow the order in docs/architecture.md, type imports included.
//
// A folder imports only itself and the folders above it in its list. `"."` stands for the modules directly in a package's
// `src`. The linter's `import/no-cycle` forbids cycles between files.
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, posix, sep } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** The folders of each package, from the top down; `"."`: the public modules. */
const packages = {
  "packages/core/src": [
    "model",
    "internal/waiting",
    "internal/config",
    "internal/wire",
    "internal/message",
    "internal/metrics",
    "internal/driver",
    "internal/telemetry",
    "internal/connection",
    "internal/channel",
    "internal/pool",
    "internal/publisher",
    "internal/topology",
    "internal/consumer",
    "internal/deadLetters",
    "internal/rpc",
    ".",
    "testing"
  ],
  "packages/http/src": ["internal", "internal/gateway", "internal/deadLetters", "internal/dashboard", "."],
  "packages/sql/src": [
    "model",
    "internal",
    "internal/input",
    "internal/database",
    "internal/outbox",
    "internal/inbox",
    "."
  ],
  "packages/cli/src": [
    "internal",
    "internal/output",
    "internal/broker",
    "internal/topology",
    "internal/doctor",
    "internal/publish",
    "internal/tail",
    "internal/deadLetters",
    "internal/commands",
    "."
  ]
}

/** Folders of which other folders may import only one module. */
const entryPoints = { "packages/core/src/internal/driver": "driver.ts" }

const importedBy = (text) => {
  const code = text.replaceAll(/\/\*[\s\S]*?\*\//g, "")
  return [...code.matchAll(/^(?:import|export)\b[^"';]*?\bfrom "(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gm)].map(
    (found) => found[1] ?? found[2]
  )
}

const folderOf = (folders, file) => {
  const directory = dirname(file)
  return (
    folders
      .filter((folder) => folder !== "." && (directory === folder || directory.startsWith(`${folder}/`)))
      .sort((a, b) => b.length - a.length)[0] ?? (directory === "." ? "." : undefined)
  )
}

const violations = []
for (const [source, folders] of Object.entries(packages)) {
  const files = readdirSync(join(root, source), { recursive: true })
    .map((file) => file.split(sep).join("/"))
    .filter((file) => file.endsWith(".ts"))
  for (const file of files) {
    const folder = folderOf(folders, file)
    if (folder === undefined) {
      violations.push(`${source}/${file} is in a folder that the list does not contain`)
      continue
    }
    for (const specifier of importedBy(readFileSync(join(root, source, file), "utf8"))) {
      const imported = posix.join(posix.dirname(file), specifier)
      const other = folderOf(folders, imported)
      if (other === undefined || folders.indexOf(other) > folders.indexOf(folder)) {
        violations.push(
          `${source}/${file} (${folder}) imports ${imported} (${other}): expected a folder above it in the list`
        )
      } else if (other !== folder) {
        const entryPoint = entryPoints[`${source}/${other}`]
        if (entryPoint !== undefined && posix.basename(imported) !== entryPoint) {
          violations.push(`${source}/${file} imports ${imported}: expected the entry point ${entryPoint} of ${other}`)
        }
      }
    }
  }
}

for (const violation of violations) console.error(violation)
console.log(`${violations.length} imports violate the order of the folders`)
process.exitCode = violations.length > 0 ? 1 : 0
