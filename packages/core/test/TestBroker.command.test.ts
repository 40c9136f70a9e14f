/** Commands that the broker of the tests is controlled by. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { run } from "../src/testing/internal/command.ts"

describe("a command", () => {
  it.effect("is told by its code and what it printed", () =>
    Effect.gen(function* () {
      const outcome = yield* run("sh", ["-c", "echo out; echo err >&2; exit 3"])
      assert.deepStrictEqual(outcome, { code: 3, stdout: "out\n", stderr: "err\n" })
    })
  )

  it.effect("that does not exist has no code, and the reason is in stderr", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* run("/no/such/command", [])
      assert.isUndefined(code)
      assert.include(stderr, "ENOENT")
    })
  )

  it.effect("that does not end is killed at its deadline, in real time, even if its children hold the pipes", () =>
    Effect.gen(function* () {
      // The shell prints its pid, and leaves a child that has its pipes for two seconds.
      const outcome = yield* run("sh", ["-c", "echo $$; sleep 2 & sleep 600"], { timeout: "300 millis" })
      assert.isUndefined(outcome.code)
      assert.include(outcome.stderr, "killed, because it had not ended after 300ms")
      const pid = Number(outcome.stdout)
      assert.isAbove(pid, 1)
      const isGone = () => {
        try {
          return !process.kill(pid, 0)
        } catch {
          return true
        }
      }
      while (!isGone()) yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
    })
  )

  it.effect("is killed when it is interrupted", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(run("sleep", ["600"]), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
    })
  )
})
