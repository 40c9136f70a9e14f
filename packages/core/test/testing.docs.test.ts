/** The files of `docs/testing.md`, type-checked and run in a folder of their own, against a real broker. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { folder } from "./support/bundles.ts"
import { node } from "./support/processes.ts"

const root = join(import.meta.dirname, "..", "..", "..")

const page = readFileSync(join(root, "docs", "testing.md"), "utf8")

// ```ts [src/orders.ts]
const files = [...page.matchAll(/^```ts \[([^\]\n]+)\]\n(.*?)^```$/gms)].map(([, path = "", text = ""]) => ({
  path,
  text
}))

// The package is tested from its sources, and the page's own configuration knows nothing of that.
const configuration = `
import { mergeConfig } from "vitest/config"
import config from "./vitest.config.ts"

const resolve = { conditions: ["@effect-amqp/source"] }

export default mergeConfig(config, { resolve, ssr: { resolve } })
`

const compilerOptions = {
  target: "ES2024",
  module: "NodeNext",
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  allowImportingTsExtensions: true,
  skipLibCheck: true,
  noEmit: true,
  customConditions: ["@effect-amqp/source"],
  types: ["node"]
}

/** The page's project, as a reader has it after `npm install`. */
const project = Effect.gen(function* () {
  const app = yield* folder
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(app, path)), { recursive: true })
    writeFileSync(join(app, path), text)
  }
  for (const { path, text } of files) write(path, text)
  write("package.json", JSON.stringify({ name: "app", private: true, type: "module" }))
  write("run.config.ts", configuration)
  write("tsconfig.json", JSON.stringify({ compilerOptions, include: ["src", "test", "vitest.config.ts"] }))
  mkdirSync(join(app, "node_modules", "@effect-amqp"), { recursive: true })
  for (const name of ["effect", "vitest", "@effect/vitest", "@types/node"]) {
    mkdirSync(dirname(join(app, "node_modules", name)), { recursive: true })
    symlinkSync(join(root, "node_modules", name), join(app, "node_modules", name))
  }
  symlinkSync(join(root, "packages", "core"), join(app, "node_modules", "@effect-amqp", "core"))
  return app
})

// The broker may be one that the environment chooses.
const broker = Object.fromEntries(
  Object.entries(process.env).flatMap(([name, value]) =>
    value !== undefined && name.startsWith("AMQP_") ? [[name, value]] : []
  )
)

const run = (command: string, args: ReadonlyArray<string>) =>
  Effect.flatMap(node(args, broker, command), ({ output }) => output)

const bin = (name: string) => join(root, "node_modules", ".bin", name)

/** The titles of the tests in a file, as far as they are plain strings. */
const titlesIn = (path: string) =>
  [...(files.find((file) => file.path === path)?.text ?? "").matchAll(/(?:it\.effect|\btest)\("([^"]+)"/g)].map(
    ([, title]) => title
  )

const withVitest = files.map(({ path }) => path).filter((path) => path.endsWith(".test.ts"))

const withNode = files.map(({ path }) => path).filter((path) => /^test\/(?!.*\.test\.ts$)/.test(path))

interface Report {
  readonly testResults: ReadonlyArray<{
    readonly assertionResults: ReadonlyArray<{ readonly title: string; readonly status: string }>
  }>
}

describe("docs/testing.md", () => {
  it("shows no other TypeScript than these files", () => {
    assert.lengthOf(page.match(/^```ts/gm) ?? [], files.length)
    assert.includeMembers(
      files.map(({ path }) => path),
      ["vitest.config.ts", "src/orders.ts", "test/orders.test.ts", "test/node.ts"]
    )
  })

  it.live(
    "has files that type-check",
    () => Effect.scoped(Effect.flatMap(project, (app) => run(bin("tsc"), ["-p", app]))),
    120_000
  )

  it.live(
    "has tests that vitest runs",
    () =>
      Effect.gen(function* () {
        const app = yield* project
        const out = join(app, "report.json")
        const config = join(app, "run.config.ts")
        yield* run(bin("vitest"), ["run", "--root", app, "--config", config, "--reporter=json", `--outputFile=${out}`])
        const { testResults }: Report = JSON.parse(readFileSync(out, "utf8"))
        const results = testResults.flatMap(({ assertionResults }) => assertionResults)
        assert.sameMembers(
          results.flatMap(({ status, title }) => (status === "passed" ? [title] : [])),
          withVitest.flatMap(titlesIn)
        )
        assert.isAbove(results.length, 3)
      }).pipe(Effect.scoped),
    120_000
  )

  it.live(
    "has tests that Node runs",
    () =>
      Effect.gen(function* () {
        const app = yield* project
        const paths = withNode.map((path) => join(app, path))
        const lines = yield* run(process.execPath, [
          "--conditions=@effect-amqp/source",
          "--test",
          "--test-reporter=tap",
          ...paths
        ])
        for (const title of withNode.flatMap(titlesIn)) {
          assert.isTrue(
            lines.some((line) => /^ *ok/.test(line) && line.includes(`- ${title}`)),
            `${title}: ${lines.join("\n")}`
          )
        }
        assert.isAbove(withNode.length, 1)
      }).pipe(Effect.scoped),
    120_000
  )
})
