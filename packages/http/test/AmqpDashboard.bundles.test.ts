/** The dashboard in an application's bundle, which has no files next to the module. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { bundle, commands } from "../../core/test/support/bundles.ts"
import { node } from "../../core/test/support/processes.ts"
import * as ScriptedBroker from "../../core/test/support/ScriptedBroker.ts"
import { script } from "../src/internal/dashboard/script.generated.ts"

describe("a minified bundle of an application with a dashboard, in one file", () => {
  for (const command of commands) {
    it.live(
      `serves the page with the script of the sources, which its policy allows (${command[0]})`,
      () =>
        Effect.gen(function* () {
          const { url } = yield* ScriptedBroker.make()
          const file = yield* bundle(join(import.meta.dirname, "programs", "dashboardPage.ts"), command)
          const { output } = yield* node([file], { AMQP_URL: url })
          const hash = `'sha256-${createHash("sha256").update(script).digest("base64")}'`
          assert.deepStrictEqual(yield* output, ["status 200", `script ${hash}`, `policy ${hash}`])
        }),
      120_000
    )
  }
})
