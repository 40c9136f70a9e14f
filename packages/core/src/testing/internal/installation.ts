import * as FileSystem from "node:fs"
import * as Path from "node:path"

/** An installed RabbitMQ: the folder of its scripts, and the tools of its Erlang. */
export interface Installation {
  readonly scripts: string
  readonly epmd: string
  /** The `PATH` on which `erl` is found. */
  readonly path: string
}

const usual = [
  "/usr/lib/rabbitmq/bin",
  "/usr/lib64/rabbitmq/bin",
  "/usr/local/lib/rabbitmq/bin",
  "/opt/rabbitmq/sbin",
  "/opt/bitnami/rabbitmq/sbin",
  "/usr/local/sbin",
  "/usr/local/opt/rabbitmq/sbin",
  "/opt/homebrew/sbin",
  "/opt/homebrew/opt/rabbitmq/sbin"
]

// These folders are not on an ordinary user's PATH, but packages put `rabbitmq-server` and `epmd` there.
const administrative = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

const executable = (path: string) => {
  try {
    FileSystem.accessSync(path, FileSystem.constants.X_OK)
    return FileSystem.statSync(path).isFile()
  } catch {
    return false
  }
}

const realPath = (path: string) => {
  try {
    return FileSystem.realpathSync(path)
  } catch {
    return path
  }
}

const readText = (path: string) => {
  try {
    return FileSystem.readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/**
 * RabbitMQ's own scripts are in the folder of `rabbitmq-env`. The `rabbitmq-server` that packages put on the PATH is a
 * wrapper that changes to the user `rabbitmq` and to the system's data folder; the path in it leads to the script that
 * it wraps.
 */
const ownScripts = (folder: string): string | undefined => {
  const script = Path.join(folder, "rabbitmq-server")
  if (!executable(script)) return undefined
  for (const candidate of [folder, Path.dirname(realPath(script))]) {
    if (
      executable(Path.join(candidate, "rabbitmq-env")) ||
      FileSystem.existsSync(Path.join(candidate, "rabbitmq-env"))
    ) {
      return candidate
    }
  }
  for (const match of readText(script).matchAll(/(\/[\w./+-]+)\/(?:rabbitmq-server|\$\{?SCRIPT\b)/g)) {
    const candidate = match[1]
    if (
      candidate !== undefined &&
      executable(Path.join(candidate, "rabbitmq-server")) &&
      FileSystem.existsSync(Path.join(candidate, "rabbitmq-env"))
    ) {
      return candidate
    }
  }
  return undefined
}

const findOn = (folders: ReadonlyArray<string>, name: string) =>
  folders.map((folder) => Path.join(folder, name)).find(executable)

/** Finds epmd: next to `erl`, or in the runtime's folder, to which a bare Erlang installation has no link. */
const findEpmd = (folders: ReadonlyArray<string>, erl: string) => {
  const found = findOn([...folders, Path.dirname(realPath(erl))], "epmd")
  if (found !== undefined) return found
  const root = /^\s*ROOTDIR="?([^"\n]+)"?$/m.exec(readText(erl))?.[1] ?? Path.dirname(Path.dirname(realPath(erl)))
  try {
    const runtimes = FileSystem.readdirSync(root).filter((name) => name.startsWith("erts-"))
    return findOn(
      runtimes.map((name) => Path.join(root, name, "bin")),
      "epmd"
    )
  } catch {
    return undefined
  }
}

/**
 * Looks for an installation: in `RABBITMQ_HOME`, in the usual folders, then on the `PATH`. Returns the installation, or
 * the reason why there is none.
 */
export const find = (env: NodeJS.ProcessEnv, places: ReadonlyArray<string> = usual): Installation | string => {
  const onPath = (env["PATH"] ?? "").split(Path.delimiter).filter((folder) => folder !== "")
  const home = env["RABBITMQ_HOME"]
  const candidates = [...(home === undefined ? [] : [Path.join(home, "sbin"), home]), ...places, ...onPath]
  const scripts = candidates.map(ownScripts).find((folder) => folder !== undefined)
  if (scripts === undefined) return "no rabbitmq-server is installed"
  const folders = [...new Set([...onPath, ...administrative, "/opt/homebrew/bin"])]
  const erl = findOn(folders, "erl")
  if (erl === undefined) return `${scripts}/rabbitmq-server exists, but there is no erl on the PATH`
  const epmd = findEpmd(folders, erl)
  if (epmd === undefined) return `${scripts}/rabbitmq-server exists, but there is no epmd next to ${erl}`
  return { scripts, epmd, path: folders.join(Path.delimiter) }
}
