/** The library does not modify amqplib: its prototypes are frozen here, and every access to its objects is recorded. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import type { Running } from "./support/processes.ts"
import * as Programs from "./support/processes.ts"

const recorded = (running: Running) => Effect.map(running.output, (lines) => JSON.parse(lines.at(-1) ?? ""))

const run = (mode: "innocent" | "guilty") =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => Programs.program("untouched.ts", [mode], { AMQP_URL: url }))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("amqplib in an application that opens, declares, publishes, consumes, is cut off and closes", () => {
    it.effect(
      "is not written to, and only one undeclared member is read: a channel's number",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const application = yield* run("innocent")
          yield* application.prints("open")
          yield* broker.killConnections
          assert.deepStrictEqual(yield* recorded(application), {
            reads: ["Channel.ch by packages/core/src/internal/driver/amqplib.ts"],
            writes: []
          })
        }).pipe(Effect.scoped),
      120_000
    )
  })

  describe("The recorder of these accesses", () => {
    it.effect(
      "records each write and each undeclared read, and denies changes of prototypes and modules",
      () =>
        Effect.gen(function* () {
          const guilty = yield* run("guilty")
          const by = "by packages/core/test/support/programs/untouched.ts"
          assert.deepStrictEqual(yield* recorded(guilty), {
            reads: [`Connection.heartbeat ${by}`, `Connection.blocked ${by}`, `ChannelModel.(keys) ${by}`],
            writes: [`Channel.options ${by}`, `Channel.publish ${by}`]
          })
          assert.include(yield* guilty.output, "denied model channel connection module")
        }).pipe(Effect.scoped),
      120_000
    )
  })
})
