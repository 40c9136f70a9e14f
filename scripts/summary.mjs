// Prints the one line that sums up a test run, from the report of vitest's JSON reporter and the exit code of the run.
import { readFileSync } from "node:fs"

const [path, code] = process.argv.slice(2)

const read = () => {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] }
  }
}

const report = read()
const skipped = report.numPendingTests + report.numTodoTests
// A file that does not load has no tests that could fail.
const unloaded = report.testResults.filter(
  (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")
).length
const counted = report.numFailedTests + unloaded
// An error outside of any test fails the run without failing a test.
const failed = counted === 0 && code !== "0" ? 1 : counted

console.log(`${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`)
process.exitCode = failed > 0 ? 1 : 0
