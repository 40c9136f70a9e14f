/** An installed PostgreSQL: where its programs are, its version, and the user that can run it. */
import { spawnSync } from "node:child_process"
import { accessSync, constants, existsSync, readdirSync, readFileSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"

export interface Installation {
  /** The folder of `initdb` and `postgres`. */
  readonly bin: string
  /** The version, such as `15.18`. */
  readonly version: string
  /** The user that runs the server, if this process is root's: PostgreSQL refuses root. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
}

const executable = (path: string) => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Folders with one folder per major version in them: Debian's, Fedora's, and Homebrew's. The newest comes first. */
const perVersion = () =>
  [
    ["/usr/lib/postgresql", /^[\d.]+$/],
    ["/usr", /^pgsql-[\d.]+$/],
    ["/opt/homebrew/opt", /^postgresql@/],
    ["/usr/local/opt", /^postgresql@/]
  ].flatMap(([folder, name]) =>
    typeof folder === "string" && existsSync(folder)
      ? readdirSync(folder)
          .filter((entry) => (name as RegExp).test(entry))
          .sort((a, b) => Number(b.replace(/[^\d.]/g, "")) - Number(a.replace(/[^\d.]/g, "")))
          .map((entry) => join(folder, entry, "bin"))
      : []
  )

const ownerOf = (passwd: string, name: string) => {
  const [, uid, gid] = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, "m").exec(passwd) ?? []
  return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) }
}

/** Looks in `PG_BIN`, in the usual folders, then on the `PATH`. Returns the reason if there is no installation. */
export const find = (env: NodeJS.ProcessEnv = process.env): Installation | string => {
  const given = env["PG_BIN"]
  const onPath = (env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "")
  const candidates = given === undefined ? [...perVersion(), "/usr/bin", ...onPath] : [given]
  const bin = candidates.find((folder) => ["initdb", "postgres"].every((name) => executable(join(folder, name))))
  if (bin === undefined) {
    return given === undefined
      ? "no PostgreSQL server is installed"
      : `PG_BIN: expected a folder with initdb and postgres, got ${given}`
  }
  const version = /(\d+[\w.]*)/.exec(spawnSync(join(bin, "postgres"), ["--version"], { encoding: "utf8" }).stdout ?? "")
  if (version?.[1] === undefined) return `${join(bin, "postgres")} does not run`
  if (process.getuid?.() !== 0) return { bin, version: version[1], owner: undefined }
  const passwd = readFileSync("/etc/passwd", "utf8")
  const owner = ownerOf(passwd, "postgres") ?? ownerOf(passwd, "nobody")
  return owner === undefined
    ? "PostgreSQL refuses root, and there is no user postgres to run it"
    : { bin, version: version[1], owner }
}

/** `psql`, beside the server's programs or on the `PATH`. */
export const psql = (bin: string | undefined): string | undefined =>
  [...(bin === undefined ? [] : [bin]), ...(process.env["PATH"] ?? "").split(delimiter), dirname("/usr/bin/psql")]
    .map((folder) => join(folder, "psql"))
    .find(executable)
