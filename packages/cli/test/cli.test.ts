/** The command as scripts run it: without a terminal, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Option, Stream } from "effect"
import { cpSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import * as Users from "../../core/test/support/users.ts"
import * as Cli from "./support/cli.ts"

/** A client of the test's own, on the same broker. What it borrows is returned before it closes. */
const client = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.provide(Effect.scoped(use), Amqp.layer({ url })))

const declare = (queue: string, options: AmqpChannel.QueueDeclareOptions = {}) =>
  client(AmqpChannel.use((channel) => channel.queueDeclare(queue, options)))

const contentsOf = (queue: string) =>
  client(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        const found: Array<string> = []
        for (;;) {
          const delivery = yield* channel.get(queue, { noAck: true })
          if (Option.isNone(delivery)) return found
          found.push(Buffer.from(delivery.value.content).toString())
        }
      })
    ).pipe(Effect.scoped)
  )

/** Runs the command on the test's broker. */
const run = (args: ReadonlyArray<string>, settings: Cli.Settings = {}) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    Cli.run(args, { ...settings, env: { AMQP_URL: url, ...settings.env } })
  )

const jsonOf = ({ out }: Cli.Ended) => JSON.parse(out)

const errorOf = ({ err }: Cli.Ended) => JSON.parse(err).error

interface Check {
  readonly check: string
  readonly subject: string
  readonly status: string
  readonly message: string
  readonly cure?: string
}

const findings = (ended: Cli.Ended): ReadonlyArray<Check> => jsonOf(ended).checks

const escape = String.fromCharCode(27)

