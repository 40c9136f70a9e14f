// npm run coverage [-- --all] [-- FILTER ...]: which lines of packages/*/src the tests run, as a table, and in coverage/.
// By default only the test files that need no broker, with `--all` every one. Further arguments go to vitest.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"
import { testFiles, usesBroker } from "./testFiles.mjs"

ensureDependencies()
const args = process.argv.slice(2)
const isAll = args.includes("--all")
const rest = args.filter((arg) => arg !== "--all")
const filters = rest.filter((arg) => !arg.startsWith("-"))
const chosen = testFiles().filter(
  (file) => !usesBroker(file) && (filters.length === 0 || filters.some((filter) => file.includes(filter)))
)
if (!isAll) {
  if (chosen.length === 0) {
    console.error(`No test file without a broker contains ${filters.join(" or ")} in its path: add --all`)
    process.exit(1)
  }
  // No source of a broker has this name: a file that needs one after all fails.
  process.env.AMQP_TEST_BROKER = "none"
}
const files = isAll ? filters : chosen
const options = rest.filter((arg) => arg.startsWith("-"))
run(["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.workspace.ts", "--coverage", ...files, ...options])
