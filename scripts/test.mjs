// npm test: every test, against whatever broker this machine offers. Further arguments go to vitest.
// With `--untouched`, amqplib is frozen, and a test file fails that does to it what it does not declare.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
const args = process.argv.slice(2)
if (args.includes("--untouched")) process.env.EFFECT_AMQP_UNTOUCHED = "1"
const rest = args.filter((arg) => arg !== "--untouched")
run(["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.workspace.ts", ...rest])
