// Makes a checkout ready to run: installs what package-lock.json says, if it is not installed yet. Any Node >= 20 runs
// this before there is anything in node_modules, so it imports only Node's own modules.
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { delimiter, dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("..", import.meta.url))

const modules = join(root, "node_modules")

/**
 * The Node that the lock file installs. It runs TypeScript directly, whichever Node runs npm. `EFFECT_AMQP_NODE` is the
 * path of another one, to run the tests on it.
 */
export const node = process.env.EFFECT_AMQP_NODE ?? join(modules, ".bin", "node")

/** The environment in which the installed tools find each other, and that Node. */
export const environment = () => ({
  ...process.env,
  PATH: [dirname(node), join(modules, ".bin"), process.env.PATH].join(delimiter)
})

const packages = (path) => JSON.parse(readFileSync(path, "utf8")).packages

// npm writes the hidden lock file last, so an interrupted installation has none.
const outOfDate = (folder) => {
  const installed = join(folder, "node_modules", ".package-lock.json")
  if (!existsSync(installed)) return "nothing is installed"
  const present = packages(installed)
  for (const [path, wanted] of Object.entries(packages(join(folder, "package-lock.json")))) {
    // Optional packages are for other platforms. Links and their targets are the workspaces.
    if (!path.includes("node_modules/") || wanted.link || wanted.optional || wanted.devOptional || wanted.peer) continue
    if (present[path]?.version !== wanted.version) {
      return `${path}: expected version ${wanted.version}, got ${present[path]?.version ?? "none"}`
    }
  }
  if (folder !== root) return undefined
  const { error, status } = spawnSync(node, ["--version"], { stdio: "ignore" })
  return error === undefined && status === 0 ? undefined : `${node} does not run`
}

/** Installs what a folder's package-lock.json says: the repository's, or that of a tool with dependencies of its own. */
export const ensureDependencies = (folder = root) => {
  const [major] = process.versions.node.split(".").map(Number)
  if (major < 20) {
    console.error(`Node: expected version 20 or later for the installation, got ${process.version}.`)
    process.exit(1)
  }
  const reason = outOfDate(folder)
  if (reason === undefined) return
  console.error(`> npm ci  (${folder === root ? "" : `in ${relative(root, folder)}: `}${reason})`)
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: folder,
    stdio: ["ignore", "inherit", "inherit"],
    shell: process.platform === "win32"
  })
  if (status !== 0) {
    console.error("npm ci failed, so the dependencies are not installed. Its output is above.")
    process.exit(1)
  }
  const left = outOfDate(folder)
  if (left !== undefined) {
    console.error(`npm ci succeeded, but the installation is incomplete (${left}).`)
    process.exit(1)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) ensureDependencies()
