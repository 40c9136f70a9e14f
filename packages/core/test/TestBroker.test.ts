import { TestBroker } from "@effect-amqp/core/testing"
import { assert, describe, it, layer } from "@effect/vitest"
import type { ChannelModel } from "amqplib"
import * as Amqplib from "amqplib"
import { Context, Effect, Fiber, Layer, Result, Schedule } from "effect"
import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Readline from "node:readline"
import { fromCoordinates } from "../src/testing/internal/access.ts"
import * as Container from "../src/testing/internal/container.ts"
import * as Installation from "../src/testing/internal/installation.ts"
import * as Operations from "../src/testing/internal/operations.ts"
import * as Resolve from "../src/testing/internal/resolve.ts"
import * as Url from "../src/testing/internal/url.ts"

// A private broker on a busy machine may take half a minute to start.
const patience = 120_000

const connect = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(() => Amqplib.connect(url, { timeout: 10_000 })),
    (connection) => Effect.promise(() => connection.close().catch(() => {}))
  )

const emitted = (connection: ChannelModel, event: "blocked" | "unblocked" | "close") =>
  Effect.callback<unknown>((resume) => {
    connection.once(event, (value: unknown) => resume(Effect.succeed(value)))
  })

const answers = (url: string) =>
  Effect.callback<boolean>((resume) => {
    const socket = Net.connect({ host: "127.0.0.1", port: Number(new URL(url).port) })
    socket.once("connect", () => resume(Effect.succeed(true)))
    socket.once("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => socket.destroy())
  })

const runs = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const remains = (broker: { readonly url: string; readonly processes: TestBroker.Processes | undefined }) =>
  Effect.map(answers(broker.url), (answering) => ({
    answering,
    server: runs(broker.processes?.server ?? 0),
    epmd: runs(broker.processes?.epmd ?? 0),
    folder: FileSystem.existsSync(broker.processes?.directory ?? "/")
  }))

const nothing = { answering: false, server: false, epmd: false, folder: false }

/** Polls, since no event reports the end of another process's children. */
const awaitGone = (broker: Parameters<typeof remains>[0]) =>
  remains(broker).pipe(
    Effect.repeat({
      until: (left) => !Object.values(left).includes(true),
      schedule: Schedule.spaced("20 millis")
    }),
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => remains(broker) })
  )

// The layer is built again: the one that the tests share is memoized.
const build = <A, E>(layer: Layer.Layer<A, E>) => Layer.build(Layer.fresh(layer))

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => FileSystem.mkdtempSync(Path.join(Os.tmpdir(), "test-broker-"))),
  (folder) => Effect.sync(() => FileSystem.rmSync(folder, { recursive: true, force: true }))
)

/** A separate program that starts a private broker, prints its address, and stays. */
const privateProgram = `
  import { TestBroker } from "@effect-amqp/core/testing"
  import { Effect } from "effect"
  const main = Effect.gen(function* () {
    const { census, origin, processes, url } = yield* TestBroker.TestBroker
    yield* census
    console.log(JSON.stringify({ origin, processes, url, uid: process.getuid() }))
    return yield* Effect.never
  })
  setInterval(() => {}, 60_000)
  await Effect.runPromise(Effect.provide(main, TestBroker.layerPrivate()))
`

interface PrivateReport {
  readonly origin: TestBroker.Origin
  readonly processes: TestBroker.Processes
  readonly url: string
  readonly uid: number
}

/** A separate program that uses the shared broker, and ends. */
const sharedProgram = `
  import { TestBroker } from "@effect-amqp/core/testing"
  import { Effect } from "effect"
  const main = Effect.gen(function* () {
    const { census, origin, processes, url, vhost } = yield* TestBroker.TestBroker
    const counted = yield* Effect.match(census, { onSuccess: ({ connections }) => connections, onFailure: String })
    console.log(JSON.stringify({ counted, origin, processes, url, vhost }))
  })
  await Effect.runPromise(Effect.provide(main, TestBroker.layer))
`

interface SharedReport {
  readonly origin: TestBroker.Origin
  readonly processes: TestBroker.Processes
  readonly url: string
  readonly vhost: string
  readonly counted: number | string
}

/** A separate test run: two workers at a time, and the end of the run. */
const runProgramText = `
  import setup from "./src/testing/vitest.ts"
  import { execFile } from "node:child_process"
  import { promisify } from "node:util"
  const teardown = await setup()
  const worker = () => promisify(execFile)(process.execPath, process.execArgv.concat("--eval", process.env.WORKER))
  const workers = await Promise.all([worker(), worker()])
  await teardown()
  console.log("[" + workers.map(({ stdout }) => stdout.split("\\n").find((line) => line.startsWith("{"))) + "]")
`

