/** The command as an operator uses it: in a terminal, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer } from "effect"
import { stripVTControlCharacters } from "node:util"
import * as Users from "../../core/test/support/users.ts"
import * as Cli from "./support/cli.ts"

const client = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.provide(Effect.scoped(use), Amqp.layer({ url })))

const topologyFile = (queue: string, ttl: string) =>
  Cli.file("topology.json", JSON.stringify({ queues: [{ name: queue, messageTtl: ttl }] }))

const terminal = (args: ReadonlyArray<string>, settings: Parameters<typeof Cli.inTerminal>[1] = {}) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    Cli.inTerminal(args, { ...settings, env: { AMQP_URL: url, ...settings.env } })
  )

const declare = (queue: string) =>
  client(AmqpChannel.use((channel) => channel.queueDeclare(queue, { messageTtl: "1 minute" })))

const ttlDiffers = (path: string) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    Effect.map(Cli.run(["topology", "diff", path], { env: { AMQP_URL: url } }), ({ code }) => code === 1)
  )

const escape = String.fromCharCode(27)

// `script` of other systems has other options.
describe.skipIf(process.platform !== "linux")("in a terminal", () => {
  layer(Layer.mergeAll(TestBroker.layer, Cli.layer), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.effect("a deletion is asked for: no, Ctrl-C and yes", () =>
      Effect.gen(function* () {
        yield* declare("terminal.recreate")
        const path = yield* topologyFile("terminal.recreate", "2 minutes")
        const answer = (key: string) =>
          Effect.gen(function* () {
            const { ended, shows, type } = yield* terminal(["topology", "apply", path, "--recreate"])
            yield* shows("bindings that the topology does not have are lost")
            yield* shows("(y/N)")
            yield* type(key)
            return yield* ended
          }).pipe(Effect.scoped)
        const no = yield* answer("n")
        assert.strictEqual(no.code, 2)
        assert.include(no.out, "Nothing was done")
        assert.strictEqual((yield* answer("\u0003")).code, 130)
        assert.isTrue(yield* ttlDiffers(path))
        assert.strictEqual((yield* answer("y")).code, 0)
        assert.isFalse(yield* ttlDiffers(path))
      }).pipe(Effect.scoped)
    )

    it.effect("a missing password is asked for, and not shown", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const user = yield* Users.make("hunter-2")
        const { host, pathname } = new URL(url)
        const ask = (password: string) =>
          Effect.gen(function* () {
            const { ended, shows, type } = yield* Cli.inTerminal([
              "doctor",
              "--url",
              `amqp://${user.name}@${host}${pathname}`
            ])
            yield* shows("Password of the broker's user")
            yield* type(`${password}\r`)
            return yield* ended
          }).pipe(Effect.scoped)
        const right = yield* ask("hunter-2")
        assert.strictEqual(right.code, 0, right.out)
        assert.notInclude(right.out, "hunter-2")
        assert.include(right.out, "set, not shown (prompt)")
        const wrong = yield* ask("hunter-3")
        assert.strictEqual(wrong.code, 1)
        assert.notInclude(wrong.out, "hunter-3")
      }).pipe(Effect.scoped)
    )

    it.effect("tables fit a narrow terminal, with names of wide and of combined characters", () =>
      Effect.gen(function* () {
        const name = `队列-é-${"long".repeat(20)}`
        const path = yield* topologyFile(name, "1 minute")
        const narrow = yield* terminal(["topology", "diff", path], { columns: 50 })
        const { code, out } = yield* narrow.ended
        assert.strictEqual(code, 1)
        const [title = "", row = ""] = stripVTControlCharacters(out).split("\r\n")
        assert.match(title, /^KIND +NAME +STATUS/)
        assert.match(row, /^queue +队列-é-long.*… +missing$/u)
        // Two of its characters are two columns wide.
        assert.strictEqual(Array.from(row).length, 48)
      }).pipe(Effect.scoped)
    )

    it.effect("there are colors, but not with NO_COLOR; TERM=dumb has neither colors nor questions", () =>
      Effect.gen(function* () {
        const ended = (env: Readonly<Record<string, string>>) =>
          Effect.scoped(Effect.flatMap(terminal(["doctor"], { env }), ({ ended }) => ended))
        const [colored, plain, dumb] = yield* Effect.all(
          [ended({}), ended({ NO_COLOR: "1" }), ended({ TERM: "dumb" })],
          { concurrency: 3 }
        )
        assert.include(colored.out, `${escape}[32mok`)
        for (const { out } of [plain, dumb]) assert.notInclude(out, escape)
      })
    )

    it.effect("completions, sourced by bash, complete commands, flags, values and files", () =>
      Effect.gen(function* () {
        const main = yield* Cli.Built
        const path = yield* topologyFile("completions", "1 minute")
        const complete = (...words: ReadonlyArray<string>) =>
          `COMP_WORDS=(effect-amqp ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}; COMP_LINE='effect-amqp ${words.join(" ")}'; _effect_amqp effect-amqp '${words.at(-1)}' '${words.at(-2) ?? ""}'; echo "\${COMPREPLY[*]}"`
        const lines = [
          `source <("${process.execPath}" "${main}" --completions bash)`,
          complete("topology", ""),
          complete("--url", "amqp://localhost", "red"),
          complete("redrive", "orders.dead", "--dry"),
          complete("tail", "shop", "--as", ""),
          complete("topology", "diff", path.slice(0, -3)),
          complete("doctor", "--topology", path.slice(0, -3))
        ]
        const { err, out } = yield* Cli.shell(lines.join("\n"))
        assert.deepStrictEqual(
          out.split("\n"),
          ["diff apply", "redrive", "--dry-run", "exchange queue", path, path, ""],
          err
        )
      }).pipe(Effect.scoped)
    )

    it.effect("Ctrl-C ends a tail in order", () =>
      Effect.gen(function* () {
        const { queues } = yield* TestBroker.TestBroker
        const { ended, shows, type } = yield* terminal(["tail", "amq.topic"])
        yield* shows("Ctrl-C ends")
        yield* client(AmqpPublisher.publish({ exchange: "amq.topic", routingKey: "a.b", content: "seen" }))
        yield* shows("seen")
        yield* type("\u0003")
        assert.strictEqual((yield* ended).code, 130)
        assert.deepStrictEqual(
          (yield* queues).filter(({ name }) => name.startsWith("amq.gen")),
          []
        )
      }).pipe(Effect.scoped)
    )
  })
})
