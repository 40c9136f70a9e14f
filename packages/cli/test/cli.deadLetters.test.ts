/** Dead letters on the command line, on a real broker: with pipes, and in a terminal. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Redacted, Schedule, Stream } from "effect"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { hostileHeaders } from "../../core/test/support/hostileLetters.ts"
import * as Cli from "./support/cli.ts"

const client = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.provide(Effect.scoped(use), Amqp.layer({ url })))

const countOf = (queue: string) =>
  Effect.map(
    client(AmqpChannel.use((channel) => channel.queueDeclarePassive(queue))),
    ({ messageCount }) => messageCount
  )

/** Publishes dead letters of both errors, as a consumer of the library writes them. */
const fill = (dead: string, work: string, count: number) =>
  client(
    Effect.gen(function* () {
      yield* AmqpChannel.use((channel) => Effect.andThen(channel.queueDeclare(dead), channel.queueDeclare(work)))
      const letters = Stream.map(Stream.range(1, count), (i) => ({
        routingKey: dead,
        content: `letter ${i}`,
        messageId: String(i),
        headers: {
          "x-failed-version": 1,
          "x-failed-queue": work,
          "x-failed-error": i % 2 === 0 ? "Even" : "Odd",
          "x-failed-reason": `it was ${i}\u001b[2J`,
          "x-failed-attempt": 3,
          "x-failed-first-at": new Date(Date.now() - 3_600_000).toISOString(),
          "x-failed-last-at": new Date(Date.now() - (i <= 2 ? 3_600_000 : 1000)).toISOString()
        }
      }))
      yield* Stream.runDrain(AmqpPublisher.publishAll(letters))
    })
  )

const run = (args: ReadonlyArray<string>) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => Cli.run(args, { env: { AMQP_URL: url } }))

const terminal = (args: ReadonlyArray<string>, settings: Parameters<typeof Cli.inTerminal>[1] = {}) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    Cli.inTerminal(args, { ...settings, env: { AMQP_URL: url, ...settings.env } })
  )

