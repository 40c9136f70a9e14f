// What package-lock.json promises: the contents of every package by their hash, and no registry's address, so that `npm ci`
// installs what was tested from whatever registry the machine uses.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { root } from "./dependencies.mjs"

/** What is wrong with the packages of a lock file, each as a sentence. */
export const mistakes = ({ packages }) => {
  const found = []
  for (const [path, { inBundle, integrity, link, resolved, version }] of Object.entries(packages)) {
    // The workspaces themselves, and the links to them.
    if (!path.includes("node_modules/") || link === true) continue
    const name = `${path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)}@${version}`
    if (resolved !== undefined) {
      found.push(`${name}: it has an address (resolved): install with npm's omit-lockfile-registry-resolved`)
    }
    // What comes inside another package is a part of that one's hash.
    if (inBundle === true) continue
    if (integrity === undefined) {
      found.push(`${name}: its integrity is missing: add what \`npm view ${name} dist.integrity\` prints`)
    } else if (!integrity.startsWith("sha512-")) {
      found.push(`${name}: its integrity is no SHA-512 hash`)
    }
  }
  return found
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = mistakes(JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")))
  for (const mistake of found) console.error(`package-lock.json: ${mistake}`)
  if (found.length > 0) process.exitCode = 1
}
