/**
 * Bundles of the programs in `test/support/programs`, by their name, built with the commands in `docs/deployment.md`.
 */
import { Effect, type Scope } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join, resolve } from "node:path"
import { node } from "./processes.ts"

const root = join(import.meta.dirname, "..", "..", "..", "..")

/** The commands, each with the format of its output. */
export const commands = Array.from(
  readFileSync(join(root, "docs", "deployment.md"), "utf8").matchAll(/^esbuild app\.ts .*--format=(\w+).*$/gm),
  ([command, format]) => [format ?? "", command] as const
)

/** A folder that is removed when the scope closes. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-bundle-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

/**
 * The file that such a command builds from a program, until the scope closes. It is built from the sources, as all
 * tests are.
 */
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
