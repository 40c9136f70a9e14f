/** The library and amqplib in one minified file, built by the commands of `docs/deployment.md`. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { bundle, commands } from "./support/bundles.ts"
import { node } from "./support/processes.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A minified bundle of one file with amqplib in it", () => {
    it("is built as documented, as CommonJS and as an ES module", () => {
      assert.deepStrictEqual(
        commands.map(([format]) => format),
        ["cjs", "esm"]
      )
    })

    for (const command of commands) {
      it.effect(
        `connects, declares, publishes, consumes, distinguishes errors and closes (${command[0]})`,
        () =>
          Effect.gen(function* () {
            const { url } = yield* TestBroker.TestBroker
            const { output } = yield* node([yield* bundle("small.ts", command)], { AMQP_URL: url })
            assert.deepStrictEqual(yield* output, [
              "declared",
              "confirmed",
              "consumed hello",
              "not found 404",
              "closed"
            ])
          }).pipe(Effect.scoped),
        120_000
      )
    }
  })
})
