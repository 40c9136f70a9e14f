// Makes a checkout ready to run: installs what package-lock.json says, if it is not there already.
// Run by any Node >= 20, before there is anything in node_modules, so it uses nothing but Node.
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("..", import.meta.url))

const modules = join(root, "node_modules")

/** The Node that the lock file brings along: it runs TypeScript as it is, whatever Node runs npm. */
export const node = join(modules, ".bin", "node")

/** The environment in which the installed tools find each other, and that Node. */
export const environment = () => ({ ...process.env, PATH: join(modules, ".bin") + delimiter + process.env.PATH })

const packages = (path) => JSON.parse(readFileSync(path, "utf8")).packages

// npm writes the hidden lock file last, so an interrupted installation has none.
const outOfDate = () => {
  const installed = join(modules, ".package-lock.json")
  if (!existsSync(installed)) return "nothing is installed yet"
  const present = packages(installed)
  for (const [path, wanted] of Object.entries(packages(join(root, "package-lock.json")))) {
    // Optional packages are for other platforms, links and their targets are our own workspaces.
    if (!path.startsWith("node_modules/") || wanted.link || wanted.optional || wanted.devOptional || wanted.peer)
      continue
    if (present[path]?.version !== wanted.version) {
      return `${path.slice("node_modules/".length)} is not at ${wanted.version}`
    }
  }
  const { error, status } = spawnSync(node, ["--version"], { stdio: "ignore" })
  return error === undefined && status === 0 ? undefined : "the Node in node_modules does not run"
}

export const ensureDependencies = () => {
  const [major] = process.versions.node.split(".").map(Number)
  if (major < 20) {
    console.error(`This needs Node 20 or later to set itself up; this is ${process.version}.`)
    process.exit(1)
  }
  const reason = outOfDate()
  if (reason === undefined) return
  console.error(`> npm ci  (${reason})`)
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32"
  })
  if (status !== 0) {
    console.error("npm ci failed: dependencies could not be installed.")
    process.exit(1)
  }
  const left = outOfDate()
  if (left !== undefined) {
    console.error(`npm ci succeeded, but ${left}.`)
    process.exit(1)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) ensureDependencies()
