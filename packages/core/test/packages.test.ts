/** The tarballs, installed in a separate application. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { folder } from "./support/bundles.ts"
import { node } from "./support/processes.ts"

const root = join(import.meta.dirname, "..", "..", "..")

const run = (command: string, args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) =>
  Effect.flatMap(node(args, env, command), ({ output }) => output)

const npm = (cwd: string, ...args: ReadonlyArray<string>) => run("npm", [...args, "--prefix", cwd])

/** The tarballs in the order of the packages, as `npm run pack` builds them. */
const tarballs = (out: string) => run(process.execPath, [join(root, "scripts", "pack.mjs"), out])

/** Effect as a later version of the same major version, as it may be published tomorrow. */
const laterEffect = (folder: string) =>
  Effect.gen(function* () {
    const copy = join(folder, "effect")
    cpSync(join(root, "node_modules", "effect"), copy, {
      recursive: true,
      filter: (path) => !path.endsWith(".map") && !path.includes(join("effect", "src"))
    })
    const manifest = JSON.parse(readFileSync(join(copy, "package.json"), "utf8"))
    writeFileSync(join(copy, "package.json"), JSON.stringify({ ...manifest, version: "4.9.1" }))
    yield* run("npm", ["pack", copy, "--ignore-scripts", "--pack-destination", folder, "--silent"])
    return join(folder, "effect-4.9.1.tgz")
  })

const program = `
import { AmqpConsumer, AmqpLive, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { AmqpHttp } from "@effect-amqp/http"
import { AmqpInbox, AmqpOutbox } from "@effect-amqp/sql"
import { Console, Deferred, Effect } from "effect"

const main = Effect.gen(function* () {
  const received = yield* Deferred.make<string>()
  yield* Effect.forkScoped(
    AmqpConsumer.consume("first-day", (delivery) => Deferred.succeed(received, delivery.content.toString()))
  )
  const publisher = yield* AmqpPublisher.AmqpPublisher
  yield* publisher.publish({ routingKey: "first-day", content: "hello" }, { mandatory: true })
  yield* Console.log(yield* Deferred.await(received), "layer" in AmqpHttp, "sql" in AmqpInbox && "publish" in AmqpOutbox)
})

const Queues = AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue("first-day")))

void main.pipe(Effect.scoped, Effect.provide(Queues), Effect.provide(AmqpLive), Effect.runPromise)
`

const compilerOptions = {
  target: "ES2023",
  module: "NodeNext",
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
  types: ["node"]
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("The packed tarballs", () => {
    it.effect(
      "install alongside a later Effect, type-check without skipLibCheck, and publish and consume",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const app = yield* folder
          const [core = "", http = "", sql = "", cli = ""] = yield* tarballs(join(app, "tarballs"))
          const effect = yield* laterEffect(join(app, "tarballs"))
          writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }))
          // The check of peers is strict: npm ends with ERESOLVE if they do not fit.
          yield* npm(
            app,
            "install",
            "--strict-peer-deps",
            "--no-audit",
            "--no-fund",
            "--prefer-offline",
            core,
            http,
            sql,
            cli,
            effect
          )
          const installed = JSON.parse(readFileSync(join(app, "node_modules", "effect", "package.json"), "utf8"))
          assert.strictEqual(installed.version, "4.9.1")

          mkdirSync(join(app, "node_modules", "@types"), { recursive: true })
          for (const name of ["@types/node", "undici-types"]) {
            symlinkSync(join(root, "node_modules", name), join(app, "node_modules", name))
          }
          writeFileSync(join(app, "main.ts"), program)
          writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }))
          yield* run(join(root, "node_modules", ".bin", "tsc"), ["-p", app])
          assert.include(yield* run(process.execPath, [join(app, "main.js")], { AMQP_URL: url }), "hello true true")

          const doctor = ["exec", "--offline", "--prefix", app, "--", "effect-amqp", "doctor", "--json"]
          const [found = ""] = yield* run("npm", doctor, { AMQP_URL: url })
          assert.include(found, '"ok":true')
        }).pipe(Effect.scoped),
      180_000
    )
  })

  describe("A program that only publishes", () => {
    it.effect(
      "bundles without consumers, RPC and topologies, in less than 460 kB with amqplib",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const out = yield* folder
          const bundle = join(out, "app.mjs")
          const entry = join(import.meta.dirname, "support", "programs", "publisherOnly.ts")
          yield* run(join(root, "node_modules", ".bin", "esbuild"), [
            entry,
            "--bundle",
            "--minify",
            "--platform=node",
            "--format=esm",
            "--conditions=@effect-amqp/source",
            '--banner:js=import { createRequire } from "node:module"; const require = createRequire(import.meta.url)',
            `--metafile=${join(out, "meta.json")}`,
            `--outfile=${bundle}`
          ])
          const { outputs } = JSON.parse(readFileSync(join(out, "meta.json"), "utf8"))
          const [{ bytes, inputs }] = Object.values(outputs) as [
            { readonly bytes: number; readonly inputs: Record<string, { readonly bytesInOutput: number }> }
          ]
          const needless = Object.entries(inputs).filter(
            ([path, { bytesInOutput }]) =>
              bytesInOutput > 0 &&
              /core\/src\/(internal\/(consumer|rpc|topology|pool)\/|Amqp(Consumer|Rpc|Topology|Pool)\.)/.test(path)
          )
          assert.deepStrictEqual(needless, [])
          assert.isBelow(bytes, 460_000)
          assert.isAbove(bytes, 300_000)
          assert.include(yield* run(process.execPath, [bundle], { AMQP_URL: url }), "confirmed")
        }).pipe(Effect.scoped),
      120_000
    )
  })
})
