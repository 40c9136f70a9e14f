/** Client and server of the example, as a program. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { run } from "./support/program.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("rpc.ts", () => {
    it.effect("prints what the server answers, its error too, ends by itself, and leaves nothing open", () =>
      Effect.gen(function* () {
        const { awaitCensus, queues, url } = yield* TestBroker.TestBroker
        const program = yield* run("rpc.ts", { AMQP_URL: url })
        assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        assert.include(program.output(), "Three teas cost 11.85, three lamps 149.85.\n")
        assert.include(program.output(), 'There is no price of "unicorn".\n')
        // Neither a warning nor an error: the client has caught the only failure there was.
        assert.notMatch(program.output(), /WARN|ERROR/)
        yield* awaitCensus({ connections: 0, channels: 0, messages: 0 })
        assert.deepStrictEqual(
          (yield* queues).map(({ name }) => name),
          ["price.of"]
        )
      })
    )
  })
})
