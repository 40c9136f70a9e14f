/** `npm run release`, in a copy of the repository. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { folder } from "./support/bundles.ts"
import { environment } from "./support/environment.ts"

const root = join(import.meta.dirname, "..", "..", "..")

const published = ["package.json", "tsconfig.json", "src"]
const files = [
  "package.json",
  "package-lock.json",
  "CHANGELOG.md",
  "README.md",
  "LICENSE",
  ".gitignore",
  ".npmrc",
  "tsconfig.base.json",
  "scripts",
  "packages/examples/package.json",
  "packages/http/README.md",
  "packages/sql/README.md",
  "packages/cli/README.md",
  "packages/platform/README.md",
  "benchmarks/package.json",
  ...["core", "http", "sql", "cli", "effect4", "platform"].flatMap((name) =>
    published.map((part) => `packages/${name}/${part}`)
  )
]

const changelog = `# Changelog

## Unreleased

### Added

- An entry.

## 0.1.0 - 2026-01-02

### Added

- The first release.
`

interface Ended {
  readonly code: number | null
  readonly output: string
}

interface Repository {
  readonly read: (path: string) => string
  readonly write: (path: string, text: string) => void
  readonly git: (...args: ReadonlyArray<string>) => string
  readonly release: (...args: ReadonlyArray<string>) => Effect.Effect<Ended>
}

const hasGit = spawnSync("git", ["--version"]).status === 0

/** A repository with version 0.1.0 released. Its check is a program that ends with the status in `check-status`. */
const repository = Effect.gen(function* () {
  const copy = yield* folder
  for (const path of files) {
    mkdirSync(dirname(join(copy, path)), { recursive: true })
    cpSync(join(root, path), join(copy, path), { recursive: true })
  }
  // One link per package, so that nothing that is done to this folder reaches the repository's own.
  mkdirSync(join(copy, "node_modules"))
  for (const name of readdirSync(join(root, "node_modules"))) {
    symlinkSync(join(root, "node_modules", name), join(copy, "node_modules", name))
  }
  // The Effect of this package is not the root's.
  symlinkSync(join(root, "packages/platform/node_modules"), join(copy, "packages/platform/node_modules"))
  const read = (path: string) => readFileSync(join(copy, path), "utf8")
  const write = (path: string, text: string) => writeFileSync(join(copy, path), text)
  const git = (...args: ReadonlyArray<string>) => {
    const { status, stderr, stdout } = spawnSync("git", ["-c", "user.name=a", "-c", "user.email=a@b.c", ...args], {
      cwd: copy,
      encoding: "utf8",
      env: environment()
    })
    if (status !== 0) throw new Error(`git ${args.join(" ")}: ${stderr}`)
    return stdout.trim()
  }
  write("CHANGELOG.md", changelog)
  write("check-status", "0")
  write(
    "scripts/check.mjs",
    `import { readFileSync } from "node:fs"
console.log("checked", JSON.parse(readFileSync("packages/http/package.json", "utf8")).version)
process.exitCode = Number(readFileSync("check-status", "utf8"))
`
  )
  git("init", "--quiet", "--initial-branch=main")
  git("add", "--all")
  git("commit", "--quiet", "--message", "All of it")
  const release = (...args: ReadonlyArray<string>) =>
    Effect.callback<Ended>((resume) => {
      const child = spawn(process.execPath, [join(copy, "scripts", "release.mjs"), ...args], {
        cwd: copy,
        env: environment(),
        stdio: ["ignore", "pipe", "pipe"]
      })
      let output = ""
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => void (output += String(bytes)))
      child.once("close", (code) => resume(Effect.succeed({ code, output })))
      return Effect.sync(() => void child.kill("SIGKILL"))
    })
  const result: Repository = { read, write, git, release }
  return { ...result, copy }
})

const today = () => new Date().toISOString().slice(0, 10)

