/** The library and amqplib in one minified file, made by the commands of `docs/deployment.md`. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { node } from "./support/running.ts"

const root = join(import.meta.dirname, "..", "..", "..")
const program = join(import.meta.dirname, "support", "programs", "small.ts")

const commands = Array.from(
  readFileSync(join(root, "docs", "deployment.md"), "utf8").matchAll(/^esbuild app\.ts .*--format=(\w+).*$/gm),
  ([command, format]) => [format ?? "", command] as const
)

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-bundle-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A bundle of one file, minified, with amqplib in it", () => {
    it("is documented as CommonJS and as an ES module", () => {
      assert.deepStrictEqual(
        commands.map(([format]) => format),
        ["cjs", "esm"]
      )
    })

    for (const [format, command] of commands) {
      it.effect(
        `connects, declares, publishes, consumes, tells errors apart and closes (${format})`,
        () =>
          Effect.gen(function* () {
            const { url } = yield* TestBroker.TestBroker
            const into = yield* folder
            const file = join(into, `app.${format === "cjs" ? "cjs" : "mjs"}`)
            const [entry, outfile] = [JSON.stringify(program), JSON.stringify(file)]
            const building = command.replace("app.ts", entry).replace(/--outfile=\S+/, `--outfile=${outfile}`)
            // From the sources, as all tests.
            const build = yield* node(
              ["-c", `${building} --conditions=@effect-amqp/source`],
              { PATH: join(root, "node_modules", ".bin") + delimiter + (process.env["PATH"] ?? "") },
              "sh"
            )
            yield* build.output
            const { output } = yield* node([file], { AMQP_URL: url })
            assert.deepStrictEqual(yield* output, [
              "declared",
              "confirmed",
              "consumed hello",
              "not found 404",
              "closed"
            ])
          }).pipe(Effect.scoped),
        120_000
      )
    }
  })
})