layer(Layer.mergeAll(TestBroker.layer, Cli.layer), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("help", () => {
    it.effect("every command has help with an example, and no library is loaded for it", () =>
      Effect.gen(function* () {
        // Elsewhere there is no amqplib to load.
        const copy = yield* Cli.folder
        cpSync(dirname(dirname(yield* Cli.Built)), copy, { recursive: true })
        const elsewhere = Effect.provideService(Cli.Built, join(copy, "dist", "main.js"))
        const commands = [
          ["doctor"],
          ["peek"],
          ["redrive"],
          ["discard"],
          ["tail"],
          ["publish"],
          ["topology", "diff"],
          ["topology", "apply"]
        ]
        yield* Effect.forEach(
          commands,
          (command) =>
            Effect.gen(function* () {
              const { code, err, out } = yield* elsewhere(Cli.run([...command, "--help"]))
              assert.deepStrictEqual([code, err], [0, ""])
              assert.include(out, `  effect-amqp ${command.join(" ")} `)
              assert.notInclude(out, escape)
            }),
          { concurrency: 3, discard: true }
        )
        const [version, completions] = yield* Effect.all(
          [elsewhere(Cli.run(["--version"])), elsewhere(Cli.run(["--completions", "bash"]))],
          { concurrency: 2 }
        )
        assert.match(version.out, /^effect-amqp v\d+\.\d+\.\d+\n$/)
        assert.include(completions.out, "topology")
      }).pipe(Effect.scoped)
    )

    it.effect("a mistake in the command ends with 2, a hint and an empty standard output", () =>
      Effect.gen(function* () {
        const [flag, command, value] = yield* Effect.all(
          [run(["doctor", "--jsn"]), run(["docter"]), run(["publish", "-k", "q", "--priority", "300", "x"])],
          { concurrency: 3 }
        )
        for (const { code, out } of [flag, command, value]) assert.deepStrictEqual([code, out], [2, ""])
        assert.include(flag.err, "--jsn")
        assert.include(command.err, "doctor")
        assert.include(value.err, "an integer from 0 to 255")
        const json = yield* run(["doctor", "--jsn", "--json"])
        assert.deepStrictEqual([json.code, json.out, errorOf(json).tag], [2, "", "Usage"])
      })
    )
  })

  describe("secrets", () => {
    it.effect("a secret in an argument is refused without showing it", () =>
      Effect.gen(function* () {
        const refused = [
          ["doctor", "--url", "amqp://u:hunter2@localhost"],
          ["doctor", "--url=amqp://u:hun@ter2@localhost/"],
          ["doctor", "--url", "u:hunter2@localhost"],
          ["--url", "amqp://localhost?tls_passphrase=hunter2", "doctor"],
          ["tail", "amqps://u:hunter2@localhost/x"],
          ["doctor", "--password", "hunter2"],
          ["doctor", "--password=hunter2"]
        ]
        yield* Effect.forEach(
          refused,
          (args) =>
            Effect.map(run(args), ({ code, err, out }) => {
              assert.deepStrictEqual([code, out], [2, ""], args.join(" "))
              assert.include(err, "Arguments are visible")
              assert.notInclude(err, "ter2")
            }),
          { concurrency: 3, discard: true }
        )
      })
    )

    it.effect("--url has its password from the environment, and replaces the other variables", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const { host, password, pathname, username } = new URL(url)
        const ended = yield* Cli.run(["doctor", "--json", "--url", `amqp://${username}@${host}${pathname}`], {
          env: { AMQP_HOST: "elsewhere", AMQP_PASSWORD: password }
        })
        assert.strictEqual(ended.code, 0, ended.out)
        assert.deepInclude(
          findings(ended).map(({ message, subject }) => [subject, message]),
          ["address", `${host} (--url)`]
        )
        const missing = yield* Cli.run(["publish", "-k", "q", "x", "--url", `amqp://${username}@${host}${pathname}`])
        assert.strictEqual(missing.code, 2)
        assert.include(missing.err, "AMQP_PASSWORD")
      })
    )
  })

  describe("doctor", () => {
    it.effect("finds everything in order, says where settings came from, and shows no secret", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const user = yield* Users.make("s3cret-word")
        const env = yield* Cli.file(
          "broker.env",
          `AMQP_URL="${url.replace(/\/\/.*@/, `//${user.name}:s3cret-word@`)}"\n`
        )
        const ended = yield* Cli.run(["doctor", "--env", env, "--json"], { env: { AMQP_HEARTBEAT: "7" } })
        assert.strictEqual(ended.code, 0, ended.out + ended.err)
        assert.notInclude(ended.out + ended.err, "s3cret-word")
        const found = findings(ended)
        assert.isEmpty(found.filter(({ status }) => status !== "ok"))
        const messages = Object.fromEntries(
          found.map(({ check, message, subject }) => [`${check} ${subject}`, message])
        )
        assert.include(messages["configuration address"], `(AMQP_URL, file ${env})`)
        assert.strictEqual(messages["configuration heartbeat"], "7s (AMQP_HEARTBEAT, environment)")
        assert.match(messages[`connection ${new URL(url).host}`] ?? "", /^connected in \d+ ms, without TLS$/)
        assert.isDefined(found.find(({ check, subject }) => check === "broker" && subject.startsWith("RabbitMQ ")))
        for (const step of ["configure", "write", "read"]) assert.include(messages[`permission ${step}`], "may ")
        assert.strictEqual(messages["clock skew"], "none seen, to a second")
        const people = yield* Cli.run(["doctor", "--env", env])
        assert.match(people.out, /^ok {7}configuration {2}address: /)
        assert.include(people.out, "No errors, 0 warnings.")
        assert.notInclude(people.out, escape)
      }).pipe(Effect.scoped)
    )

    it.effect("what is wrong is an error with its cure, and exit code 1", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const { host } = new URL(url)
        const nothing = "127.0.0.1:1"
        const address = {
          AMQP_HOSTS: `${nothing},${host}`,
          AMQP_VHOST: "/none",
          AMQP_USERNAME: "x",
          AMQP_PASSWORD: "y"
        }
        const [config, connection] = yield* Effect.all(
          [
            Cli.run(["doctor", "--json"], { env: { AMQP_PORT: "0", AMQP_POOL_SIZE: "none" } }),
            Cli.run(["doctor", "--json"], { env: address })
          ],
          { concurrency: 2 }
        )
        assert.deepStrictEqual([config.code, connection.code], [1, 1])
        assert.deepStrictEqual(
          findings(config).map(({ status, subject }) => [subject, status]),
          [
            ["AMQP_PORT (environment)", "error"],
            ["AMQP_POOL_SIZE (environment)", "error"]
          ]
        )
        const errors = findings(connection).filter(({ status }) => status === "error")
        assert.deepStrictEqual(
          errors.map(({ subject }) => subject),
          [nothing, host]
        )
        for (const { cure, message } of errors)
          assert.isTrue(cure !== undefined && message !== "", JSON.stringify(errors))
        // It does not send an operator back to itself.
        for (const { cure } of errors) assert.notInclude(cure, "effect-amqp doctor")
        const [missing, elsewhere] = yield* Effect.all(
          [Cli.run(["doctor", "--env", "/nowhere"]), Cli.run(["peek", "q"], { env: { AMQP_PORT: "0" } })],
          { concurrency: 2 }
        )
        assert.deepStrictEqual([missing.code, missing.out, elsewhere.code], [2, "", 2])
        assert.include(elsewhere.err, '- AMQP_PORT (environment): expected an integer from 1 to 65535, got "0"')
      })
    )

    it.effect("permissions that the user lacks are warnings", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const user = yield* Users.make("secret")
        const env = { AMQP_URL: url.replace(/\/\/.*@/, `//${user.name}:secret@`) }
        const stepOf = Effect.map(Cli.run(["doctor", "--json"], { env }), (ended) =>
          findings(ended).find(({ status }) => status === "warning")
        )
        yield* user.permit("^$", ".*", ".*")
        assert.include(yield* stepOf, { check: "permission", subject: "configure" })
        yield* user.permit(".*", "^amq.gen", ".*")
        assert.include(yield* stepOf, { check: "permission", subject: "write" })
      }).pipe(Effect.scoped)
    )

    it.effect("a topology's queues: missing, different, without a consumer, with dead letters", () =>
      Effect.gen(function* () {
        // A name that would run something, if it were copied to a shell in double quotes.
        const dead = "doctor.$(dead)'s"
        yield* declare("doctor.equal")
        yield* declare(dead)
        yield* declare("doctor.other", { messageTtl: 1000 })
        yield* client(
          Effect.forEach(["doctor.equal", dead], (routingKey) =>
            AmqpPublisher.publish({ routingKey, content: "" }, { mandatory: true })
          )
        )
        const topology = yield* Cli.file(
          "topology.json",
          JSON.stringify({
            queues: [
              { name: "doctor.equal", deadLetterExchange: "", deadLetterRoutingKey: dead },
              { name: dead },
              { name: "doctor.other", messageTtl: "2 seconds" },
              { name: "doctor.missing" }
            ]
          })
        )
        yield* client(AmqpChannel.use((channel) => channel.queueDelete("doctor.equal")))
        yield* declare("doctor.equal", { deadLetterExchange: "", deadLetterRoutingKey: dead })
        yield* client(AmqpPublisher.publish({ routingKey: "doctor.equal", content: "" }))
        const ended = yield* run(["doctor", "--topology", topology, "--json"])
        assert.strictEqual(ended.code, 1)
        const found = findings(ended).filter(({ check }) => check === "topology")
        assert.deepStrictEqual(
          found.map(({ status, subject }) => [subject, status]),
          [
            ['queue "doctor.equal"', "warning"],
            [`queue "${dead}"`, "warning"],
            ['queue "doctor.other"', "error"],
            ['queue "doctor.missing"', "error"]
          ]
        )
        assert.include(found[0]?.message, "nothing consumes it")
        assert.include(found[1]?.message, "1 dead letter")
        assert.include(found[1]?.cure, String.raw`effect-amqp peek 'doctor.$(dead)'\''s' shows`)
        assert.include(found[2]?.message, "x-message-ttl: 2000 here, 1000 on the broker")
      }).pipe(Effect.scoped)
    )
  })

  describe("publish", () => {
    it.effect("an argument, a file, standard input and lines, with properties and headers", () =>
      Effect.gen(function* () {
        const { queue } = yield* declare("publish.queue")
        const path = yield* Cli.file("content", "from a file")
        const args = ["publish", "--key", queue]
        const published = [
          yield* run([...args, "-H", "a=b=c", "--type", "t", "--expiration", "1h", "an argument", "--json"]),
          yield* run([...args, "--file", path, "--json"]),
          yield* run([...args, "--json"], { input: "from\na pipe" }),
          yield* run([...args, "--lines", "--json"], { input: "one\n\ntwo\r\nthree" })
        ]
        assert.deepStrictEqual(
          published.map((ended) => jsonOf(ended).published),
          [1, 1, 1, 3]
        )
        const first = yield* client(
          AmqpChannel.use((channel) => channel.get(queue, { noAck: true })).pipe(Effect.scoped)
        )
        const { properties } = Option.getOrThrow(first)
        assert.deepInclude(properties, { persistent: true, type: "t", expiration: 3_600_000 })
        assert.deepStrictEqual({ ...properties.headers }, { a: "b=c" })
        assert.deepStrictEqual(yield* contentsOf(queue), ["from a file", "from\na pipe", "one", "two", "three"])
      }).pipe(Effect.scoped)
    )

    it.effect("failures have exit codes: no queue, no exchange, no content, no broker", () =>
      Effect.gen(function* () {
        const { queue } = yield* declare("publish.failures", { maxLength: 2, overflow: "reject-publish" })
        const [returned, unrouted, missing, empty, away] = yield* Effect.all(
          [
            run(["publish", "-k", "nowhere", "x", "--json"]),
            run(["publish", "-k", "nowhere", "x", "--no-mandatory"]),
            run(["publish", "-e", "nowhere", "x", "--json"]),
            run(["publish", "-k", queue], { input: "" }),
            run(["publish", "-k", queue, "x", "--json"], { env: { AMQP_URL: "amqp://127.0.0.1:1" } })
          ],
          { concurrency: 3 }
        )
        assert.deepStrictEqual([returned.code, errorOf(returned).tag, returned.out], [1, "PublishReturned", ""])
        assert.strictEqual(unrouted.code, 0)
        assert.deepStrictEqual([missing.code, errorOf(missing).tag], [4, "NotFound"])
        assert.deepStrictEqual([empty.code, empty.out], [2, ""])
        assert.deepStrictEqual([away.code, errorOf(away).tag], [3, "ConnectFailed"])
        // What answers there, but is no broker, is no connection either.
        const http = yield* Effect.acquireRelease(
          Effect.callback<Server>((resume) => {
            const server = createServer((_, response) => response.end())
            server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
        )
        const { port } = http.address() as AddressInfo
        const foreign = yield* run(["publish", "-k", queue, "x", "--json"], {
          env: { AMQP_URL: `amqp://127.0.0.1:${port}` }
        })
        assert.deepStrictEqual([foreign.code, errorOf(foreign).tag], [3, "ProtocolError"])
        assert.include(errorOf(foreign).cure, "port")
        const nacked = yield* run(["publish", "-k", queue, "--lines"], { input: "1\n2\n3\n4\n" })
        assert.strictEqual(nacked.code, 1)
        assert.include(nacked.err, "Message 3 was not published")
        assert.include(nacked.err, "2 before it are confirmed")
        assert.notInclude(nacked.err, "    at ")
      }).pipe(Effect.scoped)
    )
  })

  describe("tail", () => {
    it.effect("copies of an exchange: consumers lose nothing, nothing is executed, and Ctrl-C removes its queue", () =>
      Effect.gen(function* () {
        const { queues, url } = yield* TestBroker.TestBroker
        const { queue } = yield* declare("tail.queue")
        yield* client(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              yield* channel.exchangeDeclare("tail", "topic")
              yield* channel.queueBind(queue, "tail", "#")
            })
          )
        )
        const env = { AMQP_URL: url }
        const all = yield* Cli.running(["tail", "tail"], { env })
        const some = yield* Cli.running(["tail", "tail", "--key", "b.*", "--json", "--limit", "1"], { env })
        yield* Effect.all([all.shows("Ctrl-C ends"), some.shows("Ctrl-C ends")])
        const hostile = `${escape}]0;owned\u0007${escape}[2J\u009b31m\u202e`
        yield* client(
          Effect.all([
            AmqpPublisher.publish({ exchange: "tail", routingKey: `a.${hostile}`, content: hostile }),
            AmqpPublisher.publish({ exchange: "tail", routingKey: "b.c", content: new Uint8Array([255, 0]) })
          ])
        )
        const { code, out } = yield* some.ended
        assert.strictEqual(code, 0)
        assert.deepInclude(JSON.parse(out), { exchange: "tail", routingKey: "b.c", contentBase64: "/wA=", bytes: 2 })
        yield* all.shows("b.c")
        yield* all.kill("SIGINT")
        const ended = yield* all.ended
        assert.strictEqual(ended.code, 130)
        // oxlint-disable-next-line no-control-regex
        assert.notMatch(ended.out, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
        assert.include(ended.out, "\\x1b]0;owned\\x07")
        assert.strictEqual((yield* contentsOf(queue)).length, 2)
        assert.deepStrictEqual(
          (yield* queues).filter(({ name }) => name.startsWith("amq.gen")),
          []
        )
      }).pipe(Effect.scoped)
    )

    it.effect("a queue is not read: it is refused, or its bindings are copied; its messages stay", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const topology = yield* Cli.file(
          "topology.json",
          JSON.stringify({
            exchanges: [{ name: "tail.direct", type: "direct" }],
            queues: [{ name: "tail.bound" }],
            bindings: [{ exchange: "tail.direct", queue: "tail.bound", routingKey: "key" }]
          })
        )
        assert.strictEqual((yield* run(["topology", "apply", topology])).code, 0)
        yield* client(AmqpPublisher.publish({ routingKey: "tail.bound", content: "waits" }))
        const [refused, missing] = yield* Effect.all(
          [run(["tail", "tail.bound", "--json"]), run(["tail", "nowhere", "--json"])],
          { concurrency: 2 }
        )
        assert.strictEqual(refused.code, 2)
        assert.include(errorOf(refused).message, "would take messages away")
        assert.deepStrictEqual([missing.code, errorOf(missing).tag], [4, "NotFound"])
        // Flags that would have no effect.
        const idle = yield* Effect.forEach(
          [
            ["tail.direct", "--offset", "first"],
            ["tail.bound", "--topology", topology, "--key", "other"]
          ],
          (args) => run(["tail", ...args]),
          { concurrency: 2 }
        )
        for (const { code, err } of idle) assert.strictEqual(code, 2, err)
        const copied = yield* Cli.running(["tail", "tail.bound", "--topology", topology, "--limit", "1", "--json"], {
          env: { AMQP_URL: url }
        })
        yield* copied.shows("Ctrl-C ends")
        yield* client(AmqpPublisher.publish({ exchange: "tail.direct", routingKey: "key", content: "a copy" }))
        assert.strictEqual(JSON.parse((yield* copied.ended).out).content, "a copy")
        assert.deepStrictEqual(yield* contentsOf("tail.bound"), ["waits", "a copy"])
      }).pipe(Effect.scoped)
    )

    it.effect("a stream is read, whatever its properties, and keeps its messages", () =>
      Effect.gen(function* () {
        const queue = "tail.stream"
        yield* declare(queue, { queueType: "stream", maxAge: "7 days", maxLengthBytes: 1_000_000 })
        yield* client(
          Stream.runDrain(AmqpPublisher.publishAll(["1", "2", "3"].map((content) => ({ routingKey: queue, content }))))
        )
        const args = ["tail", queue, "--offset", "first", "--json"]
        const [all, one] = yield* Effect.all([run([...args, "--limit", "3"]), run([...args, "--limit", "1"])], {
          concurrency: 2
        })
        assert.deepStrictEqual([all.code, one.code], [0, 0], all.err + one.err)
        const contents = all.out
          .trim()
          .split("\n")
          .map((text) => JSON.parse(text).content)
        assert.deepStrictEqual([all.code, contents], [0, ["1", "2", "3"]])
        assert.strictEqual(JSON.parse(one.out).content, "1")
      })
    )

    it.effect("a reader that ends early, such as head, is no error", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const main = yield* Cli.Built
        const queue = "tail.stream.long"
        yield* declare(queue, { queueType: "stream" })
        const content = "x".repeat(1000)
        yield* client(
          Stream.runDrain(AmqpPublisher.publishAll(Array.from({ length: 500 }, () => ({ routingKey: queue, content }))))
        )
        const piped = `"${process.execPath}" "${main}" tail ${queue} --offset first --json | head -n 1 | cut -c 1-20; echo "\${PIPESTATUS[0]}"`
        const { err, out } = yield* Cli.shell(piped, { env: { AMQP_URL: url } })
        assert.deepStrictEqual(out.split("\n"), ['{"exchange":"","rout', "0", ""], err)
        assert.notInclude(err, "EPIPE")
      }).pipe(Effect.scoped)
    )

    it.effect("notes that are not read do not end the work", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const main = yield* Cli.Built
        const queue = "unread.notes"
        yield* declare(queue, { queueType: "stream" })
        const command = `"${process.execPath}" "${main}"`
        // Standard error is a pipe whose reader has ended before the command begins.
        const { err, out } = yield* Cli.shell(
          `printf x | ${command} publish -k ${queue} >&2; exec 3> >(true); wait $!; ${command} tail ${queue} --json --offset first --limit 1 2>&3; echo "ended with $?"`,
          { env: { AMQP_URL: url } }
        )
        assert.match(out, /"content":"x".*\nended with 0\n$/, err)
      }).pipe(Effect.scoped)
    )
  })

  describe("topology", () => {
    it.effect("diff and apply: what is missing is declared, what differs stays, exit codes say which", () =>
      Effect.gen(function* () {
        const content = (ttl: string) => `
          const exchange = { _tag: "Exchange", name: "apply.exchange", type: "topic", options: {} }
          const queue = { _tag: "Queue", name: "apply.queue", options: { messageTtl: "${ttl}" } }
          const binding = {
            _tag: "Binding", source: "apply.exchange", destinationType: "queue", destination: "apply.queue",
            routingKey: "#", options: {}
          }
          const topology: object = {
            _tag: "Topology", exchanges: [exchange], queues: [queue], bindings: [binding], external: []
          }
          export default topology`
        const topology = yield* Cli.file("topology.ts", content("1 minute"))
        const missing = yield* run(["topology", "diff", topology, "--json"])
        assert.strictEqual(missing.code, 1)
        assert.deepStrictEqual(
          jsonOf(missing).differences.map(({ name, status }: Record<string, unknown>) => [name, status]),
          [
            ["apply.exchange", "missing"],
            ["apply.queue", "missing"]
          ]
        )
        assert.strictEqual((yield* run(["topology", "apply", topology, "--dry-run"])).code, 0)
        assert.strictEqual((yield* run(["topology", "diff", "--module", topology])).code, 1)
        assert.strictEqual((yield* run(["topology", "apply", topology])).code, 0)
        assert.strictEqual((yield* run(["topology", "diff", topology])).code, 0)
        yield* client(AmqpPublisher.publish({ exchange: "apply.exchange", routingKey: "a", content: "1" }))

        const other = yield* Cli.file("topology.ts", content("2 minutes"))
        const different = yield* run(["topology", "apply", other, "--json"])
        assert.strictEqual(different.code, 1)
        assert.deepInclude(jsonOf(different).left[0], {
          name: "apply.queue",
          status: "different",
          property: "x-message-ttl",
          declared: "120000",
          existing: "60000",
          messages: 1
        })
        const used = yield* run(["topology", "apply", other, "--recreate", "--yes", "--json"])
        assert.deepStrictEqual([used.code, errorOf(used).tag], [2, "QueueInUse"])
        const alone = yield* run(["topology", "apply", other, "--delete-messages"])
        assert.strictEqual(alone.code, 2)
        assert.include(alone.err, "--recreate")
        const asked = yield* run(["topology", "apply", other, "--recreate", "--delete-messages"])
        assert.strictEqual(asked.code, 2)
        assert.include(asked.err, "Add --yes")
        assert.deepStrictEqual(yield* contentsOf("apply.queue"), ["1"])
        const recreated = yield* run(["topology", "apply", other, "--recreate", "--yes", "--json"])
        assert.strictEqual(recreated.code, 0, recreated.err)
        assert.strictEqual((yield* run(["topology", "diff", other])).code, 0)
        yield* client(AmqpPublisher.publish({ exchange: "apply.exchange", routingKey: "a", content: "2" }))
        assert.deepStrictEqual(yield* contentsOf("apply.queue"), ["2"])
      }).pipe(Effect.scoped)
    )

    it.effect("a file that is none is refused with every mistake, before anything is sent", () =>
      Effect.gen(function* () {
        const files = yield* Effect.all([
          Cli.file("a.json", "{"),
          Cli.file("b.json", '{"queues":[{"nme":"q"}],"exchange":[]}'),
          Cli.file("c.json", '{"queues":[{"name":"q","messageTTL":1},{"name":"r","deadLetterExchange":"dlx"}]}'),
          Cli.file("d.mjs", "export default 1"),
          Cli.file("e.mjs", 'throw new Error("broken on purpose")'),
          Cli.file("f.json", '{"bindings":[{"exchange":"e"}]}'),
          Cli.file("g.cts", "export default 1")
        ])
        const ended = yield* Effect.forEach(files, (path) => run(["topology", "diff", path]), { concurrency: 3 })
        const expected = [
          ["no JSON"],
          ['["queues"][0]["name"]', "exchange"],
          ["messageTTL", "dlx"],
          ["1"],
          ["broken on purpose"],
          ["bindings[0]"],
          [".mts"]
        ]
        for (const [i, { code, err, out }] of ended.entries()) {
          assert.deepStrictEqual([code, out], [2, ""], err)
          for (const text of expected[i]!) assert.include(err, text)
          assert.notInclude(err, "    at ")
        }
      }).pipe(Effect.scoped)
    )
  })
})