const flags = ["--conditions=@effect-amqp/source", "--input-type=module"]

/** Runs a program until it has printed its report, one line of JSON, and ends it with the scope. */
const run = <A>(
  program: string,
  options: { readonly uid?: number; readonly gid?: number; readonly env?: NodeJS.ProcessEnv } = {}
) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn(process.execPath, [...flags, "--eval", program], {
        ...options,
        cwd: Path.join(import.meta.dirname, ".."),
        // The program must not use the lobby of the run that this test belongs to.
        env: { ...(options.env ?? process.env), EFFECT_AMQP_TEST_LOBBY: undefined, NODE_OPTIONS: undefined },
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  ).pipe(
    Effect.flatMap((child) =>
      Effect.callback<{ readonly child: ChildProcess.ChildProcess; readonly report: A }, Error>((resume) => {
        const lines = Readline.createInterface({ input: child.stdout })
        lines.on("line", (line) => {
          if (/^[[{]["{]/.test(line)) resume(Effect.succeed({ child, report: JSON.parse(line) as A }))
        })
        child.once("close", (code) => resume(Effect.fail(new Error(`the program ended with code ${code}`))))
      })
    )
  )

/** The exit code of a program that ends on its own. */
const ended = (child: ChildProcess.ChildProcess) =>
  Effect.callback<number | null>((resume) => {
    if (child.exitCode !== null) return resume(Effect.succeed(child.exitCode))
    child.once("exit", (code) => resume(Effect.succeed(code)))
  })

layer(TestBroker.layer, { timeout: patience })("TestBroker.layer", (it) => {
  it.effect("gives a URL that a client can connect to, in a virtual host of its own", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const connection = yield* connect(broker.url)
      const channel = yield* Effect.promise(() => connection.createChannel())
      const { queue } = yield* Effect.promise(() => channel.assertQueue("", { exclusive: true }))
      assert.match(queue, /^amq\.gen/)
      if (broker.origin !== "url") assert.match(broker.vhost, /^test-[\da-f]{16}$/)
    })
  )

  it.effect("counts connections, channels, consumers, unsettled deliveries and queues exactly, without lag", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      yield* broker.awaitCensus({ connections: 0, channels: 0, queues: 0 })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(broker.url)
          const channel = yield* Effect.promise(() => connection.createConfirmChannel())
          yield* Effect.promise(() => connection.createChannel())
          yield* Effect.promise(() => channel.assertQueue("census", { durable: false }))
          yield* Effect.promise(async () => {
            for (let i = 0; i < 5; i++) channel.sendToQueue("census", Buffer.from("message"))
            await channel.waitForConfirms()
          })
          assert.deepStrictEqual(yield* broker.census, {
            connections: 1,
            channels: 2,
            consumers: 0,
            unacked: 0,
            unconfirmed: 0,
            queues: 1,
            messages: 5
          })
          for (let i = 0; i < 3; i++) yield* Effect.promise(() => channel.get("census"))
          yield* Effect.promise(() => connection.createChannel())
          assert.deepStrictEqual(yield* broker.queues, [
            { name: "census", messages: 5, ready: 2, unacked: 3, consumers: 0 }
          ])
          yield* Effect.promise(() => channel.consume("census", () => {}))
          const census = yield* broker.awaitCensus({ unacked: 5 })
          assert.deepStrictEqual(census, {
            connections: 1,
            channels: 3,
            consumers: 1,
            unacked: 5,
            unconfirmed: 0,
            queues: 1,
            messages: 5
          })
          yield* Effect.promise(() => channel.deleteQueue("census"))
        })
      )
      yield* broker.awaitCensus({ connections: 0, channels: 0, consumers: 0, unacked: 0, queues: 0 })
    })
  )

  it.effect("counts its own virtual host only", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const other = Context.get(yield* build(TestBroker.layer), TestBroker.TestBroker)
      assert.notStrictEqual(other.vhost, broker.vhost)
      yield* connect(other.url)
      assert.strictEqual((yield* other.census).connections, 1)
      yield* broker.awaitCensus({ connections: 0 })
    })
  )

  it.effect("reports what the census last was, if it does not become what was expected", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const error = yield* Effect.flip(broker.awaitCensus({ connections: 7 }, { timeout: "50 millis" }))
      assert.strictEqual(error.reason, "CommandFailed")
      assert.match(error.message, /"connections":7.*got.*"connections":0/)
    })
  )

  it.effect("deletes its virtual host when the layer closes", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const listed = Effect.map(broker.ctl("list_vhosts", "name"), (output) => output.split("\n"))
      const vhost = yield* Effect.scoped(
        Effect.gen(function* () {
          const other = Context.get(yield* build(TestBroker.layer), TestBroker.TestBroker)
          assert.include(yield* listed, other.vhost)
          return other.vhost
        })
      )
      assert.notInclude(yield* listed, vhost)
    })
  )

  it.effect("closes connections from the server with 320 and the given reason", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      yield* broker.awaitCensus({ connections: 0 })
      const connection = yield* connect(broker.url)
      const closed = emitted(connection, "close")
      const [reason, count] = yield* Effect.all([closed, broker.closeConnections("100 % ~p sure")], {
        concurrency: "unbounded"
      })
      assert.strictEqual(count, 1)
      assert.propertyVal(reason, "code", 320)
      assert.include(String(reason), "100 % ~p sure")
    })
  )

  it.effect("kills connections without a close", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      yield* broker.awaitCensus({ connections: 0 })
      const connection = yield* connect(broker.url)
      connection.on("error", () => {})
      const [reason] = yield* Effect.all([emitted(connection, "close"), broker.killConnections], {
        concurrency: "unbounded"
      })
      assert.notPropertyVal(reason, "code", 320)
      yield* broker.awaitCensus({ connections: 0 })
    })
  )

  it.effect("returns what rabbitmqctl and Erlang answer, and what they refuse", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      assert.strictEqual(yield* broker.evaluate("lists:sum([1, 2, 3])."), "6")
      assert.strictEqual(yield* broker.evaluate(`<<"grün"/utf8>>.`), "grün")
      const refusal = yield* Effect.flip(broker.evaluate("1 = 2."))
      assert.include(refusal.message, "badmatch")
      const error = yield* Effect.flip(broker.ctl("change_password", "nobody-of-that-name", "x"))
      assert.include(error.message, "nobody-of-that-name")
    })
  )
})

