/** A small form of `npm run chaos -- --redrive`, and whether it detects a loss. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import { chaosRun } from "./support/chaosRun.ts"

const program = join(import.meta.dirname, "../chaos/redrive.ts")

const chaos = (...options: ReadonlyArray<string>) => chaosRun(program, "--seed", "1", ...options)

describe("through faults and kills of its process", () => {
  it.live(
    "a redrive loses nothing",
    () =>
      Effect.gen(function* () {
        const { code, output } = yield* chaos("--letters", "1000", "--faults", "4")
        assert.strictEqual(code, 0, output)
        assert.match(output, /^redriven 1000, lost 0, duplicates [0-9]+$/m)
      }),
    180_000
  )

  it.live(
    "a redrive that acknowledges before the confirm is caught",
    () =>
      Effect.gen(function* () {
        // Whether a kill meets a process that has messages in its buffer is chance.
        let found = { code: 0 as number | null, output: "" }
        for (let seed = 1; seed <= 3 && found.code !== 1; seed++) {
          const options = ["--seed", String(seed), "--letters", "1000", "--faults", "4"]
          found = yield* chaosRun(program, ...options, "--mutant", "confirm-at-publish")
        }
        const { code, output } = found
        assert.strictEqual(code, 1, output)
        assert.match(output, /^redriven [0-9]+, lost [1-9][0-9]*, duplicates [0-9]+$/m)
      }),
    180_000
  )
})
