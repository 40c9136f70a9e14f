/** A gateway under attack, in a process of its own. `programs/attack.ts` does the same for longer, and looks at times. */
import { assert, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { attack } from "./support/attack.ts"

/**
 * Bytes that the gateway may hold more than before anything came: seen are 8 to 11 MB, of which some are code that was compiled
 * since. Its limits are 20 streams of 10 messages of 20 KB, 4 MB, and 256 KiB of missed events for each of the 40 sessions, of
 * which a few are of clients that come back. The hostile clients get 60 MB.
 */
const mostHeld = 18e6

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  // Not the memory of the process, and no times: those are the machine's and V8's, too. `programs/attack.ts` looks at them.
  it.effect(
    "ten hostile clients cost an honest one no message, and what the gateway holds for them is bounded",
    () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const outcome = yield* Effect.scoped(attack(url, 6, { collects: true, eaten: 3000 }))
        console.log(`gateway under attack: ${JSON.stringify(outcome)}`)
        assert.deepInclude(outcome, { lost: 0, refused: 0 })
        assert.isAtLeast(outcome.published, 20)
        assert.isAtMost(outcome.growth!, mostHeld)
        for (const [name, times] of Object.entries(outcome.hostile)) assert.isAtLeast(times, 1, name)
        yield* awaitCensus({ connections: 0, channels: 0, unacked: 0 })
      }),
    150_000
  )
})
