/**
 * An application that uses amqplib itself, and OpenTelemetry's instrumentation of it, does not see the library's
 * messages.
 */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { program } from "./support/processes.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("An application that uses amqplib alongside the library, with OpenTelemetry's instrumentation of it,", () => {
    it.effect(
      "sees spans and headers of its own messages and none of ours, and finds amqplib unchanged after the library has closed",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const { output } = yield* program("besideAmqplib.ts", [], { AMQP_URL: url })
          const { watched, ...report } = JSON.parse((yield* output).at(-1) ?? "")
          const spans = ["publish <default>", "theirs process"]
          assert.deepStrictEqual(report, {
            theirs: { headers: ["traceparent"], spans, spansAfter: spans },
            ours: { seen: 20, headers: [], spans: [] },
            left: { changes: [], listeners: true, resources: [] }
          })
          assert.isAbove(watched, 100)
        }).pipe(Effect.scoped),
      120_000
    )
  })
})
