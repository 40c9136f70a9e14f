// The packed tarball, installed in an application of Effect 3, alone and next to one of Effect 4.
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Broker, layer as BrokerLayer } from "./support/Broker.ts"

const root = join(import.meta.dirname, "..", "..", "..")

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-platform-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const run = (command: string, args: ReadonlyArray<string>, cwd: string, env: Readonly<Record<string, string>> = {}) =>
  Effect.async<string>((resume) => {
    execFile(command, args, { cwd, env: { ...process.env, ...env }, maxBuffer: 1e8 }, (error, stdout, stderr) =>
      resume(error === null ? Effect.succeed(stdout) : Effect.die(new Error(`${error.message}\n${stdout}\n${stderr}`)))
    )
  })

const installed = (name: string) => {
  const { version } = JSON.parse(
    readFileSync(join(root, "packages/platform/node_modules", name, "package.json"), "utf8")
  ) as { readonly version: string }
  return `${name}@${version}`
}

/** The oldest version that the package accepts. */
const oldest = (name: string) => {
  const { peerDependencies } = JSON.parse(readFileSync(join(root, "packages/platform/package.json"), "utf8")) as {
    readonly peerDependencies: Readonly<Record<string, string>>
  }
  return `${name}@${peerDependencies[name]!.replace("^", "")}`
}

const install = (cwd: string, ...packages: ReadonlyArray<string>) =>
  // The check of peers is strict: npm ends with ERESOLVE if they do not fit.
  run(
    "npm",
    ["install", "--strict-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", ...packages],
    cwd
  )

const compilerOptions = {
  target: "ES2023",
  module: "NodeNext",
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
  types: ["node"]
}

const program = `
import { AmqpChannel, AmqpConsumer, AmqpError, AmqpLive, AmqpMessage, AmqpPublisher, AmqpTopology } from "@effect-amqp/platform"
import { Console, Deferred, Effect, Schema } from "effect"

const Order = Schema.Struct({ id: Schema.Number })
const queue = process.argv[2] ?? "first-day"

const main = Effect.gen(function* () {
  const received = yield* Deferred.make<number>()
  yield* Effect.forkScoped(
    AmqpConsumer.consume(queue, ({ id }) => Deferred.succeed(received, id), { schema: Order })
  )
  const message = yield* AmqpMessage.json(Order).encode({ id: 7 }, { routingKey: queue })
  yield* AmqpPublisher.publish(message, { mandatory: true })
  const missing = yield* AmqpChannel.use((channel) => channel.queueDeclarePassive("missing")).pipe(
    Effect.as("found"),
    AmqpError.catchReason("NotFound", ({ _tag }) => Effect.succeed(_tag))
  )
  yield* Console.log("effect 3:", yield* Deferred.await(received), missing)
})

void main.pipe(
  Effect.scoped,
  Effect.provide(AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue(queue)))),
  Effect.provide(AmqpLive),
  Effect.runPromise
)
`

const withHttp = `
import { HttpRouter, HttpServerResponse } from "@effect/platform"
import { AmqpPublisher } from "@effect-amqp/platform"
import { AmqpHttp } from "@effect-amqp/platform/http"
import { Effect } from "effect"

export const router = HttpRouter.empty.pipe(
  HttpRouter.post("/orders", Effect.as(AmqpPublisher.publish({ routingKey: "orders", content: "x" }), HttpServerResponse.empty())),
  HttpRouter.use(AmqpHttp.middleware)
)
`

const effect4 = `
import { AmqpLive, AmqpPublisher } from "@effect-amqp/core"
import { Console, Effect } from "effect"

void AmqpPublisher.publish({ routingKey: "first-day", content: "x" }).pipe(
  Effect.flatMap(({ _tag }) => Console.log("effect 4:", _tag)),
  Effect.provide(AmqpLive),
  Effect.runPromise
)
`

const both = `
import "./three/main.js"
import "./four/main.js"
`

const typesOfNode = (app: string) => {
  mkdirSync(join(app, "node_modules", "@types"), { recursive: true })
  for (const name of ["@types/node", "undici-types"]) {
    if (!existsSync(join(app, "node_modules", name))) {
      symlinkSync(join(root, "node_modules", name), join(app, "node_modules", name))
    }
  }
}

