/** Client and server of the example, run as a program. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { run } from "./support/program.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("rpc.ts", () => {
    it.effect("prints the server's answers, including its error, ends automatically, and leaves nothing open", () =>
      Effect.gen(function* () {
        const { awaitCensus, queues, url } = yield* TestBroker.TestBroker
        const program = yield* run("rpc.ts", { AMQP_URL: url })
        assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        assert.include(program.output(), "Three teas cost 11.85, three lamps 149.85.\n")
        assert.include(program.output(), 'There is no price of "unicorn".\n')
        // There is neither a warning nor an error: the client has caught the only failure.
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
