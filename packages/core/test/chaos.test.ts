/** The short form of `npm run chaos`, and whether it detects faults. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import { chaosRun } from "./support/chaosRun.ts"

const program = join(import.meta.dirname, "../chaos/chaos.ts")

const chaos = (...options: ReadonlyArray<string>) => chaosRun(program, "--seed", "1", ...options)

describe("through every kind of fault", () => {
  it.live(
    "nothing that was confirmed is lost, and every publish ends once",
    () =>
      Effect.gen(function* () {
        const { code, output } = yield* chaos("--messages", "20000", "--faults", "14")
        assert.strictEqual(code, 0, output)
        assert.include(output, "14 faults of 14 kinds")
        assert.include(output, "lost 0, misreported 0, phantoms 0")
        console.log(output)
      }),
    180_000
  )

  for (const mutant of ["confirm-at-publish", "consume-without-acks"]) {
    it.live(
      `a library with the fault "${mutant}" is caught`,
      () =>
        Effect.gen(function* () {
          const { code, output } = yield* chaos("--messages", "5000", "--faults", "5", "--mutant", mutant)
          assert.strictEqual(code, 1, output)
          assert.match(output, /^lost [1-9]/m)
        }),
      180_000
    )
  }
})