describe("TestBroker.layerPrivate", () => {
  it.live(
    "blocks and unblocks publishers, as a client sees it",
    () =>
      Effect.gen(function* () {
        const broker = Context.get(yield* build(TestBroker.layerPrivate()), TestBroker.TestBroker)
        const connection = yield* connect(broker.url)
        const channel = yield* Effect.promise(() => connection.createChannel())
        yield* broker.blockPublishers
        const blocked = emitted(connection, "blocked")
        const [notice] = yield* Effect.all(
          [blocked, Effect.sync(() => channel.publish("", "nowhere", Buffer.from("message")))],
          { concurrency: "unbounded" }
        )
        assert.include(JSON.stringify(notice), "low on memory")
        yield* Effect.all([emitted(connection, "unblocked"), broker.unblockPublishers], { concurrency: "unbounded" })
      }),
    patience
  )

  it.live(
    "runs two brokers at the same time, and leaves nothing of them",
    () =>
      Effect.gen(function* () {
        let before = 0
        const brokers = yield* Effect.scoped(
          Effect.gen(function* () {
            const started = yield* Effect.all([build(TestBroker.layerPrivate()), build(TestBroker.layerPrivate())], {
              concurrency: "unbounded"
            })
            const brokers = started.map((context) => Context.get(context, TestBroker.TestBroker))
            assert.strictEqual(new Set(brokers.map(({ url }) => new URL(url).port)).size, 2)
            for (const broker of brokers) {
              yield* Effect.scoped(connect(broker.url))
              assert.strictEqual((yield* broker.ctl("list_vhosts", "name")).split("\n").length, 3)
            }
            before = Date.now()
            return brokers
          })
        )
        assert.isBelow(Date.now() - before, 3_000)
        for (const broker of brokers) assert.deepStrictEqual(yield* remains(broker), nothing)
      }),
    patience
  )

  it.live(
    "leaves nothing behind when the process that started it is killed",
    () =>
      Effect.gen(function* () {
        const { child, report } = yield* run<PrivateReport>(privateProgram)
        assert.deepStrictEqual(yield* remains(report), { answering: true, server: true, epmd: true, folder: true })
        child.kill("SIGKILL")
        assert.deepStrictEqual(yield* awaitGone(report), nothing)
      }),
    patience
  )

  it.live(
    "leaves nothing behind when it is interrupted while it starts",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const before = process.env["TMPDIR"]
        process.env["TMPDIR"] = folder
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            if (before === undefined) delete process.env["TMPDIR"]
            else process.env["TMPDIR"] = before
          })
        )
        const fiber = yield* Effect.forkChild(Effect.scoped(build(TestBroker.layerPrivate())))
        yield* Effect.repeat(
          Effect.sync(() => FileSystem.globSync(`${folder}/*/data`).length),
          { until: (count) => count > 0, schedule: Schedule.spaced("20 millis") }
        )
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(FileSystem.readdirSync(folder), [])
      }),
    patience
  )

  it.live(
    "ends automatically when its supervisor is killed",
    () =>
      Effect.gen(function* () {
        const broker = Context.get(yield* build(TestBroker.layerPrivate()), TestBroker.TestBroker)
        process.kill(broker.processes?.supervisor ?? 0, "SIGKILL")
        const left = yield* awaitGone(broker)
        assert.isFalse(left.answering)
        assert.isFalse(left.folder)
      }),
    patience
  )

  const nobody = { uid: 65_534, gid: 65_534 }
  const notAsNobody =
    process.getuid?.() !== 0
      ? " [skipped: only root can become an ordinary user; this run is one already]"
      : ChildProcess.spawnSync(process.execPath, [import.meta.filename, "--version"], { ...nobody, cwd: "/" }).error
        ? " [skipped: an ordinary user cannot read this checkout]"
        : ""
  it.live.skipIf(notAsNobody !== "")(
    `runs as an ordinary user${notAsNobody}`,
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        FileSystem.chmodSync(folder, 0o777)
        const { HOME: _, ...env } = process.env
        const { child, report } = yield* run<PrivateReport>(privateProgram, {
          ...nobody,
          env: { ...env, TMPDIR: folder }
        })
        assert.strictEqual(report.uid, nobody.uid)
        assert.strictEqual(FileSystem.statSync(report.processes.directory).uid, nobody.uid)
        yield* Effect.scoped(connect(report.url))
        child.kill("SIGKILL")
        assert.deepStrictEqual(yield* awaitGone(report), nothing)
      }),
    patience
  )
})

