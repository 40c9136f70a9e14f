/** The one command that runs an example, as the README and the examples themselves tell it. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "./support/program.ts"

const root = join(import.meta.dirname, "..", "..", "..")

const examples = readdirSync(join(root, "packages/examples/src")).flatMap((file) =>
  file.endsWith(".ts") ? [file.slice(0, -3)] : []
)

/** What `npm start -- <name>` runs. */
const start = (name: string, env: Record<string, string>) => run("../../../scripts/start.mjs", env, [name])

const ask = (url: string) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { signal })
    return { status: response.status, body: await response.text() }
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("npm start -- <name>", () => {
    it.effect("is what every example and the README say, and tells which there are", () =>
      Effect.gen(function* () {
        const rows = readFileSync(join(root, "README.md"), "utf8")
          .split("\n")
          .filter((line) => line.startsWith("| "))
        for (const name of examples) {
          const command = name === "orders" ? "`npm start`" : `\`npm start -- ${name}\``
          const line = rows.find((row) => row.includes(`(packages/examples/src/${name}.ts)`)) ?? ""
          assert.include(line, command, name)
          const source = readFileSync(join(root, `packages/examples/src/${name}.ts`), "utf8")
          assert.include(source, `Run it with ${command}`)
        }
        const program = yield* start("nothing", {})
        assert.deepInclude(yield* program.ended, { code: 1 })
        assert.include(program.output(), `There are: ${examples.join(", ")}.`)
      })
    )

    for (const name of ["hello", "rpc"]) {
      it.effect(`runs ${name}, and ends as it ends`, () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          const program = yield* start(name, { AMQP_URL: url })
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          yield* awaitCensus({ connections: 0, channels: 0 })
        })
      )
    }
  })

  describe("ask.ts", () => {
    it.effect(
      "answers over HTTP with what its worker replies, tells what it does not know, and leaves nothing open",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          const program = yield* start("ask", { AMQP_URL: url, PORT: "0" })
          const [, tea = ""] = yield* program.until(/curl -i (\S+)\n/)
          const price = yield* ask(tea)
          assert.deepStrictEqual(
            { ...price, body: JSON.parse(price.body) },
            { status: 200, body: { article: "tea", price: "3.95" } }
          )
          assert.strictEqual((yield* ask(tea.replace("tea", "unicorn"))).status, 404)
          yield* program.kill("SIGTERM")
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          assert.notMatch(program.output(), /WARN|ERROR/)
          yield* awaitCensus({ connections: 0, channels: 0, unacked: 0 })
        }),
      60_000
    )
  })
})
