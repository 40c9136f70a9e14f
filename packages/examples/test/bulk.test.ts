/** The stream and the batches of the example, run as a program on a broker in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { runOnMemory } from "./support/memory.ts"

describe("bulk.ts", () => {
  it.live("publishes all readings, consumes all of them in batches, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { leftOpen, program, queues } = yield* runOnMemory("bulk.ts")
      assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
      assert.include(program.output(), "20,000 readings confirmed in")
      const [, rows, batches] = yield* program.until(/([\d,]+) rows inserted in ([\d,]+) batches in/)
      assert.strictEqual(rows, "20,000")
      // 40 is the best case. A busy machine does not fill every batch in time, which makes more and smaller batches.
      const made = Number(batches?.replace(",", ""))
      assert.isAtLeast(made, 40)
      assert.isBelow(made, 2000)
      // The last batch is acknowledged, too.
      assert.strictEqual(yield* leftOpen, 0)
      assert.deepStrictEqual(
        (yield* queues).map(({ ready, unsettled }) => ready + unsettled),
        [0]
      )
    }).pipe(Effect.scoped)
  )
})
