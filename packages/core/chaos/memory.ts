/**
 * Runs random programs on the memory broker and on RabbitMQ, and compares what their clients see.
 *
 *   npm run chaos -- --memory [--short | --seed N | --programs N | --steps N | --most N]
 *
 * It ends with 1 and the smallest programs that it has found when the two differ, at most so many.
 */
import { NodeRuntime } from "@effect/platform-node"
import { TestBroker } from "@effect-amqp/core/testing"
import { Console, Effect } from "effect"
import { parseArgs } from "node:util"
import { report, run, versionOf } from "./differential/differential.ts"

const { values } = parseArgs({
  options: {
    short: { type: "boolean", default: false },
    seed: { type: "string", default: "1" },
    programs: { type: "string" },
    steps: { type: "string", default: "25" },
    most: { type: "string", default: "1" }
  }
})

const number = (name: string, text: string): number => {
  const value = Number(text)
  if (Number.isInteger(value) && value >= 0) return value
  console.error(`--${name}: expected a non-negative integer, got ${JSON.stringify(text)}`)
  process.exit(2)
}

const seed = number("seed", values.seed)
const programs = number("programs", values.programs ?? (values.short ? "50" : "2000"))
const steps = number("steps", values.steps)
const most = number("most", values.most)

Effect.gen(function* () {
  const { description, url } = yield* TestBroker.start
  const version = yield* versionOf(url)
  yield* Console.log(
    `${programs} programs of ${steps} steps from seed ${seed}, on ${description} and in memory (${version})`
  )
  const begun = performance.now()
  const found = yield* run({ url, version, seed, programs, steps, most, waits: !values.short })
  yield* Console.log(
    found.length === 0
      ? `No difference in ${programs} programs, ${((performance.now() - begun) / 1000).toFixed(1)} s.`
      : found.map(report).join("\n\n")
  )
  process.exitCode = found.length === 0 ? 0 : 1
}).pipe(Effect.scoped, NodeRuntime.runMain)
