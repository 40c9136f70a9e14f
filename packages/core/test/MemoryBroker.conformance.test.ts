/** The short form of `npm run test:memory`: suites that are written for RabbitMQ, against the memory broker over its socket. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import { node } from "./support/processes.ts"

it.live(
  "suites that are written for RabbitMQ pass on the memory broker",
  () =>
    Effect.gen(function* () {
      const script = join(import.meta.dirname, "../../../scripts/memory.mjs")
      const { output } = yield* node([script, "--short", "--reporter=dot"], { NO_COLOR: "1", FORCE_COLOR: "0" })
      assert.match((yield* output).join("\n"), /Test Files \s*2 passed/)
    }).pipe(Effect.scoped),
  120_000
)
