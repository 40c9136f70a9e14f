// Prints what failed in test runs, and last one line that sums them up. The arguments are pairs: the report of vitest's
// JSON reporter, and the exit code.
import { readFileSync } from "node:fs"
import { relative } from "node:path"
import { stripVTControlCharacters } from "node:util"

const read = (path) => {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return undefined
  }
}

const mostLines = 4
const mostColumns = 240

/** The first lines of an error, without its stack. */
const firstLines = (text) =>
  stripVTControlCharacters(text ?? "")
    .split("\n")
    .filter((line) => line.trim() !== "" && !/^\s+at /.test(line))
    .slice(0, mostLines)
    .map((line) => `      ${line.length > mostColumns ? `${line.slice(0, mostColumns)}…` : line}`)

const failuresOf = ({ testResults }) =>
  testResults.flatMap((file) => {
    const name = relative(process.cwd(), file.name)
    const failed = file.assertionResults.filter((test) => test.status === "failed")
    if (failed.length > 0) {
      return failed.map(({ ancestorTitles, failureMessages, title }) => ({
        what: [name, ...ancestorTitles, title].join(" > "),
        lines: firstLines(failureMessages?.[0])
      }))
    }
    // A file that does not load has no tests that could fail.
    return file.status === "failed"
      ? [{ what: `${name} failed outside of its tests`, lines: firstLines(file.message) }]
      : []
  })

const summaryOf = (path, code) => {
  const report = read(path)
  const failures = report === undefined ? [] : failuresOf(report)
  if (failures.length === 0 && code !== "0") {
    // An error outside of any test fails the run without failing a test.
    failures.push({
      what: report === undefined ? `no report (exit code ${code})` : `exit code ${code}, but no failed test`,
      lines: ["      The output of the run says why."]
    })
  }
  return {
    failures,
    passed: report?.numPassedTests ?? 0,
    skipped: (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0)
  }
}

const sum = { passed: 0, failed: 0, skipped: 0 }
const args = process.argv.slice(2)
for (let i = 0; i < args.length; i += 2) {
  const { failures, passed, skipped } = summaryOf(args[i], args[i + 1])
  sum.passed += passed
  sum.failed += failures.length
  sum.skipped += skipped
  for (const { lines, what } of failures) console.log([`FAILED in run ${i / 2 + 1}: ${what}`, ...lines].join("\n"))
}

console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ""}`)
process.exitCode = sum.failed > 0 ? 1 : 0
