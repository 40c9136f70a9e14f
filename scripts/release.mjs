// npm run release -- VERSION [--dry-run]: everything of a release but the upload. See docs/releasing.md.
// node scripts/release.mjs --notes VERSION: the section of this version in CHANGELOG.md, for the release's page.
//
// Nothing is committed, tagged or published. If a later step fails, the files are as they were before.
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { ensureDependencies, environment, root } from "./dependencies.mjs"
import { pack } from "./pack.mjs"

class Refused extends Error {}

const refuse = (message) => {
  throw new Refused(message)
}

const read = (path) => readFileSync(join(root, path), "utf8")

const git = (...args) => {
  const { error, status, stderr, stdout } = spawnSync("git", args, { cwd: root, encoding: "utf8" })
  if (error !== undefined) refuse(`git could not be started: ${error.message}`)
  if (status !== 0) refuse(`git ${args.join(" ")} ended with status ${status}: ${stderr.trim()}`)
  return stdout.trim()
}

/** The parts of a version, `undefined` if it is not a version of Semantic Versioning 2.0.0 without build metadata. */
const parse = (version) => {
  const number = "(0|[1-9]\\d*)"
  const found = new RegExp(`^${number}\\.${number}\\.${number}(?:-([0-9A-Za-z-]+(?:\\.[0-9A-Za-z-]+)*))?$`).exec(
    version
  )
  if (found === null) return undefined
  const pre = found[4]?.split(".")
  if (pre?.some((part) => /^0\d+$/.test(part))) return undefined
  return { numbers: found.slice(1, 4).map(Number), pre }
}

/** Less than, equal to or greater than 0, by the precedence of Semantic Versioning. */
const compare = (a, b) => {
  for (let i = 0; i < 3; i++) if (a.numbers[i] !== b.numbers[i]) return a.numbers[i] - b.numbers[i]
  if (a.pre === undefined || b.pre === undefined) return Number(a.pre === undefined) - Number(b.pre === undefined)
  for (let i = 0; i < Math.max(a.pre.length, b.pre.length); i++) {
    const [x, y] = [a.pre[i], b.pre[i]]
    if (x === y) continue
    if (x === undefined || y === undefined) return x === undefined ? -1 : 1
    const [isNumber, isOtherNumber] = [/^\d+$/.test(x), /^\d+$/.test(y)]
    if (isNumber && isOtherNumber) return Number(x) - Number(y)
    if (isNumber !== isOtherNumber) return isNumber ? -1 : 1
    return x < y ? -1 : 1
  }
  return 0
}

