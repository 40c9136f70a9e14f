/** The one command that runs an example, as the README and the examples give it. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "./support/program.ts"

const root = join(import.meta.dirname, "..", "..", "..")

const examples = ["packages/examples/src", "packages/platform/example"].flatMap((folder) =>
  readdirSync(join(root, folder)).flatMap((file) =>
    file.endsWith(".ts") ? [{ name: file.slice(0, -3), path: `${folder}/${file}` }] : []
  )
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
    it.effect("is the command that every example and the README give, and lists the examples", () =>
      Effect.gen(function* () {
        const rows = readFileSync(join(root, "README.md"), "utf8")
          .split("\n")
          .filter((line) => line.startsWith("| "))
        for (const { name, path } of examples) {
          const command = name === "orders" ? "`npm start`" : `\`npm start -- ${name}\``
          const line = rows.find((row) => row.includes(`(${path})`)) ?? ""
          assert.include(line, command, name)
          const source = readFileSync(join(root, path), "utf8")
          assert.include(source, `Run it with ${command}`)
        }
        const program = yield* start("nothing", {})
        assert.deepInclude(yield* program.ended, { code: 1 })
        assert.include(
          program.output(),
          `Example: expected one of ${examples.map(({ name }) => name).join(", ")}, got "`
        )
      })
    )

    for (const name of ["hello", "rpc"]) {
      it.effect(`runs ${name}, and ends with its exit code`, () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          const program = yield* start(name, { AMQP_URL: url })
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          yield* awaitCensus({ connections: 0, channels: 0 })
        })
      )
    }
  })

  describe("on a machine without RabbitMQ, Docker and root", () => {
    const nobody = { uid: 65_534, gid: 65_534 }
    // Only root may become another user, who may not be able to read this folder.
    const cannotRun =
      process.getuid?.() === 0 &&
      spawnSync(process.execPath, [join(root, "scripts/start.mjs"), "nothing"], nobody).status !== 1

    it.effect.skipIf(cannotRun)(
      "an ordinary user gets a broker in memory, and one line says what it keeps",
      () =>
        Effect.gen(function* () {
          // The installed RabbitMQ is excluded by its name, and the engine of containers by its address.
          const env = {
            AMQP_TEST_BROKER: "container package memory",
            DOCKER_HOST: "unix:///nonexistent",
            HOME: "/nonexistent"
          }
          const user = process.getuid?.() === 0 ? nobody : {}
          const program = yield* run("../../../scripts/start.mjs", { ...env, PORT: "0" }, ["orders"], user)
          yield* program.until(/curl -i /)
          if (process.platform === "linux") {
            const status = readFileSync(`/proc/${program.pid}/status`, "utf8")
            // The real, effective, saved and file system's user.
            assert.match(status, /^Uid:(?:\s+[1-9]\d*){4}$/m)
          }
          yield* program.kill("SIGTERM")
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          const lines = program.output().split("\n")
          assert.deepStrictEqual(
            lines.filter((line) => line.includes("memory")),
            ["The broker is in memory: it plays RabbitMQ 4.3, and keeps nothing when this process ends."]
          )
        }),
      120_000
    )
  })

  describe("ask.ts", () => {
    it.effect(
      "answers over HTTP with its worker's reply, and 404 for an unknown article, and leaves nothing open",
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
      120_000
    )
  })

  describe("effect3.ts", () => {
    it.effect(
      "publishes and consumes on Effect 3, answers a wrong order with 400, and leaves nothing open",
      () =>
        Effect.gen(function* () {
          const { awaitCensus, url } = yield* TestBroker.TestBroker
          const program = yield* start("effect3", { AMQP_URL: url, PORT: "0" })
          const [, orders = ""] = yield* program.until(/curl -i (\S+\/orders) /)
          const post = (body: string) =>
            Effect.promise((signal) =>
              fetch(orders, { method: "POST", headers: { "content-type": "application/json" }, body, signal })
            )
          assert.strictEqual((yield* post('{"id":7,"product":"tea"}')).status, 202)
          yield* program.until(/Shipping 7: tea\n/)
          assert.strictEqual((yield* post('{"id":"seven"}')).status, 400)
          assert.strictEqual((yield* ask(orders.replace("/orders", "/health/ready"))).status, 200)
          yield* program.kill("SIGTERM")
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          assert.notMatch(program.output(), /WARN|ERROR/)
          yield* awaitCensus({ connections: 0, channels: 0, unacked: 0 })
        }),
      120_000
    )
  })
})
