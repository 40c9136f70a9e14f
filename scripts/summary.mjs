// Prints the one line that sums up test runs, from pairs of arguments: the report of vitest's JSON reporter, and the exit code.
import { readFileSync } from "node:fs"

const read = (path) => {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] }
  }
}

const summaryOf = (path, code) => {
  const report = read(path)
  // A file that does not load has no tests that could fail.
  const unloaded = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")
  ).length
  const counted = report.numFailedTests + unloaded
  return {
    passed: report.numPassedTests,
    // An error outside of any test fails the run without failing a test.
    failed: counted === 0 && code !== "0" ? 1 : counted,
    skipped: report.numPendingTests + report.numTodoTests
  }
}

const sum = { passed: 0, failed: 0, skipped: 0 }
const args = process.argv.slice(2)
for (let i = 0; i < args.length; i += 2) {
  const each = summaryOf(args[i], args[i + 1])
  for (const key in sum) sum[key] += each[key]
}

console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ""}`)
process.exitCode = sum.failed > 0 ? 1 : 0
