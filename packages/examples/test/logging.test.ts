/** What the examples log in a terminal: one line per event. */
import { assert, describe, it, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Logger } from "effect"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { compact } from "../src/support/CompactLogger.ts"
import { run } from "./support/program.ts"

/** The lines that an effect logs, without their times. */
const logged = (effect: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const collecting = Logger.map(compact, (text) => lines.push(text))
    yield* Effect.provide(effect, Logger.layer([collecting]))
    return lines.map((line) => line.replace(/^\d\d:\d\d:\d\d\.\d{3} /, ""))
  })

describe("CompactLogger", () => {
  it.effect("has the message and its annotations in one line, with separated numbers", () =>
    Effect.gen(function* () {
      const about = { queue: "orders", count: 1234567, share: 0.25, hosts: ["one", "two"], reason: "Not now." }
      const lines = yield* logged(Effect.annotateLogs(Effect.logInfo("Delivered", 20_000), about))
      assert.deepStrictEqual(lines, [
        `INFO  Delivered 20,000 queue=orders count=1,234,567 share=0.25 hosts=["one","two"] reason="Not now."`
      ])
    })
  )

  it.effect("has an expected failure in that line, and a defect with its stack below it", () =>
    Effect.gen(function* () {
      const failing = Effect.fail(new TypeError("no\nunicorns"))
      const expected = yield* logged(Effect.catchCause(failing, (cause) => Effect.logWarning("Failed", cause)))
      assert.deepStrictEqual(expected, [String.raw`WARN  Failed error="TypeError: no\nunicorns"`])
      const dying = Effect.die(new TypeError("no unicorns"))
      const [defect = ""] = yield* logged(Effect.catchCause(dying, (cause) => Effect.logError("Failed", cause)))
      assert.match(defect, /^ERROR Failed\nTypeError: no unicorns\n +at /)
    })
  )

  it.effect("escapes what would begin a line, or act on the terminal", () =>
    Effect.gen(function* () {
      const queue = "a\nb\u001b[31m\u009b\u202e"
      const lines = yield* logged(Effect.annotateLogs(Effect.logInfo(`Lost ${queue}`), { queue }))
      const escaped = String.raw`a\nb\u001b[31m\u009b\u202e`
      assert.deepStrictEqual(lines, [`INFO  Lost ${escaped} queue="${escaped}"`])
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("the log of an example", () => {
    it.effect(
      "has one line for each event of the connection, and a planned retry is no warning",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const proxy = yield* FaultProxy.make(url)
          const program = yield* run("worker.ts", { AMQP_URL: proxy.through(url) })
          yield* program.until(/5 orders are placed/)
          yield* program.until(/Order 2: shipped/)
          proxy.rst()
          yield* program.until(/connection=consumers .*generation=2\b/)
          yield* program.until(/AMQP connection open amqp\.connection=127.*generation=2\b/)
          yield* program.kill("SIGINT")
          yield* program.ended
          const events = program
            .output()
            .split("\n")
            .filter((line) => !/^(?:Order \d: |5 orders are placed|$)/.test(line))
          for (const event of events) assert.match(event, /^\d\d:\d\d:\d\d\.\d{3} (?:INFO|WARN) {1,2}AMQP \S/)
          const about = (pattern: RegExp) => events.filter((event) => pattern.test(event)).length
          assert.strictEqual(about(/ INFO {2}AMQP connection open /), 4, program.output())
          assert.strictEqual(about(/ WARN {2}AMQP connection lost, reconnecting /), 2, program.output())
          assert.strictEqual(about(/ INFO {2}AMQP delivery failed .* policy=retried error=CarrierBusy /), 1)
          assert.strictEqual(about(/ WARN {2}AMQP delivery failed error="OutOfStock: /), 1)
        }),
      90_000
    )
  })
})
