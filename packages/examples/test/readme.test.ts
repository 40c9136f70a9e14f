/** The README's programs, exactly as they stand there: each runs against a fresh broker, and its effect is asserted. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpChannel } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { Broker, drain } from "./support/broker.ts"
import { run } from "./support/program.ts"

const root = join(import.meta.dirname, "..", "..", "..")
const readme = readFileSync(join(root, "README.md"), "utf8")
const blocks = Array.from(readme.matchAll(/^```ts\n(.*?)^```/gms), ([, code = ""]) => code)

/** The block with this text, as a file from which imports resolve as from an application in the repository. */
const fileOf = (name: string, text: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(root, ".readme-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    ),
    (folder) => {
      const found = blocks.filter((block) => block.includes(text))
      assert.strictEqual(found.length, 1, text)
      const file = join(folder, name)
      writeFileSync(join(folder, "package.json"), '{ "type": "module" }')
      writeFileSync(file, found[0]!)
      return file
    }
  )

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as { readonly port: number }
    server.close(() => resume(Effect.succeed(port)))
  })
})

const send = (url: string, init?: RequestInit) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { ...init, signal })
    return { status: response.status, type: response.headers.get("content-type"), body: await response.text() }
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("The README's first program", () => {
    it.effect("publishes an order, consumes it, and stops in order on Ctrl-C", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const program = yield* run(yield* fileOf("app.ts", "AmqpEvent.layerConsume"), { AMQP_URL: url })
        yield* program.until(/order 1 is in the queue/)
        yield* program.until(/shipping tea/)
        yield* program.kill("SIGINT")
        const { code } = yield* program.ended
        assert.strictEqual(code, 130, program.output())
        assert.notInclude(program.output(), "ERROR")
        yield* awaitCensus({ connections: 0, channels: 0 })
        assert.deepStrictEqual(yield* drain("orders"), [])
      }).pipe(Effect.scoped)
    )
  })

  describe("The README's HTTP service", () => {
    it.effect("answers 202 when the order is in the queue, and a problem when no queue takes it", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const port = yield* freePort
        const program = yield* run(yield* fileOf("server.ts", "HttpRouter.add"), { AMQP_URL: url, PORT: String(port) })
        yield* program.until(/Listening/)
        const address = `http://127.0.0.1:${port}`
        assert.strictEqual((yield* send(`${address}/health/ready`)).status, 200)
        const order = {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: '{"id":2,"product":"tea"}'
        }
        assert.strictEqual((yield* send(`${address}/orders`, order)).status, 202)
        assert.deepStrictEqual(yield* drain("orders"), [order.body])
        assert.strictEqual((yield* send(`${address}/orders`, { ...order, body: '{"id":"two"}' })).status, 400)

        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("orders"))).pipe(Effect.provide(Broker))
        const refused = yield* send(`${address}/orders`, order)
        assert.strictEqual(refused.status, 422, refused.body)
        assert.include(refused.type, "application/problem+json")
        yield* program.kill("SIGTERM")
        yield* program.ended
      }).pipe(Effect.scoped)
    )
  })

  describe("The README's test", () => {
    it.effect(
      "passes as a test of an application",
      () =>
        Effect.gen(function* () {
          const file = yield* fileOf("orders.test.ts", "AmqpTest.layer")
          const folder = join(file, "..")
          writeFileSync(
            join(folder, "vitest.config.ts"),
            'export default { resolve: { conditions: ["@effect-amqp/source"] }, ssr: { resolve: { conditions: ["@effect-amqp/source"] } } }'
          )
          const [code, output] = yield* Effect.promise(
            () =>
              new Promise<readonly [number | null, string]>((resolve) => {
                const vitest = join(root, "node_modules", "vitest", "vitest.mjs")
                const child = spawn(process.execPath, [vitest, "run", "--root", folder], {
                  stdio: ["ignore", "pipe", "pipe"]
                })
                let output = ""
                const onOutput = (chunk: Buffer) => void (output += chunk.toString())
                child.stdout.on("data", onOutput)
                child.stderr.on("data", onOutput)
                child.once("close", (code) => resolve([code, output]))
              })
          )
          assert.strictEqual(code, 0, output)
          assert.match(output, /1 passed/)
        }).pipe(Effect.scoped),
      120_000
    )
  })
})

describe("The README", () => {
  plain("has no program that no test runs", () => {
    assert.strictEqual(blocks.length, 3)
  })
})
