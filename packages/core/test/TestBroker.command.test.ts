/** Commands that control the tests' broker. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run } from "../src/testing/internal/command.ts"

const moment = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))

/** Completes when there is no such process. */
const gone = Effect.fnUntraced(function* (pid: number) {
  assert.isAbove(pid, 1)
  const isGone = () => {
    try {
      return !process.kill(pid, 0)
    } catch {
      return true
    }
  }
  while (!isGone()) yield* moment
})

describe("a command", () => {
  it.effect("reports its exit code and what it printed", () =>
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

  it.effect("that does not end is killed at its deadline, in real time, and its children with it", () =>
    Effect.gen(function* () {
      // The shell prints its pid, and that of a child that holds its pipes.
      const outcome = yield* run("sh", ["-c", "echo $$; sleep 600 & echo $!; sleep 600"], { timeout: "300 millis" })
      assert.isUndefined(outcome.code)
      assert.include(outcome.stderr, "killed, because it had not ended after 300ms")
      const pids = outcome.stdout.trim().split("\n").map(Number)
      assert.lengthOf(pids, 2)
      yield* Effect.forEach(pids, gone)
    })
  )

  it.effect("is killed when it is interrupted, and its children with it", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-command-"))),
        (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
      )
      const file = join(folder, "pids")
      const script = `sleep 600 & echo $$ $! > ${file}.new; mv ${file}.new ${file}; sleep 600`
      const fiber = yield* Effect.forkChild(run("sh", ["-c", script]), { startImmediately: true })
      while (!existsSync(file)) yield* moment
      yield* Fiber.interrupt(fiber)
      yield* Effect.forEach(readFileSync(file, "utf8").trim().split(" ").map(Number), gone)
    })
  )
})