describe("TestBroker.layer and the processes of a run", () => {
  it.live(
    "share one broker, each with a virtual host of its own, and end it with the run",
    () =>
      Effect.gen(function* () {
        const { report } = yield* run<ReadonlyArray<SharedReport>>(runProgramText, {
          env: { ...process.env, WORKER: sharedProgram }
        })
        assert.lengthOf(report, 2)
        const [one, two] = report
        assert(one !== undefined && two !== undefined)
        assert.strictEqual(new URL(one.url).host, new URL(two.url).host)
        assert.notStrictEqual(one.vhost, two.vhost)
        assert.strictEqual(one.counted, 0)
        if (one.origin !== "url") assert.isFalse(yield* answers(one.url))
      }),
    patience
  )

  it.live(
    "use the broker at AMQP_URL as far as a rabbitmqctl reaches it",
    (context) =>
      Effect.gen(function* () {
        const broker = yield* Resolve.first(Resolve.ways({ exclusive: true }))
        const cli = broker.cli
        if (cli === undefined || typeof cli.env === "string") {
          return context.skip("needs a rabbitmqctl on this machine")
        }
        const AMQP_URL = `${broker.url}/%2F`
        const { HOME, PATH, ERL_EPMD_PORT, ERL_INETRC } = cli.env
        const without = yield* run<SharedReport>(sharedProgram, { env: { AMQP_URL, PATH: "/nonexistent" } })
        assert.strictEqual(without.report.origin, "url")
        assert.strictEqual(without.report.vhost, "/")
        assert.match(String(without.report.counted), /AMQP_TEST_RABBITMQCTL/)
        const variables = Object.entries({ HOME, PATH, ERL_EPMD_PORT, ERL_INETRC, LC_ALL: "C.UTF-8" })
        const words = ["env", ...variables.map(([name, value]) => `${name}=${value}`), cli.command, ...cli.args]
        const reached = yield* run<SharedReport>(sharedProgram, {
          env: { ...process.env, AMQP_URL, AMQP_TEST_RABBITMQCTL: words.join(" ") }
        })
        assert.strictEqual(reached.report.origin, "url")
        assert.match(reached.report.vhost, /^test-/)
        assert.strictEqual(reached.report.counted, 0)
        // The program deletes its virtual host first. If it were killed then, a rabbitmqctl that waits for this broker
        // would stay.
        assert.strictEqual(yield* ended(reached.child), 0)
      }),
    patience
  )
})

const way = (origin: TestBroker.Origin, start: Resolve.Way["start"]): Resolve.Way => ({ origin, start })

const unavailable = (origin: TestBroker.Origin, reason: string) => way(origin, Effect.fail(reason))

