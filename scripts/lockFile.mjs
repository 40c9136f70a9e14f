// Checks the lock files: they must have a hash for every package and no registry's address, so that `npm ci` installs
// what was tested, from whichever registry the machine uses.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { root } from "./dependencies.mjs"

/** The mistakes in the packages of a lock file, each as a sentence. */
export const mistakes = ({ packages }) => {
  const found = []
  for (const [path, { inBundle, integrity, link, resolved, version }] of Object.entries(packages)) {
    // The workspaces, and the links to them.
    if (!path.includes("node_modules/") || link === true) continue
    const name = `${path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)}@${version}`
    if (resolved !== undefined) {
      found.push(`${name}: expected no registry address (resolved): install with npm's omit-lockfile-registry-resolved`)
    }
    // The contents of a package's bundled dependency are part of that package's hash.
    if (inBundle === true) continue
    if (integrity === undefined) {
      found.push(`${name}: expected an integrity hash, got none: add what \`npm view ${name} dist.integrity\` prints`)
    } else if (!integrity.startsWith("sha512-")) {
      found.push(`${name}: expected an integrity hash of SHA-512, got another one`)
    }
  }
  return found
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const path of ["package-lock.json", "site/package-lock.json"]) {
    const found = mistakes(JSON.parse(readFileSync(join(root, path), "utf8")))
    for (const mistake of found) console.error(`${path}: ${mistake}`)
    if (found.length > 0) process.exitCode = 1
  }
}
