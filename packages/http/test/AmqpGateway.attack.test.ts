/** A gateway under attack, in a process of its own. `programs/attack.ts` does the same for longer, and looks at times. */
import { assert, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { attack } from "./support/attack.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect(
    "ten hostile clients cost an honest one no message, and a gateway with a heap of 128 MB no more than 300 MB in all",
    () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const outcome = yield* Effect.scoped(attack(url, 6))
        console.log(`gateway under attack for 6 s: ${JSON.stringify(outcome)}`)
        assert.deepInclude(outcome, { lost: 0, refused: 0 })
        assert.isAtLeast(outcome.published, 20)
        assert.isAtMost(outcome.memory, 300e6)
        for (const [name, times] of Object.entries(outcome.hostile)) assert.isAtLeast(times, 1, name)
        yield* awaitCensus({ connections: 0, channels: 0, unacked: 0 })
      }),
    90_000
  )
})