const broken = (origin: TestBroker.Origin, message: string) =>
  way(origin, Effect.succeed(Effect.fail(new TestBroker.TestBrokerError({ reason: "StartFailed", message }))))

const working = (origin: TestBroker.Origin) =>
  way(origin, Effect.succeed(Effect.succeed({ origin, url: "amqp://guest:guest@127.0.0.1:1", description: origin })))

describe("the ways to a broker", () => {
  it.effect("are AMQP_URL, the installed binary, a container, and the distribution's package, in this order", () =>
    Effect.sync(() => {
      const origins = (exclusive: boolean) => Resolve.ways({ exclusive }).map(({ origin }) => origin)
      assert.deepStrictEqual(origins(false), ["url", "binary", "container", "package", "memory"])
      assert.deepStrictEqual(origins(true), ["binary", "container", "package", "memory"])
    })
  )

  it.effect("are tried until one works", () =>
    Effect.gen(function* () {
      const broker = yield* Resolve.first([
        unavailable("url", "AMQP_URL is not set"),
        broken("binary", "it crashed"),
        working("container"),
        working("package")
      ])
      assert.strictEqual(broker.origin, "container")
    })
  )

  it.effect("end in one message that says why each did not work and what to do, if none does", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Resolve.first([
          unavailable("url", "AMQP_URL is not set"),
          unavailable("binary", "no rabbitmq-server is installed"),
          broken("container", "no such image"),
          unavailable("package", "installing a package requires root")
        ])
      )
      assert.strictEqual(error.reason, "NoBroker")
      for (const part of [
        "url: AMQP_URL is not set",
        "binary: no rabbitmq-server is installed",
        "container: no such image",
        "package: installing a package requires root",
        "export AMQP_URL=",
        "apt-get install",
        "brew install rabbitmq",
        "AMQP_TEST_IMAGE"
      ]) {
        assert.include(error.message, part)
      }
    })
  )

  it.effect("stop at a broker that was named in AMQP_URL", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Resolve.first([broken("url", "nothing answers"), working("binary")]))
      assert.strictEqual(error.message, "nothing answers")
    })
  )

  it.live("name an unreachable AMQP_URL without its password", () =>
    Effect.gen(function* () {
      for (const url of ["amqp://alice:hunter2@127.0.0.1:1/x", "amqp:/alice:hunter2@x", "http://alice:hunter2@x"]) {
        const error = yield* Effect.flip(Url.connect(url))
        assert.strictEqual(error.reason, "Unreachable")
        assert.notInclude(error.message, "hunter2")
        assert.include(error.message, "AMQP_URL")
      }
    })
  )

  it.effect("resolve the wrapper that packages put on the PATH", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const script = (path: string, text: string) => {
        FileSystem.mkdirSync(Path.dirname(Path.join(folder, path)), { recursive: true })
        FileSystem.writeFileSync(Path.join(folder, path), text, { mode: 0o755 })
      }
      script("bin/erl", "")
      script("bin/epmd", "")
      script("sbin/rabbitmq-server", `#!/bin/sh\nsu rabbitmq -c "${folder}/lib/rabbitmq/bin/\${SCRIPT} $@"\n`)
      const PATH = `${folder}/sbin:${folder}/bin`
      assert.strictEqual(Installation.find({ PATH }, []), "no rabbitmq-server is installed")
      script("lib/rabbitmq/bin/rabbitmq-server", "")
      script("lib/rabbitmq/bin/rabbitmq-env", "")
      const found = Installation.find({ PATH }, [])
      assert(typeof found !== "string")
      assert.strictEqual(found.scripts, `${folder}/lib/rabbitmq/bin`)
      assert.strictEqual(found.epmd, `${folder}/bin/epmd`)
    })
  )
})

const engine = await Effect.runPromise(Effect.result(Container.engine))
const noContainer = Result.isFailure(engine) ? ` [skipped: ${engine.failure}]` : ""

describe("the container", () => {
  it.live.skipIf(noContainer !== "")(
    `serves, is counted, and is gone afterwards${noContainer}`,
    () =>
      Effect.gen(function* () {
        const container = Resolve.ways({ exclusive: true }).find(({ origin }) => origin === "container")
        assert(container !== undefined)
        const url = yield* Effect.scoped(
          Effect.gen(function* () {
            const broker = fromCoordinates(yield* Resolve.first([container]))
            yield* connect(broker.url)
            assert.strictEqual((yield* Operations.census(broker, "/")).connections, 1)
            assert.include(yield* broker.ctl("list_users"), "guest")
            return broker.url
          })
        )
        assert.isFalse(yield* answers(url))
      }),
    { timeout: 300_000 }
  )
})
