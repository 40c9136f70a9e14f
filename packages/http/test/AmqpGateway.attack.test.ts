/** A gateway under attack, in its own process. `programs/attack.ts` does the same for longer, and checks times too. */
import { assert, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { attack } from "./support/attack.ts"

/**
 * Maximum growth of the gateway's memory over the value before the attack, in bytes. Measured were 8 to 11 MB, partly
 * code that was compiled in the meantime. The limits allow 20 streams of 10 messages of 20 KB, which is 4 MB, and 256
 * KiB of missed events for each of the 40 sessions, of which a few belong to clients that reconnect. The hostile
 * clients receive 60 MB.
 */
const mostHeld = 18e6

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  // This test checks neither the memory of the process nor times, which depend on the machine and on V8.
  // `programs/attack.ts` checks them.
  it.effect(
    "ten hostile clients cost a well-behaved one no message, and the gateway's memory for them is bounded",
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
    300_000
  )
})
