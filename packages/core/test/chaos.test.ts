/** The short form of `npm run chaos`, and whether it would notice. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { environment } from "./support/environment.ts"

const program = join(import.meta.dirname, "../chaos/chaos.ts")

/** Runs it to its end: its exit code, and what it has printed. */
const chaos = (...options: ReadonlyArray<string>) =>
  Effect.callback<{ readonly code: number | null; readonly output: string }>((resume) => {
    const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", program, "--seed", "1", ...options], {
      env: environment(),
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => void (output += String(bytes)))
    child.once("close", (code) => resume(Effect.succeed({ code, output })))
    // It ends its broker first.
    return Effect.callback<void>((ended) => {
      child.once("close", () => ended(Effect.void))
      child.kill("SIGTERM")
    })
  })

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
      `a library that did as ${mutant} does is caught`,
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