layer(Layer.mergeAll(TestBroker.layer, Cli.layer), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("dead letters", () => {
    it.effect("peek groups them, filters them, and leaves them in their queue", () =>
      Effect.gen(function* () {
        yield* fill("peek.dead", "peek", 6)
        const people = yield* run(["peek", "peek.dead"])
        assert.strictEqual(people.code, 0, people.err)
        assert.match(people.out, /COUNT +ERROR +REASON +ORIGIN/)
        assert.match(people.out, / 3 +Odd +failed +peek /)
        assert.include(people.out, "it was 1\\x1b[2J")
        assert.include(people.out, "6 shown of 6 read, 6 in the queue.")
        const idsOf = (...filter: ReadonlyArray<string>) =>
          Effect.map(run(["peek", "peek.dead", "--json", ...filter]), ({ out }) =>
            JSON.parse(out).letters.map(({ id }: { readonly id: string }) => id)
          )
        assert.deepStrictEqual(yield* idsOf("--error", "Even"), ["2", "4", "6"])
        assert.deepStrictEqual(yield* idsOf("--older-than", "30m", "--error", "Odd"), ["1"])
        assert.deepStrictEqual(yield* idsOf("--origin", "another"), [])
        assert.deepStrictEqual(yield* idsOf("--id", "3", "--id", "5", "--origin", "peek"), ["3", "5"])
        const full = yield* run(["peek", "peek.dead", "--full", "--id", "4", "--json"])
        assert.deepInclude(JSON.parse(full.out).letters[0], {
          id: "4",
          queue: "peek.dead",
          content: "letter 4",
          size: 8
        })
        assert.strictEqual(yield* countOf("peek.dead"), 6)
        const gone = yield* run(["peek", "nowhere", "--json"])
        assert.deepStrictEqual([gone.code, JSON.parse(gone.err).error.tag], [4, "NotFound"])
      })
    )

    it.effect("peek shows letters whatever their headers are, to people and as JSON", () =>
      Effect.gen(function* () {
        yield* client(
          Effect.gen(function* () {
            yield* AmqpChannel.use((channel) => channel.queueDeclare("hostile.dead"))
            for (const headers of hostileHeaders) {
              yield* AmqpPublisher.publish({ routingKey: "hostile.dead", content: "letter", headers })
            }
          })
        )
        for (const flags of [[], ["--full"]]) {
          const people = yield* run(["peek", "hostile.dead", "--limit", "10000", ...flags])
          assert.strictEqual(people.code, 0, people.err)
          assert.include(people.out, `${hostileHeaders.length} shown of ${hostileHeaders.length} read`)
          const json = yield* run(["peek", "hostile.dead", "--limit", "10000", "--json", ...flags])
          assert.strictEqual(json.code, 0, json.err)
          assert.lengthOf(JSON.parse(json.out).letters, hostileHeaders.length)
        }
      })
    )

    it.effect("a queue that another connection has exclusively ends each command at once, with what to do", () =>
      client(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            yield* channel.queueDeclare("own.dead", { exclusive: true })
            for (const [command, ...flags] of [
              ["peek"],
              ["redrive", "--yes"],
              ["discard", "--all", "--yes"]
            ] as const) {
              const { code, err, out } = yield* run([command, "own.dead", ...flags, "--json"])
              assert.deepStrictEqual([code, out], [4, ""])
              const { error } = JSON.parse(err)
              assert.strictEqual(error.tag, "ResourceLocked")
              assert.include(error.cure, "exclusive")
            }
            yield* fill("exclusive.dead", "exclusive", 2)
            const to = yield* run(["redrive", "exclusive.dead", "--to", "own.dead", "--yes", "--json"])
            assert.deepInclude(JSON.parse(to.out), { redriven: 2, failed: 0 })
          })
        )
      )
    )

    it.effect("redrive and discard need a confirmation, choose by filters, and say what they did", () =>
      Effect.gen(function* () {
        yield* fill("move.dead", "move", 6)
        const unconfirmed = yield* run(["redrive", "move.dead", "--error", "Even"])
        assert.strictEqual(unconfirmed.code, 2)
        assert.include(unconfirmed.err, "Add --yes")
        const unfiltered = yield* run(["discard", "move.dead", "--yes"])
        assert.strictEqual(unfiltered.code, 2)
        const dry = yield* run(["redrive", "move.dead", "--error", "Even", "--dry-run", "--json"])
        assert.deepInclude(JSON.parse(dry.out), { dryRun: true, redriven: 3, left: 3 })
        assert.strictEqual(yield* countOf("move.dead"), 6)

        const redriven = yield* run(["redrive", "move.dead", "--error", "Even", "--yes", "--json"])
        assert.strictEqual(redriven.code, 0, redriven.err)
        assert.deepInclude(JSON.parse(redriven.out), { redriven: 3, left: 3, failed: 0, duplicates: 0 })
        const discarded = yield* run(["discard", "move.dead", "--id", "1", "--yes"])
        assert.include(discarded.out, "Looked at 3 of 3: 1 discarded, 2 stay.")
        assert.deepStrictEqual([yield* countOf("move"), yield* countOf("move.dead")], [3, 2])
        yield* client(AmqpChannel.use((channel) => channel.queueDelete("move")))
        const failed = yield* run(["redrive", "move.dead", "--yes"])
        assert.strictEqual(failed.code, 1)
        assert.match(failed.out, /ID +WHY IT STAYS\n3 +/)
        assert.include(failed.out, "2 stay, 2 of them failed")
        assert.include(failed.err, "--to QUEUE")
        const nowhere = yield* run(["redrive", "move.dead", "--to", "nowhere", "--dry-run", "--json"])
        assert.deepStrictEqual([nowhere.code, JSON.parse(nowhere.err).error.tag], [4, "NotFound"])
        assert.strictEqual(yield* countOf("move.dead"), 2)
        const elsewhere = yield* run(["redrive", "move.dead", "--yes", "--to", "peek", "--limit", "1"])
        assert.include(elsewhere.out, "1 redriven")
      })
    )
  })

  describe("a signal in the middle of a redrive", () => {
    /** A redrive through a proxy that has brought back some messages. */
    const begun = Effect.fnUntraced(function* (dead: string, work: string) {
      yield* fill(dead, work, 400)
      const { url } = yield* TestBroker.TestBroker
      const proxy = yield* FaultProxy.make(url)
      const command = yield* Cli.running(["redrive", dead, "--yes", "--json", "--rate", "40"], {
        env: { AMQP_URL: proxy.through(url) }
      })
      yield* Effect.repeat(countOf(work), { until: (count) => count > 0, schedule: Schedule.spaced("20 millis") })
      return { command, proxy }
    })

    it.effect("ends it with 130 and what it did, and loses nothing", () =>
      Effect.gen(function* () {
        for (const [i, signal] of (["SIGINT", "SIGTERM"] as const).entries()) {
          const [dead, work] = [`signal${i}.dead`, `signal${i}`]
          const { command } = yield* begun(dead, work)
          yield* command.kill(signal)
          const { code, err, out } = yield* command.ended
          assert.deepStrictEqual([code, out], [130, ""], err)
          const redriven = Number(/^Until then: (\d+) redriven/m.exec(err)?.[1])
          assert.deepStrictEqual([yield* countOf(work), yield* countOf(dead)], [redriven, 400 - redriven])
        }
      }).pipe(Effect.scoped)
    )

    it.effect("waits for a broker that does not answer, until a second signal", () =>
      Effect.gen(function* () {
        const { command, proxy } = yield* begun("second.dead", "second")
        proxy.stall()
        // As npx does, which passes on what the terminal has sent already.
        yield* command.kill("SIGINT")
        yield* command.kill("SIGINT")
        yield* command.shows("Interrupt again to end at once")
        yield* command.kill("SIGINT")
        const { code, out } = yield* command.ended.pipe(Effect.timeout("2 seconds"))
        assert.deepStrictEqual([code, out], [130, ""])
        proxy.heal()
        const counts = Effect.all([countOf("second"), countOf("second.dead")])
        yield* Effect.repeat(counts, {
          until: ([work, dead]) => work + dead >= 400,
          schedule: Schedule.spaced("50 millis")
        })
      }).pipe(Effect.scoped)
    )
  })

  describe("EFFECT_AMQP_RETRY_SECRET", () => {
    const secret = "0123456789abcdef"

    it.effect(
      "verifies reasons that consumers have signed with it; without it, or with another, they are unverified",
      () =>
        Effect.gen(function* () {
          const { queues, url } = yield* TestBroker.TestBroker
          yield* client(
            Effect.gen(function* () {
              yield* AmqpChannel.use((channel) =>
                Effect.gen(function* () {
                  yield* channel.queueDeclare("signed.dead")
                  const deadLetterTo = { deadLetterExchange: "", deadLetterRoutingKey: "signed.dead" }
                  yield* channel.queueDeclare("signed", deadLetterTo)
                })
              )
              yield* Effect.forkScoped(
                AmqpConsumer.consume("signed", () => Effect.fail("refused"), {
                  onFailure: AmqpConsumer.deadLetter,
                  retrySecret: Redacted.make(secret)
                })
              )
              yield* AmqpPublisher.publish({ routingKey: "signed", content: "a letter", messageId: "1" })
              const arrived = Effect.map(queues, (all) =>
                all.some(({ name, ready }) => name === "signed.dead" && ready === 1)
              )
              yield* Effect.repeat(arrived, { until: (there) => there, schedule: Schedule.spaced("10 millis") })
            })
          )
          const as = (secret: string | undefined, ...args: ReadonlyArray<string>) =>
            Cli.run(args, {
              env: { AMQP_URL: url, ...(secret === undefined ? {} : { EFFECT_AMQP_RETRY_SECRET: secret }) }
            })
          const seenBy = (secret: string | undefined) =>
            Effect.gen(function* () {
              const [json, people] = yield* Effect.all([
                as(secret, "peek", "signed.dead", "--json"),
                as(secret, "peek", "signed.dead")
              ])
              assert.strictEqual(json.code, 0, json.err)
              assert.notInclude(json.out + people.out, secret ?? "0123456789abcdef")
              const { reason } = JSON.parse(json.out).letters[0]
              return {
                verified: reason.verified,
                isNoted: people.out.includes("EFFECT_AMQP_RETRY_SECRET verifies them")
              }
            })
          assert.deepStrictEqual(yield* seenBy(secret), { verified: true, isNoted: false })
          assert.deepStrictEqual(yield* seenBy(undefined), { verified: false, isNoted: true })
          assert.deepStrictEqual(yield* seenBy("fedcba9876543210"), { verified: false, isNoted: true })
          // A reason that anybody may have written names a queue, which only the secret refuses.
          yield* client(
            AmqpPublisher.publish({
              routingKey: "signed.dead",
              content: "forged",
              messageId: "2",
              headers: { "x-failed-version": 1, "x-failed-queue": "signed", "x-failed-error": "Forged" }
            })
          )
          const dry = yield* as(undefined, "redrive", "signed.dead", "--id", "2", "--dry-run", "--json")
          assert.deepInclude(JSON.parse(dry.out), { redriven: 1, failed: 0 })
          const refused = yield* as(secret, "redrive", "signed.dead", "--id", "2", "--yes", "--json")
          assert.deepInclude(JSON.parse(refused.out), { redriven: 0, failed: 1 })
          assert.strictEqual(refused.code, 1)
          for (const wrong of ["", "short"]) {
            const ended = yield* as(wrong, "peek", "signed.dead")
            assert.deepStrictEqual([ended.code, ended.out], [2, ""])
            assert.notInclude(ended.err, "    at ")
          }
          const right = yield* as(secret, "redrive", "signed.dead", "--id", "1", "--yes", "--json")
          assert.deepInclude(JSON.parse(right.out), { redriven: 1, failed: 0 })
        })
    )
  })

  describe.skipIf(process.platform !== "linux")("dead letters in a terminal", () => {
    it.effect("a redrive is confirmed, shows a bar, and is interrupted by Ctrl-C without a loss", () =>
      Effect.gen(function* () {
        yield* fill("bar.dead", "bar", 200)
        const args = ["redrive", "bar.dead", "--rate", "20"]
        const { ended, shows, type } = yield* terminal(args, { columns: 60 })
        yield* shows("Redrive the 200 messages")
        yield* type("y")
        yield* shows("[#")
        yield* type("\u0003")
        const { code, out } = yield* ended
        assert.strictEqual(code, 130, out)
        assert.match(out, /Until then: \d+ redriven/)
        // The bar never wraps, which would leave it behind.
        const bars = out.split("\r\u001b[2K").slice(1, -1)
        assert.isAbove(bars.length, 0)
        for (const bar of bars) assert.isAtMost(bar.replace("^C", "").length, 57, bar)
        const [dead, work] = [yield* countOf("bar.dead"), yield* countOf("bar")]
        assert.isTrue(work > 0 && dead > 0 && dead + work >= 200, `${dead} and ${work}`)
      }).pipe(Effect.scoped)
    )

    it.effect("a discard that is not confirmed does nothing", () =>
      Effect.gen(function* () {
        yield* fill("no.dead", "no", 2)
        const { ended, shows, type } = yield* terminal(["discard", "no.dead", "--all"])
        yield* shows("They are gone then.")
        yield* type("n")
        assert.strictEqual((yield* ended).code, 2)
        assert.strictEqual(yield* countOf("no.dead"), 2)
      }).pipe(Effect.scoped)
    )
  })
})