const headings = (changelog) => [...changelog.matchAll(/^## (?:\[)?([^\s\]]+).*$/gm)]

/** The text below a heading, up to the next one. */
const sectionOf = (changelog, name) => {
  const found = headings(changelog)
  const i = found.findIndex((heading) => heading[1] === name)
  if (i === -1) return undefined
  const { 0: line, index } = found[i]
  return changelog.slice(index + line.length, found[i + 1]?.index ?? changelog.length).trim()
}

const checkVersion = (version, current, changelog) => {
  const parsed = parse(version)
  if (parsed === undefined) refuse(`VERSION: expected a version such as 0.2.0 or 0.2.0-beta.1, got ${version}`)
  const released = headings(changelog)
    .map((heading) => heading[1])
    .filter((name) => parse(name) !== undefined)
  if (released.includes(version)) refuse(`VERSION: CHANGELOG.md already has a section of ${version}`)
  if (git("tag", "--list", `v${version}`) !== "") refuse(`VERSION: there is already a tag v${version}`)
  for (const other of released) {
    if (compare(parsed, parse(other)) < 0) refuse(`VERSION: expected a version above ${other}, got ${version}`)
  }
  // The version of the manifests need not be released yet, and a release candidate of it comes before it.
  if (compare({ ...parsed, pre: undefined }, { ...parse(current), pre: undefined }) < 0) {
    refuse(`VERSION: expected ${current} or a version above it, got ${version}`)
  }
}

const checkTree = () => {
  const branch = git("rev-parse", "--abbrev-ref", "HEAD")
  if (branch !== "main") refuse(`Expected the branch main, got ${branch}: git switch main`)
  const changed = git("status", "--porcelain")
  if (changed !== "") refuse(`Expected a clean working tree, got:\n${changed}\nCommit or stash these changes first.`)
}

const checkChangelog = (changelog) => {
  const unreleased = sectionOf(changelog, "Unreleased")
  if (unreleased === undefined) refuse('CHANGELOG.md: expected the heading "## Unreleased", and it is missing')
  if (!/^(?:- |\|)/m.test(unreleased)) refuse("CHANGELOG.md: expected at least one entry under Unreleased, got none")
}

const dependencyFields = ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"]

/** A range of one of our packages, with the new version: `^0.1.0` keeps its caret. */
const ranged = (range, version) => `${/^[~^]/.exec(range)?.[0] ?? ""}${version}`

/** Sets the version, and the ranges of our own packages, in a manifest or in an entry of the lock file. */
const withVersion = (manifest, version, names) => {
  const result = { ...manifest, version }
  for (const field of dependencyFields) {
    if (manifest[field] === undefined) continue
    result[field] = Object.fromEntries(
      Object.entries(manifest[field]).map(([name, range]) => [name, names.has(name) ? ranged(range, version) : range])
    )
  }
  return result
}

const json = (value) => `${JSON.stringify(value, undefined, 2)}\n`

/** All files that a release changes: the new text by path. */
const changesOf = (version, date) => {
  const { workspaces } = JSON.parse(read("package.json"))
  const paths = ["package.json", ...workspaces.map((folder) => `${folder}/package.json`)]
  const manifests = new Map(paths.map((path) => [path, JSON.parse(read(path))]))
  const names = new Set([...manifests.values()].map(({ name }) => name))
  const changes = new Map()
  for (const [path, manifest] of manifests) changes.set(path, json(withVersion(manifest, version, names)))
  const lock = JSON.parse(read("package-lock.json"))
  const packages = { ...lock.packages }
  for (const folder of ["", ...workspaces]) packages[folder] = withVersion(packages[folder], version, names)
  changes.set("package-lock.json", json({ ...lock, version, packages }))
  changes.set(
    "CHANGELOG.md",
    read("CHANGELOG.md").replace(/^## Unreleased$/m, `## Unreleased\n\n## ${version} - ${date}`)
  )
  return changes
}

const run = (command, ...args) => {
  console.error(`> ${[command, ...args].join(" ")}`)
  const { status } = spawnSync(command, args, {
    cwd: root,
    env: environment(),
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32"
  })
  if (status !== 0) refuse(`${[command, ...args].join(" ")} failed: the files are as they were before`)
}

/** npm's tag of a version: `npm install` gets `latest`, and a release candidate only on request. */
const distTag = (version) => (version.includes("-") ? "next" : "latest")

const nextSteps = (version, tarballs) => `
Version ${version} is prepared. Read the changes (git diff), then:

  git commit --all --message "Release ${version}"
  git tag --annotate v${version} --message "Version ${version}"
  git push origin main v${version}

The tag starts the workflow "Release", which publishes the packages with provenance. To publish by hand instead:

${tarballs.map((path) => `  npm publish ./${path} --tag ${distTag(version)} --provenance=false`).join("\n")}

To undo all of it before the commit: git checkout -- .`

const release = (version, isDryRun) => {
  const changelog = read("CHANGELOG.md")
  checkVersion(version, JSON.parse(read("package.json")).version, changelog)
  checkTree()
  checkChangelog(changelog)
  const changes = changesOf(version, new Date().toISOString().slice(0, 10))
  if (isDryRun) {
    console.log(`${version} can be released. These files would change; then npm run check and npm run pack would run:`)
    for (const [path, text] of changes) console.log(`  ${path}${text === read(path) ? " (has this version)" : ""}`)
    return
  }
  const before = new Map([...changes.keys()].map((path) => [path, read(path)]))
  const write = (files) => {
    for (const [path, text] of files) writeFileSync(join(root, path), text)
  }
  try {
    write(changes)
    run("npm", "run", "--silent", "check")
    const tarballs = Object.entries(pack(join(root, ".pack")))
      .filter(([name]) => JSON.parse(read(`packages/${name}/package.json`)).private !== true)
      .map(([, path]) => relative(root, path))
    console.log(nextSteps(version, tarballs))
  } catch (error) {
    write(before)
    throw error
  }
}

const usage = "Usage: npm run release -- VERSION [--dry-run]"
const args = process.argv.slice(2)
const options = args.filter((arg) => arg.startsWith("--"))
const [version, ...more] = args.filter((arg) => !arg.startsWith("--"))
try {
  if (version === undefined || more.length > 0) refuse(usage)
  const unknown = options.find((option) => option !== "--dry-run" && option !== "--notes")
  if (unknown !== undefined) refuse(`Unknown option ${unknown}. ${usage}`)
  if (options.includes("--notes")) {
    console.log(sectionOf(read("CHANGELOG.md"), version) ?? refuse(`CHANGELOG.md has no section of ${version}`))
  } else {
    ensureDependencies()
    release(version, options.includes("--dry-run"))
  }
} catch (error) {
  if (!(error instanceof Refused)) throw error
  console.error(error.message)
  process.exitCode = 1
}