describe.skipIf(!hasGit)("npm run release", () => {
  it.effect(
    "sets the version and the ranges between the packages, dates the changelog, checks and packs",
    () =>
      Effect.gen(function* () {
        const { copy, git, read, release } = yield* repository
        const days = [today()]
        const { code, output } = yield* release("0.2.0")
        assert.strictEqual(code, 0, output)
        days.push(today())

        const manifest = (path: string) => JSON.parse(read(path))
        for (const path of [
          "",
          "packages/core/",
          "packages/http/",
          "packages/sql/",
          "packages/cli/",
          "packages/platform/",
          "packages/examples/",
          "benchmarks/"
        ]) {
          assert.strictEqual(manifest(`${path}package.json`).version, "0.2.0", path)
        }
        assert.strictEqual(manifest("packages/http/package.json").peerDependencies["@effect-amqp/core"], "^0.2.0")
        assert.strictEqual(manifest("packages/http/package.json").peerDependencies.effect, "^4.1.0")
        assert.strictEqual(manifest("benchmarks/package.json").dependencies["@effect-amqp/http"], "0.2.0")

        const dated = days.map((day) => changelog.replace("## Unreleased\n", `## Unreleased\n\n## 0.2.0 - ${day}\n`))
        assert.include(dated, read("CHANGELOG.md"))
        assert.include(output, "checked 0.2.0")
        const status = git("status", "--porcelain").split("\n")
        assert.strictEqual(status.length, 11, status.join("\n"))
        assert.isTrue(
          status.every((line) => /^ ?M /.test(line)),
          "nothing else has changed"
        )

        // The lock file fits the manifests: npm ci compares them before it does anything.
        const ci = spawnSync("npm", ["ci", "--dry-run", "--offline", "--ignore-scripts", "--no-audit"], {
          cwd: copy,
          encoding: "utf8",
          env: environment()
        })
        assert.strictEqual(ci.status, 0, ci.stderr)

        for (const name of ["core", "http", "sql", "cli"]) {
          const tarball = `.pack/effect-amqp-${name}-0.2.0.tgz`
          assert.isTrue(existsSync(join(copy, tarball)), tarball)
          assert.include(output, `npm publish ./${tarball} --tag latest`)
          const packed = spawnSync("tar", ["-xzOf", join(copy, tarball), "package/package.json"], { encoding: "utf8" })
          const { peerDependencies, version } = JSON.parse(packed.stdout)
          assert.strictEqual(version, "0.2.0")
          // The command line has the core inside.
          if (name !== "core" && name !== "cli") assert.strictEqual(peerDependencies["@effect-amqp/core"], "^0.2.0")
        }
        assert.include(output, "git tag --annotate v0.2.0")
        const notes = yield* release("--notes", "0.2.0")
        assert.strictEqual(notes.output.trim(), "### Added\n\n- An entry.")
      }),
    180_000
  )

  it.effect(
    "changes nothing with --dry-run, nor if the check fails",
    () =>
      Effect.gen(function* () {
        const { git, release, write } = yield* repository
        const dry = yield* release("0.2.0", "--dry-run")
        assert.strictEqual(dry.code, 0, dry.output)
        assert.include(dry.output, "packages/http/package.json")
        assert.notInclude(dry.output, "checked")
        assert.strictEqual(git("status", "--porcelain"), "")

        write("check-status", "1")
        git("commit", "--quiet", "--all", "--message", "A check that fails")
        const failed = yield* release("0.2.0")
        assert.strictEqual(failed.code, 1)
        assert.include(failed.output, "checked 0.2.0")
        assert.include(failed.output, "check failed: the files are as they were before")
        assert.strictEqual(git("status", "--porcelain"), "")
      }),
    120_000
  )

  it.effect(
    "refuses a version that is none, was released or is too low, another branch, changes, and an empty changelog",
    () =>
      Effect.gen(function* () {
        const { git, release, write } = yield* repository
        const refused = (message: string, ...args: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            const { code, output } = yield* release(...args)
            assert.strictEqual(code, 1, message)
            assert.include(output, message)
            assert.notInclude(output, "checked")
          })
        yield* refused("Usage: npm run release -- VERSION [--dry-run]")
        yield* refused("Unknown option --dryrun", "0.2.0", "--dryrun")
        for (const version of ["v0.2.0", "0.2", "0.02.0", "0.2.0-01", "0.2.0+1"]) {
          yield* refused(`VERSION: expected a version such as 0.2.0 or 0.2.0-beta.1, got ${version}`, version)
        }
        yield* refused("VERSION: CHANGELOG.md already has a section of 0.1.0", "0.1.0")
        yield* refused("VERSION: expected a version above 0.1.0, got 0.1.0-rc.1", "0.1.0-rc.1")
        yield* refused("VERSION: expected a version above 0.1.0, got 0.0.9", "0.0.9")
        git("tag", "v0.3.0")
        yield* refused("VERSION: there is already a tag v0.3.0", "0.3.0")

        git("switch", "--quiet", "--create", "other")
        yield* refused("Expected the branch main, got other", "0.2.0")
        git("switch", "--quiet", "main")
        write("README.md", "changed")
        yield* refused("Expected a clean working tree", "0.2.0")
        git("checkout", "--", ".")

        write("CHANGELOG.md", changelog.replace("- An entry.\n", ""))
        git("commit", "--quiet", "--all", "--message", "No entry")
        yield* refused("CHANGELOG.md: expected at least one entry under Unreleased, got none", "0.2.0")
        write("CHANGELOG.md", changelog.replace("## Unreleased", "## Next"))
        git("commit", "--quiet", "--all", "--message", "No heading")
        yield* refused('CHANGELOG.md: expected the heading "## Unreleased"', "0.2.0")
      }),
    120_000
  )

  it.effect(
    "orders release candidates, and keeps a version that is not released yet",
    () =>
      Effect.gen(function* () {
        const { git, release, write } = yield* repository
        const section = (version: string) => changelog.replace("## 0.1.0", `## ${version}`)
        const codes = (released: string, versions: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            write("CHANGELOG.md", section(released))
            git("commit", "--quiet", "--all", "--allow-empty", "--message", "Another changelog")
            const ended = yield* Effect.forEach(versions, (version) => release(version, "--dry-run"))
            return ended.map(({ code }) => code)
          })
        assert.deepStrictEqual(
          yield* codes("0.2.0-rc.9", ["0.2.0-rc.10", "0.2.0", "0.2.0-rc.9.1", "0.2.0-rc", "0.2.0-rc.8", "0.2.0-9"]),
          [0, 0, 0, 1, 1, 1]
        )
        assert.deepStrictEqual(yield* codes("0.0.1", ["0.1.0", "0.1.0-rc.1", "0.0.9"]), [0, 0, 1])
      }),
    120_000
  )
})
