/** Client and server of the example, run as a program on a broker in memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { runOnMemory } from "./support/memory.ts"

describe("rpc.ts", () => {
  it.live("prints the server's answers, including its error, ends automatically, and leaves nothing open", () =>
    Effect.gen(function* () {
      const { leftOpen, program, queues } = yield* runOnMemory("rpc.ts")
      assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
      assert.include(program.output(), "Three teas cost 11.85, three lamps 149.85.\n")
      assert.include(program.output(), 'There is no price of "unicorn".\n')
      // There is neither a warning nor an error: the client has caught the only failure.
      assert.notMatch(program.output(), /WARN|ERROR/)
      assert.deepStrictEqual(
        (yield* queues).map(({ consumers, name, ready }) => ({ consumers, name, ready })),
        [{ consumers: 0, name: "price.of", ready: 0 }]
      )
      assert.strictEqual(yield* leftOpen, 0)
    }).pipe(Effect.scoped)
  )
})
