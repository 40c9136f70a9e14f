// Part of npm run check: imports run one way through the rooms of docs/architecture.md, types included.
//
// A room is a folder, or the modules that stand in a package's `src` themselves. It imports rooms above it in the list, and
// itself. Files within a room, and all others, may not import each other in a circle: that is the linter's `import/no-cycle`.
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, posix, sep } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** From the top down; `"."`: the public modules. */
const houses = {
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
    "internal/rpc",
    ".",
    "testing"
  ],
  "packages/http/src": ["internal", "internal/gateway", "internal/dashboard", "."]
}

/** Rooms of which only one module may be imported from outside. */
const doors = { "packages/core/src/internal/driver": "driver.ts" }

const importedBy = (text) => {
  const code = text.replaceAll(/\/\*[\s\S]*?\*\//g, "")
  return [...code.matchAll(/^(?:import|export)\b[^"';]*?\bfrom "(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gm)].map(
    (found) => found[1] ?? found[2]
  )
}

const roomOf = (rooms, file) => {
  const folder = dirname(file)
  return (
    rooms
      .filter((room) => room !== "." && (folder === room || folder.startsWith(`${room}/`)))
      .sort((a, b) => b.length - a.length)[0] ?? (folder === "." ? "." : undefined)
  )
}

const violations = []
for (const [house, rooms] of Object.entries(houses)) {
  const files = readdirSync(join(root, house), { recursive: true })
    .map((file) => file.split(sep).join("/"))
    .filter((file) => file.endsWith(".ts"))
  for (const file of files) {
    const room = roomOf(rooms, file)
    if (room === undefined) {
      violations.push(`${house}/${file} stands in no room`)
      continue
    }
    for (const specifier of importedBy(readFileSync(join(root, house, file), "utf8"))) {
      const imported = posix.join(posix.dirname(file), specifier)
      const other = roomOf(rooms, imported)
      if (other === undefined || rooms.indexOf(other) > rooms.indexOf(room)) {
        violations.push(`${house}/${file} (${room}) imports ${imported} (${other}), which is below it`)
      } else if (other !== room) {
        const door = doors[`${house}/${other}`]
        if (door !== undefined && posix.basename(imported) !== door) {
          violations.push(`${house}/${file} imports ${imported}: the door of ${other} is ${door}`)
        }
      }
    }
  }
}

for (const violation of violations) console.error(violation)
console.log(`${violations.length} imports against the order`)
process.exitCode = violations.length > 0 ? 1 : 0