const compile = (app: string, files: ReadonlyArray<string>) => {
  writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, files }))
  return run(join(root, "node_modules", ".bin", "tsc"), ["-p", app], app)
}

describe("the packed tarball", () => {
  layer(BrokerLayer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped(
      "installs with the oldest and the present Effect 3, type-checks without skipLibCheck, and publishes and consumes",
      () =>
        Effect.gen(function* () {
          const { url } = yield* Broker
          const base = yield* folder
          const packed = yield* run(process.execPath, [join(root, "scripts/pack.mjs"), join(base, "tarballs")], root)
          const tarballs = packed.trim().split("\n")
          const named = (name: string) => tarballs.find((path) => path.includes(`/effect-amqp-${name}-0`))!

          const alone = join(base, "alone")
          mkdirSync(alone)
          writeFileSync(join(alone, "package.json"), JSON.stringify({ name: "alone", private: true, type: "module" }))
          yield* install(alone, named("platform"), oldest("effect"))
          assert.isFalse(existsSync(join(alone, "node_modules/@effect-amqp/core")))
          assert.isFalse(existsSync(join(alone, "node_modules/@effect-amqp/platform/node_modules")))
          // Without @effect/platform, whose entry nobody imports here.
          assert.isFalse(existsSync(join(alone, "node_modules/@effect/platform")))
          const dist = join(alone, "node_modules/@effect-amqp/platform/dist")
          const javaScript = readdirSync(dist, { recursive: true, encoding: "utf8" })
            .filter((name) => name.endsWith(".js"))
            .map((name) => statSync(join(dist, name)).size)
          assert.isBelow(
            javaScript.reduce((sum, size) => sum + size, 0),
            // 579 kB, and room for changes of the core: what nothing uses must not be in it.
            600_000
          )
          typesOfNode(alone)
          writeFileSync(join(alone, "main.ts"), program)
          yield* compile(alone, ["main.ts"])
          const output = yield* run(process.execPath, ["main.js"], alone, { AMQP_URL: url })
          assert.include(output, "effect 3: 7 NotFound")

          yield* install(alone, oldest("@effect/platform"))
          typesOfNode(alone)
          writeFileSync(join(alone, "http.ts"), withHttp)
          yield* compile(alone, ["main.ts", "http.ts"])
          yield* run(process.execPath, ["http.js"], alone)

          // A workspace with an application of each Effect, which runs both in one process.
          const workspace = join(base, "workspace")
          for (const name of ["three", "four"]) mkdirSync(join(workspace, name), { recursive: true })
          const manifest = (path: string, content: object) =>
            writeFileSync(
              join(workspace, path, "package.json"),
              JSON.stringify({ private: true, type: "module", ...content })
            )
          manifest(".", { name: "workspace", workspaces: ["three", "four"] })
          const [, version3 = ""] = installed("effect").split("@")
          const effect4Manifest = JSON.parse(readFileSync(join(root, "node_modules/effect/package.json"), "utf8"))
          manifest("three", {
            name: "three",
            version: "1.0.0",
            dependencies: { "@effect-amqp/platform": `file:${named("platform")}`, effect: version3 }
          })
          manifest("four", {
            name: "four",
            version: "1.0.0",
            dependencies: { "@effect-amqp/core": `file:${named("core")}`, effect: effect4Manifest.version as string }
          })
          yield* install(workspace)
          typesOfNode(workspace)
          writeFileSync(join(workspace, "three/main.ts"), program)
          writeFileSync(join(workspace, "four/main.ts"), effect4)
          writeFileSync(join(workspace, "main.ts"), both)
          yield* compile(workspace, ["main.ts", "three/main.ts", "four/main.ts"])
          // The program of Effect 4 publishes what no consumer of the other one takes.
          const together = yield* run(process.execPath, ["main.js", "second-day"], workspace, { AMQP_URL: url })
          assert.include(together, "effect 3: 7 NotFound")
          assert.include(together, "effect 4: Confirmed")
        }),
      // npm installs three times, which takes minutes on a busy machine.
      600_000
    )
  })
})
