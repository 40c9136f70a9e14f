/** The stream and the batches of the example, run as a program. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { run } from "./support/program.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("bulk.ts", () => {
    it.effect("publishes all readings, consumes all of them in batches, and leaves nothing behind", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const program = yield* run("bulk.ts", { AMQP_URL: url })
        assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        assert.include(program.output(), "20,000 readings confirmed in")
        const [, rows, batches] = yield* program.until(/([\d,]+) rows inserted in ([\d,]+) batches in/)
        assert.strictEqual(rows, "20,000")
        // 40 is the best case. A busy broker does not fill every batch in time, which makes more and smaller batches.
        const made = Number(batches?.replace(",", ""))
        assert.isAtLeast(made, 40)
        assert.isBelow(made, 2000)
        // The last batch is acknowledged, too.
        yield* awaitCensus({ connections: 0, channels: 0, messages: 0, unacked: 0 })
      })
    )
  })
})
