/** Bundles of programs, of those in `test/support/programs` by their name, made by the commands that `docs/deployment.md` has. */
import { Effect, type Scope } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join, resolve } from "node:path"
import { node } from "./processes.ts"

const root = join(import.meta.dirname, "..", "..", "..", "..")

/** The commands, each with the format of what it makes. */
export const commands = Array.from(
  readFileSync(join(root, "docs", "deployment.md"), "utf8").matchAll(/^esbuild app\.ts .*--format=(\w+).*$/gm),
  ([command, format]) => [format ?? "", command] as const
)

/** A folder that is gone when the scope closes. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-bundle-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

/** The file that such a command makes of a program, until the scope closes. From the sources, as all tests. */
export const bundle = (
  program: string,
  [format, command]: (typeof commands)[number]
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.gen(function* () {
    const file = join(yield* folder, `app.${format === "cjs" ? "cjs" : "mjs"}`)
    const [entry, outfile] = [resolve(import.meta.dirname, "programs", program), file].map((path) =>
      JSON.stringify(path)
    )
    const building = command.replace("app.ts", entry!).replace(/--outfile=\S+/, `--outfile=${outfile}`)
    const build = yield* node(
      ["-c", `${building} --conditions=@effect-amqp/source`],
      { PATH: join(root, "node_modules", ".bin") + delimiter + (process.env["PATH"] ?? "") },
      "sh"
    )
    yield* build.output
    return file
  })
